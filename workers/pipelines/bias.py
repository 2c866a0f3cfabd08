"""Balance among the records that stay, and counts of whom every rule removed, as parts of the stages of ``clean``."""

from dataclasses import dataclass, field
from typing import Any

import polars as pl
from sqlalchemy import select

from catalog.store import StoredFile
from catalog.tables.engine import Unit
from curation.balance import COLUMNS, REASON, balance, values_of
from curation.bias.gaps import count_mentions
from curation.bias.removal import count_removals
from curation.recipe import Recipe
from workers.execution import UnitContext
from workers.pipelines.outputs import entries, outputs

TOXICITY = ("toxicity", "toxic_term_count")
"""Measured values that gaps are told of, the first that a recipe has; of the count, whether it is above 0."""


@dataclass(frozen=True)
class Balanced:
    """What the step adds to its unit: a summary, and a file with the ids that left, a part each text shard."""

    result: dict[str, Any] = field(default_factory=dict)
    shards: list[tuple[str, StoredFile]] = field(default_factory=list)


def balanced(unit: UnitContext, recipe: Recipe, frames: list[pl.DataFrame]) -> tuple[list[pl.DataFrame], Balanced]:
    """Apply the recipe's ``balance`` to the records that stay.

    Parameters
    ----------
    frames : ``id`` and ``kept`` with other columns, one a text shard.

    Returns
    -------
    the frames with ``kept`` as it is now and ``weight``, and what the unit is to store.
    """
    step = recipe.balance
    if step is None:
        return [frame.with_columns(weight=pl.lit(1.0)) for frame in frames], Balanced()
    texts, measured = entries(unit), outputs(unit, "measure", "measured")
    parts = []
    for index, frame in enumerate(frames):
        if step.by in ("label", "source"):
            column = unit.store.read_frame(StoredFile.from_json(texts[index]["data"]), [step.by])
        else:
            column = unit.store.read_frame(measured[index], [step.by if step.by in COLUMNS else "identity"])
        parts.append(frame.select("id", "kept", value=values_of(column, step.by), shard=pl.lit(index)))
    records = pl.concat(parts).filter("kept").drop("kept")
    decided, table = balance(records["id"], records["value"], step)
    records = pl.concat([records.drop("value"), decided], how="horizontal")
    after, left = [], []
    for index, frame in enumerate(frames):
        own = records.filter(pl.col("shard") == index)
        joined = frame.drop("kept").join(own.select("id", "kept", "weight"), on="id", how="left", maintain_order="left")
        after.append(joined.with_columns(pl.col("kept").fill_null(value=False), pl.col("weight").fill_null(1.0)))
        left.append(own.filter(~pl.col("kept")).select("id"))
    return after, Balanced(result={"balance": table}, shards=[("surplus", unit.store.write_parts(left, "surplus"))])


def without_surplus(unit: UnitContext, index: int, ids: pl.Series, frame: pl.DataFrame) -> pl.DataFrame:
    """Verdicts of one shard with those that left for the sake of balance.

    Parameters
    ----------
    frame : ``kept``, ``reason`` and ``failed`` with other columns, in the order of ``ids``.
    """
    files = outputs(unit, "rank", "surplus")
    if not files:
        return frame
    gone = ids.is_in(unit.store.read_part(files[0], index)["id"].implode())
    reason = pl.when(gone).then(pl.lit(REASON))
    return frame.with_columns(
        kept=pl.col("kept") & ~gone,
        reason=pl.coalesce("reason", reason),
        failed=pl.concat_list("failed", reason).list.drop_nulls(),
    )


def counted(
    unit: UnitContext, index: int, measured: pl.DataFrame, verdicts: pl.DataFrame
) -> list[tuple[str, StoredFile]]:
    """Whom every rule removed of one shard, and how the records that mention a group differ, as two small files."""
    origin = unit.store.read_frame(StoredFile.from_json(entries(unit)[index]["data"]), ["source", "label"])
    if "identity" in measured.columns:
        identity = measured["identity"]
    else:
        identity = pl.Series("identity", [[]] * measured.height, dtype=pl.List(pl.String))
    records = pl.concat([verdicts.select("kept", "failed"), origin, measured.select("language")], how="horizontal")
    records = records.with_columns(identity=identity, toxicity=_toxicity(measured))
    return [
        ("removals", unit.store.write_frame(count_removals(records), "bias")),
        ("mentions", unit.store.write_frame(count_mentions(records), "bias")),
    ]


def _toxicity(measured: pl.DataFrame) -> pl.Series:
    name = next((one for one in TOXICITY if one in measured.columns), None)
    if name is None:
        return pl.Series("toxicity", [None] * measured.height, dtype=pl.Float64)
    values = measured[name]
    return values if name == TOXICITY[0] else (values > 0).cast(pl.Float64)


def summary(unit: UnitContext) -> dict[str, Any]:
    """What balance did, under ``balance``: the step and a row each value; nothing where there is no such step."""
    step = unit.claim.config["recipe"].get("balance")
    if step is None:
        return {}
    with unit.catalog.read() as session:
        query = select(Unit.result).where(Unit.run_id == unit.claim.run_id, Unit.stage_name == "rank")
        result = session.scalars(query).one() or {}
    return {"balance": {**step, "values": result["balance"]}}
