"""Prodigy's JSON Lines: a line an answer, with accept, reject or ignore.

Facts of its format (its interfaces ``ner_manual``, ``choice``, ``classification`` and ``text_input``):
``answer`` is ``accept``, ``reject`` or ``ignore``; spans count code points; a choice is a list of option ids in
``accept``; who answered is ``_annotator_id``, when ``_timestamp``, in seconds since 1970.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from labeling.exchange import FORMATS, Format, Given, Item, Problem, Written, moment, read_lines, retraction, seconds
from labeling.graphemes import words
from labeling.schema import LabelSchema
from labeling.tasks import canonical
from labeling.tasks.pairwise import pair_text, split_pair
from labeling.tasks.rating import Rating

OURS = "winnow"
VIEWS = {"spans": "ner_manual", "free_text": "text_input"}
FIELD = "user_input"


@dataclass(frozen=True, kw_only=True)
class Prodigy(Format):
    """A line an answer. A rejected answer says only what is not so, except of one label of two."""

    suffixes: ClassVar[tuple[str, ...]] = (".prodigy.jsonl",)

    def write(self, path: Path, items: Iterable[Item], schema: LabelSchema) -> Written:
        """Every answer as accepted, with the options or tokens that Prodigy's interfaces want."""
        written = Written()
        with path.open("w", encoding="utf-8", newline="\n") as file:
            for item in items:
                written.num_items += 1
                for one in item.answers:
                    file.write(canonical(_line(item, one, schema)) + "\n")
                    written.num_answers += 1
        return written

    def read(self, path: Path, schema: LabelSchema) -> Iterator[Item | Problem]:
        """Lines of one record come as items of one answer each."""
        for number, row in read_lines(path):
            yield row if isinstance(row, Problem) else _item(row, f"line {number}", schema)


def _line(item: Item, one: Given, schema: LabelSchema) -> dict[str, Any]:
    text = item.text or ""
    ours = {"record_id": item.record_id, "late": one.late, "retracted": one.retracted}
    line: dict[str, Any] = {
        "text": text,
        "answer": "accept",
        "_annotator_id": one.annotator,
        "_session_id": one.annotator,
        "_view_id": VIEWS.get(schema.task, "choice"),
        "meta": {OURS: ours | {"seconds_spent": one.seconds_spent}},
    }
    if one.at is not None:
        # Prodigy keeps seconds; ours are kept beside them whole.
        line |= {"_timestamp": int(one.at.timestamp())}
        ours["at"] = one.at.isoformat()
        line["meta"] = {OURS: ours | {"seconds_spent": one.seconds_spent}}
    if schema.task == "spans":
        return line | _marked(text, one.value)
    if schema.task == "free_text":
        return line | {"field_id": FIELD, FIELD: one.value}
    chosen = one.value if isinstance(one.value, list) else [one.value]
    return (
        line | {"options": _options(text, schema)} | _shown(text, schema) | {"accept": [str(name) for name in chosen]}
    )


def _options(text: str, schema: LabelSchema) -> list[dict[str, Any]]:
    if schema.task == "pairwise":
        kind: Any = schema.kind
        pair = split_pair(text)
        return [{"id": side, "text": pair.get(side) or side} for side in kind.choices]
    if isinstance(schema.kind, Rating):
        return [{"id": str(point), "text": str(point)} for point in schema.kind.points]
    return [{"id": one.name, "text": one.name} for one in schema.labels]


def _shown(text: str, schema: LabelSchema) -> dict[str, Any]:
    if schema.task != "pairwise":
        return {}
    prompt = split_pair(text)["prompt"]
    return {"text": prompt or "", OURS: text}


def _marked(text: str, spans: list[dict[str, Any]]) -> dict[str, Any]:
    bounds = words(text)
    tokens = [
        {"text": text[start:end], "start": start, "end": end, "id": place, "ws": text[end : end + 1].isspace()}
        for place, (start, end) in enumerate(bounds)
    ]
    starts = {start: place for place, (start, _) in enumerate(bounds)}
    ends = {end: place for place, (_, end) in enumerate(bounds)}
    marked = []
    for one in spans:
        span = dict(one)
        if one["start"] in starts and one["end"] in ends:
            span |= {"token_start": starts[one["start"]], "token_end": ends[one["end"]]}
        marked.append(span)
    return {"tokens": tokens, "spans": marked}


def _item(row: dict[str, Any], where: str, schema: LabelSchema) -> Item | Problem:
    meta = row.get("meta") if isinstance(row.get("meta"), dict) else {}
    assert isinstance(meta, dict)
    ours = meta.get(OURS) if isinstance(meta.get(OURS), dict) else {}
    assert isinstance(ours, dict)
    text = _text_of(row, schema)
    if text is None:
        return Problem(where=where, reason="has no text", raw=row)
    value, reason = _value(row, schema)
    if reason is not None:
        return Problem(where=where, reason=reason, raw=row)
    who = row.get("_annotator_id") or row.get("_session_id")
    answer = Given(
        annotator=who if isinstance(who, str) and who else "prodigy",
        value=value,
        at=moment(ours.get("at")) or moment(row.get("_timestamp")),
        seconds_spent=seconds(ours.get("seconds_spent")),
        late=ours.get("late") is True,
        retracted=retraction(ours.get("retracted")),
    )
    record_id = ours.get("record_id")
    return Item(record_id=record_id if isinstance(record_id, str) else None, text=text, answers=(answer,), where=where)


def _text_of(row: dict[str, Any], schema: LabelSchema) -> str | None:
    if schema.task == "pairwise":
        if isinstance(row.get(OURS), str):
            return str(row[OURS])
        by_id = {one.get("id"): one.get("text") for one in row.get("options") or [] if isinstance(one, dict)}
        a, b, prompt = by_id.get("a"), by_id.get("b"), row.get("text")
        if not isinstance(a, str) or not isinstance(b, str):
            return None
        return pair_text(a, b, prompt if isinstance(prompt, str) and prompt else None)
    return row["text"] if isinstance(row.get("text"), str) else None


def _value(row: dict[str, Any], schema: LabelSchema) -> tuple[Any, str | None]:
    """The answer, or why there is none."""
    answer = row.get("answer", "accept")
    if answer == "ignore":
        return None, "was ignored"
    if answer == "reject":
        return _rejected(row, schema)
    if schema.task == "spans":
        spans = row.get("spans")
        if not isinstance(spans, list) or not all(isinstance(one, dict) for one in spans):
            return None, "has no spans"
        return [{key: one.get(key) for key in ("start", "end", "label")} for one in spans], None
    if schema.task == "free_text":
        written = row.get(row.get("field_id") or FIELD)
        return (written, None) if isinstance(written, str) else (None, f"has no text under {FIELD!r}")
    accepted = row.get("accept")
    if not isinstance(accepted, list):
        if not isinstance(row.get("label"), str):
            return None, "has neither accept nor label"
        accepted = [row["label"]]
    if schema.task == "multi_label":
        return accepted, None
    if len(accepted) != 1:
        return None, f"{len(accepted)} options are accepted where one is asked for"
    return (_number(accepted[0]) if schema.task == "rating" else accepted[0]), None


def _rejected(row: dict[str, Any], schema: LabelSchema) -> tuple[Any, str | None]:
    label = row.get("label")
    if schema.task == "single_choice" and len(schema.names) == 2 and label in schema.names:
        # Not the one of two is the other.
        return next(name for name in schema.names if name != label), None
    return None, "was rejected, which says only what is not so"


def _number(value: Any) -> Any:
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


FORMATS.register("prodigy", Prodigy)(Prodigy)
