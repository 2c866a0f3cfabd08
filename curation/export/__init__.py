"""Writers of curated records: rows in, files out that other tools read.

A member is called as ``(path, batches, shape) -> int`` and returns the rows written; ``batches`` yields
``(split, rows)``, rows being dicts of plain JSON values, in the order in which they are to stand. Its config says
whether it makes a folder, which suffixes choose it, and whether it must know all columns before the first row.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from catalog.registry import Registry

Rows = list[dict[str, Any]]
Batches = Iterable[tuple[str | None, Rows]]
Writer = Callable[[Path, Batches, pa.Schema], int]


@dataclass(frozen=True, kw_only=True)
class Target:
    """Config of a writer.

    Parameters
    ----------
    suffixes : that choose it; none for a folder.
    needs_schema : whether it must be given the columns with their types; otherwise it gets an empty schema.
    """

    suffixes: tuple[str, ...] = ()
    needs_schema: bool = True


WRITERS: Registry[Writer] = Registry("export format", "curation.export")
