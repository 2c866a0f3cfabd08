"""Edits: steps of a recipe that change texts before anything is measured, in the recipe's order.

A member is ``(texts: pl.Series) -> (pl.Series, pl.DataFrame)``: the new texts, one for each, and what was changed, with
the columns of ``CHANGES``. What a text becomes depends on that text alone.
"""

from collections.abc import Callable, Sequence
from typing import Any

import polars as pl

from catalog.registry import Registry

CHANGES = {
    "row": pl.UInt32,
    "edit": pl.String,
    "reason": pl.String,
    "start": pl.Int64,
    "end": pl.Int64,
    "before": pl.String,
    "after": pl.String,
}
"""Of the text that the edit was given: characters ``start`` to ``end``, what stood there, what stands there now."""

Edit = Callable[[pl.Series], tuple[pl.Series, pl.DataFrame]]

EDITS: Registry[Edit] = Registry("edit", "curation.edits")


def apply(texts: pl.Series, edits: Sequence[str]) -> tuple[pl.Series, pl.DataFrame]:
    """Edit texts by each of the named edits in turn.

    Parameters
    ----------
    texts : n strings, none null.
    edits : registered names.

    Returns
    -------
    n texts, and every change of every edit: ``row`` of the text and the rest of ``CHANGES``, by edit, row and place.

    Raises
    ------
    NotFoundError : a name is no edit.
    """
    found = [pl.DataFrame(schema=CHANGES)]
    for name in edits:
        texts, changes = EDITS[name].member(texts)
        found.append(changes.with_columns(edit=pl.lit(name)).select(*CHANGES).cast(pl.Schema(CHANGES)))
    return texts, pl.concat(found)


def count_changes(changes: pl.DataFrame) -> list[dict[str, Any]]:
    """Changes, records and characters by edit and reason, the most frequent first.

    Parameters
    ----------
    changes : as ``apply`` returns them.
    """
    counted = changes.group_by("edit", "reason").agg(
        changes=pl.len(), records=pl.col("row").n_unique(), characters=(pl.col("end") - pl.col("start")).sum()
    )
    return counted.sort(-pl.col("changes").cast(pl.Int64), "edit", "reason").to_dicts()
