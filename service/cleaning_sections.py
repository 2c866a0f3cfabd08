"""The report's sections about a cleaning: how values are distributed, what rules drop, before and after, costs."""

from itertools import groupby
from typing import Any

import polars as pl
from sqlalchemy.orm import Session

from catalog.store import Store
from catalog.tables.engine import Run
from service.pages.histograms import histogram
from workers import findings

NUM_LANGUAGES = 12
QUANTILES = (("lowest", 0.0), ("5 %", 0.05), ("median", 0.5), ("95 %", 0.95), ("highest", 1.0))


def cleaning_sections(session: Session, store: Store, run: Run) -> dict[str, Any]:
    """What ``report_cleaning.html`` needs; for a run that measured no values only what it cost."""
    costs = findings.costs(session, run)
    found = findings.find(session, store, run)
    took = {
        "costs": costs,
        "seconds": sum(one.seconds for one in costs),
        "elapsed": ((run.finished_at or run.created_at) - run.created_at).total_seconds(),
        "findings": found,
    }
    if found is None:
        return took
    sides = findings.bounds_of(run)
    drawn = (
        histogram(name, found.values[name], minimum=low, maximum=high, num_failing=found.failing[name])
        for name, (low, high) in sides.items()
    )
    return took | {
        "histograms": [one for one in drawn if one is not None],
        "bounds": {name: _words(*side) for name, side in sides.items()},
        "samples": _samples(session, store, run, found),
        "languages": _languages(found.languages),
        "num_kept": int(found.languages["after"].sum()),
        "lengths": _lengths(found.values),
    }


def _words(low: float | None, high: float | None) -> str:
    return " ".join(f"{word} {one:g}" for word, one in (("from", low), ("to", high)) if one is not None)


def _samples(
    session: Session, store: Store, run: Run, found: findings.Findings
) -> list[tuple[str, list[dict[str, Any]]]]:
    """Rule, and its samples with their texts; in the recipe's order."""
    texts = findings.texts(session, store, run, found.samples)
    rows = [row | {"text": texts[row["id"]]} for row in found.samples.to_dicts()]
    by_rule = {rule: list(some) for rule, some in groupby(rows, key=lambda row: str(row["rule"]))}
    return [(rule, by_rule[rule]) for rule in found.failing if rule in by_rule]


def _languages(counted: pl.DataFrame) -> list[dict[str, Any]]:
    """The most frequent languages, the others as one row."""
    named = counted.with_columns(pl.col("language").fill_null("none told"))
    rest = named.slice(NUM_LANGUAGES)
    rows = named.head(NUM_LANGUAGES).to_dicts()
    if rest.height:
        rows.append({"language": f"{rest.height} others", "before": rest["before"].sum(), "after": rest["after"].sum()})
    return rows


def _lengths(values: pl.DataFrame) -> dict[str, Any]:
    """Quantiles of the length in characters, before and after."""
    after = values.filter("kept")["num_chars"]
    rows = [
        (name, [lengths.quantile(share, "nearest") for _, share in QUANTILES])
        for name, lengths in (("before", values["num_chars"]), ("after", after))
    ]
    return {"names": [name for name, _ in QUANTILES], "rows": rows}
