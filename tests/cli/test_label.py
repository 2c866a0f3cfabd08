"""``winnow label``: queues over the curated records, and the rehearsal against random."""

import contextlib
import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from catalog.database import Catalog
from catalog.settings import load_settings
from catalog.tables.labeling import Annotation, LabelQueue
from tests.cli import corpus
from tests.cli.command import TIMEOUT_SECONDS, Done, Winnow
from tests.cli.conftest import Prepared


@pytest.fixture
def schema(tmp_path: Path) -> Path:
    path = tmp_path / "labels.yaml"
    path.write_text(corpus.SCHEMA)
    return path


def test_queue_serves_the_page_that_was_printed_and_its_answers_are_part_of_the_story(
    prepared: Prepared, schema: Path
) -> None:
    winnow = prepared.winnow
    command = ["label", "create", "tickets", "--schema", str(schema), "--strategy", "kmeans", "--name", "첫 번째"]
    # As if `winnow up --port` had been given another port than the setting's.
    made = winnow(*command, port=1)
    assert made.code == 0
    assert "chosen out of 370 by kmeans" in made.err
    page = made.out.strip()
    queue = page.rpartition("/")[2]
    assert page == f"{prepared.url}/label/{queue}"
    token = winnow.ok("user", "지민")["token"]
    with httpx.Client(base_url=f"{prepared.url}/api/v1", headers={"Authorization": f"Bearer {token}"}) as client:
        task = client.post(f"/queues/{queue}/next").json()["task"]
        body = {"key": "only-once", "value": "billing", "seconds_spent": 1.5}
        assert client.put(f"/leases/{task['lease_id']}/annotation", json=body).is_success
    story = winnow.ok("explain", "tickets", task["record_id"])
    assert story["text"] == task["text"]
    (answer,) = [one for one in story["labels"] if one["queue"] == "첫 번째"]
    assert (answer["annotator"], answer["value"], answer["retracted"]) == ("지민", "billing", None)
    other = ["random" if word == "kmeans" else word for word in command]
    shown, again, refused = winnow.each(["explain", "tickets", task["record_id"]], command, other)
    assert "answered billing by 지민 in '첫 번째'" in shown.out
    assert (again.code, again.out) == (0, made.out)
    assert "this queue was opened before; the same one:" in again.err
    assert refused.code == 2
    assert "already has a label queue named '첫 번째', with strategy='kmeans' (asked for: 'random')" in refused.err
    (listed,) = [one for one in winnow.ok("label", "list", "tickets") if one["id"] == queue]
    assert listed == {
        "queue": "첫 번째",
        "id": queue,
        "strategy": "kmeans",
        "model": "linear",
        "state": "open",
        "done": 1,
        "offered": listed["offered"],
    }


def test_agreement_names_the_annotators_and_writes_the_consensus(
    prepared: Prepared, schema: Path, tmp_path: Path
) -> None:
    winnow, output = prepared.winnow, tmp_path / "consensus.jsonl"
    queue = winnow.ok("label", "create", "tickets", "--schema", str(schema), "--overlap", "2", "--name", "둘이")[
        "queue"
    ]
    said: dict[str, list[str]] = {}
    for name, labels in (("두리", ["billing", "delivery", "billing"]), ("세나", ["billing", "delivery", "delivery"])):
        token = winnow.ok("user", name)["token"]
        with httpx.Client(base_url=f"{prepared.url}/api/v1", headers={"Authorization": f"Bearer {token}"}) as client:
            for number, label in enumerate(labels):
                task = client.post(f"/queues/{queue}/next").json()["task"]
                body = {"key": f"only-once-{number}", "value": label, "seconds_spent": 2.0}
                assert client.put(f"/leases/{task['lease_id']}/annotation", json=body).is_success
                said.setdefault(task["record_id"], []).append(label)
    asked = ["label", "agreement", "tickets", "둘이", "--output", str(output)]
    document, shown, refused, too_few = (
        winnow.ok(*asked),
        winnow(*asked),
        winnow(*asked[:4], "--method", "majorty"),
        winnow(*asked[:4], "--method", "crowdlab"),
    )
    alpha = document["agreement"][0]
    # Two of six ordered pairs differ; of six answers, three are billing: 18 of 30 ordered pairs would.
    assert (alpha["num_items"], alpha["value"]) == (3, pytest.approx(1 - (2 / 6) / (18 / 30)))
    by_name = {one["annotator"]: one for one in document["annotators"]}
    assert {name: (one["num_shared"], one["median_seconds"]) for name, one in by_name.items()} == {
        "두리": (3, 2.0),
        "세나": (3, 2.0),
    }
    assert "krippendorff_alpha_nominal" in shown.out
    assert re.search(r"두리 +3 +0.67", shown.out)
    assert "consensus by majority" in shown.err
    rows = {one["record_id"]: one for one in map(json.loads, output.read_text().splitlines())}
    assert {record: (one["label"], one["confidence"], one["answers"]) for record, one in rows.items()} == {
        record: (min(labels), labels.count(min(labels)) / 2, 2) for record, labels in said.items()
    }
    assert (refused.code, "did you mean 'majority'" in refused.err) == (2, True)
    # Without one of the three answers, those left are the same.
    assert (too_few.code, "a model needs labels of at least two classes" in too_few.err) == (2, True)


def test_rehearsal_spends_the_same_on_both_arms_and_leaves_no_open_queue(
    winnow: Winnow, rehearsed: dict[str, Any]
) -> None:
    assert {arm["strategy"]: arm["labels"] for arm in rehearsed["arms"]} == {"margin": 20, "random": 20}
    for arm in rehearsed["arms"]:
        assert 0 <= arm["low"] <= arm["accuracy"] <= arm["high"] <= 1
        assert [point[0] for point in rehearsed["curves"][arm["strategy"]]] == [10, 20]
    states = {one["id"]: one["state"] for one in winnow.ok("label", "list", "tickets")}
    assert {states[queue] for queue in rehearsed["queues"]} == {"closed"}


def test_create_that_was_interrupted_goes_on_with_the_same_queue(prepared: Prepared, schema: Path) -> None:
    command = ["label", "create", "tickets", "--schema", str(schema), "--name", "interrupted"]
    named = select(LabelQueue.id).where(LabelQueue.name == "interrupted")
    interrupted = interrupt(prepared, command, lambda session: session.scalar(named) is not None)
    assert interrupted.code == 130
    assert "the same command goes on from there" in interrupted.err
    made = prepared.winnow.ok(*command)
    with Catalog(load_settings(home=prepared.winnow.home)).read() as session:
        assert session.scalars(named).all() == [made["queue"]]
        assert session.get_one(LabelQueue, made["queue"]).generation == 1


def test_rehearsal_that_was_interrupted_goes_on_to_the_same_result(
    prepared: Prepared, rehearsed: dict[str, Any]
) -> None:
    command = ["label", "simulate", "tickets", "--oracle", "queue", "--rounds", "2", "--per-round", "10", "--anew"]
    others = Annotation.queue_id.in_(rehearsed["queues"])
    answers = select(func.count()).select_from(Annotation).join(LabelQueue).where(LabelQueue.rehearsal, ~others)
    interrupted = interrupt(prepared, command, lambda session: (session.scalar(answers) or 0) >= 3)
    assert interrupted.code == 130
    assert "round 1/2: 0 labels" in interrupted.err
    gone_on = prepared.winnow.ok(*command)
    assert (gone_on["arms"], gone_on["curves"]) == (rehearsed["arms"], rehearsed["curves"])
    assert set(gone_on["queues"]).isdisjoint(rehearsed["queues"])
    again = prepared.winnow(*command[:-1])
    assert "this was rehearsed before (--anew rehearses it again); the same result:" in again.err
    with Catalog(load_settings(home=prepared.winnow.home)).read() as session:
        assert session.scalar(answers) == 40


def interrupt(prepared: Prepared, command: list[str], when: Callable[[Session], bool]) -> Done:
    """Ctrl-C as soon as the database shows it."""
    catalog = Catalog(load_settings(home=prepared.winnow.home))
    with prepared.winnow.start(*command) as running:
        try:
            reached = False
            while not reached and running.poll() is None:
                with catalog.read() as session:
                    reached = when(session)
            running.send_signal(signal.SIGINT)
            out, err = running.communicate(timeout=TIMEOUT_SECONDS)
        finally:
            running.kill()
            catalog.close()
    return Done(running.returncode, out, err)


def test_rehearsal_shows_round_labels_rate_and_time_left_on_a_terminal(prepared: Prepared) -> None:
    options = ["--oracle", "queue", "--rounds", "5", "--per-round", "8", "--seed", "5"]
    ours, terminal = pty.openpty()
    # Wide enough for the line not to be cut.
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 200, 0, 0))
    with subprocess.Popen(
        [sys.executable, "-m", "service.cli", "label", "simulate", "tickets", *options],
        env=prepared.winnow.environment() | {"TERM": "xterm"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=terminal,
    ) as running:
        os.close(terminal)
        shown = b""
        with contextlib.suppress(OSError):
            # Linux ends a terminal that nobody holds any more with an error.
            while part := os.read(ours, 65536):
                shown += part
        assert running.wait(TIMEOUT_SECONDS) == 0
    os.close(ours)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode(errors="replace"))
    # Any of them: eight answers may be given between two looks at the line.
    assert re.search(r"round [2-5]/5 \w+ 5: answering .* \d+ +[\d.]+ labels/s +\d+ s left", text)
    assert re.search(r"round 5/5 random 5: fitting .* 80 +[\d.]+ labels/s +0 s left", text)
    # Time passes during a fit too, though some are over before it shows.
    fits = re.findall(r"(round \d/5 \w+ 5: fitting) [^\r\n]* \d+ +([\d.]+) labels/s", text)
    assert any(len({rate for stage, rate in fits if stage == one}) > 1 for one, _ in fits)


def test_schema_that_is_refused_says_what_is_known(winnow: Winnow, tmp_path: Path) -> None:
    cases = {"lables: [a, b]": "did you mean 'labels'?", "labels: [a]": "at least two", "\xff": "not UTF-8"}
    paths = [tmp_path / f"{number}.yaml" for number in range(len(cases))]
    for path, text in zip(paths, cases, strict=True):
        path.write_text(text, encoding="latin-1")
    refused = winnow.each(
        *[["label", "create", "tickets", "--schema", str(one)] for one in [*paths, tmp_path / "none.yaml"]]
    )
    for done, told in zip(refused, [*cases.values(), "labels: [positive, negative]"], strict=True):
        assert done.code == 2
        assert told in done.err
