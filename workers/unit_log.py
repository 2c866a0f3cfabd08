"""What is logged while a unit is worked on, kept with it in the database: the logs of workers lie on many machines."""

import logging
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from sqlalchemy import insert

from catalog.database import Catalog
from catalog.errors import ServiceError
from catalog.tables.engine import UnitLog
from workers.engine import Claim

LOGGERS = ("catalog", "curation", "labeling", "training", "workers")
MAX_LINES = 2_000
"""Of one attempt; a loop that complains about every record must not fill the database."""
MAX_CHARS = 4_000
log = logging.getLogger(__name__)


class UnitLogHandler(logging.Handler):
    """Collects lines until they are written with ``flush_to``."""

    def __init__(self, claim: Claim) -> None:
        super().__init__(logging.INFO)
        self._claim = claim
        self._lines: list[dict[str, object]] = []
        self._num_seen = 0
        self._lines_lock = threading.Lock()

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one line, with the traceback of its exception."""
        message = record.getMessage()
        if record.exc_info and record.exc_info[1] is not None:
            # The innermost calls, which say most, stand last.
            trace = "".join(traceback.format_exception(record.exc_info[1]))
            message = f"{message}\n{trace[-MAX_CHARS:]}"
        with self._lines_lock:
            self._num_seen += 1
            if self._num_seen > MAX_LINES:
                return
            if self._num_seen == MAX_LINES:
                message = f"{MAX_LINES:,} lines were logged; further ones are only in the worker's own log"
            at = datetime.fromtimestamp(record.created, UTC)
            self._lines.append({"at": at, "level": record.levelname, "message": message[: 2 * MAX_CHARS]})

    def flush_to(self, catalog: Catalog) -> None:
        """Write what has come since the last time. Trouble of the database costs lines, never the unit."""
        with self._lines_lock:
            lines, self._lines = self._lines, []
        if not lines:
            return
        mine = self._claim
        about = {"run_id": mine.run_id, "unit_id": mine.unit_id, "epoch": mine.epoch, "worker": mine.owner}
        try:
            with catalog.write() as session:
                session.execute(insert(UnitLog), [line | about for line in lines])
        except ServiceError as error:
            log.warning("%d lines of the log of unit %s are lost: %s", len(lines), mine.unit_id, error)


@contextmanager
def unit_log(catalog: Catalog, claim: Claim) -> Iterator[UnitLogHandler]:
    """Collect what this process logs while the body runs: a worker does one unit at a time."""
    handler = UnitLogHandler(claim)
    loggers = [logging.getLogger(name) for name in LOGGERS]
    for logger in loggers:
        logger.addHandler(handler)
    try:
        yield handler
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
        handler.flush_to(catalog)
