"""What all rules share of a text, counted in one pass over its bytes."""

from collections.abc import Collection

import numpy as np
import polars as pl

from curation.dedup.rows import over_slices, utf8
from curation.rules.classes import classes
from curation.rules.columns import GROUPS, column

KERNEL_GROUPS = ("counts", "lines", "ngrams", "c4")
"""The groups of ``columns`` that are counted here."""


def profile(texts: pl.Series, groups: Collection[str], *, threads: int = 1) -> pl.DataFrame:
    """Count what the named groups hold.

    Parameters
    ----------
    texts : n strings, none null.
    groups : of ``KERNEL_GROUPS``; one that is not named costs nothing.
    threads : at most so many cores are used; the result does not depend on it.

    Returns
    -------
    n rows, a Float64 column for each name of each group, named as ``column`` names it. A row depends on its text alone.
    """
    from curation.rules.c4_kernels import c4_rows  # compiles: numba takes half a second
    from curation.rules.kernels import profile_rows  # compiles: numba takes half a second

    rows, table = utf8(texts), classes()
    shapes = [(len(texts) if name in groups else 0, len(GROUPS[name])) for name in KERNEL_GROUPS]
    arrays = [np.empty(shape, np.float64) for shape in shapes]

    def work(first: int, last: int) -> None:
        profile_rows(rows.data, rows.offsets, first, last, table, *arrays[:3])
        if len(arrays[3]):
            c4_rows(rows.data, rows.offsets, first, last, table, arrays[3])

    if len(texts):
        over_slices(rows, work, threads)
    return pl.DataFrame(
        {
            column(name).meta.output_name(): array[:, place]
            for group, array in zip(KERNEL_GROUPS, arrays, strict=True)
            if group in groups
            for place, name in enumerate(GROUPS[group])
        }
    )
