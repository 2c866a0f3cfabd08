"""Comma-separated values with a header."""

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from curation.export import WRITERS, Batches, Target
from curation.sources.batch import canonical_json


@dataclass(frozen=True, kw_only=True)
class Csv(Target):
    """The header must know every column."""

    suffixes: tuple[str, ...] = (".csv",)


@WRITERS.register("csv", Csv)
def write_csv(path: Path, batches: Batches, schema: pa.Schema) -> int:
    """Write RFC 4180 rows in UTF-8; lists and objects as JSON, null as nothing."""
    number = 0
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(schema.names)
        for _, rows in batches:
            writer.writerows([_cell(row.get(name)) for name in schema.names] for row in rows)
            number += len(rows)
    return number


def _cell(value: Any) -> Any:
    return canonical_json(value) if isinstance(value, dict | list | bool) else value
