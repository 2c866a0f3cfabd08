"""Winnow's own side, run like the peers': exact duplicates, then near ones, each verified against its keeper."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from benchmarks.peers.measuring import BANDS, NGRAM, ROWS, THRESHOLD, main
from curation.dedup.config import NearConfig
from curation.dedup.exact import exact_hash, find_exact_duplicates
from curation.dedup.near import find_near_duplicates

CONFIG = NearConfig(threshold=THRESHOLD, bands=BANDS, rows=ROWS, word_ngram=NGRAM, min_words=NGRAM)
WARM_UP_RECORDS = 500


@dataclass(frozen=True)
class Verdicts:
    """What deduplication decides.

    Parameters
    ----------
    removed : ``record_id`` and ``keeper_id`` of each record that leaves; a keeper of an exact duplicate may leave too.
    pairs : every measured pair: ``record_id``, ``keeper_id``, ``jaccard``.
    funnel : number of records at each step.
    """

    removed: pl.DataFrame
    pairs: pl.DataFrame
    funnel: Mapping[str, int]


def ours(ids: pl.Series, texts: pl.Series, config: NearConfig, *, threads: int = 1) -> Verdicts:
    """From raw texts to verdicts."""
    hashes = exact_hash(texts, threads=threads)
    exact = find_exact_duplicates(ids, hashes, length=texts.str.len_chars())
    stays = ~ids.is_in(exact["record_id"].implode())
    found = find_near_duplicates(ids.filter(stays), texts.filter(stays), None, config, threads=threads)
    near = found.pairs.filter("accepted")
    funnel = {
        "records": len(ids),
        "exact duplicates": len(exact),
        "pairs measured": found.num_candidates,
        "pairs at or above the threshold": len(found.pairs.filter(pl.col("jaccard") >= config.threshold)),
        "near-duplicates": len(near),
        "kept": len(ids) - len(exact) - len(near),
    }
    removed = pl.concat([exact.select("record_id", "keeper_id"), near.select("record_id", "keeper_id")])
    return Verdicts(removed, found.pairs.select("record_id", "keeper_id", "jaccard"), funnel)


def deduplicate(path: Path, workers: int) -> Sequence[str]:
    """Ids of the records that leave."""
    frame = pl.read_parquet(path, columns=["id", "text"])
    removed: list[str] = ours(frame["id"], frame["text"], CONFIG, threads=workers).removed["record_id"].to_list()
    return removed


def warm_up(path: Path, workers: int) -> None:
    """Compile the kernels, or load them from the compiler's cache, and build the table of characters."""
    frame = pl.read_parquet(path, columns=["id", "text"], n_rows=WARM_UP_RECORDS)
    # A text that the fast path leaves to the reference, so that this code has run too.
    texts = pl.concat([frame["text"], pl.Series(["ﬁve words or more, decomposed: e\u0301"])])
    ours(pl.concat([frame["id"], pl.Series(["warm-up"])]), texts, CONFIG, threads=workers)


if __name__ == "__main__":
    main(
        "winnow",
        {"verified": deduplicate},
        {"threshold": THRESHOLD, "bands": BANDS, "rows": ROWS, "word_ngram": NGRAM, "min_words": NGRAM},
        warm_up=warm_up,
    )
