"""Gopher: English stop words."""

import polars as pl

from curation.rules import RULES
from curation.rules.bounds import bounded
from curation.rules.columns import column


@RULES.register("stop_word_count", bounded(minimum=2.0))
def stop_word_count(_text: pl.Expr) -> pl.Expr:
    """Number of distinct English stop words in a text, case ignored.

    Null unless most of its letters are Latin: the rule asks for English. Other Latin-script languages are measured and
    fail, so use it in recipes that keep English only. ``korean_ending_count`` is for Korean.

    References
    ----------
    Rae et al. (2021), appendix A.1.1: at least two of the, be, to, of, and, that, have, with.
    """
    return pl.when(column("latin") * 2 > column("letters")).then(column("stop_words"))
