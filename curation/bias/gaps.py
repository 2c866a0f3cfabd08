"""How the records that mention a group differ from the others: how many, how toxic, and with which labels."""

import polars as pl

from curation.bias.intervals import mean_difference, share_difference, wilson
from curation.bias.removal import NONE

EVERYBODY = ""
"""In the place of a group: all records."""
MENTION_SCHEMA = {
    "group": pl.String,
    "label": pl.String,
    "kept": pl.Boolean,
    "records": pl.Int64,
    "measured": pl.Int64,
    "toxicity": pl.Float64,
    "squares": pl.Float64,
}


def count_mentions(records: pl.DataFrame) -> pl.DataFrame:
    """Count records by group, label and outcome; counts of shards add up.

    Parameters
    ----------
    records : ``identity`` (groups mentioned), ``label``, ``kept`` and ``toxicity`` (Float64, null where not measured).

    Returns
    -------
    ``MENTION_SCHEMA``: ``records``; of ``measured`` of them the sum of ``toxicity`` and of its ``squares``. The group
    "" is all records.
    """
    groups = pl.concat_list(pl.lit([EVERYBODY], pl.List(pl.String)), "identity")
    toxicity = pl.col("toxicity")
    return (
        records.select(
            group=groups,
            label=pl.col("label").cast(pl.String).fill_null(NONE),
            kept="kept",
            toxicity=toxicity.cast(pl.Float64),
        )
        .explode("group", empty_as_null=False)
        .group_by("group", "label", "kept")
        .agg(
            records=pl.len().cast(pl.Int64),
            measured=toxicity.count().cast(pl.Int64),
            # Sorted, so that the sum has the same bits whatever the order of groups in memory.
            squares=(toxicity**2).sort().sum(),
            toxicity=toxicity.sort().sum(),
        )
        .select(list(MENTION_SCHEMA))
        .sort("group", "label", "kept")
    )


def representation(mentions: pl.DataFrame) -> pl.DataFrame:
    """How many records mention each group before and after cleaning, and how toxic they are against the others.

    Parameters
    ----------
    mentions : of one or more shards, as ``count_mentions`` gives them.

    Returns
    -------
    A row a group, most mentioned first: ``records``, ``share`` of all with ``share_low`` and ``share_high``; ``kept``
    and ``kept_share`` of all that stayed; ``toxicity`` (mean), ``toxicity_gap`` to the records that do not mention it,
    with ``gap_low`` and ``gap_high``; null where nothing was measured.
    """
    sums = [pl.col(name).sum() for name in ("records", "measured", "toxicity", "squares")]
    by_group = mentions.group_by("group").agg(*sums, kept=pl.col("records").filter("kept").sum()).sort("group")
    all_of, table = by_group.filter(pl.col("group") == EVERYBODY), by_group.filter(pl.col("group") != EVERYBODY)
    if all_of.is_empty():
        all_of = pl.DataFrame([dict.fromkeys(by_group.columns[1:], 0)], schema=by_group.drop("group").schema)
    whole = all_of.drop("group", strict=False).row(0, named=True)
    low, high = wilson(table["records"].to_numpy(), whole["records"])
    own = [table[name].to_numpy() for name in ("measured", "toxicity", "squares")]
    others = [whole[name] - values for name, values in zip(("measured", "toxicity", "squares"), own, strict=True)]
    gap, gap_low, gap_high = mean_difference(*own, *others)
    return table.select(
        "group",
        "records",
        share=pl.col("records") / max(whole["records"], 1),
        share_low=pl.Series(low),
        share_high=pl.Series(high),
        kept="kept",
        kept_share=pl.col("kept") / max(whole["kept"], 1),
        toxicity=pl.when(pl.col("measured") > 0).then(pl.col("toxicity") / pl.col("measured")),
        toxicity_gap=pl.Series(gap).fill_nan(None),
        gap_low=pl.Series(gap_low).fill_nan(None),
        gap_high=pl.Series(gap_high).fill_nan(None),
    ).sort("records", "group", descending=[True, False])


def label_gaps(mentions: pl.DataFrame) -> pl.DataFrame:
    """Share of each label among the labelled records that mention a group, against the other labelled records.

    Returns
    -------
    A row a group and label, largest gap first: ``records`` with both, ``share``, ``others_share``, ``gap`` with ``low``
    and ``high`` (95 %).
    """
    labelled = mentions.filter(pl.col("label") != NONE)
    both = labelled.group_by("group", "label").agg(pl.col("records").sum())
    groups, labels = both.group_by("group").agg(of_group=pl.col("records").sum()), both["label"].unique()
    crossed = groups.join(labels.to_frame(), how="cross").join(both, on=["group", "label"], how="left")
    crossed = crossed.with_columns(pl.col("records").fill_null(0)).sort("group", "label")
    whole = crossed.filter(pl.col("group") == EVERYBODY).select("label", of_label="records", labelled="of_group")
    table = crossed.filter(pl.col("group") != EVERYBODY).join(whole, on="label", maintain_order="left")
    hits, trials = table["records"].to_numpy(), table["of_group"].to_numpy()
    other_hits, other_trials = table["of_label"].to_numpy() - hits, table["labelled"].to_numpy() - trials
    gap, low, high = share_difference(hits, trials, other_hits, other_trials)
    return table.select(
        "group",
        "label",
        "records",
        share=pl.col("records") / pl.col("of_group"),
        others_share=pl.when(pl.col("labelled") > pl.col("of_group")).then(
            (pl.col("of_label") - pl.col("records")) / (pl.col("labelled") - pl.col("of_group"))
        ),
        gap=pl.Series(gap).fill_nan(None),
        low=pl.Series(low).fill_nan(None),
        high=pl.Series(high).fill_nan(None),
    ).sort(pl.col("gap").abs(), "group", "label", descending=[True, False, False], nulls_last=True)
