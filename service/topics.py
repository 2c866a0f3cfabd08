"""The report's map: topics as a picture and a table, outliers, what the reference does not reach."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from sqlalchemy.orm import Session

from catalog.store import Store
from catalog.tables.datasets import Dataset, Version
from catalog.tables.engine import Run
from workers import mapping

WIDTH, HEIGHT, MARGIN = 680.0, 520.0, 26.0
NUM_LISTED = 20
NUM_COLOURS = 16


@dataclass(frozen=True, kw_only=True, slots=True)
class Topic:
    """One cluster: what the table says, its dots as one SVG path, and where its number stands."""

    number: int
    colour: int
    told: dict[str, Any]
    path: str
    x: float
    y: float


@dataclass(frozen=True, kw_only=True, slots=True)
class TopicMap:
    """What the template draws."""

    run: Run
    summary: dict[str, Any]
    is_stale: bool
    width: float
    height: float
    topics: list[Topic]
    rings: list[tuple[float, float, str]]
    num_points: int
    outliers: list[dict[str, Any]]
    unreached: list[dict[str, Any]]


def topic_map(session: Session, store: Store, dataset: Dataset, version: Version) -> TopicMap | None:
    """The newest map of a dataset, or None where nobody has asked for one.

    Parameters
    ----------
    version : that the report is about; a map of another one is told to be old.
    """
    run = mapping.newest_map(session, dataset)
    if run is None or run.result is None:
        return None
    points = mapping.listed(session, store, run, "points").with_columns(
        x=(MARGIN + pl.col("x") * (WIDTH - 2 * MARGIN)).round(1),
        y=(MARGIN + pl.col("y") * (HEIGHT - 2 * MARGIN)).round(1),
    )
    outliers = mapping.listed(session, store, run, "outliers")
    unreached = mapping.listed(session, store, run, "unreached").head(NUM_LISTED).to_dicts()
    drawn = points.join(outliers.select("id", "distance", "text"), on="id").sort("distance", descending=True)
    shown = outliers.head(NUM_LISTED).to_dicts()
    for one in (*shown, *unreached):
        one["topic"] = None if one["cluster"] is None else one["cluster"] + 1
    return TopicMap(
        run=run,
        summary=run.result,
        is_stale=run.version_id != version.id,
        width=WIDTH,
        height=HEIGHT,
        topics=[_topic(one, points.filter(pl.col("cluster") == one["cluster"])) for one in run.result["topics"]],
        rings=[(one["x"], one["y"], f"{one['distance']:.3f}: {one['text'][:80]}") for one in drawn.to_dicts()],
        num_points=points.height,
        outliers=shown,
        unreached=unreached,
    )


def _topic(told: dict[str, Any], points: pl.DataFrame) -> Topic:
    """Its number stands at the dot that is nearest to the middle of its dots."""
    places = points.select("x", "y").to_numpy()
    middle = np.median(places, axis=0) if len(places) else np.zeros(2)
    x, y = places[np.abs(places - middle).sum(axis=1).argmin()].tolist() if len(places) else (0.0, 0.0)
    return Topic(
        number=told["cluster"] + 1,
        colour=told["cluster"] % NUM_COLOURS,
        told=told,
        # A line of no length with round ends is a dot: a tenth of the bytes of a circle.
        path="".join(f"M{x:g} {y:g}h0" for x, y in places.tolist()),
        x=x,
        y=y,
    )
