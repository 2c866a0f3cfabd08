"""What a cleaning run did to whom, read back from the counts that it left: no text is read again."""

from dataclasses import dataclass
from typing import Any

import polars as pl
from sqlalchemy import select
from sqlalchemy.orm import Session

from catalog.errors import NotFoundError
from catalog.store import Store
from catalog.tables.datasets import Dataset
from catalog.tables.engine import Run
from curation.bias.gaps import MENTION_SCHEMA, label_gaps, representation
from curation.bias.removal import COUNT_SCHEMA, disparities
from workers import manifests

MIN_PREFIX = 4


@dataclass(frozen=True, kw_only=True)
class Fairness:
    """Tables of one run: ``disparities``, ``representation`` and ``label_gaps`` of ``curation.bias``."""

    run: Run
    removals: pl.DataFrame
    groups: pl.DataFrame
    labels: pl.DataFrame

    def to_json(self) -> dict[str, Any]:
        """As one document."""
        return {
            "run": self.run.id,
            "recipe": self.run.config["recipe"]["name"],
            "removals": self.removals.to_dicts(),
            "groups": self.groups.to_dicts(),
            "label_gaps": self.labels.to_dicts(),
        }


def fairness(session: Session, store: Store, run: Run) -> Fairness:
    """The tables of a finished cleaning run.

    Raises
    ------
    NotFoundError : it left no counts, because it is no cleaning run, has not finished, or is older than they are.
    """
    removals = [store.read_frame(file) for file in manifests.run_files(session, run.id, "removals")]
    if run.kind != "clean" or run.state != "done" or not removals:
        raise NotFoundError(
            f"run {run.id[:8]} ({run.kind}, {run.state}) left no counts of whom it removed; only a finished "
            "`winnow clean` does: clean again"
        )
    mentions = [store.read_frame(file) for file in manifests.run_files(session, run.id, "mentions")]
    counted = pl.concat([pl.DataFrame(schema=MENTION_SCHEMA), *mentions])
    return Fairness(
        run=run,
        removals=disparities(pl.concat([pl.DataFrame(schema=COUNT_SCHEMA), *removals])),
        groups=representation(counted),
        labels=label_gaps(counted),
    )


def cleaning_run(session: Session, name: str) -> Run:
    """A cleaning run by its id, the first characters of it, or its dataset's name: then the newest that published.

    Raises
    ------
    NotFoundError : neither, or nothing was cleaned yet.
    """
    dataset = session.scalars(select(Dataset).where(Dataset.name == name)).one_or_none()
    if dataset is not None:
        version = manifests.require_version(session, dataset, "curated")
        return session.get_one(Run, version.run_id)
    found = session.scalars(select(Run).where(Run.id.startswith(name, autoescape=True)).limit(2)).all()
    if len(found) == 1 and len(name) >= MIN_PREFIX:
        return found[0]
    raise NotFoundError(
        f"there is no dataset {name!r}, nor one run whose id begins so; see `winnow datasets` and `winnow runs`"
    )
