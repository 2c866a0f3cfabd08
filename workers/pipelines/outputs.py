"""What the stages of a run hand to each other: shards, found by the name of the stage that wrote them."""

from typing import Any

from sqlalchemy import select

from catalog.store import StoredFile
from catalog.tables.datasets import Version
from catalog.tables.engine import Unit
from workers import manifests
from workers.execution import UnitContext

INHERITED = ("measure", "count")
"""Stages whose outputs depend on the texts alone, not on what a recipe decides about them."""


def entries(unit: UnitContext) -> list[dict[str, Any]]:
    """The text shards of the version that the run reads, in the manifest's order."""
    with unit.catalog.read() as session:
        version = session.get_one(Version, unit.claim.version_id)
        found: list[dict[str, Any]] = manifests.read(unit.store, version)["shards"]
    return found


def outputs(unit: UnitContext, stage: str, kind: str) -> list[StoredFile]:
    """The shards of one kind that an earlier stage's units left, in the order of the units.

    A run that measures nothing itself has what the run of its ``of`` measured.
    """
    inherits = stage in INHERITED and "of" in unit.claim.config
    return outputs_of(unit, unit.claim.config["of"] if inherits else unit.claim.run_id, stage, kind)


def outputs_of(unit: UnitContext, run_id: str, stage: str, kind: str) -> list[StoredFile]:
    """The shards that a stage of another run left."""
    with unit.catalog.read() as session:
        units = session.scalars(
            select(Unit.id).where(Unit.run_id == run_id, Unit.stage_name == stage).order_by(Unit.position)
        ).all()
        return [file for unit_id in units for file in manifests.unit_files(session, unit_id, kind)]
