"""JSON Lines, ours: a line a record with everything that is known of its answers; nothing is lost."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from labeling.exchange import (
    FORMATS,
    Format,
    Given,
    Guess,
    Item,
    Problem,
    Written,
    moment,
    read_lines,
    retraction,
    seconds,
)
from labeling.schema import LabelSchema
from labeling.tasks import canonical


@dataclass(frozen=True, kw_only=True)
class Jsonl(Format):
    """One object a line: the record, its text, every answer with annotator, time and lateness, and all together."""

    suffixes: ClassVar[tuple[str, ...]] = (".jsonl", ".ndjson")
    keeps_retracted: ClassVar[bool] = True

    def write(self, path: Path, items: Iterable[Item], schema: LabelSchema) -> Written:  # noqa: ARG002 - one contract
        """Keys sorted, in UTF-8."""
        written = Written()
        with path.open("w", encoding="utf-8", newline="\n") as file:
            for item in items:
                file.write(canonical(as_json(item)) + "\n")
                written.num_items += 1
                written.num_answers += len(item.answers)
        return written

    def read(self, path: Path, schema: LabelSchema) -> Iterator[Item | Problem]:  # noqa: ARG002 - one contract
        """What ``write`` wrote, or lines with ``text`` and a ``value`` of whoever."""
        for number, row in read_lines(path):
            yield row if isinstance(row, Problem) else _item(row, f"line {number}")


def as_json(item: Item) -> dict[str, Any]:
    """An item as plain JSON; what is not known is left out."""
    document: dict[str, Any] = {"record_id": item.record_id, "text": item.text}
    if item.num_votes:
        document |= {"value": item.value, "confidence": item.confidence, "num_votes": item.num_votes}
    if item.tokens is not None:
        document["tokens"] = list(item.tokens)
    if item.answers:
        document["answers"] = [_answer(one) for one in item.answers]
    if item.guesses:
        document["predictions"] = [{"value": one.value, "model": one.model, "score": one.score} for one in item.guesses]
    return document


def _answer(one: Given) -> dict[str, Any]:
    document: dict[str, Any] = {"annotator": one.annotator, "value": one.value, "late": one.late}
    if one.at is not None:
        document["at"] = one.at.isoformat()
    if one.seconds_spent is not None:
        document["seconds_spent"] = one.seconds_spent
    if one.retracted is not None:
        document["retracted"] = one.retracted
    return document


def _item(row: dict[str, Any], where: str) -> Item | Problem:
    record_id, text = row.get("record_id"), row.get("text")
    if not isinstance(record_id, str | None) or not isinstance(text, str | None) or record_id is None is text:
        return Problem(where=where, reason="has neither a record_id nor a text", raw=row)
    answers, guesses = row.get("answers"), row.get("predictions") or []
    if answers is None and "value" in row:
        answers = [{"annotator": row.get("annotator", "imported"), "value": row["value"], "at": row.get("at")}]
    answers = answers or []
    if not isinstance(answers, list) or not all(_is_answer(one) for one in answers):
        return Problem(where=where, reason="answers must be objects with annotator and value", raw=row)
    if not isinstance(guesses, list) or not all(isinstance(one, dict) and "value" in one for one in guesses):
        return Problem(where=where, reason="predictions must be objects with a value", raw=row)
    return Item(
        record_id=record_id,
        text=text,
        answers=tuple(
            Given(
                annotator=one["annotator"],
                value=one["value"],
                at=moment(one.get("at")),
                seconds_spent=seconds(one.get("seconds_spent")),
                late=one.get("late") is True,
                retracted=retraction(one.get("retracted")),
            )
            for one in answers
        ),
        guesses=tuple(Guess(value=one["value"], model=one.get("model"), score=one.get("score")) for one in guesses),
        value=row.get("value"),
        confidence=row.get("confidence"),
        num_votes=row.get("num_votes") or 0,
        where=where,
    )


def _is_answer(one: Any) -> bool:
    return isinstance(one, dict) and isinstance(one.get("annotator"), str) and bool(one["annotator"]) and "value" in one


FORMATS.register("jsonl", Jsonl)(Jsonl)
