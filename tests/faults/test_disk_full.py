"""A disk that is full, under the shards, the database or the temporary files: told with a reason, and gone on from."""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from catalog.errors import TransientError
from tests.faults.conftest import NUM_BROKEN, NUM_FILES, NUM_RECORDS
from tests.faults.world import World

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 and "CI" not in os.environ, reason="mounting a small filesystem needs root"
)
FREE = "free space, then run the same command"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A filesystem of 8 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)], check=True)
    yield folder
    # Celery keeps the connection to the message file of a home there for as long as the process lives.
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(disk: Path) -> Path:
    """Take all that is left; the file that does."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        size = 2**20
        while size:
            try:
                file.write(bytes(size))
            except OSError:
                size //= 2
    return filler


def check(world: World, undisturbed: dict[str, Any]) -> None:
    world.check(NUM_FILES * NUM_RECORDS, NUM_FILES * NUM_BROKEN)
    assert world.outcome() == undisturbed


@pytest.mark.parametrize("place", ["sqlite+embedded", "postgresql+redis"])
def test_store_without_space_fails_the_run_which_then_goes_on(
    disk: Path, new_world: Callable[..., World], corpus: list[str], undisturbed: dict[str, Any], place: str
) -> None:
    (disk / "store").mkdir()
    world = new_world(place, store_url=f"file://{disk / 'store'}", max_attempts=2)
    with world.workers():
        world.wait_for(ingest := world.ask_ingest(corpus))
        filler = fill(disk)
        judge = world.ask_judge()
        world.relay()
        failed = world.wait_until_ended(judge)
        assert failed.state == "failed"
        assert failed.reason is not None
        assert failed.reason.startswith("judge: no space left for ")
        assert failed.reason.endswith(FREE)
        filler.unlink()
        assert world.ask_judge() == judge != ingest
        world.relay()
        world.wait_for(judge)
    check(world, undisturbed)
    world.close()


def test_temporary_files_without_space_fail_the_run_which_then_goes_on(
    disk: Path, new_world: Callable[..., World], corpus: list[str], undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    (disk / "home").mkdir()
    (tmp_path / "store").mkdir()
    world = new_world("postgresql+redis", store_url=f"file://{tmp_path / 'store'}", max_attempts=2)
    with world.workers(home=disk / "home"):
        filler = fill(disk)
        ingest = world.ask_ingest(corpus)
        world.relay()
        failed = world.wait_until_ended(ingest)
        assert (failed.state, failed.reason) == ("failed", f"identify: no space left on device; {FREE}")
        filler.unlink()
        assert world.ask_ingest(corpus) == ingest
        world.relay()
        world.wait_for(ingest)
        judge = world.ask_judge()
        world.relay()
        world.wait_for(judge)
    check(world, undisturbed)


def test_database_without_space_keeps_nothing_half_and_goes_on_by_itself(
    disk: Path, new_world: Callable[..., World], corpus: list[str], undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "store").mkdir()
    world = new_world("sqlite+embedded", folder=disk / "world", store_url=f"file://{tmp_path / 'store'}")
    ingest = world.ask_ingest(corpus)
    world.relay()
    (tmp_path / "worker.log").touch()
    (disk / "world" / "worker.log").symlink_to(tmp_path / "worker.log")
    filler = fill(disk)
    with world.workers():
        with pytest.raises(TransientError, match=f"the database's disk is full .*; {FREE}"):
            for number in range(100):
                other = tmp_path / f"other-{number}.jsonl"
                other.write_text('{"body": "another text"}\n')
                world.ask_ingest([str(other)])
        world.wait_until(lambda: "disk is full" in world.logs())
        filler.unlink()
        world.wait_for(ingest)
        judge = world.ask_judge()
        world.relay()
        world.wait_for(judge)
    check(world, undisturbed)
    world.close()
