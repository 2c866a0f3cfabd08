"""Whom did a filter remove? Each rule's removals among each group, language, source and label, against the others'."""

import polars as pl

from curation.bias.intervals import false_discovery, mid_p, share_ratio

DIMENSIONS = ("identity", "language", "source", "label")
RUN = "(run)"
"""In the place of a rule: the whole run, that is every rule, language, duplicates and balance together."""
SEEN = "(seen)"
"""In the place of a rule: the records themselves."""
EVERYONE = "(all)"
ANY_GROUP = "(any group)"
NONE = "(none)"
COUNT_SCHEMA = {"dimension": pl.String, "value": pl.String, "rule": pl.String, "count": pl.Int64}

LIMIT = 1.25
"""A ratio is called only where its whole interval lies above this, or below 1 / this.

The four-fifths rule of the US Uniform Guidelines on Employee Selection Procedures (29 CFR 1607.4 D), turned to
removals: among many records the smallest difference is significant, and not every one matters.
"""
FALSE_DISCOVERY_RATE = 0.05
MIN_COUNT = 5
"""Nothing is called where fewer records of the value left and fewer were to be expected, as in tests of counts (Cochran
1954, Some Methods for Strengthening the Common Chi-square Tests)."""


def count_removals(records: pl.DataFrame) -> pl.DataFrame:
    """Count what each rule removed of whom; counts of shards add up.

    Parameters
    ----------
    records : ``kept`` bool, ``failed`` (every rule that failed), ``identity`` (groups mentioned), ``language``,
        ``source`` and ``label``. A record counts under every rule that it failed, whether or not another did too.

    Returns
    -------
    ``dimension, value, rule, count``: how many records with that value failed the rule; ``rule`` is ``(seen)`` for the
    records themselves and ``(run)`` for those that left.
    """
    rules = pl.concat_list(
        pl.lit([SEEN], pl.List(pl.String)),
        pl.when(pl.col("kept")).then(pl.lit([], pl.List(pl.String))).otherwise(pl.lit([RUN], pl.List(pl.String))),
        "failed",
    )
    identity = pl.col("identity")
    any_group = pl.when(identity.list.len() > 0).then(pl.lit([ANY_GROUP], pl.List(pl.String)))
    values = {
        EVERYONE: pl.lit([EVERYONE], pl.List(pl.String)),
        "identity": pl.concat_list(identity, any_group.otherwise(pl.lit([], pl.List(pl.String)))),
        **{name: pl.concat_list(pl.col(name).cast(pl.String).fill_null(NONE)) for name in DIMENSIONS[1:]},
    }
    frames = [
        records.lazy()
        .select(value=value, rule=rules)
        .explode("value", empty_as_null=False)
        .explode("rule", empty_as_null=False)
        .group_by("value", "rule")
        .agg(count=pl.len().cast(pl.Int64))
        .select(dimension=pl.lit(dimension), value="value", rule="rule", count="count")
        for dimension, value in values.items()
    ]
    return pl.concat(frames).collect().sort("dimension", "value", "rule")


def disparities(counts: pl.DataFrame) -> pl.DataFrame:
    """Compare each value's removals by each rule with those of the records without that value.

    Parameters
    ----------
    counts : of one or more shards, as ``count_removals`` gives them.

    Returns
    -------
    A row each dimension, value and rule that removed anybody:
    ``records`` and ``removed`` of the value; ``removed_ratio`` and ``others_ratio``, shares removed of it and of the
    others; ``ratio`` of the two with ``low`` and ``high`` (95 %); ``share_before`` and ``share_after``, its share of
    all records before and after that rule alone; ``p`` (exact), ``q`` (adjusted for all rows); ``verdict``: ``more``,
    ``less`` or null, by ``LIMIT``, ``FALSE_DISCOVERY_RATE`` and ``MIN_COUNT``. The ``ratio`` farthest from 1
    comes first within a dimension.
    """
    summed = counts.group_by("dimension", "value", "rule").agg(pl.col("count").sum())
    whole = summed.filter(pl.col("dimension") == EVERYONE)
    seen = whole.filter(pl.col("rule") == SEEN)["count"].sum()
    by_rule = whole.filter(pl.col("rule") != SEEN).select("rule", of_all="count")
    values = summed.filter((pl.col("rule") == SEEN) & (pl.col("dimension") != EVERYONE))
    pairs = values.select("dimension", "value", records="count").join(by_rule, how="cross")
    removed = summed.select("dimension", "value", "rule", removed="count")
    table = pairs.join(removed, on=["dimension", "value", "rule"], how="left").with_columns(
        pl.col("removed").fill_null(0)
    )
    # Where a value is that of every record there is nobody to compare with.
    table = table.filter(pl.col("records") < seen).sort("dimension", "value", "rule")
    hits, trials = table["removed"].to_numpy(), table["records"].to_numpy()
    other_hits, other_trials = table["of_all"].to_numpy() - hits, seen - trials
    ratio, low, high = share_ratio(hits, trials, other_hits, other_trials)
    p = mid_p(hits, trials, other_hits, other_trials)
    table = table.with_columns(
        removed_ratio=pl.Series(hits / trials, dtype=pl.Float64),
        others_ratio=pl.Series(other_hits / other_trials, dtype=pl.Float64),
        ratio=pl.Series(ratio),
        low=pl.Series(low),
        high=pl.Series(high),
        share_before=pl.col("records") / seen,
        share_after=pl.when(pl.col("of_all") < seen).then(
            (pl.col("records") - pl.col("removed")) / (seen - pl.col("of_all"))
        ),
        p=pl.Series(p),
        q=pl.Series(false_discovery(p)),
    )
    expected = pl.col("records") * pl.col("others_ratio")
    called = (pl.col("q") < FALSE_DISCOVERY_RATE) & (pl.max_horizontal("removed", expected) >= MIN_COUNT)
    verdict = (
        pl.when(called & (pl.col("low") > LIMIT)).then(pl.lit("more"))
        .when(called & (pl.col("high") < 1 / LIMIT)).then(pl.lit("less"))
    )  # fmt: skip
    return (
        table.with_columns(verdict=verdict)
        .drop("of_all")
        .sort("dimension", pl.col("ratio").log().abs(), "value", "rule", descending=[False, True, False, False])
    )
