"""text-dedup 0.4's MinHash command, called in this process so that its imports are not timed.

Nothing is verified; a cluster is all that shared bands connect. It drops texts of fewer than 5 tokens (its default),
keeps empty tokens (it splits at every single non-letter), and names no removed records: they are those of the input
that its output lacks. Variant ``xxh3`` replaces its default hash, sha1.
"""

import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow.parquet as pq

from benchmarks.peers.measuring import BANDS, NGRAM, NUM_PERM, ROWS, THRESHOLD, main

os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}
_CACHE = tempfile.TemporaryDirectory()
os.environ["HF_HOME"] = _CACHE.name

from datasets import load_from_disk  # noqa: E402
from text_dedup.minhash import main as command  # type: ignore[import-not-found] # noqa: E402


def hashing(hash_func: str) -> Callable[[Path, int], Sequence[str]]:
    """The command with one of its hashes."""

    def run(path: Path, workers: int) -> Sequence[str]:
        with tempfile.TemporaryDirectory() as folder:
            given = {
                "path": "parquet",
                "data_files": path,
                "split": "train",
                "cache_dir": f"{folder}/cache",
                "output": f"{folder}/output",
                "column": "text",
                "ngram": NGRAM,
                "threshold": THRESHOLD,
                "num_perm": NUM_PERM,
                "b": BANDS,
                "r": ROWS,
                "hash_func": hash_func,
                "num_proc": workers,
            }
            arguments = [str(part) for name, value in given.items() for part in (f"--{name}", value)]
            command(arguments, standalone_mode=False)
            kept = set(load_from_disk(f"{folder}/output")["id"])
        ids = pq.read_table(path, columns=["id"]).column("id").to_pylist()
        return [record for record in ids if record not in kept]

    return run


if __name__ == "__main__":
    main(
        "text-dedup",
        {"sha1": hashing("sha1"), "xxh3": hashing("xxh3")},
        {"bands": BANDS, "rows": ROWS, "word_ngram": NGRAM, "min_length": "5 (default; shorter are removed)"},
    )
