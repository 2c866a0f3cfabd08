"""Each named point: a process is killed there, and what comes out is what comes out undisturbed."""

import re
import shutil
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import select, update

from catalog.faults import POINTS
from catalog.tables.curation import Verdict
from catalog.tables.datasets import Version
from catalog.tables.engine import Run, Unit
from catalog.tables.labeling import Annotation
from catalog.tables.schedules import Firing, Request
from catalog.tables.webhooks import Delivery
from service.auth import create_user, issue_token
from tests.faults.conftest import NUM_BROKEN, NUM_FILES, NUM_RECORDS, PLACES
from tests.faults.world import ROOT, World
from tests.labeling.conftest import open_desk
from tests.servers import Receiver, free_port, http_receiver
from tests.workers.corpus import RECIPE
from workers import engine
from workers.jobs import recipe_config
from workers.schedules import Wanted, add_schedule
from workers.webhooks import add_webhook

KILLED = -signal.SIGKILL
SUBMITTING = ("submit.before_commit", "submit.after_commit")
ANSWERING = ("annotation.before_commit", "annotation.after_commit")
ENDED = ("cancel.before_commit", "resume.before_commit")
GIVING_BACK = ("give_back.before_commit",)
TAKING_BACK = ("take_back.before_commit",)
POISONING = ("poison.before_commit",)
SCHEDULED = ("fire.before_commit", "fire.before_record", "request.before_record")
TELLING = ("webhook.after_send",)
MIGRATING = tuple(name for name in POINTS if name.startswith("migrate."))
"""See ``test_migrations``."""
ELSEWHERE = {
    *SUBMITTING, *ANSWERING, *ENDED, *GIVING_BACK, *TAKING_BACK, *POISONING, *SCHEDULED, *TELLING, *MIGRATING
}  # fmt: skip
IN_WORKER = sorted(set(POINTS) - ELSEWHERE)
ALSO = {
    "heartbeat": ["work.after=stall:0.5@2", "work.after=stall:0.5@5"],
    "fail": ["work.before=raise@1", "work.before=raise@3", "work.before=raise@4"],
}
"""What else must happen for a point to be reached."""
POINTS_A_RUN = 5
"""Where a world of its own for each costs most; each has one on SQLite."""
PACKAGES = ("catalog", "curation", "labeling", "training", "workers", "service", "migrations")


def batched(points: Sequence[str], size: int) -> list[tuple[str, ...]]:
    """Points by so many, the last of them perhaps fewer."""
    return [tuple(points[start : start + size]) for start in range(0, len(points), size)]


def check_oracle(world: World, undisturbed: dict[str, Any]) -> None:
    world.check(NUM_FILES * NUM_RECORDS, NUM_FILES * NUM_BROKEN)
    assert world.outcome() == undisturbed


def test_every_point_is_named_once_in_the_code() -> None:
    sources = [path.read_text() for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    named = [name for source in sources for name in re.findall(r'\bfault\("([^"]*)"\)', source)]
    assert sorted(named) == sorted(POINTS)


@pytest.mark.parametrize("point", IN_WORKER)
def test_worker_killed_at_a_point(
    new_world: Callable[..., World], corpus: list[str], undisturbed: dict[str, Any], point: str
) -> None:
    kills = {f"{point}=kill@1", f"{point}=kill@2"}
    kill_at(kills, new_world("sqlite+embedded"), corpus, undisturbed)


@pytest.mark.parametrize("points", batched(IN_WORKER, POINTS_A_RUN), ids="+".join)
def test_worker_killed_at_several_points_of_one_run(
    new_world: Callable[..., World], corpus: list[str], undisturbed: dict[str, Any], points: tuple[str, ...]
) -> None:
    kills = {f"{point}=kill@1" for point in points}
    kill_at(kills, new_world("postgresql+redis"), corpus, undisturbed)


def kill_at(kills: set[str], world: World, corpus: list[str], undisturbed: dict[str, Any]) -> None:
    """Kill whoever is at these points, and compare what comes of the work."""
    also = {one for kill in kills for one in ALSO.get(kill.partition(".")[0], [])}
    ends: list[int] = []
    with world.workers(spec=",".join(sorted(kills | also)), ends=ends):
        world.work(corpus)
    assert world.struck() >= kills
    assert set(ends) == {KILLED}
    # The last may fall into the moment in which the worker is stopped anyway.
    assert len(kills) - 1 <= len(ends) <= len(kills)
    check_oracle(world, undisturbed)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", ["raise", "enospc"])
def test_every_point_of_a_worker_fails_once_in_one_run(
    new_world: Callable[..., World], corpus: list[str], undisturbed: dict[str, Any], place: str, kind: str
) -> None:
    world = new_world(place)
    faults = {f"{name}={kind}@2" for name in IN_WORKER}
    ends: list[int] = []
    with world.workers(spec=",".join([*sorted(faults), *ALSO["heartbeat"]]), ends=ends):
        world.work(corpus)
    assert faults - world.struck() == set()
    assert ends == []
    check_oracle(world, undisturbed)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("point", SUBMITTING)
def test_command_killed_while_it_asks(
    new_world: Callable[..., World], corpus: list[str], undisturbed: dict[str, Any], place: str, point: str
) -> None:
    world = new_world(place)
    command = ["winnow", "ingest", *corpus, "--dataset", "tickets", "--text", "body", "--label", "queue"]
    assert world.run(*command, spec=f"{point}=kill@1") == KILLED
    with world.catalog.read() as session:
        assert len(session.scalars(select(Run.id)).all()) == (point == "submit.after_commit")
    with world.workers():
        assert world.run(*command) == 0, world.logs()
        judge = world.ask_judge()
        world.relay()
        world.wait_for(judge)
    check_oracle(world, undisturbed)


@pytest.mark.parametrize("place", PLACES)
def test_command_killed_while_it_ends_a_run_or_sets_it_going_again(
    new_world: Callable[..., World], corpus: list[str], undisturbed: dict[str, Any], place: str
) -> None:
    world = new_world(place)
    run_id = world.ask_ingest(corpus)
    cancel = ["winnow", "cancel", run_id]
    ingest = ["winnow", "ingest", *corpus, "--dataset", "tickets", "--text", "body", "--label", "queue"]

    def states() -> tuple[str, set[str]]:
        with world.catalog.read() as session:
            return session.get_one(Run, run_id).state, set(session.scalars(select(Unit.state)))

    before, after = (f"{point}=kill@1" for point in ENDED)
    assert world.run(*cancel, spec=before) == KILLED
    assert states() == ("running", {"ready"})
    assert world.run(*cancel) == 0
    assert states() == ("cancelled", {"cancelled"})
    assert world.run(*ingest, spec=after) == KILLED
    assert states() == ("cancelled", {"cancelled"})
    with world.workers():
        assert world.run(*ingest) == 0, world.logs()
        judge = world.ask_judge()
        world.relay()
        world.wait_for(judge)
    check_oracle(world, undisturbed)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("point", GIVING_BACK)
def test_worker_killed_while_it_gives_a_unit_back(
    new_world: Callable[..., World], corpus: list[str], undisturbed: dict[str, Any], place: str, point: str
) -> None:
    world = new_world(place)
    stall, kill = "work.before=stall@2", f"{point}=kill@1"
    ends: list[int] = []
    with world.workers(spec=f"work.before=stall:1.0@2,{kill}", ends=ends):
        run_id = world.ask_ingest(corpus)
        world.relay()
        world.wait_until(lambda: stall in world.struck())
        world.nursery.order(signal=world.worker_names[0], number=signal.SIGTERM)
        world.wait_for(run_id)
        judge = world.ask_judge()
        world.relay()
        world.wait_for(judge)
    assert world.struck() == {stall, kill}
    assert ends == [KILLED]
    check_oracle(world, undisturbed)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("point", ANSWERING)
def test_service_killed_while_it_takes_an_answer(new_world: Callable[..., World], place: str, point: str) -> None:
    world = new_world(place)
    desk = open_desk(world.catalog)
    desk.publish("a", "b")
    with world.catalog.write() as session:
        now = world.catalog.now(session)
        user = create_user(session, now=now, name="mina", role="annotator")
        token = issue_token(session, now=now, user_id=user.id, days=1)
    port = free_port()
    name = f"{world.folder} service"
    world.start(name, "serve", str(port), spec=f"{point}=kill@1", keep=True)
    headers = {"Authorization": f"Bearer {token}"}
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=20) as client:

        def answers() -> bool:
            try:
                return client.get("/health").status_code == 200
            except httpx.HTTPError:
                return False

        world.wait_until(answers)
        task = client.post(f"/api/v1/queues/{desk.queue_id}/next").json()["task"]
        answer = {"key": "key-of-the-answer", "value": "긍정"}
        path = f"/api/v1/leases/{task['lease_id']}/annotation"
        with pytest.raises(httpx.HTTPError):
            client.put(path, json=answer)
        world.wait_until(answers)
        second = client.put(path, json=answer)
        third = client.put(path, json=answer)
    world.nursery.order(stop=name)
    assert world.nursery.ends(name)[:-1] == [KILLED]
    assert (second.status_code, second.json()["repeated"]) == (200, point == "annotation.after_commit"), second.text
    assert third.json() == second.json() | {"repeated": True}
    with world.catalog.read() as session:
        kept = session.scalars(select(Annotation)).all()
    assert [(one.value, one.retracted, one.late) for one in kept] == [("긍정", None, False)]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("point", TAKING_BACK)
def test_supervisor_killed_while_it_takes_back_what_its_worker_held(
    new_world: Callable[..., World], corpus: list[str], undisturbed: dict[str, Any], place: str, point: str
) -> None:
    world = new_world(place, lease_seconds=120.0)
    world.ask_ingest(corpus)
    with world.catalog.read() as session:
        unit_id = session.scalars(select(Unit.id).order_by(Unit.position)).first()
    assert unit_id is not None
    owner = "elsewhere/host/1/0.00"
    assert engine.claim(world.catalog, unit_id, owner) is not None

    def unit() -> tuple[str, str | None, int]:
        with world.catalog.read() as session:
            found = session.get_one(Unit, unit_id)
            return found.state, found.owner, found.attempts

    assert world.run("take_back", owner, spec=f"{point}=kill@1") == KILLED
    assert unit() == ("running", owner, 1)
    assert world.run("take_back", owner) == 0, world.logs()
    assert unit() == ("ready", None, 0)
    with world.workers():
        world.work(corpus)
    check_oracle(world, undisturbed)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("point", POISONING)
def test_worker_killed_while_a_unit_fails_for_good(
    new_world: Callable[..., World], corpus: list[str], undisturbed: dict[str, Any], place: str, point: str
) -> None:
    world = new_world(place, max_attempts=1)
    failure, kill = "work.before=raise@1", f"{point}=kill@1"
    ends: list[int] = []
    with world.workers(spec=f"{failure},{kill}", ends=ends):
        run_id = world.ask_ingest(corpus)
        world.relay()
        ended = world.wait_until_ended(run_id)
        assert (ended.state, ends) == ("failed", [])
        # Its last attempt was that one, whoever writes it down; the same request sets it going again.
        world.work(corpus)
    assert world.struck() == {failure, kill}
    assert ends == [KILLED]
    check_oracle(world, undisturbed)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("point", SCHEDULED)
def test_worker_killed_while_it_looks_after_a_schedule(
    new_world: Callable[..., World], corpus: list[str], tmp_path: Path, place: str, point: str
) -> None:
    world = new_world(place, watch_settle_seconds=0)
    recipe, inbox = tmp_path / "recipe.yaml", tmp_path / "inbox"
    recipe.write_text(RECIPE)
    inbox.mkdir()
    for path in corpus:
        shutil.copy(path, inbox)
    with world.catalog.write() as session:
        wanted = Wanted(
            name="inbox",
            dataset="tickets",
            kind="clean",
            config=recipe_config("clean", str(recipe)),
            folder=str(inbox),
            mapping={"text": "body", "label": "queue"},
        )
        add_schedule(session, world.catalog.settings, wanted, now=world.catalog.now(session))

    def is_cleaned() -> bool:
        with world.catalog.read() as session:
            return session.scalar(select(Version.id).where(Version.kind == "curated")) is not None

    ends: list[int] = []
    with world.workers(spec=f"{point}=kill@1", ends=ends):
        world.wait_until(is_cleaned)
    assert ends == [KILLED]
    with world.catalog.read() as session:
        runs = session.scalars(select(Run).order_by(Run.created_at)).all()
        (firing,), (request,) = session.scalars(select(Firing)).all(), session.scalars(select(Request)).all()
        judged = session.scalars(select(Verdict.record_id)).all()
    assert [(run.kind, run.state) for run in runs] == [("ingest", "done"), ("clean", "done")]
    assert (firing.outcome, firing.run_id) == ("started", runs[0].id)
    assert (request.state, request.run_id) == ("started", runs[1].id)
    assert len(judged) == len(set(judged)) == NUM_FILES * NUM_RECORDS


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with http_receiver() as server:
        yield server


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("point", TELLING)
def test_worker_killed_after_a_webhook_was_received_tells_it_again_by_the_same_id(
    new_world: Callable[..., World], corpus: list[str], receiver: Receiver, place: str, point: str
) -> None:
    world = new_world(place, webhook_private=True)
    with world.catalog.write() as session:
        now = world.catalog.now(session)
        add_webhook(session, url=receiver.url, events=["run.done"], now=now, private=True)

    def is_noted() -> bool:
        with world.catalog.write() as session:
            # Nobody else tries for a minute, so that two workers never send at once.
            waiting = update(Delivery).where(Delivery.state == "waiting")
            session.execute(waiting.values(next_at=world.catalog.now(session)))
            return session.scalar(select(Delivery.state)) == "delivered"

    ends: list[int] = []
    with world.workers(spec=f"{point}=kill@1", ends=ends):
        run_id = world.ask_ingest(corpus)
        world.relay()
        world.wait_for(run_id)
        world.wait_until(lambda: receiver.got)
        world.wait_until(is_noted)
    assert ends == [KILLED]
    first, *others = [(headers["webhook-id"], body) for headers, body in receiver.got]
    assert others
    assert set(others) == {first}
