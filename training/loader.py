"""What a rank reads, fetched ahead: threads change when a batch is made, never which."""

import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Generic, Self, TypeVar

from catalog.errors import ConfigError
from training.stream import Stream, rank_share

T = TypeVar("T")


class Loader(Generic[T]):
    """The batches of one rank from a step on, in order.

    Parameters
    ----------
    stream : says which records.
    fetch : makes a batch of row numbers and the step it is for; called in threads, several at once where there are
        several workers.
    start_step : the first step asked for.
    rank, world_size : whose share of every global batch.
    num_workers : threads that fetch ahead; 0 fetches when asked.
    depth : batches that are fetched ahead.

    Attributes
    ----------
    wait_seconds : time that ``take`` spent waiting for a batch.
    """

    def __init__(
        self,
        stream: Stream,
        fetch: Callable[[list[int], int], T],
        *,
        start_step: int = 0,
        rank: int = 0,
        world_size: int = 1,
        num_workers: int = 1,
        depth: int = 2,
    ) -> None:
        if num_workers < 0:
            raise ConfigError(f"num_workers={num_workers} must be 0 or more")
        if depth < 1:
            raise ConfigError(f"depth={depth} must be at least 1")
        self._stream, self._fetch, self._rank, self._world_size = stream, fetch, rank, world_size
        self._next, self._depth = start_step, depth
        self._pool = ThreadPoolExecutor(num_workers, thread_name_prefix="loader") if num_workers else None
        self._ahead: deque[Future[T]] = deque()
        self.wait_seconds = 0.0

    def take(self) -> T:
        """The batch of the next step; whatever ``fetch`` raised is raised here.

        Raises
        ------
        ConfigError : the run has no further step, or the rank no share of a batch.
        """
        started = time.perf_counter()
        if self._pool is None:
            batch = self._made(self._stream, self._next)
        else:
            self._fill(self._pool)
            batch = self._ahead.popleft().result() if self._ahead else self._made(self._stream, self._next)
        self._next += 1
        self.wait_seconds += time.perf_counter() - started
        if self._pool is not None:
            self._fill(self._pool)
        return batch

    def revise(self, stream: Stream) -> None:
        """Go on with another stream: what was fetched ahead of the old one is thrown away."""
        for one in self._ahead:
            one.cancel()
        self._ahead.clear()
        self._stream = stream

    def close(self) -> None:
        """End the threads; what they are at is finished first."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _fill(self, pool: ThreadPoolExecutor) -> None:
        while len(self._ahead) < self._depth and self._next + len(self._ahead) < self._stream.total_steps:
            self._ahead.append(pool.submit(self._made, self._stream, self._next + len(self._ahead)))

    def _made(self, stream: Stream, step: int) -> T:
        return self._fetch(rank_share(stream.batch(step), self._rank, self._world_size).tolist(), step)
