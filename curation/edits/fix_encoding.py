"""Repair of text that was decoded by the wrong encoding."""

import polars as pl
from ftfy import TextFixerConfig, fix_and_explain

from curation.edits import CHANGES, EDITS

CONFIG = TextFixerConfig(
    fix_latin_ligatures=False,
    fix_character_width=False,
    uncurl_quotes=False,
    fix_line_breaks=False,
    normalization=None,
)
"""Repairs alone: nothing that is a matter of style. Full-width punctuation is right in Chinese, Japanese and Korean."""

_PLAIN = (
    r"^[\t\n\r\x20-\x25\x27-\x7E\p{Hangul}\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\x{3000}-\x{303F}\x{FF01}-\x{FF5E}]*$"
)
"""Texts of these characters alone have nothing to repair, and ftfy is not asked."""


@EDITS.register("fix_encoding")
def fix_encoding(texts: pl.Series) -> tuple[pl.Series, pl.DataFrame]:
    """Repair mojibake (``Ã©`` to ``é``), HTML entities outside markup, and control characters, with ftfy.

    References
    ----------
    Speer (2019), ftfy 6.3; the settings that change no style, as datatrove's ``FTFYFormatter`` has them.
    """
    rows, fixed, changes = [], [], []
    asked = (~texts.str.contains(_PLAIN)).arg_true()
    for row, text in zip(asked.to_list(), texts.gather(asked).to_list(), strict=True):
        after, steps = fix_and_explain(text, CONFIG)
        if after == text:
            continue
        names = dict.fromkeys(step.parameter for step in steps or [])
        start, end = _differing(text, after)
        rows.append(row)
        fixed.append(after)
        changed = (text[start : len(text) - end], after[start : len(after) - end])
        changes.append(
            (row, "fix_encoding", ", ".join(names) or "control characters", start, len(text) - end, *changed)
        )
    if not rows:
        return texts, pl.DataFrame(schema=CHANGES)
    return texts.clone().scatter(rows, fixed), pl.DataFrame(changes, schema=CHANGES, orient="row")


def _differing(one: str, other: str) -> tuple[int, int]:
    """Characters that two texts share at the beginning, and of the rest at the end."""
    shortest = min(len(one), len(other))
    start = next((at for at in range(shortest) if one[at] != other[at]), shortest)
    rest = shortest - start
    return start, next((at for at in range(rest) if one[-1 - at] != other[-1 - at]), rest)
