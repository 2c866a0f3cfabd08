"""The simulation behind the capacity plan, against what can be worked out by hand."""

import pytest

from benchmarks.capacity import Costs, Servers, simulate

COSTS = Costs(worker=0.001, database=0.004, broker=0.0001, sweep_database=0.0, renewal_database=0.0, commit_delay=0.0)


def test_one_worker_goes_round_alone() -> None:
    told = simulate(COSTS, workers=1, seconds=0.1, cores=4, shared=False, horizon=100.0)
    assert told.units_per_second == pytest.approx(1 / 0.1051, rel=0.01)
    assert told.database_load == pytest.approx(0.004 / 0.1051 / 4, rel=0.01)


def test_more_workers_than_the_database_serves_get_what_it_serves() -> None:
    told = simulate(COSTS, workers=200, seconds=0.1, cores=2, shared=False, horizon=60.0)
    assert told.units_per_second == pytest.approx(2 / 0.004, rel=0.02)
    assert told.database_load == pytest.approx(1.0, rel=0.02)


def test_on_one_machine_everybody_shares_the_cores() -> None:
    told = simulate(COSTS, workers=50, seconds=0.0, cores=2, shared=True, horizon=30.0)
    assert told.units_per_second == pytest.approx(2 / 0.0051, rel=0.02)


def test_renewals_and_sweeps_weigh_on_the_database() -> None:
    costs = Costs(worker=0.0, database=0.0, broker=0.0, sweep_database=0.01, renewal_database=0.001, commit_delay=0.0)
    told = simulate(costs, workers=100, seconds=10.0, cores=1, shared=False, horizon=100.0)
    # A sweep each five seconds and nearly a renewal each second, of a hundred workers.
    assert told.database_load == pytest.approx(100 * (0.01 / 5 + 0.001), rel=0.05)
    quiet = simulate(costs, workers=100, seconds=10.0, cores=1, shared=False, horizon=100.0, progress=False)
    assert quiet.database_load == pytest.approx(100 * 0.01 / 5, rel=0.05)


def test_queue_serves_first_come_first() -> None:
    servers = Servers(2)
    assert [servers.serve(0.0, 1.0), servers.serve(0.0, 2.0), servers.serve(0.5, 1.0)] == [1.0, 2.0, 2.0]
    assert servers.busy == 4.0
