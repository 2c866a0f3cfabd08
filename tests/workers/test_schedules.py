"""What starts by itself: by the clock, on new data, from a folder, after something else; once, whoever looks."""

import json
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from catalog.database import Catalog
from catalog.errors import ConfigError, ConflictError, NotFoundError
from catalog.settings import Settings
from catalog.store import Store
from catalog.tables import metadata
from catalog.tables.datasets import Dataset, Version
from catalog.tables.engine import Run, Unit
from catalog.tables.labeling import LabelQueue
from catalog.tables.schedules import Firing, Request, Schedule
from labeling.queue import close_queue
from tests.workers.building import add_dataset, at_once, clean_dataset, drain
from tests.workers.corpus import RECIPE
from workers import jobs, requests, runs, schedules
from workers.outcomes import Outcome, came_of
from workers.schedules import Wanted, next_time

NIGHT = "0 3 * * *"
ROWS = [{"body": f"note {number} about the printer in room {number}", "queue": "hardware"} for number in range(30)]


class Clock:
    """A clock that tests set."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 1, 12, tzinfo=UTC)

    def __call__(self, _session: Session) -> datetime:
        return self.now


@pytest.fixture
def clock(database: Catalog) -> Clock:
    database.clock = Clock()
    return database.clock


@pytest.fixture
def cleaned(database: Catalog, clock: Clock, tmp_path: Path) -> Catalog:
    """A dataset ``tickets`` of thirty rows, cleaned once."""
    clean_dataset(database, tmp_path, ROWS)
    return database


@pytest.fixture
def recipe(tmp_path: Path) -> dict[str, Any]:
    """The options of a cleaning by a recipe from a file, which is gone when the schedule is due."""
    path = tmp_path / "own.yaml"
    path.write_text(RECIPE.replace("name: small", "name: own"))
    config = jobs.recipe_config("clean", str(path))
    path.unlink()
    return config


def add(catalog: Catalog, **wanted: Any) -> None:
    with catalog.write() as session:
        given = {"name": "nightly", "dataset": "tickets", "kind": "clean", "config": {}} | wanted
        schedules.add_schedule(session, catalog.settings, Wanted(**given), now=catalog.now(session))


def firings(catalog: Catalog) -> list[Firing]:
    with catalog.read() as session:
        return list(session.scalars(select(Firing).order_by(Firing.due_at)))


def outcomes(catalog: Catalog) -> list[str]:
    return [one.outcome for one in firings(catalog)]


def num_runs(catalog: Catalog, kind: str) -> int:
    with catalog.read() as session:
        return session.scalar(select(func.count()).where(Run.kind == kind)) or 0


def ingest_more(catalog: Catalog, folder: Path, name: str) -> None:
    path = folder / name
    path.write_text(json.dumps({"body": f"{name} came in late, please call back", "queue": "software"}) + "\n")
    schedules_ingest(catalog, path)
    drain(catalog)


def schedules_ingest(catalog: Catalog, path: Path) -> None:
    from workers.pipelines.ingest import submit_ingest

    submit_ingest(catalog, dataset="tickets", paths=[str(path)], text_column="body", label_column="queue")


@pytest.mark.parametrize(
    ("cron", "zone", "after", "expected"),
    [
        (NIGHT, "UTC", "2026-01-01T02:59", "2026-01-01T03:00"),
        (NIGHT, "UTC", "2026-01-01T03:00", "2026-01-02T03:00"),
        (NIGHT, "Asia/Seoul", "2026-01-01T02:59", "2026-01-01T18:00"),
        # Europe's clocks go forward at 01:00 UTC on 29 March 2026: 02:30 does not exist and runs right after the gap.
        ("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00", "2026-03-29T01:00"),
        # They go back at 01:00 UTC on 25 October 2026: 02:30 exists twice and is due once.
        ("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00", "2026-10-25T00:30"),
        ("30 2 * * *", "Europe/Berlin", "2026-10-25T00:30", "2026-10-26T01:30"),
        ("0 9 * * MON", "Asia/Tokyo", "2026-01-01T00:00", "2026-01-05T00:00"),
        ("0 0 29 2 *", "UTC", "2026-01-01T00:00", "2028-02-29T00:00"),
    ],
)
def test_the_next_time_of_a_cron_expression(cron: str, zone: str, after: str, expected: str) -> None:
    found = next_time(cron, zone, datetime.fromisoformat(after).replace(tzinfo=UTC))
    assert found.isoformat()[:16] == expected


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ({"cron": "0 3 * *"}, "must have five fields"),
        ({"cron": "99 3 * * *"}, "is refused"),
        ({"cron": "0 0 30 2 *"}, "is refused"),
        ({"cron": NIGHT, "timezone": "Asia/Seoull"}, "did you mean 'Asia/Seoul'"),
        ({"cron": NIGHT, "missed": "onse"}, "did you mean 'once'"),
        ({}, "say when, once"),
        ({"cron": NIGHT, "on": "ingest"}, "say when, once"),
        ({"on": "injest"}, "did you mean 'ingest'"),
        ({"on": "clean"}, "would never end"),
        ({"folder": "/nowhere/at/all"}, "folder /nowhere/at/all is not there"),
        ({"folder": __file__}, "is a file; give the folder that it appears in"),
        ({"cron": NIGHT, "kind": "ingest"}, "files are taken in from a folder"),
        ({"on": "ingest", "timezone": "Asia/Seoul"}, "timezone is of times by the clock"),
        ({"on": "ingest", "missed": "skip"}, "missed is of times by the clock"),
        ({"cron": NIGHT, "priority": 1000}, "priority=1000 must be"),
        ({"cron": NIGHT, "name": ""}, "must be 1 to 100 letters"),
        ({"cron": NIGHT, "name": "a/b"}, "must be 1 to 100 letters"),
    ],
)
def test_a_wrong_schedule_is_refused_with_the_remedy(tmp_path: Path, wanted: dict[str, Any], words: str) -> None:
    catalog = Catalog(Settings(home=tmp_path))
    with catalog.write() as session:
        metadata.create_all(session.connection())
        add_dataset(session)
    with pytest.raises(ConfigError, match=words):
        add(catalog, **wanted)
    catalog.close()


def test_a_name_is_taken_once_and_a_dataset_must_be_there(cleaned: Catalog) -> None:
    add(cleaned, cron=NIGHT)
    with pytest.raises(ConflictError, match="there is a schedule 'nightly'"):
        add(cleaned, cron=NIGHT)
    with pytest.raises(NotFoundError, match="did you mean 'tickets'"):
        add(cleaned, name="other", dataset="tikets", cron=NIGHT)


def test_of_many_that_look_at_once_one_starts_it(cleaned: Catalog, clock: Clock, recipe: dict[str, Any]) -> None:
    add(cleaned, cron=NIGHT, config=recipe, priority=7)
    assert schedules.tick(cleaned) == 0
    clock.now += timedelta(hours=15, seconds=5)
    at_once(*[lambda: schedules.tick(cleaned) for _ in range(8)])
    (firing,) = firings(cleaned)
    assert (firing.outcome, firing.due_at) == ("started", datetime(2026, 1, 2, 3, tzinfo=UTC))
    assert num_runs(cleaned, "clean") == 2
    with cleaned.read() as session:
        run = session.get_one(Run, firing.run_id)
        assert (run.requested_by, run.priority, run.config["recipe"]["name"]) == ("schedule nightly", 7, "own")
        assert session.scalars(select(Schedule.next_at)).one() == datetime(2026, 1, 3, 3, tzinfo=UTC)
    drain(cleaned)
    assert schedules.tick(cleaned) == 0


def test_nothing_new_is_no_new_run(cleaned: Catalog, clock: Clock, recipe: dict[str, Any]) -> None:
    add(cleaned, cron=NIGHT, config=recipe)
    for day in range(3):
        clock.now = datetime(2026, 1, 2 + day, 3, 0, 5, tzinfo=UTC)
        schedules.tick(cleaned)
        drain(cleaned)
    assert outcomes(cleaned) == ["started", "unchanged", "unchanged"]
    assert num_runs(cleaned, "clean") == 2


@pytest.mark.parametrize(("missed", "outcome"), [("once", "started"), ("skip", "skipped")])
def test_times_that_nobody_was_there_for(
    cleaned: Catalog, clock: Clock, recipe: dict[str, Any], missed: str, outcome: str
) -> None:
    add(cleaned, cron=NIGHT, config=recipe, missed=missed)
    clock.now += timedelta(days=5)
    schedules.tick(cleaned)
    (firing,) = firings(cleaned)
    assert firing.outcome == outcome
    assert firing.detail["late_seconds"] == pytest.approx((4 * 24 + 9) * 3600)
    with cleaned.read() as session:
        assert session.scalars(select(Schedule.next_at)).one() == datetime(2026, 1, 7, 3, tzinfo=UTC)


def test_who_dies_between_writing_it_down_and_starting_it_loses_nothing(
    cleaned: Catalog, clock: Clock, recipe: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    add(cleaned, cron=NIGHT, config=recipe)
    clock.now += timedelta(days=1)
    with monkeypatch.context() as dying:
        dying.setattr(schedules, "settle", lambda _catalog: (_ for _ in ()).throw(SystemExit))
        with pytest.raises(SystemExit):
            schedules.tick(cleaned)
    assert outcomes(cleaned) == ["pending"]
    # Or after starting it, before writing that down.
    jobs.start_job(cleaned, kind="clean", dataset="tickets", config=recipe, requested_by="schedule nightly")
    assert schedules.tick(cleaned) == 1
    assert outcomes(cleaned) == ["started"]
    assert num_runs(cleaned, "clean") == 2


def test_what_is_due_while_the_last_run_goes_on_waits_and_is_done_once(
    cleaned: Catalog, clock: Clock, recipe: dict[str, Any], tmp_path: Path
) -> None:
    add(cleaned, cron="*/10 * * * *", config=recipe)
    clock.now += timedelta(minutes=10)
    schedules.tick(cleaned)
    for _ in range(3):
        clock.now += timedelta(minutes=10)
        assert schedules.tick(cleaned) == 0
    assert outcomes(cleaned) == ["started", "pending", "pending", "pending"]
    drain(cleaned)
    assert schedules.tick(cleaned) == 3
    assert outcomes(cleaned) == ["started", "skipped", "skipped", "unchanged"]


def test_a_disabled_schedule_rests_and_makes_up_for_nothing(
    cleaned: Catalog, clock: Clock, recipe: dict[str, Any]
) -> None:
    add(cleaned, cron=NIGHT, config=recipe)

    def enable(enabled: bool) -> None:
        with cleaned.write() as session:
            found = schedules.find_schedule(session, "nightly")
            schedules.change_schedule(session, found, clock.now, enabled=enabled)

    enable(False)
    clock.now += timedelta(days=3)
    assert schedules.tick(cleaned) == 0
    enable(True)
    assert schedules.tick(cleaned) == 0
    clock.now += timedelta(days=1)
    assert schedules.tick(cleaned) == 1


def test_new_data_starts_a_cleaning_and_a_cleaning_starts_what_follows(
    cleaned: Catalog, recipe: dict[str, Any], tmp_path: Path
) -> None:
    add(cleaned, on="ingest", config=recipe)
    add(cleaned, name="errors", on="clean", kind="label_errors", config={"features": "tfidf"})
    assert schedules.tick(cleaned) == 0
    ingest_more(cleaned, tmp_path, "second.jsonl")
    at_once(*[lambda: schedules.tick(cleaned) for _ in range(4)])
    assert outcomes(cleaned) == ["started"]
    assert schedules.tick(cleaned) == 0
    drain(cleaned)
    assert schedules.tick(cleaned) == 1
    assert num_runs(cleaned, "label_errors") == 1
    drain(cleaned)
    assert schedules.tick(cleaned) == 0
    with cleaned.read() as session:
        newest = session.scalars(select(Version).where(Version.kind == "curated").order_by(Version.number)).all()[-1]
        assert newest.summary["recipe"] == "own"


def test_a_refusal_is_history_and_not_the_end(cleaned: Catalog, clock: Clock, tmp_path: Path) -> None:
    add(cleaned, cron=NIGHT, kind="train", config={"recipe": "classify-small"})
    with cleaned.write() as session:
        session.scalars(select(Dataset)).one().label_column = None
    clock.now += timedelta(days=1)
    schedules.tick(cleaned)
    (firing,) = firings(cleaned)
    assert firing.outcome == "refused"
    assert "has no labels" in str(firing.reason)
    clock.now += timedelta(days=1)
    schedules.tick(cleaned)
    assert outcomes(cleaned) == ["refused", "refused"]


@pytest.fixture
def inbox(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder apart from the home folder."""
    return tmp_path_factory.mktemp("shared") / "inbox"


@pytest.fixture
def watched(database: Catalog, clock: Clock, recipe: dict[str, Any], inbox: Path) -> Callable[..., Path]:
    """A watched folder; the function puts a file there, by default one that has settled."""
    folder = inbox
    (folder / "deep").mkdir(parents=True)
    Store.of(database.settings).create()
    mapping = {"text": "body", "label": "queue"}
    add(database, name="inbox", dataset="notes", folder=str(folder), config=recipe, mapping=mapping)

    def put(name: str, *bodies: str, settled: bool = True) -> Path:
        path = folder / name
        path.write_text("".join(json.dumps({"body": one, "queue": "x"}, ensure_ascii=False) + "\n" for one in bodies))
        if settled:
            os.utime(path, (time.time() - 100, time.time() - 100))
        return path

    return put


def look(catalog: Catalog, clock: Clock) -> None:
    clock.now += timedelta(minutes=5)
    schedules.tick(catalog)
    drain(catalog)
    requests.settle_requests(catalog)
    drain(catalog)


def texts(catalog: Catalog) -> int:
    with catalog.read() as session:
        query = select(Version.num_records).where(Version.kind == "raw").order_by(Version.number.desc())
        return session.scalars(query).first() or 0


def test_files_that_appear_are_taken_in_and_cleaned(
    database: Catalog, clock: Clock, watched: Callable[..., Path]
) -> None:
    watched("one.jsonl", "주문이 늦어요, 확인 부탁드립니다", "the printer is broken again")
    watched("deep/two.jsonl", "my password does not work any more")
    watched(".hidden.jsonl", "hidden")
    watched("half.jsonl.part", "half")
    watched("young.jsonl", "still being written", settled=False)
    look(database, clock)
    assert texts(database) == 3
    assert (num_runs(database, "ingest"), num_runs(database, "clean")) == (1, 1)
    look(database, clock)
    assert len(firings(database)) == 1
    os.utime(watched("young.jsonl", "still being written"), (time.time() - 50, time.time() - 50))
    watched("copy.jsonl", "my password does not work any more")
    look(database, clock)
    assert texts(database) == 4
    assert (num_runs(database, "ingest"), num_runs(database, "clean")) == (2, 2)
    assert outcomes(database) == ["started", "started"]


def test_of_many_that_look_into_a_folder_one_takes_its_files(
    database: Catalog, clock: Clock, watched: Callable[..., Path]
) -> None:
    watched("one.jsonl", "the printer is broken again")
    at_once(*[lambda: schedules.tick(database) for _ in range(8)])
    at_once(*[lambda: schedules.tick(database) for _ in range(8)])
    assert (len(firings(database)), num_runs(database, "ingest")) == (1, 1)
    with database.read() as session:
        assert session.scalar(select(func.count()).select_from(Request)) == 1


def test_a_folder_that_is_gone_is_said_and_comes_back(
    database: Catalog, clock: Clock, watched: Callable[..., Path], inbox: Path
) -> None:
    inbox.rename(inbox.with_name("away"))
    look(database, clock)

    def problem() -> str | None:
        with database.read() as session:
            return session.scalars(select(Schedule.problem)).one()

    assert "no such folder" in str(problem())
    inbox.with_name("away").rename(inbox)
    watched("one.jsonl", "the printer is broken again")
    look(database, clock)
    assert problem() is None
    assert texts(database) == 1


def test_a_file_that_is_refused_does_not_stop_the_folder(
    database: Catalog, clock: Clock, watched: Callable[..., Path]
) -> None:
    path = watched("bad.parquet", "no parquet at all")
    look(database, clock)
    watched("good.jsonl", "the printer is broken again")
    look(database, clock)
    assert texts(database) == 1
    assert path.exists()


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("home", "is the home folder"),
        ("home/store", "lies in the home folder"),
        ("home/inbox", "lies in the home folder"),
        (".", "holds the home folder"),
        ("link", "lies in the home folder"),
        ("elsewhere", "is the store"),
        ("elsewhere/text", "lies in the store"),
    ],
)
def test_what_winnow_writes_itself_is_not_watched(tmp_path: Path, place: str, words: str) -> None:
    for folder in ("home/store", "home/inbox", "elsewhere/text"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "home" / "inbox")
    store = f"file://{tmp_path / 'elsewhere'}" if "elsewhere" in place else ""
    catalog = Catalog(Settings(home=tmp_path / "home", store_url=store))
    with catalog.write() as session:
        metadata.create_all(session.connection())
    with pytest.raises(ConfigError, match=f"{words} .*watch another folder"):
        add(catalog, folder=str(tmp_path / place), kind="ingest")
    catalog.close()


def test_a_home_that_moved_into_a_watched_folder_is_left_alone(
    database: Catalog, clock: Clock, watched: Callable[..., Path], inbox: Path
) -> None:
    watched("one.jsonl", "the printer is broken again")
    (inbox / "home").mkdir()
    watched("home/notes.jsonl", "what Winnow wrote itself")
    moved = Catalog(database.settings.model_copy(update={"home": inbox / "home"}))
    found = {Path(one.path).name for one in schedules._files_of(inbox, moved.settings)}
    moved.close()
    assert found == {"one.jsonl"}


def test_columns_that_ingest_would_refuse_are_refused_at_once(cleaned: Catalog, inbox: Path) -> None:
    inbox.mkdir()
    wanted = {"folder": str(inbox), "kind": "ingest"}
    with pytest.raises(ConfigError, match="was made with --text body --label queue, not --text bodyx without --label"):
        add(cleaned, mapping={"text": "bodyx"}, **wanted)
    add(cleaned, mapping={"text": "body", "label": "queue"}, **wanted)
    add(cleaned, name="other", **wanted)


def test_a_wrong_option_is_told_before_a_name_that_is_taken(cleaned: Catalog) -> None:
    add(cleaned, cron=NIGHT)
    with pytest.raises(ConfigError, match="must have five fields"):
        add(cleaned, cron="noon")


def came(catalog: Catalog) -> list[Outcome]:
    with catalog.read() as session:
        return [came_of(session, one) for one in session.scalars(select(Firing).order_by(Firing.due_at))]


def test_the_history_tells_the_job_that_followed_and_what_was_left_out(
    database: Catalog, clock: Clock, watched: Callable[..., Path], inbox: Path
) -> None:
    watched("good.jsonl", "the printer is broken again", "my password does not work any more")
    watched("empty.jsonl")
    watched("x.unknown", "who knows")
    with (inbox / "good.jsonl").open("a") as file:
        file.write("no JSON\n")
    os.utime(inbox / "good.jsonl", (time.time() - 100, time.time() - 100))
    look(database, clock)
    (one,) = came(database)
    with database.read() as session:
        kinds = [session.get_one(Run, run_id).kind for run_id in (one.run_id, one.then_run_id) if run_id]
    assert kinds == ["ingest", "clean"]
    assert one.reason == "2 files refused, 1 row set aside: `winnow rejected notes`; 2 of 2 records kept"
    watched("copy.jsonl", "a third thing")
    watched("more.jsonl", "a third thing")
    look(database, clock)
    assert came(database)[1].reason == "1 file brought nothing new; 3 of 3 records kept"
    with database.write() as session:
        run = session.get_one(Run, came(database)[1].then_run_id)
        run.result = dict(run.result or {}) | {"kept": 0}
    assert came(database)[1].reason.endswith("; none of 3 records kept: `winnow report notes` says why")


def change_while_it_is_read(catalog: Catalog, clock: Clock) -> None:
    """What ``look`` does, but after the files were asked for and before they are read."""
    clock.now += timedelta(minutes=5)
    schedules.tick(catalog)


def test_a_file_that_changes_while_it_is_read_is_taken_in_again_with_those_beside_it(
    database: Catalog, clock: Clock, watched: Callable[..., Path]
) -> None:
    watched("one.jsonl", "the printer is broken again")
    watched("two.jsonl", "my password does not work any more")
    change_while_it_is_read(database, clock)
    # Grown, and settled by the time of the next look.
    path = watched("one.jsonl", "the printer is broken again", "and the screen too")
    os.utime(path, (time.time() - 50, time.time() - 50))
    drain(database)
    with database.read() as session:
        failed = session.scalars(select(Run)).one()
        told = requests.waits_for(session, session.scalars(select(Request)).one())
    assert failed.state == "failed"
    assert "where a file changed its schedule takes it in again" in told
    look(database, clock)
    look(database, clock)
    assert texts(database) == 3
    with database.read() as session:
        of_ingest = session.scalars(select(Run).where(Run.kind == "ingest").order_by(Run.created_at)).all()
        assert [one.state for one in of_ingest] == ["cancelled", "done"]
        assert sorted(session.scalars(select(Request.state))) == ["cancelled", "started"]
        assert session.scalar(select(func.count()).where(Unit.state == "poisoned")) == 0
    assert "taken in again" in came(database)[0].reason
    assert outcomes(database) == ["started", "started"]


def test_a_file_that_is_taken_away_while_it_is_read_leaves_those_beside_it_in(
    database: Catalog, clock: Clock, watched: Callable[..., Path]
) -> None:
    path = watched("one.jsonl", "the printer is broken again")
    watched("two.jsonl", "my password does not work any more")
    change_while_it_is_read(database, clock)
    away = path.rename(path.with_suffix(".tmp"))
    drain(database)
    look(database, clock)
    assert texts(database) == 1
    away.rename(path)
    look(database, clock)
    assert texts(database) == 2


def test_nothing_waits_for_a_failed_ingest_of_a_schedule_that_was_removed(
    database: Catalog, clock: Clock, watched: Callable[..., Path]
) -> None:
    path = watched("one.jsonl", "the printer is broken again")
    change_while_it_is_read(database, clock)
    path.unlink()
    drain(database)
    with database.write() as session:
        schedules.remove_schedule(session, schedules.find_schedule(session, "inbox"), clock.now)
    with database.read() as session:
        waited = session.scalars(select(Request)).one()
    assert (waited.state, waited.reason) == ("cancelled", "its schedule was removed")


def test_looking_at_once_leaves_a_line_in_the_history(
    database: Catalog, clock: Clock, watched: Callable[..., Path]
) -> None:
    def run_now() -> None:
        clock.now += timedelta(seconds=1)
        with database.write() as session:
            schedules.fire_now(session, schedules.find_schedule(session, "inbox"), clock.now)

    run_now()
    assert outcomes(database) == ["pending"]
    assert schedules.settle(database) == 0
    schedules.tick(database)
    assert [(one.outcome, one.reason) for one in firings(database)] == [("skipped", "no new files")]
    watched("one.jsonl", "the printer is broken again")
    run_now()
    schedules.tick(database)
    assert outcomes(database) == ["skipped", "started"]
    with database.write() as session:
        found = schedules.find_schedule(session, "inbox")
        schedules.change_schedule(session, found, clock.now, enabled=False)
        with pytest.raises(ConflictError, match="is switched off"):
            schedules.fire_now(session, found, clock.now)


def ask_after(catalog: Catalog, after: str, kind: str, **config: Any) -> str:
    with catalog.write() as session:
        now = catalog.now(session)
        return requests.ask_after(session, now=now, after=after, kind=kind, dataset="tickets", config=config).id


def request(catalog: Catalog, request_id: str) -> Request:
    with catalog.read() as session:
        return session.get_one(Request, request_id)


SCHEMA = "question: Which?\nlabels: [hardware, software]\n"


def test_clean_then_label_then_train_start_one_after_the_other(
    cleaned: Catalog, recipe: dict[str, Any], tmp_path: Path
) -> None:
    run_id = jobs.start_job(cleaned, kind="clean", dataset="tickets", config=recipe).run_id
    label = ask_after(cleaned, run_id[:8], "label", schema=SCHEMA, strategy="random")
    train = ask_after(cleaned, label[:8], "train", recipe="classify-small")
    assert requests.settle_requests(cleaned) == 0
    drain(cleaned)
    assert sum(at_once(*[lambda: requests.settle_requests(cleaned) for _ in range(4)])) == 1
    drain(cleaned)
    assert requests.settle_requests(cleaned) == 0
    opened = request(cleaned, label)
    assert opened.queue_id is not None
    with cleaned.write() as session:
        assert session.scalar(select(func.count()).select_from(LabelQueue)) == 1
        close_queue(session, now=cleaned.now(session), queue_id=opened.queue_id)
    assert requests.settle_requests(cleaned) == 1
    assert (request(cleaned, train).state, num_runs(cleaned, "train")) == ("started", 1)


def test_what_follows_a_failed_run_waits_for_its_resumption(cleaned: Catalog, recipe: dict[str, Any]) -> None:
    run_id = jobs.start_job(cleaned, kind="clean", dataset="tickets", config=recipe).run_id
    after = ask_after(cleaned, run_id, "dedup", threshold=0.7)
    with cleaned.write() as session:
        run = session.get_one(Run, run_id)
        run.state, run.reason = "failed", "the disk is full"
        session.query(Unit).filter(Unit.run_id == run_id, Unit.state == "ready").update({"state": "poisoned"})
    assert requests.settle_requests(cleaned) == 0
    with cleaned.read() as session:
        told = requests.waits_for(session, session.get_one(Request, after))
    assert told == f"clean run {run_id[:8]}, which is failed: `winnow resume {run_id[:8]}`"
    with cleaned.write() as session:
        runs.resume(session, session.get_one(Run, run_id), cleaned.now(session))
    drain(cleaned)
    assert requests.settle_requests(cleaned) == 1
    assert request(cleaned, after).state == "started"


def test_a_cancelled_request_never_starts_and_nothing_can_follow_it(cleaned: Catalog) -> None:
    with cleaned.read() as session:
        run_id = session.scalars(select(Run.id).where(Run.kind == "clean")).one()
    after = ask_after(cleaned, run_id, "dedup")
    with cleaned.write() as session:
        requests.cancel_request(session.get_one(Request, after), cleaned.now(session))
    assert requests.settle_requests(cleaned) == 0
    with pytest.raises(ConflictError, match="was cancelled; nothing can follow it"):
        ask_after(cleaned, after, "dedup")
    with pytest.raises(NotFoundError, match="no run, request or labeling queue begins with 'ffff'"):
        ask_after(cleaned, "ffff", "dedup")
    with cleaned.write() as session, pytest.raises(ConflictError, match="only a waiting request can be cancelled"):
        requests.cancel_request(session.get_one(Request, after), cleaned.now(session))


def test_a_bug_in_one_job_does_not_hold_up_the_others(cleaned: Catalog, caplog: pytest.LogCaptureFixture) -> None:
    with cleaned.read() as session:
        run_id = session.scalars(select(Run.id).where(Run.kind == "clean")).one()
    broken = ask_after(cleaned, run_id, "clean", document={"rules": 7}, recipe="x")
    sound = ask_after(cleaned, run_id, "dedup", threshold=0.7)
    assert requests.settle_requests(cleaned) == 2
    assert (request(cleaned, broken).state, request(cleaned, sound).state) == ("refused", "started")
    assert "Error: " in str(request(cleaned, broken).reason)
    assert "failed" in caplog.text


def test_a_request_that_is_refused_says_why(cleaned: Catalog) -> None:
    with cleaned.read() as session:
        run_id = session.scalars(select(Run.id).where(Run.kind == "clean")).one()
    after = ask_after(cleaned, run_id, "train", recipe="classify-small")
    with cleaned.write() as session:
        session.scalars(select(Dataset)).one().label_column = None
    assert requests.settle_requests(cleaned) == 1
    assert request(cleaned, after).state == "refused"
    assert "has no labels" in str(request(cleaned, after).reason)
