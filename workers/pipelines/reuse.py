"""What an earlier run has done over the same shard by the same recipe is taken over, not done again.

Shards never change, and editing, measuring and embedding a shard depend on it and the recipe alone. So when files come
in day by day, only theirs are edited, measured and embedded; what depends on all records together (duplicates, ranks)
is done anew. The files taken over are those that the work would write again: the result is the same to the byte.
"""

from importlib.metadata import version as version_of
from typing import Any

import polars as pl
from sqlalchemy import select
from sqlalchemy.orm import Session

from catalog.store import StoredFile
from catalog.tables.datasets import Shard, Version
from catalog.tables.engine import Run, Unit
from curation.encoders import ENCODERS
from curation.recipe import Recipe
from workers import manifests
from workers.engine import UnitResult
from workers.execution import UnitContext
from workers.pipelines.outputs import entries, outputs_of


def base_of(session: Session, dataset_id: str, kind: str, asked: dict[str, Any]) -> dict[str, str]:
    """The run to take work over from, as part of a new run's config: the newest finished one asked for alike.

    Parameters
    ----------
    asked : what must be equal: the recipe's hash, and what else decides about a shard.

    Returns
    -------
    ``release``, so that another release does it anew, and ``builds_on``, a run's id, where there is one.
    """
    release = {"release": version_of("winnow")}
    wanted = asked | release
    query = select(Run).where(Run.dataset_id == dataset_id, Run.kind == kind, Run.state == "done")
    for run in session.scalars(query.order_by(Run.finished_at.desc()).limit(20)):
        if all(run.config.get(key) == value for key, value in wanted.items()):
            return release | {"builds_on": run.id}
    return release


def place_in_base(unit: UnitContext) -> tuple[str, int] | None:
    """The run to take over from, and the place there of the unit's text shard; None where it is new."""
    base = unit.claim.config.get("builds_on")
    own, index = entries(unit), unit.claim.payload["index"]
    if base is None or index >= len(own):
        return None
    with unit.catalog.read() as session:
        version = session.get_one(Version, session.get_one(Run, base).version_id)
        before = manifests.read(unit.store, version)["shards"]
    wanted = own[index]["data"]["sha256"]
    place = next((number for number, one in enumerate(before) if one["data"]["sha256"] == wanted), None)
    return None if place is None else (base, place)


def taken_over(unit: UnitContext) -> UnitResult | None:
    """What the same stage of the base run made of the unit's shard; None where it is to be done."""
    found = place_in_base(unit)
    if found is None:
        return None
    base, place = found
    with unit.catalog.read() as session:
        of_stage = (Unit.run_id == base, Unit.stage_name == unit.claim.stage_name, Unit.position == place)
        done = session.scalars(select(Unit).where(*of_stage)).one_or_none()
        if done is None or done.payload != unit.claim.payload | {"index": place}:
            return None
        written = session.scalars(select(Shard).where(Shard.unit_id == done.id).order_by(Shard.kind, Shard.position))
        shards = [
            (
                one.kind,
                StoredFile(name=one.name, sha256=one.sha256, size_bytes=one.size_bytes, num_rows=one.num_rows),
            )
            for one in written
        ]
    return UnitResult(result=done.result or {}, shards=shards)


def known_vectors(unit: UnitContext, recipe: Recipe) -> pl.DataFrame | None:
    """``id, vector`` of the records of the unit's shard that the base run embedded; None where there are none.

    Only of encoders whose vectors are the same bits whatever stands beside a text, and only where no step between
    measuring and embedding changes texts.
    """
    rewrites = recipe.substring is not None or (recipe.pii is not None and recipe.pii.replaces)
    found = None if rewrites or not ENCODERS[recipe.encoder].config().exact else place_in_base(unit)
    if found is None:
        return None
    base, place = found
    files = outputs_of(unit, base, "score", "embedding")
    return unit.store.read_frame(files[place])
