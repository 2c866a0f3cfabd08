"""Running one claimed unit: heartbeat beside it, its result committed once, its failure recorded."""

import contextvars
import errno
import functools
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property

from sqlalchemy.orm import Session

from catalog import tracing
from catalog.database import Catalog
from catalog.errors import ServiceError, StoreAwayError, TransientError
from catalog.faults import fault
from catalog.logs import log_context, redacted, secrets_of
from catalog.store import Store
from catalog.tables.engine import Run, Unit
from workers import engine
from workers.engine import Claim, LostClaimError
from workers.memory import peak_bytes, release_memory, reset_peak
from workers.pipelines import PIPELINES
from workers.stopping import STOPPING
from workers.unit_log import UnitLogHandler, unit_log

log = logging.getLogger(__name__)
PROGRESS_SECONDS = 1.0
STORE_AWAY_SECONDS = 2.0
"""A worker whose store is away takes nothing else on for so long: it would stumble over the same."""


class StoppedError(Exception):
    """This process was asked to stop; the unit goes back unharmed."""


class UnitContext:
    """What a stage's work may use: the claim, the catalog to read, the store, and a way to report progress."""

    def __init__(self, catalog: Catalog, claim: Claim) -> None:
        self.catalog = catalog
        self.claim = claim
        self.num_done = 0
        self.num_total = 0
        self.shown_early: Callable[[Session], None] | None = None
        """Writes what people may see before the unit is done, each time its lease is renewed because it went on."""
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

    def lose(self) -> None:
        """Learn that the unit belongs to another worker now."""
        self._lost.set()

    def check(self) -> None:
        """Raise when the work is pointless or must stop; long loops call it often."""
        if self._lost.is_set():
            raise LostClaimError(f"unit {self.claim.unit_id} is not ours any more")
        if STOPPING.is_set():
            raise StoppedError

    @contextmanager
    def heartbeat(self, lines: UnitLogHandler) -> Iterator[None]:
        """Keep the lease alive, and what is logged written, from the process's heart while the body runs."""
        beat = _Beat(self, lines)
        _heart(min(PROGRESS_SECONDS, self.catalog.settings.heartbeat_seconds)).beats.append(beat)
        try:
            yield
        finally:
            beat.end()


class _Beat:
    """What the heart does for one unit."""

    def __init__(self, unit: UnitContext, lines: UnitLogHandler) -> None:
        self._unit, self._lines = unit, lines
        self._shown = (0, 0)
        self._last = time.monotonic()
        self._beating = threading.Lock()
        # That of the unit's own thread, so that log lines of the heart name the unit too.
        self._context = contextvars.copy_context()
        self.ended = False

    def end(self) -> None:
        """No more from here on; waits for one that is under way."""
        with self._beating:
            self.ended = True

    def beat(self) -> None:
        """Renew the lease if there is progress to show, or it is time."""
        with self._beating:
            if not self.ended:
                self._context.run(self._renew)

    def _renew(self) -> None:
        unit = self._unit
        now = (unit.num_done, unit.num_total)
        if now == self._shown and time.monotonic() - self._last < unit.catalog.settings.heartbeat_seconds:
            return
        try:
            fault("heartbeat.before")
            engine.renew(unit.catalog, unit.claim, *now, apply=unit.shown_early)
            fault("heartbeat.after")
        except LostClaimError:
            unit.lose()
            self.ended = True
            return
        except Exception:
            # Whatever it was: without its heartbeat a healthy unit would lose its lease and be charged for it.
            log.exception("heartbeat of unit %s failed, will try again", unit.claim.unit_id)
            return
        self._shown, self._last = now, time.monotonic()
        self._lines.flush_to(unit.catalog)


class _Heart(threading.Thread):
    """Beats for every unit of this process; started once, for starting a thread takes as long as a short unit."""

    def __init__(self, pause: float) -> None:
        super().__init__(name="heartbeat", daemon=True)
        self._pause = pause
        self.beats: deque[_Beat] = deque()

    def run(self) -> None:
        """Go round for ever."""
        while True:
            time.sleep(self._pause)
            for _ in range(len(self.beats)):
                beat = self.beats.popleft()
                beat.beat()
                if not beat.ended:
                    self.beats.append(beat)


@functools.cache
def _heart(pause: float) -> _Heart:
    heart = _Heart(pause)
    heart.start()
    return heart


def execute(catalog: Catalog, unit_id: str, owner: str) -> str:
    """Claim the unit, or one that comes before it, work and commit; return what became of it.

    Returns
    -------
    ``"nothing"`` (to take up: the message was late), ``"done"``, ``"lost"``, ``"stopped"`` or ``"failed"``.
    """
    if STOPPING.is_set():
        return "nothing"
    mine = engine.take(catalog, unit_id, owner)
    if mine is None:
        return "nothing"
    fault("claim.after_commit")
    with (
        log_context(run_id=mine.run_id, unit_id=mine.unit_id, stage=mine.stage_name),
        tracing.unit_span(
            mine.stage_name, mine.run_id, unit_id=mine.unit_id, epoch=mine.epoch, attempt=mine.attempts
        ) as span,
    ):
        began = time.monotonic()
        with unit_log(catalog, mine) as lines:
            outcome = _work(catalog, mine, lines)
        if span is not None:
            span.set_attribute("winnow.outcome", outcome)
            _trace_ended_run(catalog, mine)
        log.info("unit %s after %.3f s, attempt %d", outcome, time.monotonic() - began, mine.attempts)
    return outcome


def _trace_ended_run(catalog: Catalog, mine: Claim) -> None:
    """Send the run's own span if this unit was the one that ended it: the two then ended in one transaction."""
    with catalog.read() as session:
        run = session.get_one(Run, mine.run_id)
        if run.finished_at is not None and run.finished_at == session.get_one(Unit, mine.unit_id).finished_at:
            tracing.run_span(run.kind, run.id, run.state, run.created_at, run.finished_at)


def _work(catalog: Catalog, mine: Claim, lines: UnitLogHandler) -> str:
    context = UnitContext(catalog, mine)
    stage = PIPELINES[mine.run_kind].member.stages[mine.stage]
    try:
        with context.heartbeat(lines):
            release_memory()
            reset_peak()
            fault("work.before")
            outcome = stage.work(context)
            fault("work.after")
            # Stages tell where they are before a step: who is done has done all of it.
            total = max(context.num_done, context.num_total)
            fault("commit.before")
            engine.commit(catalog, mine, outcome, num_done=total, num_total=total, peak_bytes=peak_bytes())
            fault("commit.after")
    except LostClaimError as lost:
        log.warning("%s", lost)
        return "lost"
    except StoppedError:
        return _give_back(catalog, mine)
    except StoreAwayError as away:
        log.warning("unit %s (%s) goes back: %s", mine.unit_id, mine.stage_name, away)
        outcome_of_it = _give_back(catalog, mine)
        STOPPING.wait(STORE_AWAY_SECONDS)
        return outcome_of_it
    except ServiceError as error:
        log.error("%s", error)
        _record_failure(catalog, mine, f"{error}", retry=isinstance(error, TransientError))
        return "failed"
    except Exception as error:
        # A stage's bug must become a reason on the unit, not a dead worker.
        log.exception("unit failed")
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
    # It is shown to everybody, and a driver's error may quote an address with its password.
    reason = redacted(reason, secrets_of(catalog.settings))
    try:
        engine.fail(catalog, mine, reason, retry=retry)
    except LostClaimError as lost:
        log.warning("%s", lost)
