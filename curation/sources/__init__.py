"""Streaming readers of source files, one member a format: the only part of ``curation`` that opens what users give.

A member is ``(source: OpenedSource, options: ReadOptions) -> Iterator[Parsed | Rejected]``: it turns a file into rows
in file order, holding one row at a time. A row that cannot be parsed becomes a ``Rejected`` with its line and a stable
reason and never ends the reading; a file that cannot be read at all raises ``SourceRefusedError``.
The config of a member is ``Suffixes``, which names the file suffixes that choose it.
"""

from collections.abc import Callable, Iterator

from catalog.registry import Registry
from curation.sources.batch import Batch, Parsed, ReadOptions, Rejected
from curation.sources.opening import OpenedSource
from curation.sources.refusal import SourceRefusedError

Reader = Callable[[OpenedSource, ReadOptions], Iterator[Parsed | Rejected]]

READERS: Registry[Reader] = Registry("format", "curation.sources")

from curation.sources.reading import read_batches  # noqa: E402 - needs the registry

__all__ = [
    "READERS",
    "Batch",
    "OpenedSource",
    "Parsed",
    "ReadOptions",
    "Reader",
    "Rejected",
    "SourceRefusedError",
    "read_batches",
]
