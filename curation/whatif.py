"""Other thresholds without another run: the recipe that they make, and what it would decide about measured records."""

import copy
from collections.abc import Sequence
from typing import Any

import polars as pl

from catalog.errors import ConfigError, nearest
from curation.dedup.resettle import resettle
from curation.recipe import Recipe, recipe_from_canonical
from curation.verdicts import rule_reasons

SIDES = ("minimum", "maximum")
OTHER_KEYS = ("languages", "min_language_confidence", "near.threshold", "near")
REASONS = {"exact": "exact_duplicate", "near": "near_duplicate", "semantic": "semantic_duplicate"}
"""Why a record leaves that is a duplicate, by the kind of the pair."""
SUFFIX = "-what-if"


def changed_recipe(recipe: Recipe, settings: Sequence[str]) -> Recipe:
    """A recipe with some thresholds changed.

    Parameters
    ----------
    settings : ``RULE.minimum=30``, ``RULE.maximum=off`` (which opens that side), ``languages=en,ko``,
        ``min_language_confidence=0.6``, ``near.threshold=0.9``, ``near=off``; a rule may be written ``rules.RULE``.

    Raises
    ------
    ConfigError : an unknown key, with the nearest; one given twice; a value out of range; or nothing that changes.
    """
    canonical = copy.deepcopy(recipe.canonical())
    given: dict[str, str] = {}
    for one in settings:
        key, equals, value = one.partition("=")
        key = key.strip().removeprefix("rules.")
        if not equals or not value.strip():
            raise ConfigError(f"{one!r} must be KEY=VALUE, e.g. {_example(recipe)}")
        if key in given:
            raise ConfigError(f"{key!r} is set twice, to {given[key]!r} and {value.strip()!r}; keep one of them")
        given[key] = value.strip()
    for key, value in given.items():
        _set(canonical, key, value)
    canonical["name"] = recipe.name.removesuffix(SUFFIX)[: 64 - len(SUFFIX)] + SUFFIX
    changed = recipe_from_canonical(canonical)
    if changed.canonical() | {"name": recipe.name} == recipe.canonical():
        raise ConfigError(f"{', '.join(settings) or 'nothing'} changes nothing: the recipe has these values already")
    return changed


def _example(recipe: Recipe) -> str:
    return f"{next(iter(recipe.rules), 'word_count')}.minimum=30"


def _set(canonical: dict[str, Any], key: str, value: str) -> None:
    rule, _, side = key.rpartition(".")
    if rule in canonical["rules"] and side in SIDES:
        canonical["rules"][rule][side] = None if value == "off" else _number(key, value)
    elif key == "languages":
        canonical["languages"] = [] if value == "off" else [one.strip() for one in value.split(",")]
    elif key == "min_language_confidence":
        canonical[key] = _number(key, value)
    elif key == "near.threshold" and canonical["near"] is not None:
        canonical["near"]["threshold"] = _number(key, value)
    elif key == "near" and value == "off":
        canonical["near"] = None
    else:
        known = [f"{name}.{one}" for name in canonical["rules"] for one in SIDES] + list(OTHER_KEYS)
        if canonical["near"] is None:
            known.remove("near.threshold")
        raise ConfigError(f"{key}={value}: only what was measured can be set anew; {nearest(key, known)}")


def _number(key: str, value: str) -> float:
    try:
        return float(value)
    except ValueError as error:
        raise ConfigError(f"{key}={value!r} must be a number, or off") from error


def decide(
    measured: pl.DataFrame, pairs: pl.DataFrame, recipe: Recipe, *, within: bool = True
) -> tuple[pl.Series, pl.DataFrame]:
    """What a recipe decides by rules, language and duplicates about records that were measured.

    Parameters
    ----------
    measured : ``id``, ``num_chars``, ``exact_hash``, ``of`` (the dataset of a record that is only compared with, else
        null), ``language``, ``confidence`` and a column a rule.
    pairs : near pairs, as ``resettle`` takes them.
    within : whether the records remove each other, or only those of other datasets remove them.

    Returns
    -------
    reason : of each record without ``of``, in order, null where it stays.
    pairs : as of ``resettle``.
    """
    reason = rule_reasons(measured, recipe)
    found = pl.DataFrame()
    if recipe.exact or recipe.near is not None:
        quality = pl.when(pl.col("of").is_not_null()).then(float("inf")).otherwise(reason.is_null().cast(pl.Float64))
        records = measured.select("id", "exact_hash", length="num_chars", quality=quality)
        threshold = None if recipe.near is None else recipe.near.threshold
        found = resettle(records, pairs, exact=recipe.exact, threshold=threshold, within=within)
        left = found.filter("accepted").select(id="record_id", kind=pl.col("kind").replace_strict(REASONS))
        kinds = measured.select("id").join(left, on="id", how="left", maintain_order="left")["kind"]
        reason = pl.select(pl.coalesce(reason, kinds)).to_series()
    return reason.filter(measured["of"].is_null()).alias("reason"), found


def compare(verdicts: pl.DataFrame, by: Sequence[str]) -> dict[str, Any]:
    """Who would change sides.

    Parameters
    ----------
    verdicts : ``before`` and ``after``, each the reason for which a record leaves or null, and the columns of ``by``.
    by : columns whose values are counted apart.

    Returns
    -------
    ``records``; ``kept_before`` and ``kept_after``; ``returning`` (by the reason for which they had left) and
    ``leaving`` (by that for which they leave), counts by name, most first; ``dropped_before`` and ``dropped_after``,
    likewise; ``by``: for each column a list of dicts with ``value``, ``records``, ``kept_before``, ``kept_after``,
    ``returning``, ``leaving``, most records first.
    """
    before, after = pl.col("before"), pl.col("after")
    returning, leaving = before.is_not_null() & after.is_null(), before.is_null() & after.is_not_null()
    sums = {
        "records": pl.len(),
        "kept_before": before.null_count(),
        "kept_after": after.null_count(),
        "returning": returning.sum(),
        "leaving": leaving.sum(),
    }
    counted = {
        name: verdicts.group_by(name, maintain_order=True)
        .agg(**sums)
        .sort(pl.col("records"), pl.col(name).cast(pl.String), descending=[True, False])
        .rename({name: "value"})
        .to_dicts()
        for name in by
    }
    totals = verdicts.select(**sums).row(0, named=True)
    return {
        "records": totals["records"],
        "kept_before": totals["kept_before"],
        "kept_after": totals["kept_after"],
        "returning": _counts(verdicts.filter(returning)["before"]),
        "leaving": _counts(verdicts.filter(leaving)["after"]),
        "dropped_before": _counts(verdicts["before"]),
        "dropped_after": _counts(verdicts["after"]),
        "by": counted,
    }


def _counts(reasons: pl.Series) -> dict[str, int]:
    frame = reasons.drop_nulls().alias("reason").value_counts()
    frame = frame.with_columns(pl.col("reason").cast(pl.String)).sort("count", "reason", descending=[True, False])
    return dict(frame.rows())
