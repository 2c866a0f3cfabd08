"""Workers killed at random moments, and stopped past their lease: what comes out is what comes out undisturbed."""

import signal
import time
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import select

from catalog.tables.engine import Unit
from tests.faults.conftest import NUM_BROKEN, NUM_FILES, NUM_RECORDS, PLACES
from tests.faults.kill_loop import one_round, wait_until_freed
from tests.faults.world import LEASE_SECONDS, World
from workers import process_names

SEEDS = (1, 2)
GAP_SECONDS = (0.05, 0.6)
NUM_KILLS = 4


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("seed", SEEDS)
def test_workers_killed_at_random_moments(
    new_world: Callable[..., World], corpus: list[str], undisturbed: dict[str, Any], place: str, seed: int
) -> None:
    world = new_world(place)
    deaths, recoveries = one_round(world, lambda: world.work(corpus), seed=seed, gap=GAP_SECONDS, num_kills=NUM_KILLS)
    assert deaths > 0
    assert recoveries.worst <= 2 * LEASE_SECONDS
    world.check(NUM_FILES * NUM_RECORDS, NUM_FILES * NUM_BROKEN)
    assert world.outcome() == undisturbed


@pytest.mark.parametrize("place", PLACES)
def test_worker_stopped_past_its_lease_commits_nothing_when_it_wakes_up(
    new_world: Callable[..., World], corpus: list[str], undisturbed: dict[str, Any], place: str
) -> None:
    world = new_world(place)
    sleeper = f"{world.folder} sleeper"
    stall = "work.after=stall@1"
    ingest = world.ask_ingest(corpus)
    world.relay()
    with world.workers():
        world.wait_for(ingest)
    judge = world.ask_judge()
    world.relay()
    # Neither sweeps nor beats before it is stopped: stopped inside of a transaction it would hold up everybody.
    world.start(
        sleeper, "worker", spec="work.after=stall:0.5@1", sweep_seconds=3600, heartbeat_seconds=LEASE_SECONDS / 2
    )
    world.wait_until(lambda: stall in world.struck())
    world.nursery.order(signal=sleeper, number=signal.SIGSTOP)
    since = time.monotonic()
    with world.catalog.read() as session:
        (held,) = session.execute(select(Unit.id, Unit.epoch, Unit.owner).where(Unit.state == "running")).all()
    assert not process_names.is_gone(held.owner)
    with world.workers():
        (waited,) = wait_until_freed(world, {held.id: held.epoch}, since)
        world.wait_for(judge)
    assert LEASE_SECONDS / 2 < waited <= 2 * LEASE_SECONDS
    world.nursery.order(signal=sleeper, number=signal.SIGCONT)
    refused = f"unit {held.id} was claimed by another worker after epoch {held.epoch}"
    world.wait_until(lambda: refused in world.logs() or f"unit {held.id} is not ours any more" in world.logs())
    world.nursery.order(stop=sleeper)
    world.nursery.ends(sleeper)
    with world.catalog.read() as session:
        assert session.get_one(Unit, held.id).epoch == held.epoch + 1
    world.check(NUM_FILES * NUM_RECORDS, NUM_FILES * NUM_BROKEN)
    assert world.outcome() == undisturbed
