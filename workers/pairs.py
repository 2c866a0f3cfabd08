"""The texts that a queue serves: those of the records, or for pairwise queues two columns of each record."""

import json
from collections.abc import Iterator
from typing import Any

import polars as pl

from catalog.errors import DataError
from catalog.settings import Settings
from catalog.store import Store, StoredFile
from catalog.tables.datasets import Version
from curation.sources.conversations import STYLES, Style, TurnsError, contents, rendered
from curation.sources.nested import names
from labeling.schema import LabelSchema
from labeling.tasks.pairwise import Pairwise, pair_text
from workers import manifests

CHAT = STYLES["openai"]


def served_texts(
    store: Store, version: Version, text_column: str, schema: LabelSchema, records: pl.DataFrame
) -> pl.Series:
    """What is shown of each record, null where it has not both columns of a pair.

    Parameters
    ----------
    text_column : of the dataset.
    records : as ``curated.read_records`` gives them.

    Raises
    ------
    DataError : a pair is asked about and no record has both columns; the message lists those that there are.
    """
    kind = schema.kind
    if not isinstance(kind, Pairwise):
        return records["text"]
    return pair_texts(store, version, text_column, kind, records)


def pair_texts(store: Store, version: Version, text_column: str, kind: Pairwise, records: pl.DataFrame) -> pl.Series:
    """The pair that each record is, null where it has not both columns; arguments and errors as of ``served_texts``."""
    served: list[str | None] = []
    seen: set[str] = {text_column}
    texts = iter(records["text"])
    for row, style in _rows(store, version):
        seen.update(names(row))
        served.append(_pair(row, next(texts), text_column, kind, style))
    if records.height and not any(one is not None for one in served):
        raise _without_pairs(kind, seen)
    return pl.Series("served", served, dtype=pl.String)


def check_pairs(settings: Settings, version: Version, text_column: str, schema: LabelSchema) -> None:
    """Refuse a pairwise schema whose columns no record has both of; it looks as far as the first that has them.

    Raises
    ------
    DataError : there is none; the message lists the columns that there are.
    """
    kind = schema.kind
    if not isinstance(kind, Pairwise):
        return
    seen: set[str] = {text_column}
    for row, style in _rows(Store.of(settings), version):
        if _pair(row, "", text_column, kind, style) is not None:
            return
        seen.update(names(row))
    raise _without_pairs(kind, seen)


def _rows(store: Store, version: Version) -> Iterator[tuple[dict[str, Any], Style]]:
    """What the records have besides text and label, in their order, and how their turns are told."""
    for entry in manifests.read(store, version)["shards"]:
        rows = store.read_frame(StoredFile.from_json(entry["selection"]), ["row"])["row"]
        fields = store.read_frame(StoredFile.from_json(entry["data"]), ["fields"])["fields"][rows]
        style = STYLES[entry["turns"]] if "turns" in entry else CHAT
        for one in fields:
            yield json.loads(one) if one else {}, style


def _without_pairs(kind: Pairwise, seen: set[str]) -> DataError:
    return DataError(
        f"no record has text in both columns {kind.a!r} and {kind.b!r} that the label schema compares; name two of "
        f"{', '.join(sorted(seen)[:20])} as its a and b"
    )


def _pair(row: dict[str, Any], text: str, text_column: str, kind: Pairwise, style: Style) -> str | None:
    sides = [text if column == text_column else _said(row, column, style) for column in (kind.a, kind.b)]
    if sides[0] is None or sides[1] is None:
        return None
    return pair_text(sides[0], sides[1], None if text_column in (kind.a, kind.b) else text)


def _said(row: dict[str, Any], column: str, style: Style) -> str | None:
    """A column's text: itself, or what its turns say; None where it is neither."""
    value = row[column] if column in row else _nested(row, column)
    if isinstance(value, str):
        return value
    if not isinstance(value, list):
        return None
    try:
        return rendered(contents({column: value}, Style(columns=(column,), role=style.role, content=style.content)))
    except TurnsError:
        return None


def _nested(row: dict[str, Any], column: str) -> Any:
    value: Any = row
    for key in column.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return value
