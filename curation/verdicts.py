"""What a recipe's rules and languages decide about measured records, before duplicates are known."""

import polars as pl

from curation.recipe import Recipe
from curation.rules import Bounds, judge

LANGUAGE = "language"


def rule_verdicts(measured: pl.DataFrame, recipe: Recipe) -> pl.DataFrame:
    """Judge every record by every rule.

    Parameters
    ----------
    measured : a column a rule and a quality score; with languages in the recipe also ``language`` and ``confidence``.

    Returns
    -------
    ``kept`` bool, ``reason`` (first rule that failed, or null), ``failed`` (all of them), in the order of the rows.
    """
    bounds: dict[str, Bounds] = dict(recipe.rules) | {step.column: step.bounds for step in recipe.quality}
    columns = [pl.col(name) for name in bounds]
    if recipe.languages:
        # A text whose language is unsure is not dropped for it: only a confident other language is.
        other = (
            pl.col("language").is_not_null()
            & ~pl.col("language").is_in(list(recipe.languages))
            & (pl.col("confidence") >= recipe.min_language_confidence)
        )
        columns.append(other.fill_null(value=False).cast(pl.Float64).alias(LANGUAGE))
        bounds[LANGUAGE] = Bounds(minimum=None, maximum=0.0)
    if not bounds:
        # A recipe may be duplicates alone: then nothing fails, and there is no value whose rows could be counted.
        return measured.select(
            kept=pl.lit(value=True), reason=pl.lit(None, pl.String), failed=pl.lit([], pl.List(pl.String)), id="id"
        ).drop("id")
    return judge(measured.select(columns), bounds)
