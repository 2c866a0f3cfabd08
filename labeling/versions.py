"""Versions of a label schema: what changed, and what becomes of the answers that were given before.

Stored answers never change. Each says (in its event) which version it was given under; whoever reads it sees it through
the versions since: kept, under new names, or no longer an answer. A queue keeps its earlier schemas beside the present
one, so nothing has to be rebuilt.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise
from typing import Any, Literal

from catalog.errors import ConfigError, ConflictError, DataError, StaleVersionError, nearest
from labeling.schema import EARLIER, LabelSchema
from labeling.tasks import canonical

MAX_VERSIONS = 100
CONVERSIONS: dict[tuple[str, str], Callable[[Any], Any]] = {
    ("single_choice", "multi_label"): lambda value: [value],
    ("multi_label", "single_choice"): lambda value: value[0] if len(value) == 1 else value,
}
"""Task types whose answers can be read as those of another; what cannot be is refused by the new schema."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SchemaChange:
    """What differs between two versions of a schema, as far as answers are concerned.

    Parameters
    ----------
    renamed : new names by old ones, from the labels' ``was``.
    added, removed : labels.
    task : the two task types, or None where it is the same.
    options : of the task, those that differ, old and new; all of the new ones where the task is another.
    """

    renamed: dict[str, str]
    added: tuple[str, ...]
    removed: tuple[str, ...]
    task: tuple[str, str] | None
    options: dict[str, tuple[Any, Any]]

    def in_words(self) -> list[str]:
        """A line for each difference."""
        lines = [f"task {self.task[0]} became {self.task[1]}"] if self.task else []
        lines += [f"label {old!r} is now {new!r}" for old, new in self.renamed.items()]
        lines += [f"label {name!r} was removed" for name in self.removed]
        lines += [f"label {name!r} is new" for name in self.added]
        return lines + [f"{name} was {old!r}, is {new!r}" for name, (old, new) in self.options.items()]


NO_CHANGE = SchemaChange(renamed={}, added=(), removed=(), task=None, options={})


@dataclass(frozen=True, kw_only=True, slots=True)
class Mapped:
    """What a stored answer is under a newer schema.

    Parameters
    ----------
    state : ``kept`` as it is, ``migrated`` to another value, or ``invalid``.
    value : the answer, None when invalid.
    reason : why it is invalid.
    """

    state: Literal["kept", "migrated", "invalid"]
    value: Any = None
    reason: str | None = None


def changes(old: LabelSchema, new: LabelSchema) -> SchemaChange:
    """What changed from one version to the next.

    Raises
    ------
    StaleVersionError : the version does not rise. ConfigError : a label ``was`` one that there was not.

    Examples
    --------
    >>> from labeling.schema import parse_schema
    >>> found = changes(parse_schema("labels: [refund, other]"),
    ...                 parse_schema("version: 2\\nlabels: [{name: money back, was: refund}, spam]"))
    >>> found.renamed, found.added, found.removed
    ({'refund': 'money back'}, ('spam',), ('other',))
    """
    if new.version <= old.version:
        raise StaleVersionError(
            f"label schema: version={new.version} must be above {old.version}, the one it replaces; raise it"
        )
    renamed = {}
    for label in new.labels:
        if label.was in old.names and label.was != label.name:
            renamed[str(label.was)] = label.name
        elif label.was is not None and label.was not in old.names and label.name not in old.names:
            raise ConfigError(
                f"label {label.name!r}: version {old.version} had no label {label.was!r}; "
                f"{nearest(label.was, old.names)}"
            )
    stays = {name: renamed.get(name, name) for name in old.names if name in renamed or name in new.names}
    # A name that another label took over belongs to that one.
    taken = set(renamed.values())
    removed = tuple(name for name in old.names if name not in stays or (name in taken and name not in renamed))
    kept = {stays[name] for name in stays if name not in removed}
    before, after = _options(old), _options(new)
    return SchemaChange(
        renamed=renamed,
        added=tuple(name for name in new.names if name not in kept),
        removed=removed,
        task=None if old.task == new.task else (old.task, new.task),
        options={
            name: (before.get(name), value)
            for name, value in after.items()
            if old.task != new.task or before.get(name) != value
        },
    )


def _options(schema: LabelSchema) -> dict[str, Any]:
    return {name: getattr(schema.kind, name) for name in schema.kind.__dataclass_fields__}


def mapped(old: LabelSchema, new: LabelSchema, value: Any, text: str = "") -> Mapped:
    """What an answer that the old schema allowed is under the new one.

    Parameters
    ----------
    value : as it is stored.
    text : of the task, as it was served.

    Raises
    ------
    ConfigError : as ``changes``.
    """
    return _mapped(changes(old, new), old, new, value, text)


def _mapped(change: SchemaChange, old: LabelSchema, new: LabelSchema, value: Any, text: str) -> Mapped:
    gone = [name for name in old.kind.labels_in(value) if name in change.removed]
    if gone:
        return Mapped(state="invalid", reason=f"label {gone[0]!r} was removed in version {new.version}")
    found = old.kind.renamed(value, change.renamed)
    if change.task is not None:
        found = CONVERSIONS.get(change.task, lambda same: same)(found)
        if change.task not in CONVERSIONS:
            reason = f"a {change.task[0]} answer is none to a {change.task[1]} question, which version {new.version} is"
            return Mapped(state="invalid", reason=reason)
    try:
        found = new.validate(found, text)
    except DataError as error:
        return Mapped(state="invalid", reason=f"version {new.version}: {error}")
    return Mapped(state="kept" if canonical(found) == canonical(value) else "migrated", value=found)


@dataclass(slots=True)
class SchemaHistory:
    """The schemas that a queue had, oldest first, the present one last."""

    schemas: tuple[LabelSchema, ...]
    _changes: tuple[SchemaChange, ...]
    _known: dict[tuple[int, str, str], Mapped] = field(default_factory=dict)

    @classmethod
    def of(cls, stored: dict[str, Any]) -> "SchemaHistory":
        """From what a queue stores as its schema."""
        return cls(*_parsed(json.dumps(stored)))

    @property
    def present(self) -> LabelSchema:
        """The schema as it now stands."""
        return self.schemas[-1]

    @property
    def has_changed(self) -> bool:
        """Whether there was another before."""
        return len(self.schemas) > 1

    @property
    def last_change(self) -> SchemaChange:
        """What made the present schema of the one before it."""
        return self._changes[-1] if self._changes else NO_CHANGE

    def reads_text(self) -> bool:
        """Whether answers can be mapped only with their texts."""
        return self.has_changed and any(one.kind.reads_text for one in self.schemas)

    def under(self, version: int | None) -> LabelSchema:
        """The schema of that version; None is the first, as answers have it from before there were versions.

        Raises
        ------
        ConflictError : the queue never had that version.
        """
        if version is None:
            return self.schemas[0]
        for one in self.schemas:
            if one.version == version:
                return one
        listed = ", ".join(str(one.version) for one in self.schemas)
        raise ConflictError(f"this queue never asked by schema version {version}; it had {listed}: load the page again")

    def seen(self, value: Any, version: int | None, text: str = "") -> Mapped:
        """What an answer given under that version is now.

        Raises
        ------
        ConflictError : the queue never had that version.
        """
        first = self.schemas.index(self.under(version))
        if first == len(self.schemas) - 1:
            return Mapped(state="kept", value=value)
        reads_text = any(one.kind.reads_text for one in self.schemas[first:])
        key = (first, canonical(value), text if reads_text else "")
        if key in self._known:
            return self._known[key]
        found = Mapped(state="kept", value=value)
        for at in range(first, len(self.schemas) - 1):
            step = _mapped(self._changes[at], self.schemas[at], self.schemas[at + 1], found.value, text)
            if step.state == "invalid":
                found = step
                break
            found = Mapped(state="kept" if found.state == step.state == "kept" else "migrated", value=step.value)
        if not reads_text:
            self._known[key] = found
        return found


@lru_cache(maxsize=128)
def _parsed(stored: str) -> tuple[tuple[LabelSchema, ...], tuple[SchemaChange, ...]]:
    """Every answer is checked by a schema, and to build one takes longer than to look it up by its text."""
    document = json.loads(stored)
    found = tuple(LabelSchema.from_json(one) for one in (*document.get(EARLIER, ()), document))
    return found, tuple(changes(one, other) for one, other in pairwise(found))


def appended(stored: dict[str, Any], schema: LabelSchema) -> dict[str, Any]:
    """What a queue stores once the schema has become its present one.

    Raises
    ------
    ConfigError : as ``changes``, or there were too many versions.
    """
    present = {key: value for key, value in stored.items() if key != EARLIER}
    changes(LabelSchema.from_json(present), schema)
    earlier = [*stored.get(EARLIER, ()), present]
    if len(earlier) >= MAX_VERSIONS:
        raise ConfigError(f"the queue had {len(earlier)} schemas; at most {MAX_VERSIONS} are kept: open another queue")
    return schema.to_json() | {EARLIER: earlier}
