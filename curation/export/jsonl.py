"""JSON Lines, also as .gz and .zst."""

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from curation.export import WRITERS, Batches, Target
from curation.sources.batch import canonical_json

COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}


@dataclass(frozen=True, kw_only=True)
class Jsonl(Target):
    """JSON Lines need no schema: every line has its own keys."""

    suffixes: tuple[str, ...] = (".jsonl", ".ndjson", ".jsonl.gz", ".jsonl.zst", ".ndjson.gz", ".ndjson.zst")
    needs_schema: bool = False


@WRITERS.register("jsonl", Jsonl)
def write_jsonl(path: Path, batches: Batches, schema: pa.Schema) -> int:  # noqa: ARG001 - one contract
    """Write one object a line, keys sorted; nested columns as they came."""
    number = 0
    with pa.OSFile(str(path), "wb") as file:
        compression = COMPRESSIONS.get(path.suffix)
        with pa.CompressedOutputStream(file, compression) if compression else file as out:
            for _, rows in batches:
                out.write("".join(canonical_json(row) + "\n" for row in rows).encode())
                number += len(rows)
    return number
