"""Offensive language: by a packaged model in English, and by word lists in any language that has one."""

from dataclasses import dataclass

import polars as pl

from curation.rules import RULES
from curation.rules.bounds import Bounds
from curation.toxicity.lists import count_toxic_terms
from curation.toxicity.model import toxicity_of


@dataclass(frozen=True, kw_only=True)
class Toxicity(Bounds):
    """Bounds of the probability of offence."""

    maximum: float | None = 0.9


@dataclass(frozen=True, kw_only=True)
class ToxicTermCount(Bounds):
    """Bounds of the number of listed words."""

    maximum: float | None = 0.0


@RULES.register("toxicity", Toxicity)
def toxicity(text: pl.Expr) -> pl.Expr:
    """Highest probability of offence of a text's sentences, in [0, 1], by the packaged model (extra ``toxicity``).

    Null unless most of the letters are Latin: the model knows English alone. In other Latin-script languages it knows
    no word and says little. The bound is ours, and high on purpose: at 0.5 the model takes more harmless mentions of
    identity for offence (``docs/bias.md``). Without the package, measuring raises ConfigError.
    """
    latin = text.str.count_matches(r"\p{Latin}").cast(pl.Float64)
    letters = text.str.count_matches(r"\p{Alphabetic}").cast(pl.Float64)
    return pl.when(latin * 2 > letters).then(text.map_batches(toxicity_of, return_dtype=pl.Float64))


@RULES.register("toxic_term_count", ToxicTermCount)
def toxic_term_count(text: pl.Expr) -> pl.Expr:
    """Number of words of the built-in lists of insults, slurs and obscenities, as whole words; particles may follow.

    English, Korean, Chinese, Japanese and some more (``curation/toxicity/terms.yaml``). The bound is ours: none.
    """
    return text.map_batches(count_toxic_terms, return_dtype=pl.Float64)
