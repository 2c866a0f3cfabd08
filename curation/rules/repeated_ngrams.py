"""Gopher repetition: characters in word n-grams that a text repeats.

In Chinese, Japanese, Thai, Lao, Khmer and Burmese texts an n-gram is 2 n characters, or 4 n of the last four: so much
as n words (``curation.rules.words``). Korean has words, each longer by its particles: n-grams repeat less often there.
"""

from collections.abc import Callable

import polars as pl

from curation.rules import RULES
from curation.rules.bounds import bounded
from curation.rules.columns import column
from curation.rules.words import ratio

TOP = {2: 0.20, 3: 0.18, 4: 0.16}
DUPLICATE = {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10}
"""Largest share that is kept by words in a row (Rae et al. 2021, appendix A.1.1, table A1)."""


def _top(size: int) -> Callable[[pl.Expr], pl.Expr]:
    def top(_text: pl.Expr) -> pl.Expr:
        return ratio(column(f"top_{size}gram_chars"), column("chars")).clip(upper_bound=1.0)

    top.__doc__ = f"""Share of the characters that the most frequent {size} words in a row cover, spaces included.

    Of equally frequent ones the first; occurrences may overlap, and 1 is the most. What stands once counts too,
    so of a text of a few words the share is large: for texts of at least 50 words.

    References
    ----------
    Rae et al. (2021), appendix A.1.1, table A1: top {size}-gram character fraction at most {TOP[size]:.2f}.
    """
    return top


def _duplicate(size: int) -> Callable[[pl.Expr], pl.Expr]:
    def duplicate(_text: pl.Expr) -> pl.Expr:
        return ratio(column(f"duplicate_{size}gram_chars"), column("chars"))

    duplicate.__doc__ = f"""Share of the characters in any {size} words in a row that stand earlier in the text.

    Overlaps count once: behind a repeated n-gram the search goes on after its last word. White space between the words
    is not counted.

    References
    ----------
    Rae et al. (2021), appendix A.1.1, table A1: duplicate {size}-gram character fraction at most {DUPLICATE[size]:.2f}.
    """
    return duplicate


for _size, _share in TOP.items():
    RULES.register(f"top_{_size}gram_char_ratio", bounded(maximum=_share))(_top(_size))
for _size, _share in DUPLICATE.items():
    RULES.register(f"duplicate_{_size}gram_char_ratio", bounded(maximum=_share))(_duplicate(_size))
