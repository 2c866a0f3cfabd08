"""Running one claimed unit: heartbeat beside it, its result committed once, its failure recorded."""

import errno
import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property

from catalog.database import Catalog
from catalog.errors import ServiceError, TransientError
from catalog.faults import fault
from catalog.store import Store
from workers import engine
from workers.engine import Claim, LostClaimError
from workers.memory import peak_bytes, release_memory, reset_peak
from workers.pipelines import PIPELINES
from workers.stopping import STOPPING

log = logging.getLogger(__name__)
PROGRESS_SECONDS = 1.0


class StoppedError(Exception):
    """This process was asked to stop; the unit goes back unharmed."""


class UnitContext:
    """What a stage's work may use: the claim, the catalog to read, the store, and a way to report progress."""

    def __init__(self, catalog: Catalog, claim: Claim) -> None:
        self.catalog = catalog
        self.claim = claim
        self.num_done = 0
        self.num_total = 0
        self._lost = threading.Event()

    @cached_property
    def store(self) -> Store:
        """The shard store."""
        return Store.of(self.catalog.settings)

    def progress(self, num_done: int, num_total: int) -> None:
        """Report progress in the stage's own counts, and learn whether to go on.

        Raises
        ------
        LostClaimError : the unit belongs to another worker now.
        StoppedError : this process must stop.
        """
        self.num_done, self.num_total = num_done, num_total
        self.check()

    def check(self) -> None:
        """Raise when the work is pointless or must stop; long loops call it often."""
        if self._lost.is_set():
            raise LostClaimError(f"unit {self.claim.unit_id} is not ours any more")
        if STOPPING.is_set():
            raise StoppedError

    @contextmanager
    def heartbeat(self) -> Iterator[None]:
        """Keep the lease alive from a thread of its own while the body runs."""
        done = threading.Event()
        thread = threading.Thread(target=self._beat, args=(done,), name="heartbeat", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def _beat(self, done: threading.Event) -> None:
        pause = min(PROGRESS_SECONDS, self.catalog.settings.heartbeat_seconds)
        shown = (0, 0)
        last = time.monotonic()
        while not done.wait(pause):
            now = (self.num_done, self.num_total)
            if now == shown and time.monotonic() - last < self.catalog.settings.heartbeat_seconds:
                continue
            try:
                fault("heartbeat.before")
                engine.renew(self.catalog, self.claim, *now)
                fault("heartbeat.after")
            except LostClaimError:
                self._lost.set()
                return
            except Exception:
                # Whatever it was: without its heartbeat a healthy unit would lose its lease and be charged for it.
                log.exception("heartbeat of unit %s failed, will try again", self.claim.unit_id)
                continue
            shown, last = now, time.monotonic()


def execute(catalog: Catalog, unit_id: str, owner: str) -> str:
    """Claim, work and commit one unit; return what became of it.

    Returns
    -------
    ``"nothing"`` (not claimable: repeated or late message), ``"done"``, ``"lost"``, ``"stopped"`` or ``"failed"``.
    """
    if STOPPING.is_set():
        return "nothing"
    mine = engine.claim(catalog, unit_id, owner)
    if mine is None:
        return "nothing"
    fault("claim.after_commit")
    context = UnitContext(catalog, mine)
    stage = PIPELINES[mine.run_kind].member.stages[mine.stage]
    try:
        with context.heartbeat():
            release_memory()
            reset_peak()
            fault("work.before")
            outcome = stage.work(context)
            fault("work.after")
            done, total = context.num_done, context.num_total
            fault("commit.before")
            engine.commit(catalog, mine, outcome, num_done=done, num_total=total, peak_bytes=peak_bytes())
            fault("commit.after")
    except LostClaimError as lost:
        log.warning("%s", lost)
        return "lost"
    except StoppedError:
        return _give_back(catalog, mine)
    except ServiceError as error:
        _record_failure(catalog, mine, f"{error}", retry=isinstance(error, TransientError))
        return "failed"
    except Exception as error:
        # A stage's bug must become a reason on the unit, not a dead worker.
        log.exception("unit %s (%s) failed", mine.unit_id, mine.stage_name)
        _record_failure(catalog, mine, _told(error), retry=True)
        return "failed"
    return "done"


def _told(error: Exception) -> str:
    """What people are told of an error that nobody foresaw."""
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return "no space left on device; free space, then run the same command"
    return f"{type(error).__name__}: {error}"


def _give_back(catalog: Catalog, mine: Claim) -> str:
    try:
        engine.give_back(catalog, mine)
    except LostClaimError as lost:
        log.warning("%s", lost)
        return "lost"
    return "stopped"


def _record_failure(catalog: Catalog, mine: Claim, reason: str, *, retry: bool) -> None:
    try:
        engine.fail(catalog, mine, reason, retry=retry)
    except LostClaimError as lost:
        log.warning("%s", lost)
