"""Acts that arrive in the same moment are done in one transaction: one commit, one flush of the disk, for all of them.

While one batch is under way the next one gathers, so a lone request waits for nobody, and a crowd is served in about as
many statements as one of it. A batch that fails as a whole is done again one by one: nobody's fault is another's error.
"""

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, NamedTuple, TypeVar

MAX_TOGETHER = 64

Act = TypeVar("Act")
Outcome = TypeVar("Outcome")
Do = Callable[[Hashable, Sequence[Act], Callable[[], None]], Sequence[Outcome | Exception]]


class _Waiting(NamedTuple, Generic[Act, Outcome]):
    kind: Hashable
    who: Hashable
    act: Act
    loop: asyncio.AbstractEventLoop
    future: "asyncio.Future[Outcome]"


class _Turn:
    """Held from the beginning, and given up once."""

    def __init__(self, lock: threading.Lock) -> None:
        self._lock = lock
        self._is_held = lock.acquire()

    def end(self) -> None:
        if self._is_held:
            self._is_held = False
            self._lock.release()


class Together(Generic[Act, Outcome]):
    """Gathers acts, does them in threads of its own, and tells everybody the outcome.

    Parameters
    ----------
    do : does acts of one kind, each of somebody else, and returns their outcomes in order; an outcome that is an
        exception is raised where its act was asked for. It is given a function to call once the next batch may begin,
        for which it waits no longer than until this one has returned.
    num_threads : batches under way at once, all but one of which have called that function.
    """

    def __init__(self, name: str, do: Do[Act, Outcome], *, num_threads: int) -> None:
        self._do = do
        self._turn = threading.Lock()
        self._executor = ThreadPoolExecutor(num_threads, thread_name_prefix=name)
        self._num_threads = num_threads
        self._lock = threading.Lock()
        self._waiting: deque[_Waiting[Act, Outcome]] = deque()
        self._num_busy = 0

    async def ask(self, act: Act, *, kind: Hashable = None, who: Hashable = None) -> Outcome:
        """Do this, with others that came at the same time.

        Parameters
        ----------
        kind : only acts of one kind are done together.
        who : two acts of one person are never in one batch; None is nobody.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Outcome] = loop.create_future()
        with self._lock:
            self._waiting.append(_Waiting(kind, who, act, loop, future))
            is_needed = self._num_busy < self._num_threads
            self._num_busy += is_needed
        if is_needed:
            self._executor.submit(self._work)
        return await future

    def _work(self) -> None:
        while True:
            turn = _Turn(self._turn)
            try:
                batch = self._next_batch()
                if not batch:
                    return
                outcomes = self._outcomes(batch, turn.end)
            finally:
                turn.end()
            for one, outcome in zip(batch, outcomes, strict=True):
                # Whoever asked may have ended with all of its loop; the others are still told, and served.
                with contextlib.suppress(RuntimeError):
                    one.loop.call_soon_threadsafe(_tell, one.future, outcome)

    def _next_batch(self) -> "list[_Waiting[Act, Outcome]]":
        """Those who have waited longest and go together; none: then this thread has ended its work."""
        with self._lock:
            batch: list[_Waiting[Act, Outcome]] = []
            left: list[_Waiting[Act, Outcome]] = []
            people = set()
            while self._waiting and len(batch) < MAX_TOGETHER:
                one = self._waiting.popleft()
                if batch and (one.kind != batch[0].kind or one.who in people):
                    left.append(one)
                    continue
                batch.append(one)
                if one.who is not None:
                    people.add(one.who)
            self._waiting.extendleft(reversed(left))
            if not batch:
                self._num_busy -= 1
            return batch

    def _outcomes(
        self, batch: "list[_Waiting[Act, Outcome]]", end_turn: Callable[[], None]
    ) -> Sequence[Outcome | Exception]:
        acts = [one.act for one in batch]
        try:
            return self._do(batch[0].kind, acts, end_turn)
        except Exception as error:  # noqa: BLE001 - it is raised where the act was asked for
            if len(batch) == 1:
                return [error]
        found: list[Outcome | Exception] = []
        for act in acts:
            try:
                found.extend(self._do(batch[0].kind, [act], end_turn))
            except Exception as error:  # noqa: BLE001 - as above
                found.append(error)
        return found


def _tell(future: "asyncio.Future[Outcome]", outcome: Outcome | Exception) -> None:
    if future.done():
        # Whoever asked has gone away.
        return
    if isinstance(outcome, Exception):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)
