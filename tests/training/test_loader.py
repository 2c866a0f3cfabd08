"""However a run is cut into processes, threads and attempts, the same records come in the same order."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalog.errors import ConfigError
from tests.training.test_stream import LENGTHS, manifest, revised, stream
from training.loader import Loader
from training.stream import Stream

STREAMS = {
    "linear": stream("linear"),
    "by length": stream("root", lengths=LENGTHS, length_window=4),
    "weighted": stream("random", manifest=manifest(100, weight=[1.0, 3.0] * 50)),
    "revised": revised(),
}
UNBROKEN = {name: [one.batch(step).tolist() for step in range(50)] for name, one in STREAMS.items()}

attempts = st.lists(
    st.tuples(st.integers(1, 4), st.integers(0, 3), st.integers(1, 3), st.integers(1, 20)), min_size=1, max_size=6
)
"""World size, threads, depth, and steps until the attempt is cut off."""


@settings(max_examples=20)
@given(name=st.sampled_from(sorted(STREAMS)), plan=attempts)
def test_any_cuts_worlds_and_threads_give_the_same_order(name: str, plan: list[tuple[int, int, int, int]]) -> None:
    done: list[list[int]] = []
    for world_size, num_workers, depth, num_steps in [*plan, (3, 1, 2, 50)]:
        split = {"world_size": world_size, "num_workers": num_workers, "depth": depth}
        shares = [read(STREAMS[name], len(done), num_steps, split | {"rank": rank}) for rank in range(world_size)]
        done += joined(shares, world_size)
    assert done == UNBROKEN[name]


def as_they_are(rows: list[int], step: int) -> list[int]:
    """A batch is its row numbers, and says which step it was made for."""
    assert step in range(50)
    return rows


def read(one: Stream, start: int, limit: int, split: dict[str, int]) -> list[list[int]]:
    """What a rank gets from a step on, until it is cut off."""
    with Loader(one, as_they_are, start_step=start, **split) as loader:
        return [loader.take() for _ in range(min(limit, 50 - start))]


def test_batches_fetched_ahead_of_a_revision_are_fetched_again() -> None:
    late = revised()
    with Loader(stream("random"), as_they_are, num_workers=2, depth=5) as loader:
        got = [loader.take() for _ in range(20)]
        loader.revise(late)
        got += [loader.take() for _ in range(30)]
    assert got == UNBROKEN["revised"]


def test_slow_batches_are_waited_for_and_ready_ones_are_not() -> None:
    made: list[int] = []

    def slow(rows: list[int], step: int) -> list[int]:
        time.sleep(0.1)
        made.append(len(rows))
        return rows

    with Loader(STREAMS["linear"], slow, num_workers=0) as loader:
        for _ in range(3):
            loader.take()
        assert loader.wait_seconds >= 0.3
    made.clear()
    with Loader(STREAMS["linear"], slow, num_workers=1, depth=4) as loader:
        loader.take()
        waited = loader.wait_seconds
        while len(made) < 5:  # the step
            time.sleep(0.01)
        for _ in range(4):
            loader.take()
        # Four batches that had to be made would have been waited for four times as long, on any machine.
        assert loader.wait_seconds - waited < 0.2


@pytest.mark.parametrize("num_workers", [0, 2])
def test_what_fetching_raises_is_raised_where_the_batch_is_taken(num_workers: int) -> None:
    def broken(rows: list[int], step: int) -> list[int]:
        raise ValueError(f"{len(rows)} rows")

    with (
        Loader(STREAMS["linear"], broken, num_workers=num_workers) as loader,
        pytest.raises(ValueError, match="10 rows"),
    ):
        loader.take()


def test_taking_more_than_there_is_and_impossible_counts_are_refused() -> None:
    with Loader(STREAMS["linear"], as_they_are, start_step=49) as loader:
        loader.take()
        with pytest.raises(ConfigError, match=r"step=50 must lie in \[0, 49\]"):
            loader.take()
    with pytest.raises(ConfigError, match="num_workers=-1 must be 0 or more"):
        Loader(STREAMS["linear"], as_they_are, num_workers=-1)
    with pytest.raises(ConfigError, match="depth=0 must be at least 1"):
        Loader(STREAMS["linear"], as_they_are, depth=0)


RANK = """
import json, sys
from tests.training.test_stream import revised
from training.loader import Loader
loader = Loader(revised(), lambda rows, step: rows, rank=int(sys.argv[1]), world_size=2)
for _ in range(50):
    print(json.dumps(loader.take()), flush=True)
    input()
"""


def test_ranks_killed_between_steps_are_gone_on_from_in_another_world() -> None:
    """Two processes are killed after another number of steps; what both finished is all that is known of them."""
    shares = [killed([sys.executable, "-c", RANK, str(rank)], num_steps) for rank, num_steps in ((0, 7), (1, 9))]
    done = list(joined(shares, 2))
    assert len(done) == 7
    threads = {"world_size": 3, "num_workers": 2, "depth": 3}
    done += joined([read(revised(), 7, 50, threads | {"rank": rank}) for rank in range(3)], 3)
    assert done == UNBROKEN["revised"]


def joined(shares: list[list[list[int]]], world_size: int) -> Iterator[list[int]]:
    """Global batches of the steps that every rank finished."""
    for batch in zip(*shares, strict=False):
        whole = np.empty(10, dtype=np.int64)
        for rank, share in enumerate(batch):
            whole[rank::world_size] = share
        yield whole.tolist()


def killed(command: list[str], num_steps: int) -> list[list[int]]:
    """What a rank read before it was killed."""
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("\n" * (num_steps - 1))
        process.stdin.flush()
        read_ = [json.loads(process.stdout.readline()) for _ in range(num_steps)]
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    return read_
