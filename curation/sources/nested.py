"""Columns of columns: ``a.b.c`` names what stands under ``c`` in ``b`` in ``a``."""

from collections.abc import Iterator
from typing import Any

DEEPEST_NAMED = 3


def take(row: dict[str, Any], name: str) -> Any:
    """Take a value out of a row; None where it is not there. A column of exactly that name comes first.

    >>> row = {"meta": {"topic": "쇼핑", "n": 1}}
    >>> take(row, "meta.topic"), row
    ('쇼핑', {'meta': {'n': 1}})
    """
    if name in row or "." not in name:
        return row.pop(name, None)
    *path, last = name.split(".")
    inner = _inner(row, path)
    return None if inner is None else inner.pop(last, None)


def has(row: dict[str, Any], name: str) -> bool:
    """Whether the row has that column, were it null."""
    if name in row or "." not in name:
        return name in row
    *path, last = name.split(".")
    inner = _inner(row, path)
    return inner is not None and last in inner


def put(row: dict[str, Any], name: str, value: Any) -> None:
    """The inverse of ``take``: into the column that was there, or at the top where there is none."""
    *path, last = name.split(".")
    inner = _inner(row, path) if path else None
    if inner is None:
        row[name] = value
    else:
        inner[last] = value


def _inner(row: dict[str, Any], path: list[str]) -> dict[str, Any] | None:
    inner = row
    for key in path:
        found = inner.get(key)
        if not isinstance(found, dict):
            return None
        inner = found
    return inner


def names(row: dict[str, Any], prefix: str = "", depth: int = 1) -> Iterator[str]:
    """Every column, and what is nested in it, to be named in messages."""
    for key, value in row.items():
        yield f"{prefix}{key}"
        if isinstance(value, dict) and depth < DEEPEST_NAMED:
            yield from names(value, f"{prefix}{key}.", depth + 1)


def json_path(name: str) -> str:
    """The same place as a JSONPath.

    >>> json_path("meta.url")
    "$['meta']['url']"
    """
    return "$" + "".join(f"['{key}']" for key in name.split("."))
