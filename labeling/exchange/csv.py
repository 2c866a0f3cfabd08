"""Comma-separated values: a row an answer."""

import csv
import io
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from catalog.errors import ConfigError, DataError, nearest
from labeling.exchange import FORMATS, Format, Given, Item, Problem, Written, moment, read_text, retraction, seconds
from labeling.schema import LabelSchema
from labeling.tasks import canonical
from labeling.tasks.free_text import FreeText

COLUMNS = ("record_id", "text", "annotator", "value", "at", "late", "seconds_spent", "retracted")
PLAIN = frozenset({"single_choice", "pairwise", "free_text"})
"""Tasks whose values are text and stand in the cell as they are; others stand there as JSON."""


@dataclass(frozen=True, kw_only=True)
class Csv(Format):
    """RFC 4180 in UTF-8 with a header, a row an answer. Reading, an empty answer is none, unless the schema allows it.

    Parameters
    ----------
    id, text, annotator, value : names of the columns when reading; of id and text one may be missing, the annotator
        may be.
    """

    suffixes: ClassVar[tuple[str, ...]] = (".csv",)

    id: str = "record_id"
    text: str = "text"
    annotator: str = "annotator"
    value: str = "value"

    def write(self, path: Path, items: Iterable[Item], schema: LabelSchema) -> Written:
        """A row an answer."""
        written = Written()
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(COLUMNS)
            for item in items:
                written.num_items += 1
                written.num_answers += len(item.answers)
                writer.writerows(_row(item, one, schema) for one in item.answers)
        return written

    def read(self, path: Path, schema: LabelSchema) -> Iterator[Item | Problem]:
        """Rows of one record come as items of one answer each."""
        # csv refuses long cells by default, and texts are long.
        csv.field_size_limit(2**26)
        reader = csv.DictReader(io.StringIO(read_text(path), newline=""), strict=True)
        try:
            header = list(reader.fieldnames or [])
            self._check(path, header)
            for row in reader:
                yield self._item(row, f"line {reader.line_num}", schema)
        except csv.Error as error:
            raise DataError(f"{path.name}, line {reader.line_num}: no CSV ({error}); write it again") from error

    def _check(self, path: Path, header: list[str]) -> None:
        if self.value not in header:
            raise ConfigError(
                f"{path.name} has no column {self.value!r} for the answers; {nearest(self.value, header)}"
            )
        if self.id not in header and self.text not in header:
            raise ConfigError(
                f"{path.name} has neither a column {self.id!r} nor {self.text!r} to tell the records by; "
                f"{nearest(self.text, header)}"
            )

    def _item(self, row: dict[str, Any], where: str, schema: LabelSchema) -> Item | Problem:
        if None in row or None in row.values():
            return Problem(where=where, reason="the row has more or fewer cells than the header", raw=str(row))
        cell = row[self.value]
        record_id, text = row.get(self.id) or None, row.get(self.text)
        if not cell.strip() and not (isinstance(schema.kind, FreeText) and schema.kind.min_chars == 0):
            return Item(record_id=record_id, text=text, where=where)
        try:
            value = cell if schema.task in PLAIN else json.loads(cell)
        except (ValueError, RecursionError):
            # A label alone, or several between bars, as tables of other tools have them.
            value = [one for one in cell.split("|") if one] if schema.task == "multi_label" else cell
        spent = row.get("seconds_spent")
        answer = Given(
            annotator=row.get(self.annotator) or "imported",
            value=value,
            at=moment(row.get("at")),
            seconds_spent=seconds(_number(spent)),
            late=row.get("late") == "true",
            retracted=retraction(row.get("retracted")),
        )
        return Item(record_id=record_id, text=text, answers=(answer,), where=where)


def _number(cell: str | None) -> float | None:
    try:
        return float(cell) if cell else None
    except ValueError:
        return None


def _row(item: Item, one: Given, schema: LabelSchema) -> list[Any]:
    return [
        item.record_id or "",
        item.text or "",
        one.annotator,
        one.value if schema.task in PLAIN else canonical(one.value),
        one.at.isoformat() if one.at else "",
        "true" if one.late else "false",
        "" if one.seconds_spent is None else repr(one.seconds_spent),
        one.retracted or "",
    ]


FORMATS.register("csv", Csv)(Csv)
