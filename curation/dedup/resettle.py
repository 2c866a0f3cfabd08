"""Who leaves as a duplicate under other verdicts, from the pairs that were measured: what a new run would decide."""

import numpy as np
import polars as pl

from curation.dedup.cluster import assign_keepers
from curation.dedup.exact import find_exact_duplicates
from curation.dedup.keeper import keeper_order
from curation.dedup.near import PAIR_SCHEMA
from curation.dedup.stages import exact_pairs, follow, near_pairs

MEASURED_SCHEMA = {name: PAIR_SCHEMA[name] for name in ("record_id", "keeper_id", "jaccard", "bands_shared")}
"""Near pairs that were measured: the direction of a pair, and whether it was accepted, are decided anew."""


def resettle(
    records: pl.DataFrame, measured: pl.DataFrame, *, exact: bool, threshold: float | None, within: bool = True
) -> pl.DataFrame:
    """Choose keepers anew among exact duplicates and measured near pairs.

    Who keeps depends on who passes the rules (``quality``), so with other thresholds the copies of one text change
    places: where its keeper fails, the best copy that passes is kept instead. A pair was measured between the best
    copies of two texts; as similarity is one of normalized texts, it holds for whichever copies are best now.

    Parameters
    ----------
    records : ``id``, ``exact_hash``, ``length`` and ``quality`` of every record, the last 1 for those that pass the
        rules, 0 for the others and infinite for records of other datasets, which never leave.
    measured : pairs of ``MEASURED_SCHEMA``, each once.
    exact : whether exact duplicates leave.
    threshold : Jaccard from which near duplicates leave, not below that of the run that measured; None: they stay.
    within : whether records that are no references remove each other.

    Returns
    -------
    Pairs as a run stores them, sorted by ``record_id`` and ``keeper_id``: those of ``measured`` and of exact
    duplicates, with ``accepted``, ``kind`` and ``rule``. The same as a new run over the texts finds, unless a bucket of
    it is larger than ``max_bucket``: there it measures each record against the best alone.
    """
    involved = records.filter(
        pl.col("exact_hash").is_duplicated()
        | pl.col("id").is_in(pl.concat([measured["record_id"], measured["keeper_id"]]).unique().implode())
    )
    removed = pl.DataFrame(schema={"record_id": pl.String, "keeper_id": pl.String})
    if exact:
        columns = {"length": involved["length"], "quality": involved["quality"]}
        removed = find_exact_duplicates(involved["id"], involved["exact_hash"], **columns, within=within)
    near = pl.DataFrame(schema=PAIR_SCHEMA)
    if threshold is not None:
        near = _settled(involved, _moved(measured, removed), threshold)
    return follow(exact_pairs(removed), near_pairs(near)).sort("record_id", "keeper_id")


def _moved(measured: pl.DataFrame, removed: pl.DataFrame) -> pl.DataFrame:
    """The pairs between the copies that are best now."""
    best = dict.fromkeys(("record_id", "keeper_id"))
    for name in best:
        copies = removed.rename({"record_id": name, "keeper_id": "best"})
        best[name] = measured.select(name).join(copies, on=name, how="left", maintain_order="left")["best"]
    return measured.with_columns(
        pl.coalesce(pl.Series(one), pl.col(name)).alias(name) for name, one in best.items() if one is not None
    )


def _settled(records: pl.DataFrame, pairs: pl.DataFrame, threshold: float) -> pl.DataFrame:
    """The pairs with the better record as the keeper, and who leaves because of whom."""
    names = pl.concat([pairs["record_id"], pairs["keeper_id"]]).unique()
    ranked = keeper_order(*records.filter(pl.col("id").is_in(names.implode())).select("id", "length", "quality"))
    order = ranked["id"]
    ranks = pl.DataFrame({"id": order, "rank": np.arange(len(order))})
    sides = [
        pairs.select(id=name).join(ranks, on="id", how="left", maintain_order="left")["rank"].to_numpy()
        for name in ("record_id", "keeper_id")
    ]
    frame = pairs.select("jaccard", "bands_shared").with_columns(
        first=pl.Series(np.minimum(*sides)), second=pl.Series(np.maximum(*sides))
    )
    frame = frame.sort("first", "second")
    first, second = frame["first"].to_numpy(), frame["second"].to_numpy()
    similar = frame["jaccard"].to_numpy() >= threshold
    quality = records.select("id", "quality").filter(pl.col("quality").is_infinite())
    num_fixed = int(order.is_in(quality["id"].implode()).sum())
    keepers = assign_keepers(len(order), first[similar], second[similar], num_fixed=num_fixed)
    return frame.select(
        record_id=order.gather(second),
        keeper_id=order.gather(first),
        jaccard="jaccard",
        bands_shared="bands_shared",
        accepted=pl.Series(similar & (keepers[second] == first)),
    )
