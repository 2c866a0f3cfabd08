"""What a recipe's rules and languages decide about measured records, before duplicates are known."""

import polars as pl

from curation.recipe import Recipe
from curation.rules import Bounds, judge
from curation.rules.judging import first_failed

LANGUAGE = "language"
EMPTIED = "edited_away"
"""Why a record leaves of which an edit left nothing."""


def rule_verdicts(measured: pl.DataFrame, recipe: Recipe) -> pl.DataFrame:
    """Judge every record by every rule, its language and the personal data in it.

    Parameters
    ----------
    measured : a column a rule and a quality score; with languages in the recipe also ``language`` and ``confidence``,
        with edits ``num_chars``, and a count for each kind of personal data whose count is bounded.

    Returns
    -------
    ``kept`` bool, ``reason`` (first rule that failed, or null), ``failed`` (all of them), in the order of the rows.
    """
    values, bounds = _values(measured, recipe)
    if not bounds:
        # A recipe may be duplicates alone: then nothing fails, and there is no value whose rows could be counted.
        return measured.select(
            kept=pl.lit(value=True), reason=pl.lit(None, pl.String), failed=pl.lit([], pl.List(pl.String)), id="id"
        ).drop("id")
    return judge(values, bounds)


def rule_reasons(measured: pl.DataFrame, recipe: Recipe) -> pl.Series:
    """The ``reason`` of ``rule_verdicts`` alone, for many records at once."""
    values, bounds = _values(measured, recipe)
    # Without bounds there is no column whose rows could be counted.
    return first_failed(values if bounds else measured, bounds)


def _values(measured: pl.DataFrame, recipe: Recipe) -> tuple[pl.DataFrame, dict[str, Bounds]]:
    """A column for everything that is judged, and its bounds, in the order in which failures are reported."""
    bounds: dict[str, Bounds] = dict(recipe.rules) | {step.column: step.bounds for step in recipe.quality}
    columns = [pl.col(name) for name in bounds]
    if recipe.edit:
        columns.append((pl.col("num_chars") == 0).cast(pl.Float64).alias(EMPTIED))
        bounds[EMPTIED] = Bounds(maximum=0.0)
    if recipe.languages:
        # A text whose language is unsure is not dropped for it: only a confident other language is.
        other = (
            pl.col("language").is_not_null()
            & ~pl.col("language").is_in(list(recipe.languages))
            & (pl.col("confidence") >= recipe.min_language_confidence)
        )
        columns.append(other.fill_null(value=False).cast(pl.Float64).alias(LANGUAGE))
        bounds[LANGUAGE] = Bounds(minimum=None, maximum=0.0)
    if recipe.pii is not None:
        bounds |= recipe.pii.bounds()
        columns += [pl.col(name).cast(pl.Float64) for name in recipe.pii.bounds()]
    return measured.select(columns), bounds
