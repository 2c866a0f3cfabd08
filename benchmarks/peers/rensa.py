"""rensa, full sets only: its rho sketch samples token positions and estimates no Jaccard similarity.

``deduplicator``: its documented way from token sets to verdicts, candidates of its LSH checked by their signatures.
``cminhash``: the same with C-MinHash, whose deduplicator takes no bands. ``flags``: all signatures as one matrix and
one pass of its LSH. That flags every record that shares a band with any other, the one to keep too: candidates rather
than verdicts.
"""

from collections.abc import Sequence
from pathlib import Path

from rensa import (  # type: ignore[import-not-found]
    CMinHashDeduplicator,
    RMinHash,
    RMinHashDeduplicator,
    RMinHashLSH,
)

from benchmarks.peers.measuring import BANDS, NGRAM, NUM_PERM, ROWS, THRESHOLD, main, read, shingles

SEED = 42


def deduplicator(path: Path, _workers: int) -> Sequence[str]:
    """``RMinHashDeduplicator``, with its LSH."""
    ids, texts = read(path)
    keeps = RMinHashDeduplicator(THRESHOLD, NUM_PERM, use_lsh=True, num_bands=BANDS, seed=SEED)
    kept = keeps.add_pairs((record, shingles(text)) for record, text in zip(ids, texts, strict=True))
    return [record for record, keep in zip(ids, kept, strict=True) if not keep]


def cminhash(path: Path, _workers: int) -> Sequence[str]:
    """``CMinHashDeduplicator``."""
    ids, texts = read(path)
    keeps = CMinHashDeduplicator(THRESHOLD, NUM_PERM, SEED)
    kept = keeps.add_pairs((record, shingles(text)) for record, text in zip(ids, texts, strict=True))
    return [record for record, keep in zip(ids, kept, strict=True) if not keep]


def flags(path: Path, _workers: int) -> Sequence[str]:
    """Signatures of token sets and the LSH's flags."""
    ids, texts = read(path)
    matrix = RMinHash.digest_matrix_from_token_sets([shingles(text) for text in texts], NUM_PERM, SEED)
    flagged = RMinHashLSH(THRESHOLD, NUM_PERM, BANDS).insert_matrix_and_query_duplicate_flags(matrix)
    return [record for record, flag in zip(ids, flagged, strict=True) if flag]


if __name__ == "__main__":
    main(
        "rensa",
        {"deduplicator": deduplicator, "cminhash": cminhash, "flags": flags},
        {"threshold": THRESHOLD, "bands": BANDS, "rows": ROWS, "word_ngram": NGRAM},
    )
