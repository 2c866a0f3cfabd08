"""Replacing: what is written in the place of a value, so that looking again finds nothing more."""

import hashlib
import hmac
from collections.abc import Iterable, Iterator

import polars as pl

from curation.pii import KINDS
from curation.pii.finding import find_spans, fold
from curation.pii.kind import Kind, letters
from curation.pii.step import REPLACING, PiiStep

MASK = "*"
ROUNDS = 8
"""What stands beside a value that was replaced may have been no candidate before. It is seldom more than one round."""
_READABLE = 3
"""A value is this many times as long as what masking leaves of it, or nothing is left."""


def tagged(kind: Kind) -> str:
    """What stands for any value of a kind, e.g. ``<EMAIL>``."""
    return f"<{kind.tag}>"


def masked(kind: Kind, value: str) -> str:
    """A value of the same length with letters and digits hidden, but for the few that the kind leaves.

    >>> masked(KINDS["payment_card"].member, "4111 1111 1111 1111")
    '**** **** **** 1111'
    """
    if kind.hides_signs:
        return MASK * len(value)
    number = sum(one.isalnum() for one in value)
    left = number >= _READABLE * (kind.keep_first + kind.keep_last)
    first, last = (kind.keep_first, number - kind.keep_last) if left else (0, number)
    place, shown = 0, []
    for one in value:
        hidden = one.isalnum() and first <= place < last
        place += one.isalnum()
        shown.append(MASK if hidden else one)
    return "".join(shown)


def hidden(text: str, spans: Iterable[tuple[str, int, int]]) -> str:
    """A text with its values masked, so that it can be shown: same length, same places.

    Parameters
    ----------
    spans : kind, start and end of each value, none overlapping.
    """
    parts, at = [], 0
    for name, start, end in sorted(spans, key=lambda one: one[1]):
        parts += [text[at:start], masked(KINDS[name].member, text[start:end])]
        at = end
    return "".join([*parts, text[at:]])


def pseudonym(name: str, kind: Kind, value: str, key: bytes) -> str:
    """What stands for one value and, but for chance, no other, as long as the key is the same.

    HMAC-SHA-256 (RFC 2104) of kind and canonical value: 64 bits are written out, or as many as the format has room for.
    """
    digest = hmac.digest(key, f"{name}\0{kind.canonical(fold(value))}".encode(), hashlib.sha256)
    if kind.pseudonym is not None:
        return kind.pseudonym(digest, value)
    return f"<{kind.tag}_{letters(digest)}>"


def fingerprint(key: bytes) -> str:
    """Eight hex digits by which two keys are told apart, and from which neither can be had."""
    return hmac.digest(key, b"which key is this", hashlib.sha256)[:4].hex()


def redact(texts: pl.Series, step: PiiStep, key: bytes = b"", spans: pl.DataFrame | None = None) -> pl.Series:
    """Replace what the step says, again and again until looking finds nothing to replace.

    Parameters
    ----------
    texts : n strings, none null.
    step : what is looked for, and the action of each kind; ``report`` and ``drop`` leave texts as they are.
    key : of the pseudonyms; needed where an action is ``hash``.
    spans : what ``find_spans`` found in just these texts, where that is known already.

    Returns
    -------
    n strings. Each depends on its text, step and key alone; doing it again changes nothing.
    """
    replaced = [name for name, one in step.kinds.items() if one.action in REPLACING]
    if not replaced:
        return texts
    rows = pl.Series("row", range(len(texts)), dtype=pl.UInt32)
    current = texts
    for _ in range(ROUNDS):
        found = find_spans(current, step.kinds, step.min_confidence) if spans is None else spans
        found, spans = found.filter(pl.col("kind").is_in(replaced)), None
        if not found.height:
            break
        changed = found["row"].unique().sort()
        after = list(_rewritten(current, found, step, key))
        # Only these can hold something more.
        texts = texts.scatter(rows.gather(changed), after)
        rows, current = rows.gather(changed), pl.Series(after, dtype=pl.String)
    return texts


def _rewritten(texts: pl.Series, spans: pl.DataFrame, step: PiiStep, key: bytes) -> Iterator[str]:
    """The texts that have spans, in order, with those replaced."""
    kinds = {name: KINDS[name].member for name in step.kinds}
    for (row,), of_row in spans.group_by("row", maintain_order=True):
        text, at, parts = str(texts[int(str(row))]), 0, []
        for name, start, end in of_row.select("kind", "start", "end").iter_rows():
            parts += [text[at:start], _instead(name, kinds[name], text[start:end], step.kinds[name].action, key)]
            at = end
        yield "".join([*parts, text[at:]])


def _instead(name: str, kind: Kind, value: str, action: str, key: bytes) -> str:
    if action == "tag":
        return tagged(kind)
    return masked(kind, value) if action == "mask" else pseudonym(name, kind, value, key)
