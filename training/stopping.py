"""When to end a training early: when the loss on records that are held out for it finds no new best."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

from catalog.errors import DataError
from training.arm import ArmConfig
from training.split import is_test
from training.stream import StreamManifest

MOST_RECORDS = 512
"""Records that a check measures at most: the first by id, which begins with a hash."""
_SPLIT = 1
"""Keeps the split apart from the one that held the test records out before, with seed 0 as by default."""


def held_out(arm: ArmConfig, manifest: StreamManifest) -> npt.NDArray[np.bool_]:
    """Which rows are not trained on, (n,) bool: none unless the arm may stop early.

    Raises
    ------
    DataError : none would be held out.
    """
    if not arm.stop_patience:
        return np.zeros(len(manifest), dtype=np.bool_)
    rows = is_test(manifest.frame["id"], arm.stop_share, arm.seed + _SPLIT).to_numpy()
    if not rows.any():
        raise DataError(
            f"stop_share={arm.stop_share:g} holds none of {len(manifest)} records out; raise it, or stop_patience=0"
        )
    return rows


def trained_on(arm: ArmConfig, manifest: StreamManifest) -> StreamManifest:
    """The manifest with nothing to draw among the rows that are held out; the same where none are."""
    rows = held_out(arm, manifest)
    if not rows.any():
        return manifest
    return StreamManifest.build(
        manifest.frame.with_columns(weight=pl.when(pl.Series(rows)).then(0.0).otherwise(pl.col("weight")))
    )


def has_stalled(losses: Sequence[float], patience: int) -> bool:
    """Whether the last ``patience`` checks found nothing below what was found before them; never of patience 0.

    References
    ----------
    Prechelt (1998), Early Stopping, but When?, section 2.1: the criterion UP with strips of one check.
    """
    return 0 < patience < len(losses) and min(losses[-patience:]) >= min(losses[:-patience])
