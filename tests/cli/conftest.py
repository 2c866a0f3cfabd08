"""One home folder with everything in it, made once by the commands themselves, with ``winnow up`` running on it."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.cli import corpus
from tests.cli.command import TIMEOUT_SECONDS, Winnow
from tests.servers import free_port


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A running home, the files it was made of, and what its commands answered."""

    winnow: Winnow
    folder: Path
    url: str
    recipe: Path
    cleaned: dict[str, Any]

    @property
    def tickets(self) -> Path:
        """The file of the dataset ``tickets``: line n is record n of the corpus."""
        return self.folder / "tickets.jsonl"


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory, encoder_cache: Path) -> Iterator[Prepared]:
    """``tickets`` ingested and cleaned, and ``winnow up`` still running."""
    folder = tmp_path_factory.mktemp("cli")
    if "PYTEST_XDIST_WORKER" in os.environ:
        # One for all processes: they are not to prepare one each (tests.distribution).
        tmp_path_factory.getbasetemp().with_name("prepared").touch(exist_ok=False)
    winnow = Winnow(folder / "home", port=free_port(), num_workers=1)
    winnow.ok("init")
    (winnow.home / "models").symlink_to(encoder_cache)
    # By the file rather than the environment, so that the workers have it whoever starts them.
    (winnow.home / "winnow.toml").write_text("max_line_bytes = 2048\n")
    up = winnow.start("up", "--json")
    try:
        assert up.stdout is not None
        started = json.loads(up.stdout.readline())
        tickets = corpus.write_jsonl(folder / "tickets.jsonl", corpus.records())
        recipe = folder / "tiny.yaml"
        recipe.write_text(corpus.RECIPE)
        ingested = winnow.ok("ingest", tickets, "--dataset", "tickets", "--text", "body", "--label", "queue")
        assert ingested["records"] == corpus.NUM_RECORDS
        cleaned = winnow.ok("clean", "tickets", "--recipe", recipe)
        yield Prepared(winnow=winnow, folder=folder, url=started["url"], recipe=recipe, cleaned=cleaned)
    finally:
        up.send_signal(signal.SIGINT)
        try:
            up.communicate(timeout=TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            up.kill()
            raise


@pytest.fixture(scope="session")
def rehearsed(prepared: Prepared) -> dict[str, Any]:
    """A small rehearsal of labeling ``tickets``."""
    options = ["--oracle", "queue", "--rounds", "2", "--per-round", "10"]
    answer: dict[str, Any] = prepared.winnow.ok("label", "simulate", "tickets", *options)
    return answer


@pytest.fixture
def winnow(prepared: Prepared) -> Winnow:
    """The command on the prepared home."""
    return prepared.winnow


@pytest.fixture
def fresh(tmp_path: Path) -> Winnow:
    """The command on a home folder that does not exist yet."""
    return Winnow(tmp_path / "home")
