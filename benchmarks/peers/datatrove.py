"""datatrove's four MinHash stages on its local executor: ``shipped`` with its English tokenizer (spaCy), ``plain``
with words by a regular expression through its own tokenizer class.

Nothing is verified; a cluster is all that shared bands connect. Its text normalization is left as shipped: numbers
become 0, accents go. Texts of fewer than 5 words are never signed. Stage 4 writes only what it removes.
"""

import gzip
import json
import re
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import spacy  # type: ignore[import-not-found]
from datatrove.executor import LocalPipelineExecutor  # type: ignore[import-not-found]
from datatrove.pipeline.dedup import (  # type: ignore[import-not-found]
    MinhashDedupBuckets,
    MinhashDedupCluster,
    MinhashDedupFilter,
    MinhashDedupSignature,
)
from datatrove.pipeline.dedup.minhash import MinhashConfig  # type: ignore[import-not-found]
from datatrove.pipeline.readers import ParquetReader  # type: ignore[import-not-found]
from datatrove.pipeline.writers import JsonlWriter  # type: ignore[import-not-found]
from datatrove.utils.logging import logger  # type: ignore[import-not-found]
from datatrove.utils.word_tokenizers import WordTokenizer  # type: ignore[import-not-found]

from benchmarks.peers.measuring import BANDS, NGRAM, ROWS, main


class PlainTokenizer(WordTokenizer):  # type: ignore[misc]
    r"""Words as runs of ``\w``."""

    def word_tokenize(self, text: str) -> list[str]:
        """The words of a text."""
        return re.findall(r"\w+", text)

    def sent_tokenize(self, text: str) -> list[str]:
        """MinHash asks for no sentences."""
        raise NotImplementedError

    def span_tokenize(self, text: str) -> list[tuple[int, int]]:
        """MinHash asks for no spans."""
        raise NotImplementedError


def tokenizing(language: Any) -> Callable[[Path, int], Sequence[str]]:
    """The four stages with a tokenizer, or that of a language."""

    def run(path: Path, workers: int) -> Sequence[str]:
        shape = MinhashConfig(n_grams=NGRAM, num_buckets=BANDS, hashes_per_bucket=ROWS)
        source = path.with_suffix(f".{workers}")
        with tempfile.TemporaryDirectory() as folder:

            def execute(tasks: int, steps: Iterable[Any]) -> None:
                LocalPipelineExecutor(
                    pipeline=list(steps), tasks=tasks, workers=min(tasks, workers), logging_dir=f"{folder}/logs/{tasks}"
                ).run()

            signatures, buckets, clusters = (f"{folder}/{name}" for name in ("signatures", "buckets", "clusters"))
            signature = MinhashDedupSignature(output_folder=signatures, config=shape, language=language)
            execute(workers, [ParquetReader(str(source)), signature])
            execute(BANDS, [MinhashDedupBuckets(input_folder=signatures, output_folder=buckets, config=shape)])
            execute(1, [MinhashDedupCluster(input_folder=buckets, output_folder=clusters, config=shape)])
            writer = JsonlWriter(f"{folder}/removed")
            execute(workers, [ParquetReader(str(source)), MinhashDedupFilter(clusters, exclusion_writer=writer)])
            removed = []
            for file in sorted(Path(folder, "removed").glob("*.jsonl.gz")):
                with gzip.open(file, "rt", encoding="utf-8") as lines:
                    removed += [json.loads(line)["id"] for line in lines]
        return removed

    return run


def prepare(path: Path, workers: int) -> None:
    """Import what datatrove imports late, and split the file: its readers take folders, its processes whole files."""
    logger.remove()
    spacy.blank("en")
    folder = path.with_suffix(f".{workers}")
    if folder.exists():
        return
    folder.mkdir()
    table = pq.read_table(path)
    size = -(-table.num_rows // workers)
    for part in range(workers):
        pq.write_table(table.slice(part * size, size), folder / f"{part:03d}.parquet")


if __name__ == "__main__":
    main(
        "datatrove",
        {"shipped": tokenizing("en"), "plain": tokenizing(PlainTokenizer())},
        {"buckets": BANDS, "hashes_per_bucket": ROWS, "word_ngram": NGRAM, "hash": "xxhash, 64 bits (default)"},
        warm_up=prepare,
        cpu_counted=lambda workers: workers == 1,
    )
