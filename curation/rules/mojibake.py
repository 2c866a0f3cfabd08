"""Text that was decoded by the wrong encoding, as ftfy sees it."""

import functools
import re

import polars as pl
from ftfy.badness import BADNESS_RE

from curation.rules import RULES
from curation.rules.bounds import bounded
from curation.rules.columns import column
from curation.rules.words import ratio


@functools.cache
def _pattern() -> str:
    """Ftfy's pattern as Rust's verbose mode reads it, where white space in a class has to be escaped."""
    kept = []
    # A class, an escape, a comment, white space: only the last two are layout.
    for piece in re.findall(r"\[(?:\\.|[^\]])*\]|\\.|#[^\n]*|\s+|.", BADNESS_RE.pattern):
        if piece.startswith("#") or piece.isspace():
            continue
        if piece.startswith("["):
            inside = piece[1:-1].replace("&&", r"&\&").replace("~~", r"~\~")
            piece = f"[{inside}]"
        kept.append(piece)
    return re.sub(r"\\xa0", r"\\x{a0}", re.sub(r"\\xad", r"\\x{ad}", "".join(kept)))


@RULES.register("mojibake_ratio", bounded(maximum=0.01))
def mojibake_ratio(text: pl.Expr) -> pl.Expr:
    """Sequences per character that well encoded text hardly has, such as ``Ã©`` or ``â€™``; null for an empty text.

    What the edit ``fix_encoding`` can repair is gone before it is measured. Korean, Chinese, Japanese and Thai that
    were read as Latin-1 or Windows-1252 consist of such sequences. The bound is ours: one in a hundred characters.

    References
    ----------
    Speer (2019), ftfy: the pattern by which it tells that a text is broken (``ftfy.badness``).
    """
    suspicious = text.str.contains(r"[^\x00-\x7F]")
    found = pl.when(suspicious).then(text.str.count_matches(_pattern())).otherwise(0)
    return ratio(found.cast(pl.Float64), column("chars"))
