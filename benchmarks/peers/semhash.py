"""SemHash on vectors that are given to it, with its default index (usearch): approximate neighbours, greedy selection.

Beside id and text the file has a column of vectors. Ours takes the same; nobody's encoding is timed. SemHash compares
texts too, to take equal ones out: here there are none.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from semhash import SemHash  # type: ignore[import-not-found]

from benchmarks.peers.measuring import main, read

EPSILON = 0.05


class Encoded:
    """Stands where SemHash wants an encoder; vectors are there already."""

    def encode(self, inputs: Sequence[Any], **_options: Any) -> np.ndarray:
        """Never called."""
        raise NotImplementedError


def self_deduplicate(path: Path, _workers: int) -> Sequence[str]:
    """``from_embeddings`` and ``self_deduplicate``."""
    ids, texts = read(path)
    column = pq.read_table(path, columns=["vector"]).column("vector").combine_chunks()
    vectors = column.flatten().to_numpy().reshape(len(ids), -1)
    found = SemHash.from_embeddings(vectors, texts, Encoded()).self_deduplicate(threshold=1 - EPSILON)
    gone = {one.record for one in found.filtered}
    return [record for record, text in zip(ids, texts, strict=True) if text in gone]


if __name__ == "__main__":
    main("semhash", {"self_deduplicate": self_deduplicate}, {"epsilon": EPSILON, "index": "usearch (default)"})
