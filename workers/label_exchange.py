"""Answers of a file into a queue, in the formats of ``labeling.exchange``; out of one: ``workers.label_export``."""

import json
import math
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from sqlalchemy import select

from catalog.database import Catalog
from catalog.errors import DataError
from catalog.store import Store
from catalog.tables.access import User
from catalog.tables.datasets import Dataset, Version
from labeling import queue as queues
from labeling.exchange import Format, Guess, Item, Problem
from labeling.exchange.conll import aligned
from labeling.exchange.jsonl import as_json
from labeling.graphemes import snapped
from labeling.imports import Imported, Taken, check_version, import_answers
from labeling.schema import LabelSchema
from labeling.slots import checked_text
from labeling.suggestions import Suggestion, add_suggestions
from labeling.tasks import canonical, shown
from labeling.tasks.free_text import FreeText
from workers import curated
from workers.pairs import served_texts

CHUNK_ANSWERS = 500
"""Answers of one transaction: annotators wait for no more."""
MAX_SHOWN = 20


@dataclass(slots=True)
class Unknown:
    """A label that the queue does not have: how often a file has it, and where first."""

    count: int
    where: str


@dataclass(kw_only=True)
class Import:
    """What an import found and did.

    Parameters
    ----------
    aside : what was not taken, a line each with the reason, as ``Jsonl`` reads it again where it is an item.
    reasons : how many of those, by reason.
    num_unanswered : items with neither an answer nor a prediction, or only empty ones.
    num_suggestions : predictions that are shown to annotators, but for the share that the queue hides.
    num_snapped : spans widened to whole characters.
    """

    num_items: int = 0
    num_unanswered: int = 0
    num_answers: int = 0
    num_predictions: int = 0
    num_suggestions: int = 0
    num_snapped: int = 0
    taken: Taken = field(default_factory=Taken)
    aside: list[dict[str, Any]] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)

    def set_aside(self, reason: str, what: dict[str, Any], where: str) -> None:
        """Keep something that is not taken, and count why."""
        self.aside.append({"reason": reason, "where": where} | what)
        self.reasons[reason.split(":", maxsplit=1)[0]] += 1


def import_file(
    catalog: Catalog,
    *,
    queue_id: str,
    path: Path,
    format_: Format,
    renames: Mapping[str, str] | None = None,
    source: str | None = None,
) -> Import:
    """Read a file and take its answers into a queue; what is not taken is kept in the result, with the reason.

    Records are matched by id, else by their exact text, else (tokens without a text) by their characters but for white
    space. Taken again, the same answers are there already. Interrupted, the same call goes on.

    Parameters
    ----------
    renames : labels of the file and what they are called in the queue's schema.
    source : what the file is called in the event log; its name when left out.

    Raises
    ------
    NotFoundError : no such queue. GoneError : it is closed.
    DataError : labels that the schema does not have, with how often and where first each occurs; nothing is taken then.
        Or the file as a whole is none of this format.
    ConflictError : the schema changed meanwhile; what was taken by then stays.
    """
    with catalog.read() as session:
        queue = queues.open_queue(session, queue_id)
        schema = LabelSchema.from_json(queue.schema)
        version = session.get_one(Version, queue.version_id)
        text_column = session.get_one(Dataset, queue.dataset_id).text_column
        accounts = {row[0]: row[1] for row in session.execute(select(User.name, User.id))}
    store = Store.of(catalog.settings)
    records = curated.read_records(store, version)
    served = served_texts(store, version, text_column, schema, records)
    known = _Records({one: text for one, text in zip(records["id"], served, strict=True) if text is not None})
    found = Import()
    named = {unicodedata.normalize("NFC", old): new for old, new in (renames or {}).items()}
    answers: list[Imported] = []
    guesses: list[Suggestion] = []
    unknown: dict[str, Unknown] = {}
    for item in format_.read(path, schema):
        if isinstance(item, Problem):
            found.set_aside(item.reason, {"raw": item.raw}, item.where)
            continue
        found.num_items += 1
        item = _without_empty(item, schema, found)
        if not item.answers and not item.guesses:
            found.num_unanswered += 1
            continue
        answers += _of_item(item, known, schema, named, accounts, unknown, found)
        guesses += _guesses(item, known, schema, named, unknown, found)
    if unknown:
        raise DataError(_unknown_labels(unknown, schema))
    answers.sort(key=lambda one: one.record_id)
    for chunk in _chunks(answers):
        with catalog.write() as session:
            told = import_answers(
                session,
                now=catalog.now(session),
                queue_id=queue_id,
                answers=chunk,
                texts=known.texts,
                source=source or path.name,
                schema_version=schema.version,
            )
        for name in ("num_new", "num_late", "num_history", "num_repeated"):
            setattr(found.taken, name, getattr(found.taken, name) + getattr(told, name))
    if guesses:
        with catalog.write() as session:
            now = catalog.now(session)
            check_version(queues.open_queue(session, queue_id), schema.version)
            found.num_suggestions = add_suggestions(session, now=now, queue_id=queue_id, suggestions=guesses)
    return found


class _Records:
    """The records that a queue may ask about, by id, by text, and by the characters of their texts."""

    def __init__(self, texts: dict[str, str]) -> None:
        self.texts = texts
        self._by_text: dict[str, str] = {}
        self._by_characters: dict[str, str] | None = None
        for record_id in sorted(texts, reverse=True):
            self._by_text[texts[record_id]] = record_id

    def find(self, item: Item) -> str | None:
        """The record that an item is about, of equal texts the one with the smallest id; None if it is none here."""
        if item.record_id in self.texts:
            return item.record_id
        if item.text is not None:
            return self._by_text.get(item.text)
        if item.tokens is None:
            return None
        if self._by_characters is None:
            self._by_characters = {_squeezed(text): record_id for text, record_id in self._by_text.items()}
        return self._by_characters.get(_squeezed("".join(item.tokens)))


def _squeezed(text: str) -> str:
    return "".join(text.split())


def _without_empty(item: Item, schema: LabelSchema, found: Import) -> Item:
    """The item without answers and predictions that say nothing; these are set aside where it has others."""
    answers = tuple(one for one in item.answers if not _is_empty(one.value, schema))
    guesses = tuple(one for one in item.guesses if not _is_empty(one.value, schema))
    if answers or guesses:
        for given in (one for one in item.answers if one not in answers):
            alone = replace(item, answers=(given,), guesses=(), num_votes=0)
            found.set_aside("an empty value is no answer", as_json(alone), item.where)
        for guess in (one for one in item.guesses if one not in guesses):
            alone = replace(item, answers=(), guesses=(guess,), num_votes=0)
            found.set_aside("an empty value is no prediction", as_json(alone), item.where)
    return replace(item, answers=answers, guesses=guesses)


def _is_empty(value: Any, schema: LabelSchema) -> bool:
    """Whether a value is none at all: no list without members, which says that nothing applies."""
    if isinstance(value, str) and not value.strip():
        return not (isinstance(schema.kind, FreeText) and schema.kind.min_chars == 0)
    return value is None


def _of_item(
    item: Item,
    known: _Records,
    schema: LabelSchema,
    renames: dict[str, str],
    accounts: Mapping[str, str],
    unknown: dict[str, Unknown],
    found: Import,
) -> Iterator[Imported]:
    found.num_answers += len(item.answers)
    found.num_predictions += len(item.guesses)
    record_id = known.find(item)
    if record_id is None:
        found.set_aside("no record of that id or text", as_json(item), item.where)
        return
    text = known.texts[record_id]
    if schema.kind.reads_text and item.text is not None and item.text != text:
        found.set_aside("the record's text is another now", as_json(item), item.where)
        return
    for one in item.answers:
        value = _with_offsets(one.value, item, text)
        value = _renamed(value, renames, schema)
        if _has_unknown(value, schema, item.where, unknown):
            continue
        value, num_snapped = _whole_characters(value, text) if schema.kind.reads_text else (value, 0)
        annotator_id = accounts.get(one.annotator, one.annotator) or ""
        reason = "not allowed by the schema"
        try:
            checked = schema.validate(value, text)
            reason = "no annotator can be called so"
            checked_text("annotator", annotator_id, at_least=1, at_most=200)
        except DataError as error:
            told = replace(item, record_id=record_id, answers=(one,), guesses=(), num_votes=0)
            found.set_aside(f"{reason}: {error}", as_json(told), item.where)
            continue
        found.num_snapped += num_snapped
        yield Imported(
            record_id=record_id,
            annotator_id=annotator_id,
            value=checked,
            at=one.at,
            seconds_spent=one.seconds_spent,
            late=one.late,
            retracted=one.retracted,
        )


def _guesses(
    item: Item,
    known: _Records,
    schema: LabelSchema,
    renames: dict[str, str],
    unknown: dict[str, Unknown],
    found: Import,
) -> Iterator[Suggestion]:
    """What models said, as far as the schema allows it; where the record is not known, its answers have said so."""
    record_id = known.find(item)
    if record_id is None or (schema.kind.reads_text and item.text is not None and item.text != known.texts[record_id]):
        return
    for one in item.guesses:
        value = _renamed(_with_offsets(one.value, item, known.texts[record_id]), renames, schema)
        if _has_unknown(value, schema, item.where, unknown):
            continue
        try:
            value, _ = _whole_characters(value, known.texts[record_id]) if schema.kind.reads_text else (value, 0)
            checked = schema.validate(value, known.texts[record_id])
            source, score = _source_of(one)
        except DataError as error:
            told = replace(item, record_id=record_id, answers=(), guesses=(one,), num_votes=0)
            found.set_aside(f"prediction not allowed by the schema: {error}", as_json(told), item.where)
            continue
        yield Suggestion(record_id=record_id, value=checked, source=source, score=score)


def _source_of(guess: Guess) -> tuple[str, float | None]:
    """A prediction's model and score, which may be anything in a file.

    Raises
    ------
    DataError : they are no name and no number.
    """
    model, score = guess.model or "import", guess.score
    if not isinstance(model, str):
        raise DataError(f"model={shown(model)} is no name; put it in quotes")
    is_number = isinstance(score, int | float) and not isinstance(score, bool)
    if score is not None and not (is_number and abs(score) <= 1e300 and math.isfinite(score)):
        raise DataError(f"score={shown(score)} must be a finite number; leave it out if there is none")
    return checked_text("model", model, at_least=1, at_most=200), score


def _has_unknown(value: Any, schema: LabelSchema, where: str, unknown: dict[str, Unknown]) -> bool:
    """Whether an answer has labels that the schema does not; they are counted."""
    strange = [name for name in _labels_of(value) if name not in schema.names] if schema.names else []
    for name in strange:
        unknown.setdefault(name, Unknown(0, where)).count += 1
    return bool(strange)


def _with_offsets(value: Any, item: Item, text: str) -> Any:
    """Spans over tokens as spans over characters."""
    if item.tokens is None:
        return value
    bounds = aligned(item.tokens, text)
    if bounds is None:
        # Refused by the schema, with the rest of the message.
        return f"tokens {' '.join(item.tokens)[:100]!r}, which are not those of the text"
    return [{**one, "start": bounds[one["start"]][0], "end": bounds[one["end"] - 1][1]} for one in value]


def _labels_of(value: Any) -> list[str]:
    """Names in an answer that may have any form."""
    some = value if isinstance(value, list) else [value]
    names = [one.get("label") if isinstance(one, dict) else one for one in some]
    return [unicodedata.normalize("NFC", name.strip()) for name in names if isinstance(name, str)]


def _renamed(value: Any, renames: Mapping[str, str], schema: LabelSchema) -> Any:
    if not schema.names:
        return value

    def renamed(name: Any) -> Any:
        return renames.get(unicodedata.normalize("NFC", name.strip()), name) if isinstance(name, str) else name

    if isinstance(value, list):
        return [{**one, "label": renamed(one.get("label"))} if isinstance(one, dict) else renamed(one) for one in value]
    return renamed(value)


def _whole_characters(value: Any, text: str) -> tuple[Any, int]:
    """Spans widened to whole characters, and how many were."""
    if not isinstance(value, list):
        return value, 0
    num_snapped = 0
    wide = []
    for one in value:
        start, end = (one.get("start"), one.get("end")) if isinstance(one, dict) else (None, None)
        if type(start) is int and type(end) is int and 0 <= start < end <= len(text):
            first, last = snapped(text, start, end)
            num_snapped += (first, last) != (start, end)
            wide.append({**one, "start": first, "end": last})
        else:
            wide.append(one)
    return wide, num_snapped


def _unknown_labels(unknown: Mapping[str, Unknown], schema: LabelSchema) -> str:
    told = []
    for name, found in sorted(unknown.items(), key=lambda one: -one[1].count)[:MAX_SHOWN]:
        close = get_close_matches(name[:200], schema.names, n=1, cutoff=0.5)
        place = f", first in {found.where}" if found.where else ""
        told.append(f"{name[:200]!r} ({found.count:,}{place}{f', did you mean {close[0]!r}?' if close else ''})")
    more = f" and {len(unknown) - MAX_SHOWN} more" if len(unknown) > MAX_SHOWN else ""
    return (
        f"{len(unknown)} label(s) of the file are none of the queue's: {', '.join(told)}{more}; the queue has "
        f"{', '.join(schema.names[:MAX_SHOWN])}. Nothing was imported: say what they are with --rename OLD=NEW "
        "(over HTTP rename=OLD=NEW), or add them to the schema with `winnow label schema`"
    )


def _chunks(answers: list[Imported]) -> Iterator[list[Imported]]:
    """Some answers at a time, all of a record together."""
    chunk: list[Imported] = []
    for one in answers:
        if len(chunk) >= CHUNK_ANSWERS and one.record_id != chunk[-1].record_id:
            yield chunk
            chunk = []
        chunk.append(one)
    if chunk:
        yield chunk


def write_aside(path: Path, found: Import) -> None:
    """Write what was not taken, a line each."""
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for one in found.aside:
            try:
                line = canonical(one)
            except ValueError:
                # A number that JSON has no word for.
                line = json.dumps(one | {"raw": repr(one.get("raw"))}, ensure_ascii=False, sort_keys=True, default=repr)
            file.write(line + "\n")
