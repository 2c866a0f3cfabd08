"""Each named point: a process is killed there, and what comes out is what comes out undisturbed."""

import re
import signal
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from sqlalchemy import select

from catalog.faults import POINTS
from catalog.tables.engine import Run, Unit
from catalog.tables.labeling import Annotation
from service.auth import create_user, issue_token
from tests.faults.conftest import NUM_BROKEN, NUM_FILES, NUM_RECORDS, PLACES
from tests.faults.world import ROOT, World
from tests.labeling.conftest import open_desk
from tests.servers import free_port

KILLED = -signal.SIGKILL
SUBMITTING = ("submit.before_commit", "submit.after_commit")
ANSWERING = ("annotation.before_commit", "annotation.after_commit")
ENDED = ("cancel.before_commit", "resume.before_commit")
GIVING_BACK = ("give_back.before_commit",)
MIGRATING = tuple(name for name in POINTS if name.startswith("migrate."))
"""See ``test_migrations``."""
IN_WORKER = sorted(set(POINTS) - {*SUBMITTING, *ANSWERING, *ENDED, *GIVING_BACK, *MIGRATING})
ALSO = {
    "heartbeat": ["work.after=stall:0.5@2", "work.after=stall:0.5@5"],
    "fail": ["work.before=raise@1", "work.before=raise@3", "work.before=raise@4"],
}
"""What else must happen for a point to be reached."""
PACKAGES = ("catalog", "curation", "labeling", "training", "workers", "service", "migrations")


def check_oracle(world: World, undisturbed: dict[str, Any]) -> None:
    world.check(NUM_FILES * NUM_RECORDS, NUM_FILES * NUM_BROKEN)
    assert world.outcome() == undisturbed


def test_every_point_is_named_once_in_the_code() -> None:
    sources = [path.read_text() for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    named = [name for source in sources for name in re.findall(r'\bfault\("([^"]*)"\)', source)]
    assert sorted(named) == sorted(POINTS)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("point", IN_WORKER)
def test_worker_killed_at_a_point(
    new_world: Callable[..., World], corpus: list[str], undisturbed: dict[str, Any], place: str, point: str
) -> None:
    world = new_world(place)
    kills = [f"{point}=kill@1", f"{point}=kill@2"]
    ends: list[int] = []
    with world.workers(spec=",".join([*kills, *ALSO.get(point.partition(".")[0], [])]), ends=ends):
        world.work(corpus)
    assert world.struck() >= set(kills)
    assert ends == [KILLED, KILLED]
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
