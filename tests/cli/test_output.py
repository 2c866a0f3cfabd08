"""What all commands share: help, JSON alone on stdout, nothing that a terminal would obey."""

import json
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from curation.recipe import preset_names as cleaning_presets
from labeling.strategies import STRATEGIES
from tests.cli import corpus
from tests.cli.command import Winnow
from tests.cli.conftest import Prepared
from training.recipe import preset_names as training_presets

pytestmark = pytest.mark.xdist_group("cli")

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
    "label create",
    "label list",
    "label simulate",
]
NOT_OF_A_TERMINAL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


@pytest.fixture(scope="module")
def help_of(prepared: Prepared) -> dict[str, str]:
    """The help of every command, and of the groups."""

    def ask(command: str) -> str:
        done = prepared.winnow(*command.split(), "--help")
        assert (done.code, done.err) == (0, "")
        return done.out

    with ThreadPoolExecutor(3) as pool:
        return dict(zip(["", "label", *COMMANDS], pool.map(ask, ["", "label", *COMMANDS]), strict=True))


def test_every_command_is_listed_and_describes_itself_and_every_argument(help_of: dict[str, str]) -> None:
    listed = re.findall(r"^  ([a-z]+)  +\S", help_of[""].split("Commands:")[1], re.MULTILINE)
    assert sorted({*listed}) == sorted({command.split()[0] for command in COMMANDS})
    listed = re.findall(r"^  ([a-z]+)  +\S", help_of["label"].split("Commands:")[1], re.MULTILINE)
    assert sorted(listed) == ["create", "list", "simulate"]
    for command in COMMANDS:
        assert "--json" in help_of[command]
        arguments = (
            help_of[command].split("Arguments:")[1].split("Options:")[0] if "Arguments:" in help_of[command] else ""
        )
        for line in arguments.strip().splitlines():
            assert len(line.replace("[required]", "").split()) > 3, (command, line)


def test_help_names_every_preset_and_strategy(help_of: dict[str, str]) -> None:
    for command, names in (
        ("clean", cleaning_presets()),
        ("train", training_presets()),
        ("label create", list(STRATEGIES)),
        ("label simulate", list(STRATEGIES)),
    ):
        text = " ".join(help_of[command].split()).replace("- ", "-")
        assert [name for name in names if name not in text] == []


def test_command_without_arguments_shows_its_help(winnow: Winnow) -> None:
    for arguments in ([], ["label"]):
        done = winnow(*arguments)
        assert done.code == 2
        assert done.err.startswith("Usage: ")


def test_lists_are_json_alone_on_stdout(winnow: Winnow) -> None:
    for arguments in (["datasets"], ["runs"], ["label", "list", "tickets"]):
        assert {"name": type(winnow.ok(*arguments)).__name__} == {"name": "list"}
    assert set(winnow.ok("rejected", "tickets")) == {"total", "rows"}


def test_error_leaves_stdout_empty_under_json(winnow: Winnow) -> None:
    done = winnow("report", "nothing", "--json")
    assert (done.code, done.out) == (2, "")
    assert len(done.err.splitlines()) == 1


def test_control_characters_of_a_record_never_reach_the_terminal(prepared: Prepared, tmp_path: Path) -> None:
    line = f"tickets.jsonl:{corpus.NUM_PLAIN}"
    shown = prepared.winnow("explain", "tickets", line)
    assert "terminal �[31mred�[0m and �2J and � bell and � delete" in shown.out
    told = prepared.winnow("explain", "tickets", line, "--json")
    assert told.json["text"] == corpus.ESCAPES
    # A label, a file name and a message are no better than a text.
    path = tmp_path / "es\x1bcape.jsonl"
    corpus.write_jsonl(path, [{"body": "first line\nverdict  kept", "queue": "evil\x1b[2Jlabel"}, {"queue": "no text"}])
    ingested = prepared.winnow("ingest", path, "--dataset", "escapes", "--text", "body", "--label", "queue")
    refused = prepared.winnow("ingest", tmp_path / "no\x1bne.jsonl", "--dataset", "escapes", "--text", "body")
    story = prepared.winnow("explain", "escapes", f"{path.name}:1")
    listed = prepared.winnow("rejected", "escapes")
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
