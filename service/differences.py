"""Where two texts differ, for people to see: runs of a text, each marked as shared or its own."""

import difflib
import re
from itertools import groupby

PIECES = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff]|\w+|\s+|.", re.DOTALL)
"""Words and spaces; single characters of scripts without spaces."""


def own_runs(kept: str, other: str) -> list[tuple[str, bool]]:
    """Cut ``other`` into runs: (text, whether ``kept`` lacks it). White space alone is never marked.

    Examples
    --------
    >>> own_runs("order 12 is late", "order 99 is late")
    [('order ', False), ('99', True), (' is late', False)]
    """
    left, right = PIECES.findall(kept), PIECES.findall(other)
    matcher = difflib.SequenceMatcher(None, left, right, autojunk=False)
    marked = [
        (piece, tag in ("replace", "insert") and not piece.isspace())
        for tag, _, _, start, end in matcher.get_opcodes()
        for piece in right[start:end]
    ]
    return [("".join(piece for piece, _ in run), own) for own, run in groupby(marked, key=lambda one: one[1])]
