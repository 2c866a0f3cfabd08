"""What all commands share: help, JSON alone on stdout, nothing that a terminal would obey."""

import json
import re
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest
from click.testing import CliRunner
from typer.main import get_command

from labeling.strategies import STRATEGIES
from service.cli.app import app
from tests.cli import corpus
from tests.cli.command import Winnow
from tests.cli.conftest import Prepared

COMMANDS = [
    "init",
    "user",
    "datasets",
    "runs",
    "cancel",
    "up",
    "ingest",
    "rejected",
    "clean",
    "explain",
    "train",
    "report",
    "label agreement",
    "label create",
    "label list",
    "label simulate",
    "label export",
    "label import",
    "label schema",
    "dedup run",
    "dedup against",
    "dedup clusters",
    "dedup export",
    "dedup curve",
    "dedup substring",
    "dedup semantic",
    "dedup rollback",
    "what-if",
    "export",
    "export-model",
    "recipe show",
    "recipe check",
    "recipe diff",
    "bias",
    "map",
    "label-errors",
    "difficulty",
    "label review",
    "pii run",
    "pii check",
    "pii export",
    "quality train",
    "quality reference",
    "quality list",
    "watch",
    "requests",
    "schedule add",
    "schedule list",
    "schedule history",
    "schedule change",
    "schedule run",
    "schedule remove",
    "label close",
    "label gold",
    "label suggestions",
    "label advise",
    "label history",
    "backup",
    "doctor",
    "gc",
    "restore",
    "webhook add",
    "webhook list",
    "webhook deliveries",
    "webhook remove",
    "pause",
    "resume",
    "steer",
    "logs",
]
GROUPS = ("label", "dedup", "recipe", "pii", "quality", "schedule", "webhook")
NOT_OF_A_TERMINAL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


@pytest.fixture(scope="module")
def help_of() -> dict[str, str]:
    """The help of every command, and of the groups; commands are put together once, which takes most of the time."""
    command = get_command(app)
    asked = ["", *GROUPS, *COMMANDS]
    done = [CliRunner().invoke(command, [*words.split(), "--help"]) for words in asked]
    assert {(one.exit_code, one.stderr) for one in done} == {(0, "")}
    return {words: one.stdout for words, one in zip(asked, done, strict=True)}


def test_every_command_is_listed_and_describes_itself_and_every_argument(help_of: dict[str, str]) -> None:
    groups = {"": {command.split()[0] for command in COMMANDS}}
    for group in GROUPS:
        groups[group] = {command.split()[1] for command in COMMANDS if command.startswith(f"{group} ")}
    for group, names in groups.items():
        assert set(re.findall(r"^  ([a-z-]+)  +\S", help_of[group].split("Commands:")[1], re.MULTILINE)) == names
    for command in COMMANDS:
        assert "--json" in help_of[command]
        arguments = help_of[command].partition("Arguments:")[2].partition("Options:")[0]
        undescribed = re.findall(r"^  (\S+) <\S+>(?: +\[\S+\])?$", arguments, re.MULTILINE)
        assert (command, undescribed) == (command, [])


def test_help_names_every_preset_and_strategy(help_of: dict[str, str]) -> None:
    cleaning, training = (
        [path.stem for path in (Path(str(files(package))) / "recipes").glob("*.yaml")]
        for package in ("curation", "training")
    )
    for command, names in (
        ("clean", cleaning),
        ("train", training),
        ("label create", list(STRATEGIES)),
        ("label simulate", list(STRATEGIES)),
    ):
        assert len(names) > 1
        # Long help is wrapped, also at the hyphen of a name.
        text = "".join(help_of[command].split())
        assert [name for name in names if name not in text] == []


def test_command_without_arguments_shows_its_help(winnow: Winnow) -> None:
    for done in winnow.each([], ["label"]):
        assert done.code == 2
        assert done.err.startswith("Usage: ")


def test_error_leaves_stdout_empty_under_json(winnow: Winnow) -> None:
    done = winnow("report", "nothing", "--json")
    assert (done.code, done.out) == (2, "")
    assert len(done.err.splitlines()) == 1


def test_control_characters_of_a_record_never_reach_the_terminal(prepared: Prepared, tmp_path: Path) -> None:
    line = f"tickets.jsonl:{corpus.NUM_PLAIN}"
    shown, told, refused = prepared.winnow.each(
        ["explain", "tickets", line],
        ["explain", "tickets", line, "--json"],
        ["ingest", str(tmp_path / "no\x1bne.jsonl"), "--dataset", "escapes", "--text", "body"],
    )
    assert "terminal �[31mred�[0m and �2J and � bell and � delete" in shown.out
    assert told.json["text"] == corpus.ESCAPES
    # A label, a file name and a message are no better than a text.
    path = tmp_path / "es\x1bcape.jsonl"
    corpus.write_jsonl(path, [{"body": "first line\nverdict  kept", "queue": "evil\x1b[2Jlabel"}, {"queue": "no text"}])
    ingested = prepared.winnow("ingest", path, "--dataset", "escapes", "--text", "body", "--label", "queue")
    story, listed = prepared.winnow.each(["explain", "escapes", f"{path.name}:1"], ["rejected", "escapes"])
    assert "evil�[2Jlabel" in story.out
    assert "\n         verdict  kept" in story.out
    for done in (shown, told, ingested, refused, story, listed):
        assert NOT_OF_A_TERMINAL.findall(done.out + done.err) == []


def test_reader_that_goes_away_early_is_no_error(winnow: Winnow) -> None:
    with winnow.start("explain", "tickets", "tickets.jsonl:1") as command:
        assert command.stdout is not None
        assert command.stderr is not None
        command.stdout.close()
        assert (command.wait(60), command.stderr.read()) == (0, "")


def test_full_device_is_told_in_one_line(winnow: Winnow) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "service.cli", "datasets"],
            env=winnow.environment(),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert (done.returncode, done.stderr) == (1, "winnow: output: No space left on device\n")


def test_output_in_another_encoding_is_still_json(winnow: Winnow) -> None:
    environment = winnow.environment() | {"PYTHONIOENCODING": "ascii"}
    shown, told = (
        subprocess.run(
            [sys.executable, "-m", "service.cli", "explain", "tickets", "tickets.jsonl:2", *options],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        for options in ([], ["--json"])
    )
    assert [(one.returncode, one.stderr) for one in (shown, told)] == [(0, ""), (0, "")]
    text = corpus.records()[1]["body"]
    assert json.loads(told.stdout)["text"] == text
    assert text.encode("ascii", "backslashreplace").decode() in shown.stdout
