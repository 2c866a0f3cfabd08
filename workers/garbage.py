"""Files of the store that nobody refers to: of workers that lost a race, died, or wrote for a run that was given up."""

import re
import time
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import func, select

from catalog.database import Catalog
from catalog.errors import ConfigError, ConflictError
from catalog.objects import MARKER
from catalog.references import NAME, find_references
from catalog.store import PROBE, FoundFile, Store
from catalog.tables.engine import Run, Unit

DEFAULT_GRACE = timedelta(days=1)
MIN_GRACE = timedelta(hours=1)
CLOCKS_APART = timedelta(minutes=5)
"""How far the store's clock may be from the database's."""
HALF_WRITTEN = re.compile(
    rf"(?:.*/)?(?:\.[0-9a-f]{{64}}\.[A-Za-z0-9]+\.[0-9a-f]{{32}}\.tmp|{re.escape(PROBE)}[0-9a-f]{{32}})"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Garbage:
    """What was found.

    Parameters
    ----------
    orphans : old enough, ours, and referred to by nobody. removed : how many of them were deleted.
    num_young : unreferred to, but too young to judge. strangers : names of files that are not ours, never touched.
    before : only what was written before this moment (seconds since 1970) is judged.
    """

    num_files: int
    num_bytes: int
    orphans: list[FoundFile]
    removed: int
    num_young: int
    strangers: list[str]
    before: float

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return {
            "files": self.num_files,
            "bytes": self.num_bytes,
            "orphans": [{"name": one.name, "bytes": one.size_bytes} for one in self.orphans],
            "orphan_bytes": sum(one.size_bytes for one in self.orphans),
            "removed": self.removed,
            "young": self.num_young,
            "strangers": self.strangers,
        }


def collect(catalog: Catalog, *, grace: timedelta = DEFAULT_GRACE, delete: bool = False) -> Garbage:
    """Find files that nobody refers to, and delete them if asked to. Safe while everything works.

    A unit writes its files before it commits the rows that name them. So a file is judged only when it was written
    before every unit that is running now was claimed, and longer than ``grace`` ago; and as files are listed before
    the database is asked, and looked at once more when deleted, one that is written or written again meanwhile stays.

    Raises
    ------
    ConfigError : ``grace`` is below ``MIN_GRACE``. NotFoundError, CorruptionError : a manifest cannot be read.
    ConflictError : to be deleted from an object store while a run is under way.
    """
    if grace < MIN_GRACE:
        raise ConfigError(
            f"a grace of {grace / timedelta(hours=1):g} h must be at least {MIN_GRACE / timedelta(hours=1):g} h: "
            "commands write files a little before the rows that name them"
        )
    store = Store.of(catalog.settings)
    if delete:
        _check_quiet(catalog, store)
        store.mend()
    before = _cutoff(catalog, grace)
    found = [one for one in store.files() if one.name != MARKER]
    with catalog.read() as session:
        referred = find_references(session, store)
    ours = [one for one in found if NAME.fullmatch(one.name) or HALF_WRITTEN.fullmatch(one.name)]
    loose = [one for one in ours if one.name not in referred]
    orphans = sorted((one for one in loose if one.modified < before), key=lambda one: one.name)
    removed = sum(store.remove(one.name, before=before) for one in orphans) if delete else 0
    strangers = {one.name for one in found} - {one.name for one in ours}
    return Garbage(
        num_files=len(found),
        num_bytes=sum(one.size_bytes for one in found),
        orphans=orphans,
        removed=removed,
        num_young=len(loose) - len(orphans),
        strangers=sorted(strangers),
        before=before,
    )


def _check_quiet(catalog: Catalog, store: Store) -> None:
    """An object cannot be moved aside and looked at: one written between the look and the deletion would be lost."""
    if store.is_local:
        return
    with catalog.read() as session:
        running = session.scalar(select(Run.id).where(Run.state == "running").limit(1))
    if running is not None:
        raise ConflictError(
            f"run {running[:8]} is under way, and from an object store files are removed only while none is; wait for "
            "it: `winnow watch`"
        )


def _cutoff(catalog: Catalog, grace: timedelta) -> float:
    with catalog.read() as session:
        oldest = session.scalar(select(func.min(Unit.started_at)).where(Unit.state == "running"))
    before = time.time() - grace.total_seconds()
    return before if oldest is None else min(before, (oldest - CLOCKS_APART).timestamp())
