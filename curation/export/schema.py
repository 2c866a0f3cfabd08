"""The Arrow type that holds every one of some JSON values, and the values fitted to it."""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from curation.export import Rows
from curation.sources.batch import canonical_json

MAX_STRUCT_FIELDS = 200
"""An object with more keys is data under keys, not columns: it is written as JSON."""
_INT64 = 2**63


def type_of(value: Any) -> pa.DataType:
    """The type of one JSON value; null for None."""
    if value is None:
        return pa.null()
    if isinstance(value, bool):
        return pa.bool_()
    if isinstance(value, int):
        return pa.int64() if -_INT64 <= value < _INT64 else pa.string()
    if isinstance(value, float):
        return pa.float64()
    if isinstance(value, list):
        return pa.list_(_all_types(value))
    if isinstance(value, dict):
        return pa.struct([(str(key), type_of(one)) for key, one in value.items()])
    return pa.string()


def _all_types(values: Sequence[Any]) -> pa.DataType:
    merged = pa.null()
    for value in values:
        merged = merge(merged, type_of(value))
    return merged


def merge(one: pa.DataType, other: pa.DataType) -> pa.DataType:
    """The type that holds the values of both; a string, as which anything can be written, where they do not agree.

    >>> merge(pa.int64(), pa.float64()), merge(pa.bool_(), pa.int64())
    (DataType(double), DataType(string))
    """
    if one == other or pa.types.is_null(other):
        return one
    if pa.types.is_null(one):
        return other
    if {one, other} == {pa.int64(), pa.float64()}:
        return pa.float64()
    if pa.types.is_list(one) and pa.types.is_list(other):
        return pa.list_(merge(one.value_type, other.value_type))
    if pa.types.is_struct(one) and pa.types.is_struct(other):
        fields = {field.name: field.type for field in one}
        for field in other:
            fields[field.name] = merge(fields.get(field.name, pa.null()), field.type)
        return pa.struct(list(fields.items()))
    return pa.string()


def settled(kind: pa.DataType) -> pa.DataType:
    """A merged type as files can hold it: what is always null, empty or endless becomes a string."""
    if pa.types.is_list(kind):
        return pa.list_(settled(kind.value_type))
    if pa.types.is_struct(kind) and 0 < kind.num_fields <= MAX_STRUCT_FIELDS:
        return pa.struct([(field.name, settled(field.type)) for field in kind])
    return pa.string() if pa.types.is_null(kind) or pa.types.is_struct(kind) else kind


class Columns:
    """The columns of all rows seen, in the order in which they first came."""

    def __init__(self) -> None:
        self._types: dict[str, pa.DataType] = {}

    def see(self, rows: Rows) -> None:
        """Widen the types to hold these rows too."""
        for name, values in _by_column(rows).items():
            self._types[name] = merge(self._types.get(name, pa.null()), _type_of_all(values))

    def schema(self) -> pa.Schema:
        """What there is to write."""
        return pa.schema([(name, settled(kind)) for name, kind in self._types.items()])


def _by_column(rows: Rows) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = {}
    for row in rows:
        for name, value in row.items():
            columns.setdefault(name, []).append(value)
    return columns


def _type_of_all(values: list[Any]) -> pa.DataType:
    # Arrow sees plain columns in an instant; it gives up on mixed ones, and on nested ones may choose a map.
    if not any(isinstance(value, dict | list) for value in values):
        try:
            kind = pa.infer_type(values)
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
            return _all_types(values)
        if kind in (pa.null(), pa.bool_(), pa.int64(), pa.float64(), pa.string()):
            return kind
    return _all_types(values)


def fitted(value: Any, kind: pa.DataType) -> Any:
    """A value as its column's type holds it."""
    if value is None:
        return None
    if pa.types.is_string(kind):
        return value if isinstance(value, str) else canonical_json(value)
    if pa.types.is_list(kind):
        return [fitted(one, kind.value_type) for one in value]
    if pa.types.is_struct(kind):
        return {field.name: fitted(value.get(field.name), field.type) for field in kind}
    return float(value) if pa.types.is_float64(kind) else value


def to_table(rows: Rows, schema: pa.Schema) -> pa.Table:
    """Rows as a table of the schema; a column that a row lacks is null there."""
    return pa.table(
        [pa.array([fitted(row.get(field.name), field.type) for row in rows], field.type) for field in schema],
        schema=schema,
    )
