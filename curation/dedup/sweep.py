"""What an epsilon decides about measured pairs, without measuring again."""

from collections.abc import Iterable

import numpy as np
import polars as pl

from curation.dedup.grid import DIGITS

PAIR_SCHEMA = {"record_id": pl.String, "keeper_id": pl.String, "similarity": pl.Float64, "accepted": pl.Boolean}
MEASURED_SCHEMA = {name: PAIR_SCHEMA[name] for name in ("record_id", "keeper_id", "similarity")}
SWEEP_SCHEMA = {"epsilon": pl.Float64, "num_pairs": pl.Int64, "num_leaving": pl.Int64, "num_with_better": pl.Int64}


def threshold(epsilon: float) -> float:
    """The least similarity, with as many digits as similarities have.

    >>> 1 - 0.42, threshold(0.42)
    (0.5800000000000001, 0.58)
    """
    return round(1 - epsilon, DIGITS)


def accept_pairs(pairs: pl.DataFrame, epsilon: float) -> pl.DataFrame:
    """Mark the pair by which each record leaves: to the most similar of the better ones that stay, then by smallest id.

    In keeper order, the best record that is left stays and those near it leave. That depends on the pairs alone, since
    each says which of the two is better.

    Parameters
    ----------
    pairs : ``record_id, keeper_id, similarity``, distinct, kept at least down to ``1 - epsilon``.
    """
    worse, better, number = _numbered(pairs)
    near = pairs["similarity"].to_numpy() >= threshold(epsilon)
    leaves = np.zeros(len(pairs), dtype=bool)
    leaves[near] = ~_staying(worse[near], better[near], number)[worse[near]]
    stays = np.ones(number, dtype=bool)
    stays[worse[leaves]] = False
    possible = pairs.with_row_index("row").filter(pl.Series(near & leaves & stays[better]))
    chosen = possible.sort("similarity", "keeper_id", descending=[True, False]).unique("record_id", keep="first")
    accepted = np.zeros(len(pairs), dtype=bool)
    accepted[chosen["row"].to_numpy()] = True
    return pairs.select(*MEASURED_SCHEMA).with_columns(accepted=pl.Series(accepted, dtype=pl.Boolean))


def sweep_pairs(pairs: pl.DataFrame, epsilons: Iterable[float]) -> pl.DataFrame:
    """Count what each epsilon would do, as ``SemanticDuplicates.sweep``."""
    worse, better, number = _numbered(pairs)
    similarity = pairs["similarity"].to_numpy()
    rows = []
    for epsilon in epsilons:
        near = similarity >= threshold(epsilon)
        staying = _staying(worse[near], better[near], number)
        rows.append((epsilon, int(near.sum()), int((~staying).sum()), len(np.unique(worse[near]))))
    return pl.DataFrame(rows, schema=SWEEP_SCHEMA, orient="row")


def _numbered(pairs: pl.DataFrame) -> tuple[np.ndarray, np.ndarray, int]:
    """Numbers for the ids of both columns, and how many there are."""
    names = pl.concat([pairs["record_id"], pairs["keeper_id"].alias("record_id")])
    numbers = names.rank("dense").to_numpy().astype(np.int64) - 1
    return numbers[: len(pairs)], numbers[len(pairs) :], names.n_unique()


def _staying(worse: np.ndarray, better: np.ndarray, number: int) -> np.ndarray:
    """(number,) bool: records that no better one that stays is near to.

    Rounds instead of one pass in keeper order, so that no order need be known: whoever has no better record left
    stays, and whoever is near one that stays leaves. Each round settles the best of every connected part at least.
    """
    stays = np.ones(number, dtype=bool)
    while len(worse):
        settled = np.ones(number, dtype=bool)
        settled[worse] = False
        leaves = worse[settled[better]]
        assert len(leaves), "each of two records cannot be better than the other"
        stays[leaves] = False
        open_ = stays[worse] & stays[better]
        worse, better = worse[open_], better[open_]
    return stays
