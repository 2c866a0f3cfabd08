"""How sure the language of a text is, and how much of it is in another one."""

import polars as pl

from curation.rules import RULES
from curation.rules.bounds import bounded
from curation.rules.columns import column


@RULES.register("language_confidence", bounded(minimum=0.65))
def language_confidence(_text: pl.Expr) -> pl.Expr:
    """Probability of the most probable language of a text; null for one without letters.

    Which language it may be, the recipe's ``languages`` say.

    References
    ----------
    Penedo et al. (2024), The FineWeb Datasets, section 3.3: at least 0.65, of fastText's model. This is py3langid's.
    """
    return column("confidence")


@RULES.register("other_language_ratio", bounded(maximum=0.5))
def other_language_ratio(_text: pl.Expr) -> pl.Expr:
    """Share of the characters of its lines that stand in lines of another language than the text's.

    A line counts whose language has a probability of 0.9 or more and that has 20 letters (Chinese, Japanese and Korean
    ones twice): of shorter lines it cannot be told. Null for a text without letters. The bound is ours; anything above
    0 flags a mixed text.
    """
    return column("other_language_ratio")
