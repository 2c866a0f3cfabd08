"""Finding: candidates in all texts at once, checks on candidates, one owner for every character."""

import re
from collections.abc import Iterable, Sequence

import numpy as np
import polars as pl

from curation.pii import KINDS
from curation.pii.kind import Kind

SPAN_SCHEMA = {
    "row": pl.UInt32,
    "kind": pl.String,
    "start": pl.UInt32,
    "end": pl.UInt32,
    "confidence": pl.Float64,
    "checksum": pl.Boolean,
}
MIN_CONFIDENCE = 0.5
_WIDE = {0xFF10 + one: ord("0") + one for one in range(10)} | {
    0xFF20: "@",
    0xFF0E: ".",
    0xFF0D: "-",
    0xFF0B: "+",
    0x3000: " ",
}
_NO_DIGIT = re.compile("[^0-9]+")
_HAS_WIDE = "[０-９＠]"

Span = tuple[int, str, int, int, float, bool | None]


def fold(text: str) -> str:
    """Full-width digits and signs as ASCII ones, character by character, so that places stay what they are.

    >>> fold("０１０－１２３４")
    '010-1234'
    """
    return text.translate(_WIDE)


def find_spans(
    texts: pl.Series, kinds: Iterable[str] | None = None, min_confidence: float = MIN_CONFIDENCE
) -> pl.DataFrame:
    """Find the values of some kinds in every text.

    Patterns run over the whole series in compiled code; Python sees only candidates. Where values overlap, the one of
    higher confidence stays, then the longer, then the earlier, then the first by the kind's name.

    Parameters
    ----------
    texts : n strings, none null.
    kinds : registered names; None is all that need no model.
    min_confidence : smallest confidence of a span that is returned, in [0, 1].

    Returns
    -------
    columns of ``SPAN_SCHEMA`` by row and start; ``start`` and ``end`` count code points, the end excluded. Spans
    of a row do not overlap and depend on its text alone.

    Raises
    ------
    NotFoundError : a name is no kind. ConfigError : a kind needs a package that is not installed.
    """
    names = [name for name, one in KINDS.load().items() if one.member.default] if kinds is None else sorted(set(kinds))
    members = {name: KINDS[name].member for name in names}
    texts = _folded(texts)
    found: list[Span] = []
    for pattern in dict.fromkeys(one.pattern for one in members.values() if one.pattern):
        same = {name: one for name, one in members.items() if one.pattern == pattern}
        found += _checked(texts, pattern, same, min_confidence)
    for name, one in members.items():
        if one.read is not None:
            found += _read(texts, name, one, min_confidence)
    return pl.DataFrame(_without_overlap(found), schema=SPAN_SCHEMA, orient="row")


def _folded(texts: pl.Series) -> pl.Series:
    # Two counts are cheaper than a search, and most texts of many sets are ASCII.
    others = (texts.str.len_bytes() != texts.str.len_chars()).arg_true()
    rows = others.filter(texts.gather(others).str.contains(_HAS_WIDE))
    return texts.scatter(rows, [fold(one) for one in texts.gather(rows)]) if len(rows) else texts


def _candidates(texts: pl.Series, pattern: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Row, start and end of every match, in characters.

    polars tells what matched, not where. Matches of the same pattern behind as little as possible tile a text up to its
    last match, so the lengths of the tiles add up to where each ends.
    """
    rows = texts.str.contains(pattern).arg_true()
    some = texts.gather(rows)
    tiles = some.str.extract_all(f"(?s).*?(?:{pattern})")
    counts = tiles.list.len().to_numpy()
    lengths = tiles.explode(empty_as_null=False).str.len_chars().to_numpy().astype(np.int64)
    matched = some.str.extract_all(pattern).explode(empty_as_null=False).str.len_chars().to_numpy().astype(np.int64)
    ends = np.cumsum(lengths)
    before = (
        np.concatenate([[0], ends])[np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(np.int64)]
        if len(counts)
        else ends
    )
    ends = ends - np.repeat(before, counts)
    return np.repeat(rows.to_numpy(), counts), ends - matched, ends


def _checked(texts: pl.Series, pattern: str, kinds: dict[str, Kind], least: float) -> Iterable[Span]:
    rows, starts, ends = _candidates(texts, pattern)
    checks = [(name, one.check, one.num_digits) for name, one in kinds.items() if one.check is not None]
    fewest = min(number for _, _, number in checks)
    most = max(number for _, _, number in checks)
    text, last = "", -1
    for row, start, end in zip(rows.tolist(), starts.tolist(), ends.tolist(), strict=True):
        if row != last:
            text, last = texts[row], row
        number = len(_NO_DIGIT.sub("", text[start:end])) if most else 0
        if number < fewest:
            continue
        for name, check, needed in checks:
            if number < needed:
                continue
            for one in check(text, start, end):
                if one.confidence >= least:
                    yield row, name, one.start, one.end, one.confidence, one.checksum


def _read(texts: pl.Series, name: str, kind: Kind, least: float) -> Iterable[Span]:
    assert kind.read is not None
    if kind.require is not None:
        kind.require()
    for row, found in enumerate(kind.read(texts.to_list())):
        for one in found:
            if one.confidence >= least:
                yield row, name, one.start, one.end, one.confidence, one.checksum


def _without_overlap(found: Sequence[Span]) -> list[Span]:
    best_first = sorted(found, key=lambda one: (one[0], -one[4], one[2] - one[3], one[2], one[1]))
    kept: list[Span] = []
    row, of_row = -1, list[Span]()
    for one in best_first:
        if one[0] != row:
            kept += of_row
            row, of_row = one[0], []
        if all(one[3] <= other[2] or other[3] <= one[2] for other in of_row):
            of_row.append(one)
    return sorted([*kept, *of_row], key=lambda one: (one[0], one[2]))
