"""Exchange formats: answers as files of other tools, and back.

A member is a frozen dataclass whose fields are its options. ``write`` gets items and returns what it could not say as
they are; ``read`` gives items back, and problems for what is none. Values are those of the schema's task, whatever the
file calls them. Offsets are Unicode code points here, whatever they are in the file.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

from catalog.errors import ConfigError, DataError, nearest
from catalog.registry import Registry
from labeling.schema import LabelSchema, option_value
from labeling.tasks import shown


@dataclass(frozen=True, kw_only=True)
class Given:
    """One answer of one person.

    Parameters
    ----------
    annotator : name or id; whoever it is need have no account.
    value : as the task type has it.
    at : when it was given, if known.
    late : kept beyond the overlap.
    retracted : ``undone`` or ``superseded``; None while it counts.
    """

    annotator: str
    value: Any
    at: datetime | None = None
    seconds_spent: float | None = None
    late: bool = False
    retracted: str | None = None


@dataclass(frozen=True, kw_only=True)
class Guess:
    """What a model thought, with its own score if it gave one."""

    value: Any
    model: str | None = None
    score: float | None = None


@dataclass(frozen=True, kw_only=True)
class Item:
    """A record with its answers.

    Parameters
    ----------
    record_id : None where the file does not tell; the text then says which record it is.
    text : as it was shown. Of a pair ``labeling.tasks.pairwise.pair_text``. None where the file has none.
    tokens : where a file knows tokens but not what stands between them; spans then count tokens.
    value, confidence, num_votes : the answers taken together, where there are any.
    where : place in the file, for messages.
    """

    record_id: str | None
    text: str | None
    answers: tuple[Given, ...] = ()
    guesses: tuple[Guess, ...] = ()
    tokens: tuple[str, ...] | None = None
    value: Any = None
    confidence: float | None = None
    num_votes: int = 0
    where: str = ""


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Something in a file that is no answer: why, and the thing itself, so that nothing is lost."""

    where: str
    reason: str
    raw: Any


@dataclass
class Written:
    """What a file holds.

    Parameters
    ----------
    changed : how many of what could not be written as it is, by what was done about it.
    """

    num_items: int = 0
    num_answers: int = 0
    changed: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, kw_only=True)
class Format:
    """One exchange format; the fields of a subclass are its options.

    ``suffixes`` choose it. ``tasks`` are the task types that it can hold, None for all. ``is_folder`` says that it
    makes a folder. ``every_answer`` is False where only the answers taken together are written. ``keeps_retracted`` is
    True where answers that do not count any more are written too.
    """

    suffixes: ClassVar[tuple[str, ...]] = ()
    tasks: ClassVar[frozenset[str] | None] = None
    is_folder: ClassVar[bool] = False
    every_answer: ClassVar[bool] = True
    keeps_retracted: ClassVar[bool] = False

    def write(self, path: Path, items: Iterable[Item], schema: LabelSchema) -> Written:
        """Write to a path that is not there yet."""
        raise NotImplementedError

    def read(self, path: Path, schema: LabelSchema) -> Iterator[Item | Problem]:
        """Items and problems, in the order of the file.

        Raises
        ------
        DataError : the file as a whole is none of this format.
        """
        raise NotImplementedError


FORMATS: Registry[type[Format]] = Registry("exchange format", "labeling.exchange")


def chosen(name: str | None, path: Path, schema: LabelSchema, options: dict[str, Any]) -> Format:
    """The format named, or the one that the path's suffix chooses, with its options.

    Raises
    ------
    NotFoundError : no such format.
    ConfigError : the suffix tells none, the format cannot hold the task, or an option is unknown or of another kind.
    """
    if name is None:
        named = {suffix: one for one in FORMATS for suffix in FORMATS[one].config.suffixes}
        fitting = [suffix for suffix in named if path.name.lower().endswith(suffix)]
        if not fitting:
            raise ConfigError(f"{path.name}: the suffix names no format; give --format, one of {', '.join(FORMATS)}")
        name = named[max(fitting, key=len)]
    member = FORMATS[name]
    tasks = member.config.tasks
    if tasks is not None and schema.task not in tasks:
        holds = [one for one in FORMATS if (of := FORMATS[one].config.tasks) is None or schema.task in of]
        raise ConfigError(f"{name} files hold no {schema.task} answers; choose one of {', '.join(holds)}")
    configured: Format = member.configured(options)
    return configured


def worded(name: str | None, path: Path, schema: LabelSchema, words: Iterable[str], flag: str) -> Format:
    """The format named, or chosen by the path, its options as people write them: ``NAME=VALUE`` each.

    Parameters
    ----------
    flag : what they call such an option, for messages.

    Raises
    ------
    NotFoundError, ConfigError : as ``chosen``, or a word is no ``NAME=VALUE``.
    """
    made = chosen(name, path, schema, {})
    known = {one.name: one.type for one in fields(made)}
    options = {}
    for key, value in (pair_of(one, flag, "NAME=VALUE") for one in words):
        if key not in known:
            raise ConfigError(f"{flag} {key[:100]!r} is unknown here; {nearest(key[:100], known)}")
        options[key] = option_value(f"{flag} {key}", value, known[key])
    return type(made)(**options)


def pair_of(text: str, flag: str, form: str) -> tuple[str, str]:
    """Both sides of the first equals sign.

    Raises
    ------
    ConfigError : there is none, or nothing before it.

    Examples
    --------
    >>> pair_of("refnd = refund", "--rename", "OLD=NEW")
    ('refnd', 'refund')
    """
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"{flag} {text[:200]!r} must be {form}")
    return key.strip(), value.strip()


def read_text(path: Path) -> str:
    """A file's text.

    Raises
    ------
    DataError : it is not UTF-8.
    """
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path.name} is not UTF-8 ({error}); write it again in UTF-8") from error


def read_lines(path: Path) -> Iterator[tuple[int, Any]]:
    """Number and value of every line of JSON; a line that is none comes as a ``Problem``."""
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if not line.strip():
            continue
        try:
            found = json.loads(line)
        except (ValueError, RecursionError) as error:
            yield number, Problem(where=f"line {number}", reason=f"no JSON: {error}", raw=line)
            continue
        if isinstance(found, dict):
            yield number, found
        else:
            yield number, Problem(where=f"line {number}", reason=f"no JSON object: {shown(found)}", raw=line)


def moment(value: Any) -> datetime | None:
    """A time from ISO 8601 or seconds since 1970; None where it is neither. Without a zone it is UTC.

    >>> moment("2026-03-01T09:00:00Z") == moment(1772355600)
    True
    """
    try:
        if isinstance(value, str):
            found = datetime.fromisoformat(value)
            return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return datetime.fromtimestamp(value, UTC)
    except (ValueError, OverflowError, OSError):
        return None
    return None


def retraction(value: Any) -> str | None:
    """How an answer was taken back, None where it counts: also where the word is none of ours."""
    return value if value in ("undone", "superseded") else None


def seconds(value: Any) -> float | None:
    """A length of time, None where it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e9:
        return None
    return float(value)
