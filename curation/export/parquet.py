"""One Parquet file."""

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from curation.export import WRITERS, Batches, Target
from curation.export.schema import to_table


@dataclass(frozen=True, kw_only=True)
class Parquet(Target):
    """Columns are typed."""

    suffixes: tuple[str, ...] = (".parquet", ".pq")


@WRITERS.register("parquet", Parquet)
def write_parquet(path: Path, batches: Batches, schema: pa.Schema) -> int:
    """Write typed columns (zstd, page checksums), nested ones as lists and structs; a row group a batch."""
    number = 0
    with pq.ParquetWriter(str(path), schema, compression="zstd", write_page_checksum=True) as writer:
        for _, rows in batches:
            if rows:
                writer.write_table(to_table(rows, schema))
                number += len(rows)
    return number
