"""``winnow schedule``, ``requests``, ``--after`` and steering, as typed."""

import json
import shlex
import time
from pathlib import Path

import pytest

from tests.cli.conftest import Prepared

DATASET = "scheduled"
"""Of these tests alone: what they clean it by must not become the newest version of another's."""


@pytest.fixture(scope="module", autouse=True)
def scheduled(prepared: Prepared) -> None:
    """The dataset, cleaned once."""
    prepared.winnow.ok("ingest", prepared.tickets, "--dataset", DATASET, "--text", "body", "--label", "queue")
    prepared.winnow.ok("clean", DATASET, "--recipe", prepared.recipe)


def told(out: str) -> object:
    return json.loads(out)


def test_a_schedule_is_added_listed_changed_run_and_removed(prepared: Prepared, tmp_path: Path) -> None:
    name = ["--name", "nightly"]
    done = prepared.winnow.each(
        ["schedule", "add", DATASET, "--recipe", "short-text", "--cron", "0 3 * * *", *name, "--json"],
        ["schedule", "list", "--json"],
        ["schedule", "change", "nightly", "--cron", "30 4 * * MON", "--timezone", "Asia/Seoul", "--json"],
        ["schedule", "change", "nightly", "--off"],
        ["schedule", "change", "nightly", "--on"],
        ["schedule", "change", "nightly"],
        ["schedule", "run", "nightly"],
    )
    (unchanged,) = (done.pop(5),)
    assert (unchanged.code, "nothing to change; give --on" in unchanged.err) == (2, True)
    assert [one.code for one in done] == [0] * len(done), [one.err for one in done]
    added, listed, changed, off, on, ran = done
    assert "03:00" in str(told(added.out))
    assert [one["name"] for one in json.loads(listed.out)] == ["nightly"]
    assert "(30 4 * * MON, Asia/Seoul)" in json.loads(changed.out)["when"]
    assert "switched off" in off.err
    assert "switched off" not in on.err
    assert "is due now; what came of it: `winnow schedule history nightly`" in ran.err
    deadline = time.monotonic() + 60
    while (seen := prepared.winnow.ok("schedule", "history", "nightly")) and seen[0]["outcome"] == "pending":
        assert time.monotonic() < deadline, "the running worker never started it"
        time.sleep(0.2)
    assert [one["outcome"] for one in seen] == ["started"]
    prepared.winnow.ok("watch", seen[0]["run"])
    removed, empty = prepared.winnow.each(["schedule", "remove", "nightly"], ["schedule", "list"])
    assert "removed" in removed.err
    assert "no schedule: `winnow schedule add" in empty.err


def test_the_schedules_of_the_documentation_have_names_of_their_own(prepared: Prepared, tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "schedules.md").read_text()
    typed = [shlex.split(line) for line in page.splitlines() if line.startswith("    winnow schedule add ")]
    names = []
    for _, *words in typed:
        given = [str(tmp_path) if word == "/data/inbox" else DATASET if word == "tickets" else word for word in words]
        names.append(prepared.winnow.ok(*given)["name"])
    for name in names:
        prepared.winnow.ok("schedule", "remove", name)
    assert names == [f"{DATASET}-{end}" for end in ("clean", "clean-on-ingest", "train-on-clean", "clean-watch")]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("--recipe short-text", "say when, once"),
        ("--recipe short-txt --cron '0 3 * * *'", "did you mean 'short-text'"),
        ("--recipe short-text --cron noon", "must have five fields"),
        ("--job clean --cron '0 3 * * *'", "clean goes by a recipe; give --recipe"),
        ("--job dedup --recipe short-text --on-ingest", "dedup goes by no recipe"),
        ("--job clen --on-ingest", "did you mean 'clean'"),
        ("--recipe short-text --on-ingest --text body", "columns are those of files in a watched folder"),
        ("--recipe short-text --on-ingest --timezone Asia/Seoul", "timezone is of times by the clock"),
        ("--recipe short-text --on-clean", "let new data start it (--on-ingest)"),
        ("--watch . --text bodyx", "was made with --text body --label queue, not --text bodyx"),
        ("--watch /nowhere", "folder /nowhere is not there"),
        ("--on-ingest", "files are taken in from a folder that is watched"),
    ],
)
def test_a_mistyped_schedule_says_what_to_type(prepared: Prepared, arguments: str, words: str) -> None:
    (done,) = prepared.winnow.each(["schedule", "add", DATASET, *shlex.split(arguments)])
    assert (done.code, done.out) == (2, "")
    assert words in done.err


def test_a_job_waits_for_a_queue_and_is_cancelled_or_starts(prepared: Prepared, tmp_path: Path) -> None:
    schema = tmp_path / "labels.yaml"
    schema.write_text("question: Which queue?\nlabels: [hardware, software]\n")
    options = ["--schema", schema, "--strategy", "random", "--name", "waited-for"]
    queue = prepared.winnow.ok("label", "create", DATASET, *options)["queue"]
    after = ["--after", queue, "--json"]
    forgotten, kept, *_ = [
        json.loads(one.out)["request"]
        for one in prepared.winnow.each(
            ["clean", DATASET, "--recipe", "short-text", *after], ["clean", DATASET, "--recipe", "web-text", *after]
        )
    ]
    done = prepared.winnow.each(
        ["requests", "--json"], ["cancel", forgotten[:8]], ["cancel", forgotten], ["cancel", "ffffffff"],
        ["label", "close", DATASET, "waited-for"],
    )  # fmt: skip
    assert [one.code for one in done] == [0, 0, 1, 2, 0]
    waiting = {one["request"]: one["waits for"] for one in json.loads(done[0].out)}
    assert waiting[kept] == waiting[forgotten] == "labeling queue 'waited-for'"
    assert "it never starts" in done[1].err
    assert "only a waiting request can be cancelled" in done[2].err
    assert "no run and no request begins with 'ffffffff'" in done[3].err
    deadline = time.monotonic() + 60
    while True:
        states = {one["request"]: one for one in prepared.winnow.ok("requests")}
        if states[kept]["state"] != "waiting":
            break
        assert time.monotonic() < deadline, "the running worker never started it"
        time.sleep(0.2)
    assert (states[kept]["state"], states[forgotten]["state"]) == ("started", "cancelled")
    prepared.winnow.ok("watch", states[kept]["run"])


def test_steering_what_has_ended_is_refused_by_name(prepared: Prepared) -> None:
    listed, shown = prepared.winnow.each(
        ["runs", "--state", "done", "--dataset", DATASET, "--json"], ["runs", "--dataset", DATASET]
    )
    newest = next(one for one in json.loads(listed.out) if one["kind"] == "clean")
    run = newest["run"]
    assert (len(run), newest["priority"], newest["units at once"]) == (36, 0, "no limit")
    assert newest["recipe"] in ("tiny", "short-text", "web-text")
    assert run not in shown.out
    assert run[:8] in shown.out
    done = prepared.winnow.each(
        ["pause", run], ["resume", run], ["steer", run, "--priority", "3"], ["steer", run], ["logs", run],
        ["logs", run, "--unit", "measure/x"], ["watch", run, "--json"], ["runs", "--state", "dome"],
        ["runs", "--dataset", "schedulde"], ["logs", run, "--unit", "mesure"], ["logs", run, "--unit", "measure/99"],
        ["logs", run, "--unit", "measure/0"], ["pause", ""], ["cancel", "nope"],
    )  # fmt: skip
    assert [one.code for one in done] == [1, 1, 1, 2, 0, 2, 0, 2, 2, 2, 2, 0, 2, 2]
    words = [
        "only a running run can be paused", "only a paused, failed or cancelled run can be resumed",
        "only a running run can be steered", "nothing to change", "nothing was logged", "must be STAGE or STAGE/NUMBER",
        "", "did you mean 'done'", f"did you mean '{DATASET}'", "has no stage 'mesure'; did you mean 'measure'",
        "has no unit 99; there is only 0", "nothing was logged by run", "'' is too short for the id of a run",
        "no run and no request begins with 'nope'; see",
    ]  # fmt: skip
    for one, word in zip(done, words, strict=True):
        assert word in one.err
    assert json.loads(done[6].out)["state"] == "done"
