"""datasketch as its documentation uses it: a MinHash a record, a MinHashLSH in memory, query before insert.

Nothing is verified: a record leaves when the index returns any earlier one. Variant ``bulk`` makes the sketches with
``MinHash.generator``, which sets up the permutations once instead of once a record. It has no processes of its own.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

from datasketch import MinHash, MinHashLSH

from benchmarks.peers.measuring import BANDS, NGRAM, NUM_PERM, ROWS, THRESHOLD, main, read, shingles


def one_by_one(path: Path, _workers: int) -> Sequence[str]:
    """``MinHash()`` and ``update_batch`` for each record."""
    ids, texts = read(path)

    def sketch(text: str) -> MinHash:
        sketched = MinHash(num_perm=NUM_PERM)
        sketched.update_batch([one.encode() for one in shingles(text)])
        return sketched

    return _removed(ids, map(sketch, texts))


def bulk(path: Path, _workers: int) -> Sequence[str]:
    """``MinHash.generator``."""
    ids, texts = read(path)
    sets = ([one.encode() for one in shingles(text)] for text in texts)
    return _removed(ids, MinHash.generator(sets, num_perm=NUM_PERM))


def _removed(ids: list[str], sketches: Iterable[MinHash]) -> list[str]:
    index = MinHashLSH(threshold=THRESHOLD, num_perm=NUM_PERM, params=(BANDS, ROWS))
    removed = []
    for record, sketched in zip(ids, sketches, strict=True):
        if index.query(sketched):
            removed.append(record)
        else:
            index.insert(record, sketched)
    return removed


if __name__ == "__main__":
    main(
        "datasketch",
        {"one_by_one": one_by_one, "bulk": bulk},
        {"hash": "sha1 (default)", "scheme": "affine32 (default)", "bands": BANDS, "rows": ROWS, "word_ngram": NGRAM},
    )
