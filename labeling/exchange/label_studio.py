"""Label Studio's JSON: tasks with annotations and predictions.

Facts of its format, of release 1.23.2 and its documentation ("Label Studio Task Format", "Import pre-annotated data"):
an annotation has a ``result``, a list of ``{from_name, to_name, type, value}``. Spans are one ``labels`` result each,
with ``start``, ``end`` and usually ``text``. The present editor counts code points (its own test says "Should calculate
offsets by code points in text"); until its issues 1008 and 1347 were mended it counted UTF-16 units, and other programs
that write the format still do. Each span's ``text`` tells which.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar
from xml.sax.saxutils import quoteattr

from catalog.errors import ConfigError, DataError
from labeling.exchange import (
    FORMATS,
    Format,
    Given,
    Guess,
    Item,
    Problem,
    Written,
    moment,
    read_text,
    retraction,
    seconds,
)
from labeling.schema import LabelSchema
from labeling.tasks import canonical, shown
from labeling.tasks.pairwise import TIE, pair_text, split_pair

OFFSETS = ("auto", "code_points", "utf16")
CONTROL, TEXT = "answer", "text"
"""Names of the control and the text in the labeling configs that we write."""
SIDES = {"left": "a", "right": "b"}
OURS = "winnow"


@dataclass(frozen=True, kw_only=True)
class LabelStudio(Format):
    """A JSON array of tasks; ``labeling_config`` is the configuration of a project that imports it.

    Parameters
    ----------
    text : key in a task's ``data`` that holds the text; a pair's are ``a``, ``b`` and ``text``.
    offsets : what spans count when reading: ``code_points``, ``utf16``, or ``auto``, which decides by the text that
        spans carry, and takes code points where none does.
    """

    suffixes: ClassVar[tuple[str, ...]] = (".json",)

    text: str = "text"
    offsets: str = "auto"

    def __post_init__(self) -> None:
        if self.offsets not in OFFSETS:
            raise ConfigError(f"label_studio: offsets={self.offsets!r} must be one of {', '.join(OFFSETS)}")

    def write(self, path: Path, items: Iterable[Item], schema: LabelSchema) -> Written:
        """Tasks by number; who answered stands beside each annotation, since Label Studio refuses unknown accounts."""
        written = Written()
        with path.open("w", encoding="utf-8", newline="\n") as file:
            for number, item in enumerate(items, 1):
                file.write("[\n" if number == 1 else ",\n")
                file.write(json.dumps(_task(number, item, schema, self.text), ensure_ascii=False))
                written.num_items += 1
                written.num_answers += len(item.answers)
            file.write("\n]\n" if written.num_items else "[]\n")
        return written

    def read(self, path: Path, schema: LabelSchema) -> Iterator[Item | Problem]:
        """An export (JSON), or tasks with predictions as they are imported there."""
        try:
            tasks = json.loads(read_text(path))
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path.name} is no JSON ({error}); export as JSON, not as JSON-MIN or CSV") from error
        tasks = [tasks] if isinstance(tasks, dict) else tasks
        if not isinstance(tasks, list):
            raise DataError(f"{path.name} holds {shown(tasks)}, not a list of Label Studio tasks")
        units = self._units(tasks)
        for number, task in enumerate(tasks, 1):
            yield from self._items(task, number, schema, units)

    def _units(self, tasks: list[Any]) -> str:
        """What the offsets of this file count, by the spans that tell."""
        if self.offsets != "auto":
            return self.offsets
        votes: Counter[str] = Counter()
        for task in tasks:
            if isinstance(task, dict) and isinstance(task.get("data"), dict):
                text = task["data"].get(self.text)
                for value in _span_values(task):
                    if isinstance(text, str) and isinstance(value.get("text"), str):
                        votes.update(_fitting(text, value))
        return "utf16" if votes["utf16"] > votes["code_points"] else "code_points"

    def _items(self, task: Any, number: int, schema: LabelSchema, units: str) -> Iterator[Item | Problem]:
        where = f"task {number}"
        if not isinstance(task, dict) or not isinstance(task.get("data"), dict):
            yield Problem(where=where, reason="has no data", raw=task)
            return
        data = task["data"]
        text = _text_of(data, schema, self.text)
        if text is None:
            keys = ", ".join(sorted(map(str, data))[:10])
            yield Problem(where=where, reason=f"data has no text under {self.text!r}; it has {keys}", raw=task)
            return
        ours = data.get(OURS) if isinstance(data.get(OURS), dict) else {}
        answers, guesses = [], []
        for one in _objects(task.get("annotations") or task.get("completions")):
            value = None if one.get("was_cancelled") else _value(one.get("result"), schema, text, units)
            if value is None:
                reason = "was skipped" if one.get("was_cancelled") else f"has no {schema.task} result"
                yield Problem(where=f"{where}, annotation {one.get('id')}", reason=reason, raw=_alone(task, one))
            else:
                answers.append(_given(one, value))
        for one in _objects(task.get("predictions")):
            value = _value(one.get("result"), schema, text, units)
            if value is None:
                reason = f"has no {schema.task} result"
                yield Problem(where=f"{where}, prediction {one.get('id')}", reason=reason, raw=_alone(task, one))
            else:
                guesses.append(
                    Guess(value=value, model=_words(one.get("model_version")), score=_score(one.get("score")))
                )
        record_id = ours.get("record_id")
        if answers or guesses or not _objects(task.get("annotations")):
            yield Item(
                record_id=record_id if isinstance(record_id, str) else None,
                text=text,
                answers=tuple(answers),
                guesses=tuple(guesses),
                where=where,
            )


def labeling_config(schema: LabelSchema, text: str = TEXT) -> str:
    """The XML of a Label Studio project whose tasks are those that ``write`` writes."""
    head = f"  <Header value={quoteattr(schema.question)}/>"
    shown_text = f'  <Text name="{TEXT}" value="${text}"/>'
    labels = "".join(
        f"    <{{}} value={quoteattr(one.name)}{f' hotkey={quoteattr(one.hotkey)}' if one.hotkey else ''}/>\n"
        for one in schema.labels
    )
    common = f'name="{CONTROL}" toName="{TEXT}"'
    kind: Any = schema.kind
    if schema.task in ("single_choice", "multi_label"):
        choice = "single" if schema.task == "single_choice" else "multiple"
        body = f'  <Choices {common} choice="{choice}">\n{labels.replace("{}", "Choice")}  </Choices>'
    elif schema.task == "spans":
        body = f"  <Labels {common}>\n{labels.replace('{}', 'Label')}  </Labels>"
    elif schema.task == "pairwise":
        tie = f'\n  <Choices {common}><Choice value="{TIE}"/></Choices>' if kind.ties else ""
        shown_text += '\n  <Text name="a" value="$a"/>\n  <Text name="b" value="$b"/>'
        body = f'  <Pairwise name="preference" toName="a,b"/>{tie}'
    elif schema.task == "rating":
        stars = kind.min == kind.step == 1
        body = (
            f'  <Rating {common} maxRating="{kind.max:g}"/>'
            if stars
            else f'  <Number {common} min="{kind.min:g}" max="{kind.max:g}" step="{kind.step:g}"/>'
        )
    else:
        body = f'  <TextArea {common} maxSubmissions="1"/>'
    return f"<View>\n{head}\n{shown_text}\n{body}\n</View>\n"


def _task(number: int, item: Item, schema: LabelSchema, text_key: str) -> dict[str, Any]:
    text = item.text or ""
    if schema.task == "pairwise":
        pair = split_pair(text)
        # The labeling config shows a text above both, so there must be one.
        data: dict[str, Any] = {"a": pair["a"], "b": pair["b"], text_key: pair["prompt"] or ""}
        data[OURS] = {"record_id": item.record_id, "prompt": pair["prompt"] is not None}
    else:
        data = {text_key: text, OURS: {"record_id": item.record_id}}
    annotations = []
    for place, one in enumerate(item.answers, 1):
        annotation: dict[str, Any] = {
            "id": number * 1000 + place,
            "result": _result(one.value, schema, text, f"{number}-{place}"),
            "was_cancelled": False,
            "ground_truth": False,
            OURS: {"annotator": one.annotator, "late": one.late, "retracted": one.retracted},
        }
        if one.at is not None:
            annotation["created_at"] = annotation["updated_at"] = one.at.isoformat()
        if one.seconds_spent is not None:
            annotation["lead_time"] = one.seconds_spent
        annotations.append(annotation)
    predictions = [
        {
            "model_version": one.model,
            "score": one.score,
            "result": _result(one.value, schema, text, f"{number}-p{place}"),
        }
        for place, one in enumerate(item.guesses, 1)
    ]
    return {"id": number, "data": data, "annotations": annotations, "predictions": predictions}


def _result(value: Any, schema: LabelSchema, text: str, prefix: str) -> list[dict[str, Any]]:
    def one(kind: str, inner: dict[str, Any], place: int = 0) -> dict[str, Any]:
        is_pair = kind == "pairwise"
        return {
            "id": f"{prefix}-{place}",
            "from_name": "preference" if is_pair else CONTROL,
            "to_name": "a" if is_pair else TEXT,
            "type": kind,
            "value": inner,
        }

    if schema.task in ("single_choice", "multi_label"):
        return [one("choices", {"choices": value if isinstance(value, list) else [value]})]
    if schema.task == "spans":
        return [
            one(
                "labels",
                {
                    "start": span["start"],
                    "end": span["end"],
                    "text": text[span["start"] : span["end"]],
                    "labels": [span["label"]],
                },
                place,
            )
            for place, span in enumerate(value)
        ]
    if schema.task == "pairwise":
        sides = {side: name for name, side in SIDES.items()}
        if value == TIE:
            return [one("choices", {"choices": [TIE]})]
        return [one("pairwise", {"selected": sides[value]})]
    if schema.task == "rating":
        kind: Any = schema.kind
        name = "rating" if kind.min == kind.step == 1 else "number"
        return [one(name, {name: value})]
    return [one("textarea", {"text": [value]})]


def _value(result: Any, schema: LabelSchema, text: str, units: str) -> Any:
    """The answer that a result tells, None where it tells nothing of this task."""
    found = _objects(result)
    values: dict[str, list[dict[str, Any]]] = {}
    for one in found:
        inner = one.get("value")
        if isinstance(inner, dict):
            values.setdefault(str(one.get("type")), []).append(inner)
    if schema.task == "spans":
        # No result at all is an answer: nothing is there to mark.
        if found and "labels" not in values:
            return None
        return [span for one in values.get("labels", []) for span in _spans(one, text, units)]
    if schema.task in ("single_choice", "multi_label"):
        chosen = [name for one in values.get("choices", []) for name in _names(one.get("choices"))]
        if schema.task == "multi_label":
            return chosen if "choices" in values or not found else None
        return (chosen[0] if len(chosen) == 1 else chosen) if chosen else None
    if schema.task == "pairwise":
        for one in values.get("pairwise", []):
            return SIDES.get(str(one.get("selected")), one.get("selected"))
        return TIE if any(TIE in _names(one.get("choices")) for one in values.get("choices", [])) else None
    if schema.task == "rating":
        for name in ("rating", "number"):
            for one in values.get(name, []):
                return one.get(name)
        return None
    written = ["\n".join(_names(one.get("text"))) for one in values.get("textarea", [])]
    return written[0] if written else None


def _names(value: Any) -> list[str]:
    """A list of text; a tree of choices names the path, of which the last counts."""
    if isinstance(value, str):
        return [value]
    names = [one[-1] if isinstance(one, list) and one else one for one in value] if isinstance(value, list) else []
    return [one for one in names if isinstance(one, str)]


def _spans(value: dict[str, Any], text: str, units: str) -> list[dict[str, Any]]:
    """A region's spans: one for each of its labels."""
    start, end = value.get("start"), value.get("end")
    if units == "utf16" and isinstance(start, int) and isinstance(end, int):
        start, end = _code_points(text, start), _code_points(text, end)
    labels: list[str | None] = [*_names(value.get("labels"))] or [None]
    return [{"start": start, "end": end, "label": label} for label in labels]


def _span_values(task: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for kind in ("annotations", "completions", "predictions"):
        for one in _objects(task.get(kind)):
            for result in _objects(one.get("result")):
                if result.get("type") == "labels" and isinstance(result.get("value"), dict):
                    yield result["value"]


def _fitting(text: str, value: dict[str, Any]) -> Iterator[str]:
    """Which way of counting gives the text that a span carries, where only one does."""
    start, end = value.get("start"), value.get("end")
    if not isinstance(start, int) or not isinstance(end, int):
        return
    # Its editor writes line breaks as two characters, backslash and n.
    wanted = value["text"].replace("\\n", "\n")
    by_points = text[start:end] == wanted
    by_units = text[_code_points(text, start) : _code_points(text, end)] == wanted
    if by_points != by_units:
        yield "code_points" if by_points else "utf16"


def _code_points(text: str, units: int) -> int:
    """The code point at a number of UTF-16 units; beyond the text by as many as there are too many.

    >>> [_code_points("a👍b", one) for one in (0, 1, 3, 4, 9)]
    [0, 1, 2, 3, 8]
    """
    head = text.encode("utf-16-le", "surrogatepass")[: max(units, 0) * 2].decode("utf-16-le", "ignore")
    beyond = units - len(head.encode("utf-16-le", "surrogatepass")) // 2
    # Half a pair is no character: the offset is then before it.
    return len(head) + (beyond if len(head) == len(text) else 0)


def _text_of(data: dict[str, Any], schema: LabelSchema, key: str) -> str | None:
    if schema.task != "pairwise":
        return data[key] if isinstance(data.get(key), str) else None
    a, b, prompt = data.get("a"), data.get("b"), data.get(key)
    if not isinstance(a, str) or not isinstance(b, str):
        return None
    ours = data.get(OURS)
    has_prompt = isinstance(prompt, str) and not (isinstance(ours, dict) and ours.get("prompt") is False)
    return pair_text(a, b, prompt if has_prompt else None)


def _given(one: dict[str, Any], value: Any) -> Given:
    ours = one.get(OURS) if isinstance(one.get(OURS), dict) else {}
    assert isinstance(ours, dict)
    at: datetime | None = moment(one.get("created_at"))
    return Given(
        annotator=_words(ours.get("annotator")) or _who(one.get("completed_by")),
        value=value,
        at=at,
        seconds_spent=seconds(one.get("lead_time")),
        late=ours.get("late") is True,
        retracted=retraction(ours.get("retracted")),
    )


def _who(completed_by: Any) -> str:
    if isinstance(completed_by, dict):
        found = completed_by.get("email") or completed_by.get("username") or completed_by.get("id")
        return "label-studio" if found is None else str(found)
    return "label-studio" if completed_by is None else f"label-studio:{completed_by}"


def _score(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _words(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _objects(value: Any) -> list[dict[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _alone(task: dict[str, Any], one: dict[str, Any]) -> dict[str, Any]:
    """What is set aside: the task's data and only this of its answers."""
    return {"data": task["data"], "one": json.loads(canonical(one))}


FORMATS.register("label_studio", LabelStudio)(LabelStudio)
