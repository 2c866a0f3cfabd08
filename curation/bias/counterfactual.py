"""Counterfactual pairs: the same text about another group, and whether a scorer thinks otherwise of it.

Of a text that names a group, every form of the group that ``identity.yaml`` lists under ``swap`` is replaced by the
form at the same place of another group of its category. English articles, capitals and Korean particles follow.

References
----------
Garg et al. (2019), Counterfactual Fairness in Text Classification through Robustness. Dixon et al. (2018), Measuring
and Mitigating Unintended Bias in Text Classification.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from curation.bias.identity import IdentityTerms, category_of
from curation.bias.intervals import Z
from curation.bias.korean import agreeing
from curation.terms import PARTICLES

Scorer = Callable[[pl.Series], npt.NDArray[np.float64]]
"""(n,) texts to (n,) float64, NaN where it has no answer."""

PAIR_SCHEMA = {"row": pl.Int64, "group": pl.String, "other": pl.String, "text": pl.String, "swapped": pl.String}
_UNSPACED_LANGUAGES = ("zh", "ja", "th")
_ENDS = "|".join(sorted(PARTICLES, key=len, reverse=True))


def swapped_pairs(texts: Sequence[str], terms: IdentityTerms) -> pl.DataFrame:
    """Every text with each of its groups replaced by each other group of the category.

    Returns
    -------
    ``row`` of the text, ``group`` that it names, ``other`` that it names instead, ``text`` and ``swapped``.
    """
    rules = list(_rules(terms))
    rows = [
        (row, group, other, text, swapped)
        for row, text in enumerate(texts)
        for group, other, pattern, forms, language in rules
        if (swapped := _swap(text, pattern, forms, language)) != text
    ]
    return pl.DataFrame(rows, schema=PAIR_SCHEMA, orient="row")


def score_pairs(pairs: pl.DataFrame, scorer: Scorer) -> tuple[pl.DataFrame, pl.DataFrame]:
    """How a scorer's answer changes with the group alone.

    Returns
    -------
    the pairs with ``score``, ``swapped_score`` and ``change``, the largest change first, without those that the scorer
    has no answer to; and of each ``group`` and ``other``: ``pairs``, mean ``change`` with ``low`` and ``high``
    (95 %, t; null for a single pair) and ``mean_size``, the mean of its absolute value (Garg et al., counterfactual
    token fairness gap). Pairs of one text are not independent: the interval is narrow where texts repeat.
    """
    both = pl.concat([pairs["text"], pairs["swapped"].alias("text")])
    distinct = both.unique(maintain_order=True)
    known = pl.DataFrame({"text": distinct, "score": pl.Series(scorer(distinct), dtype=pl.Float64)})
    scored = (
        pairs.join(known, on="text", maintain_order="left")
        .join(known.rename({"text": "swapped", "score": "swapped_score"}), on="swapped", maintain_order="left")
        .with_columns(pl.col("score", "swapped_score").fill_nan(None))
        .drop_nulls(["score", "swapped_score"])
        .with_columns(change=pl.col("swapped_score") - pl.col("score"))
        .sort(pl.col("change").abs(), "text", "swapped", descending=[True, False, False])
    )
    change = pl.col("change")
    table = scored.group_by("group", "other").agg(
        pairs=pl.len().cast(pl.Int64), mean=change.mean(), spread=change.std(), mean_size=change.abs().mean()
    )
    number = table["pairs"].to_numpy()
    from scipy.special import stdtrit

    quantile = np.where(number > 1, stdtrit(np.maximum(number - 1, 1), 0.975), Z)
    half = table["spread"] * quantile / np.sqrt(number)
    return scored, table.select(
        "group",
        "other",
        "pairs",
        change="mean",
        low=pl.col("mean") - half,
        high=pl.col("mean") + half,
        mean_size="mean_size",
    ).sort(pl.col("change").abs(), "group", "other", descending=[True, False, False])


def _rules(terms: IdentityTerms) -> Iterator[tuple[str, str, re.Pattern[str], dict[str, str], str]]:
    for group, by_language in sorted(terms.swaps.items()):
        for language, forms in sorted(by_language.items()):
            for other, others in sorted(terms.swaps.items()):
                if other != group and category_of(other) == category_of(group) and language in others:
                    lower = [one.lower() for one in forms]
                    yield (
                        group,
                        other,
                        _pattern(lower, language),
                        dict(zip(lower, others[language], strict=True)),
                        language,
                    )


def _pattern(forms: list[str], language: str) -> re.Pattern[str]:
    any_form = "|".join(re.escape(one) for one in sorted(forms, key=len, reverse=True))
    if language in _UNSPACED_LANGUAGES:
        return re.compile(f"(?P<form>{any_form})")
    if language == "ko":
        return re.compile(rf"(?<!\w)(?P<form>{any_form})(?P<plural>들)?(?P<end>{_ENDS})?(?!\w)")
    article = r"(?:\b(?P<article>an?)(?P<space>\s+))?" if language == "en" else ""
    return re.compile(rf"(?<!\w){article}(?<!\w)(?P<form>{any_form})(?!\w)", re.IGNORECASE)


def _swap(text: str, pattern: re.Pattern[str], forms: Mapping[str, str], language: str) -> str:
    def put(match: re.Match[str]) -> str:
        found: dict[str, Any] = match.groupdict()
        new = _cased(forms[match["form"].lower()], match["form"])
        if language == "ko":
            noun = new + (found["plural"] or "")
            return noun + agreeing(found["end"] or "", noun)
        if found.get("article"):
            article = _cased("an" if new[0].lower() in "aeiou" else "a", found["article"])
            return f"{article}{found['space']}{new}"
        return new

    return pattern.sub(put, text)


def _cased(new: str, old: str) -> str:
    if len(old) > 1 and old.isupper():
        return new.upper()
    return new[0].upper() + new[1:] if old[0].isupper() else new
