"""Losses are in the catalog while a training goes on, once each, and by its owner alone."""

import re

import polars as pl
import pytest
from sqlalchemy import select, update

from catalog.bulk import upsert_frame
from catalog.database import Catalog
from catalog.tables.engine import Run, Unit
from catalog.tables.training import LossPoint
from service.cli.teaching import MemoryTold
from service.losses import DRAWN_POINTS, MOST_LINES, ArmCurve, arm_curves, loss_charts
from tests.workers.building import add_dataset, add_run
from training.fit import Beginning
from training.memory import MemoryNeed
from workers import engine, live_curves, process_names
from workers.engine import LostClaimError
from workers.live_curves import LiveCurve

NEED = MemoryNeed(gradients=4, optimizer=8, average=0, fixed=1, per_record=2, records=3)


def points(catalog: Catalog, run_id: str) -> dict[int, float]:
    with catalog.read() as session:
        rows = session.execute(select(LossPoint.step, LossPoint.loss).where(LossPoint.run_id == run_id)).all()
    return {one.step: one.loss for one in rows}


def claimed(catalog: Catalog) -> engine.Claim:
    """A unit of a training, as a worker has it."""
    with catalog.write() as session:
        run = add_run(session, add_dataset(session), kind="train")
        payload = {"arm": "a", "index": 0, "steps": 9}
        unit = Unit(run_id=run.id, stage=1, stage_name="fit", position=0, payload=payload, ready_at=run.created_at)
        session.add(unit)
        session.flush()
        unit_id = unit.id
    mine = engine.claim(catalog, unit_id, process_names.this_process())
    assert mine is not None
    return mine


def begun(mine: engine.Claim, *losses: float) -> LiveCurve:
    curve = LiveCurve(mine, "a")
    curve.begin(Beginning(memory=NEED, free_bytes=100, losses=losses))
    return curve


def test_a_worker_that_lost_the_unit_writes_no_point(database: Catalog) -> None:
    mine = claimed(database)
    curve = begun(mine)
    curve.add(1, 0.5)
    engine.renew(database, mine, 1, 9, apply=curve.write)
    with database.write() as session:
        session.execute(update(Unit).where(Unit.id == mine.unit_id).values(epoch=mine.epoch + 1))
    curve.add(2, 0.25)
    with pytest.raises(LostClaimError):
        engine.renew(database, mine, 2, 9, apply=curve.write)
    assert points(database, mine.run_id) == {1: 0.5}


def test_points_stay_due_until_they_are_committed(database: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_curves, "CHUNK_ROWS", 2)
    mine = claimed(database)
    curve = begun(mine, 3.0, 2.0)

    def fail(session: object) -> None:
        curve.write(session)  # type: ignore[arg-type]
        raise OSError("the database is away")

    curve.add(3, 1.0)
    with pytest.raises(OSError, match="away"):
        engine.renew(database, mine, 1, 9, apply=fail)
    assert points(database, mine.run_id) == {}
    engine.renew(database, mine, 1, 9, apply=curve.write)
    assert points(database, mine.run_id) == {1: 3.0, 2: 2.0, 3: 1.0}
    with database.read() as session:
        result = session.get_one(Unit, mine.unit_id).result
    assert result == {"memory": NEED.to_json() | {"free_bytes": 100}}


def test_memory_is_told_once_as_soon_as_it_is_known(database: Catalog, capsys: pytest.CaptureFixture[str]) -> None:
    mine = claimed(database)
    told, curve = MemoryTold(database, mine.run_id, as_json=False), begun(mine)
    told.look()
    assert "memory of" not in capsys.readouterr().err
    engine.renew(database, mine, 0, 9, apply=curve.write)
    told.look()
    told.look()
    MemoryTold(database, mine.run_id, as_json=True).look()
    assert capsys.readouterr().err.count("memory of a:") == 1


def test_memory_of_later_arms_is_told_where_it_is_another(
    database: Catalog, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = claimed(database)
    told = MemoryTold(database, mine.run_id, as_json=False)
    memory = NEED.to_json() | {"free_bytes": 100}
    sizes = {"a": 1000, "a-random": 1090, "wide": 1111, "a-seed1": 905, "small": 800, "wide-random": 1105}
    with database.write() as session:
        unit = session.get_one(Unit, mine.unit_id)
        for position, (arm, size) in enumerate(sizes.items(), start=1):
            about = {"run_id": mine.run_id, "stage": 1, "stage_name": "fit", "ready_at": unit.ready_at}
            result = {"memory": memory | {"total_bytes": size}}
            session.add(Unit(position=position, payload={"arm": arm, "steps": 9}, result=result, **about))
    told.look()
    assert re.findall(r"memory of (\S+):", capsys.readouterr().err) == ["a", "wide", "small"]


def test_points_of_an_attempt_that_got_further_do_not_stay(database: Catalog) -> None:
    mine = claimed(database)
    earlier = begun(mine)
    for step in range(1, 6):
        earlier.add(step, 1.0)
    engine.renew(database, mine, 5, 9, apply=earlier.write)
    later = begun(mine, 1.0, 1.0)
    later.add(3, 0.5)
    engine.renew(database, mine, 3, 9, apply=later.write)
    assert points(database, mine.run_id) == {1: 1.0, 2: 1.0, 3: 0.5}
    with database.write() as session:
        later.cut(session, 2)
    assert points(database, mine.run_id) == {1: 1.0, 2: 1.0}


def test_a_long_training_is_drawn_with_few_points(database: Catalog) -> None:
    mine = claimed(database)
    steps = pl.DataFrame({"step": range(1, 9_001)}).with_columns(
        run_id=pl.lit(mine.run_id), arm=pl.lit("a"), loss=pl.col("step") * 1.0
    )
    with database.write() as session:
        upsert_frame(session, LossPoint.metadata.tables["loss_points"], steps)
        (curve,) = arm_curves(session, session.get_one(Run, mine.run_id))
        (few,) = arm_curves(session, session.get_one(Run, mine.run_id), limit=2)
    assert DRAWN_POINTS / 2 < len(curve.points) <= DRAWN_POINTS
    assert curve.num_done == curve.points[-1][0] == 9_000
    assert few.points == ((4_500, 2_250.5), (9_000, 6_750.5))


def learned(arm: str, *losses: float, control_of: str | None = None, replica_of: str | None = None) -> ArmCurve:
    return ArmCurve(
        arm=arm,
        seed=0,
        control_of=control_of,
        replica_of=replica_of,
        num_done=len(losses),
        num_steps=9,
        points=tuple(enumerate(losses, start=1)),
        memory=None,
    )


def test_seeds_are_one_line_with_their_range_and_controls_are_grey() -> None:
    (chart,) = loss_charts(
        [
            learned("a", 4.0, 2.0),
            learned("a-random", 4.0, 4.0, control_of="a"),
            learned("a-anti", 4.0, 4.0, control_of="a"),
            learned("a-seed1", 2.0, replica_of="a"),
            learned("a-random-seed1", control_of="a-seed1", replica_of="a-random"),
        ]
    )
    arm, random, anti = chart.lines
    assert arm.name == "a (2 seeds)"
    assert arm.band
    assert random.name == "a-random"
    assert not random.band
    assert arm.number != random.number == anti.number
    assert random.dash != anti.dash
    # The mean of both seeds at the first step, and at the second of the one that came so far.
    (_, first), (_, second) = [tuple(map(float, at.split(","))) for at in arm.path.split()]
    assert second == pytest.approx(first)


@pytest.mark.parametrize(("num_arms", "num_charts"), [(3, 1), (4, 2), (7, 3)])
def test_more_lines_than_a_chart_holds_are_spread_with_their_controls(num_arms: int, num_charts: int) -> None:
    curves = []
    for number in range(num_arms):
        curves += [learned(f"a{number}", 1.0), learned(f"a{number}-random", 1.0, control_of=f"a{number}")]
    charts = loss_charts(curves)
    assert len(charts) == num_charts
    assert all(len(one.lines) <= MOST_LINES for one in charts)
    assert [line.name for one in charts for line in one.lines] == [one.arm for one in curves]
