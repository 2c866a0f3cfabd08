"""Measuring every rule on every text."""

from collections.abc import Mapping, Sequence
from dataclasses import fields

import polars as pl

from curation.language import identify
from curation.rules import RULES
from curation.rules.bounds import Bounds
from curation.rules.columns import GROUPS, column
from curation.rules.profile import KERNEL_GROUPS, profile

TEXT = "text"
_GROUP = {column(name).meta.output_name(): group for group, names in GROUPS.items() for name in names}


def measure(
    texts: pl.Series,
    rules: Sequence[str] | Mapping[str, Bounds],
    *,
    languages: pl.DataFrame | None = None,
    threads: int = 1,
) -> pl.DataFrame:
    """Measure the named rules on every text, whether or not an earlier one fails.

    Parameters
    ----------
    texts : n strings, none null.
    rules : registered rules, as published or each with its config.
    languages : what ``curation.language.identify`` says of the texts, where that is known already.
    threads : at most so many cores are used; values do not depend on it.

    Returns
    -------
    n rows, one Float64 column a rule in the order given; null where a rule does not apply. A row depends on its text
    alone.

    Raises
    ------
    NotFoundError : a name is no rule.
    """
    columns = {name: expression(name, rules[name] if isinstance(rules, Mapping) else None) for name in rules}
    shared = {root for one in columns.values() for root in one.meta.root_names()} - {TEXT}
    groups = {_GROUP[root] for root in shared}
    frame = pl.concat([texts.alias(TEXT).to_frame(), profile(texts, groups, threads=threads)], how="horizontal")
    if groups - set(KERNEL_GROUPS):
        frame = pl.concat([frame, _language(texts, languages)], how="horizontal")
    return frame.lazy().select(one.cast(pl.Float64).alias(name) for name, one in columns.items()).collect()


def expression(name: str, config: Bounds | None = None) -> pl.Expr:
    """What a rule measures; a rule with options beside its bounds is told them.

    Raises
    ------
    NotFoundError : the name is no rule.
    """
    rule = RULES[name]
    if len(fields(rule.config)) == len(fields(Bounds)):
        return rule.member(pl.col(TEXT))
    return rule.member(pl.col(TEXT), config or rule.configured())


def _language(texts: pl.Series, languages: pl.DataFrame | None) -> pl.DataFrame:

    known = identify(texts) if languages is None else languages
    return known.select(pl.col(name).alias(column(name).meta.output_name()) for name in GROUPS["language"])
