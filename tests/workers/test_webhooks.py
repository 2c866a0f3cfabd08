"""Signed webhooks against a real receiver: what is told, how often, and whom nobody is ever told through us."""

import base64
import hashlib
import hmac
import itertools
import json
import socket
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from catalog.database import Catalog
from catalog.errors import ConfigError
from catalog.tables.engine import Run
from catalog.tables.webhooks import Delivery, Webhook
from tests.servers import Receiver, http_receiver
from tests.workers.building import add_dataset, at_once, drain
from workers import outbox, runs, webhooks
from workers.engine import UnitResult
from workers.execution import UnitContext
from workers.pipelines import PIPELINES, Pipeline, Stage, single


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with http_receiver() as server:
        yield server


@pytest.fixture(scope="module", autouse=True)
def kind() -> Iterator[None]:
    """A job kind for these tests alone."""

    def work(unit: UnitContext) -> UnitResult:
        if unit.claim.config.get("fails"):
            raise ConfigError("no such column")
        return UnitResult(result=unit.claim.config.get("result", {}))

    PIPELINES.register("told")(Pipeline(stages=(Stage(name="only", plan=single, work=work),)))
    yield
    del PIPELINES._members["told"]


class Clock:
    """A clock that tests set."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 1, tzinfo=UTC)

    def __call__(self, _session: Session) -> datetime:
        return self.now


@pytest.fixture
def told(database: Catalog) -> Iterator[Catalog]:
    """A catalog that may tell this machine, by a clock that tests set."""
    catalog = Catalog(database.settings.model_copy(update={"webhook_private": True}), clock=Clock())
    with catalog.write() as session:
        add_dataset(session)
    yield catalog
    catalog.close()


@pytest.fixture
def ask(told: Catalog) -> Callable[..., str]:
    def submit(name: str, **config: Any) -> str:
        from catalog.tables.datasets import Dataset

        with told.write() as session:
            run, _ = runs.submit(
                session, now=told.now(session), kind="told", dataset_id=session.scalars(select(Dataset.id)).one(),
                version_id=None, config=config, idempotency_key=name, requested_by="지훈",
            )  # fmt: skip
            return run.id

    return submit


def add(catalog: Catalog, url: str, *events: str, private: bool = True) -> str:
    with catalog.write() as session:
        made = webhooks.add_webhook(
            session, url=url, events=events or webhooks.EVENTS, now=catalog.now(session), private=private
        )
        return made.secret


def deliveries(catalog: Catalog) -> list[Delivery]:
    with catalog.read() as session:
        return list(session.scalars(select(Delivery).order_by(Delivery.created_at)))


def test_a_run_that_is_done_is_told_once_and_signed(told: Catalog, receiver: Receiver, ask: Callable[..., str]) -> None:
    secret = add(told, receiver.url)
    run_id = ask("fine")
    drain(told)
    assert sum(at_once(*[lambda: webhooks.deliver(told) for _ in range(6)])) == 1
    ((headers, body),) = receiver.got
    event = json.loads(body)
    assert event["type"] == "run.done"
    assert (event["data"]["run_id"], event["data"]["requested_by"]) == (run_id, "지훈")
    # The signature as the specification's own words have it, computed without our code.
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.{body.decode()}".encode()
    key = base64.b64decode(secret.removeprefix("whsec_"))
    expected = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{expected}"
    assert headers["Host"] == receiver.url.split("/")[2]
    assert webhooks.deliver(told) == 0


def test_a_cleaning_that_kept_nothing_is_told_as_such(
    told: Catalog, receiver: Receiver, ask: Callable[..., str]
) -> None:
    add(told, receiver.url)
    ask("strict", result={"records": 30, "kept": 0})
    drain(told)
    assert webhooks.deliver(told) == 1
    data = json.loads(receiver.got[0][1])["data"]
    assert (data["records"], data["kept"]) == (30, 0)


def test_the_signature_is_that_of_the_specification() -> None:
    # The example of the specification's reference libraries.
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    value = webhooks.signature(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert value == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_only_what_was_asked_for_is_told(told: Catalog, receiver: Receiver, ask: Callable[..., str]) -> None:
    add(told, receiver.url, "run.failed", "run.cancelled")
    ask("fine")
    ask("wrong", fails=True)
    drain(told)
    cancelled = ask("cancelled")
    with told.write() as session:
        runs.cancel(session, session.get_one(Run, cancelled), told.now(session))
    webhooks.deliver(told)
    got = [json.loads(body) for _, body in receiver.got]
    assert sorted(one["type"] for one in got) == ["run.cancelled", "run.failed"]
    assert [one["data"]["reason"] for one in got if one["type"] == "run.failed"] == ["only: no such column"]


def test_a_run_that_fails_twice_is_told_twice(told: Catalog, receiver: Receiver, ask: Callable[..., str]) -> None:
    add(told, receiver.url)
    run_id = ask("wrong", fails=True)
    drain(told)
    told.clock.now += timedelta(seconds=9)  # type: ignore[attr-defined]
    with told.write() as session:
        runs.resume(session, session.get_one(Run, run_id), told.now(session))
    drain(told)
    assert webhooks.deliver(told) == 2
    assert len({headers["webhook-id"] for headers, _ in receiver.got}) == 2


def test_what_is_not_taken_is_sent_again_with_growing_pauses_for_a_day(
    told: Catalog, receiver: Receiver, ask: Callable[..., str]
) -> None:
    add(told, receiver.url)
    ask("fine")
    drain(told)
    receiver.status = 503
    clock: Clock = told.clock  # type: ignore[assignment]
    sent_at = []
    for _ in range(24 * 60 * 2 + 400):
        before = len(receiver.got)
        webhooks.deliver(told)
        if len(receiver.got) > before:
            sent_at.append(clock.now)
        state = deliveries(told)[0].state
        if state != "waiting":
            break
        clock.now = max(clock.now + timedelta(seconds=1), deliveries(told)[0].next_at)
    assert state == "failed"
    pauses = [(after - before).total_seconds() for before, after in itertools.pairwise(sent_at)]
    assert pauses[:4] == [5, 10, 20, 40]
    assert max(pauses) == 3600
    assert sent_at[-1] - sent_at[0] > timedelta(days=1)
    assert len({headers["webhook-id"] for headers, _ in receiver.got}) == 1
    assert deliveries(told)[0].answer == "503"


def test_a_receiver_that_comes_back_gets_what_it_missed(
    told: Catalog, receiver: Receiver, ask: Callable[..., str]
) -> None:
    port = receiver.server_address[1]
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        away = closed.getsockname()[1]
    add(told, f"http://127.0.0.1:{away}/hook")
    ask("fine")
    drain(told)
    assert webhooks.deliver(told) == 0
    assert "ConnectError" in str(deliveries(told)[0].answer)
    with told.write() as session:
        session.scalars(select(Webhook)).one().url = f"http://127.0.0.1:{port}/hook"
    assert webhooks.deliver(told) == 0
    told.clock.now += timedelta(seconds=5)  # type: ignore[attr-defined]
    assert webhooks.deliver(told) == 1


def test_a_sender_that_dies_is_followed_by_another(told: Catalog, receiver: Receiver, ask: Callable[..., str]) -> None:
    add(told, receiver.url)
    ask("fine")
    drain(told)
    assert webhooks._claimed(told, deliveries(told)[0])
    assert webhooks.deliver(told) == 0
    told.clock.now += timedelta(seconds=61)  # type: ignore[attr-defined]
    assert webhooks.deliver(told) == 1


def test_no_redirect_is_followed(told: Catalog, receiver: Receiver, ask: Callable[..., str]) -> None:
    add(told, receiver.url)
    receiver.status, receiver.location = 307, receiver.url
    ask("fine")
    drain(told)
    assert webhooks.deliver(told) == 0
    assert len(receiver.got) == 1
    assert deliveries(told)[0].answer == "307"


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://example.org/hook", "must be an address such as https://"),
        ("http://127.0.0.1/hook", "set WINNOW_WEBHOOK_PRIVATE=true, both where webhooks are added and for `winnow up`"),
        ("https://127.0.0.1/hook", "127.0.0.1 is in no public network; to allow that set WINNOW_WEBHOOK_PRIVATE=true"),
        ("https://127.1/hook", "is in no public network"),
        ("https://[::1]/hook", "is in no public network"),
        ("https://169.254.169.254:8443/", "is in no public network"),
        ("https://localhost/hook", "is in no public network"),
        ("https://any.LocalHost/hook", "is in no public network"),
        ("ftp://example.org/hook", "must be an address such as https://"),
        ("file:///etc/passwd", "must be an address such as https://"),
        ("https://", "must be an address such as https://"),
        ("https://user:pass@example.org/", "would lie open"),
        ("https://example.org:22/", "only ports 443 and 8443"),
        ("https://example.org:99999/", "has no valid port"),
        ("https://예.org/\n", "must be an address"),
    ],
)
def test_an_address_that_looks_wrong_is_refused(url: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        webhooks.check_url(url, private=False)


def test_an_address_that_may_be_public_is_taken() -> None:
    for url in ("https://8.8.8.8/x", "https://hook.example.org/x", "https://[2606:4700::1111]:8443/x"):
        webhooks.check_url(url, private=False)
    webhooks.check_url("http://localhost:1234/x", private=True)


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "::1", "169.254.169.254", "10.0.0.1", "192.168.1.1", "0.0.0.0", "::ffff:127.0.0.1"],
)
def test_private_networks_are_never_told_unless_that_is_allowed(host: str) -> None:
    with pytest.raises(webhooks.RefusedAddressError, match="in no public network"):
        webhooks.resolve(host, 443, private=False)


def test_a_name_that_turns_private_after_it_was_added_is_not_told(
    told: Catalog, receiver: Receiver, ask: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    add(told, "https://hook.example.org/x", private=False)
    ask("fine")
    drain(told)
    port = receiver.server_address[1]
    rebound = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, **_options: rebound)
    public = Catalog(told.settings.model_copy(update={"webhook_private": False}), clock=told.clock)
    assert webhooks.deliver(public) == 0
    assert receiver.got == []
    assert "in no public network" in str(deliveries(told)[0].answer)
    public.close()


def test_an_unknown_event_is_refused(told: Catalog, receiver: Receiver) -> None:
    with pytest.raises(ConfigError, match=r"did you mean 'run\.done'"):
        add(told, receiver.url, "run.dnoe")
    with pytest.raises(ConfigError, match="say which events"), told.write() as session:
        webhooks.add_webhook(session, url=receiver.url, events=(), now=told.now(session), private=True)


def test_events_of_a_transaction_that_fails_are_not_told(
    told: Catalog, receiver: Receiver, ask: Callable[..., str]
) -> None:
    add(told, receiver.url)
    run_id = ask("fine")

    def cancel_and_stop() -> None:
        with told.write() as session:
            runs.cancel(session, session.get_one(Run, run_id), told.now(session))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cancel_and_stop()
    assert deliveries(told) == []
    assert outbox.unsent(told) != []
