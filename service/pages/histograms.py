"""Histograms as plain geometry: values and the bounds that keep in, bars of an SVG out."""

from dataclasses import dataclass

import numpy as np
import polars as pl

from service.pages.charts import ticks

WIDTH, HEIGHT = 420.0, 150.0
LEFT, RIGHT, TOP, BOTTOM = 10.0, 10.0, 12.0, 24.0
NUM_BINS = 40
TAIL = 0.002
"""Share of the values beyond which, at either end, the axis does not reach: they count in its last bars."""
LOGARITHMIC_FROM = 50.0
"""Where the highest value drawn is so many times the middle one, the axis is logarithmic."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Bar:
    """One bar: ``kept`` when all of it lies within the bounds; ``label`` for those who point at it."""

    x: float
    y: float
    width: float
    height: float
    kept: bool
    label: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Histogram:
    """Bars in a ``width`` by ``height`` view box; ticks and thresholds are (position, text)."""

    name: str
    width: float
    height: float
    base: float
    bars: list[Bar]
    ticks: list[tuple[float, str]]
    thresholds: list[tuple[float, str]]
    is_logarithmic: bool
    num_failing: int
    num_null: int


def histogram(
    name: str, values: pl.Series, *, minimum: float | None, maximum: float | None, num_failing: int
) -> Histogram | None:
    """Lay out how values are distributed and where the bounds lie; None when there is no value.

    Parameters
    ----------
    values : Float64; nulls are not drawn. Edges of bars lie on the bounds, so that no bar is both kept and not.
    num_failing : records outside the bounds, of all.
    """
    known = values.drop_nulls().to_numpy()
    if not len(known):
        return None
    bounds = [one for one in (minimum, maximum) if one is not None]
    low, middle, high = (float(one) for one in np.quantile(known, (TAIL, 0.5, 1 - TAIL)))
    low, high = min([low, *bounds]), max([high, *bounds])
    is_log = low >= 0 and high > LOGARITHMIC_FROM * max(middle, 1.0)
    scale = np.log1p if is_log else np.asarray
    start, end = float(scale(low)), float(scale(high))
    if end <= start:
        start, end = start - 0.5, end + 0.5
    inner = np.clip(scale(known), start, end)
    edges = np.unique(np.concatenate([np.linspace(start, end, NUM_BINS + 1), [float(scale(one)) for one in bounds]]))
    # A value on the upper bound is kept: its bar ends just above it.
    if maximum is not None:
        edges = np.where(edges == float(scale(maximum)), np.nextafter(edges, np.inf), edges)
    counts, _ = np.histogram(inner, edges)
    span = edges[-1] - edges[0]
    # By density: bars that a bound divides are not higher than they would be whole. Its square root: most values of
    # most rules are zero, and what lies near the bound must be seen beside them.
    density = np.sqrt(counts / np.diff(edges))
    most = float(density.max()) or 1.0
    base, room = HEIGHT - BOTTOM, HEIGHT - BOTTOM - TOP

    def across(place: float) -> float:
        return round(LEFT + (place - float(edges[0])) / float(span) * (WIDTH - LEFT - RIGHT), 1)

    def back(place: float) -> float:
        return float(np.expm1(place) if is_log else place)

    bars = []
    for count, tall, first, last in zip(counts.tolist(), density.tolist(), edges[:-1], edges[1:], strict=True):
        if not count:
            continue
        middle = (first + last) / 2
        x, height = across(float(first)), max(1.0, round(tall / most * room, 1))
        bars.append(
            Bar(
                x=x,
                y=round(base - height, 1),
                width=round(max(0.8, across(float(last)) - x - 0.6), 1),
                height=height,
                kept=bool(
                    (minimum is None or middle > scale(minimum)) and (maximum is None or middle < scale(maximum))
                ),
                label=f"{back(float(first)):.4g} to {back(float(last)):.4g}: {count / len(known):.2%}",
            )
        )
    return Histogram(
        name=name,
        width=WIDTH,
        height=HEIGHT,
        base=base,
        bars=bars,
        ticks=[(across(float(scale(one))), _short(one)) for one in _ticks(low, high, is_log=is_log)],
        thresholds=[
            (across(float(scale(one))), f"{word} {_short(one)}")
            for word, one in (("from", minimum), ("to", maximum))
            if one is not None
        ],
        is_logarithmic=is_log,
        num_failing=num_failing,
        num_null=values.null_count(),
    )


def _short(value: float) -> str:
    """A number in few letters.

    >>> _short(0.25), _short(2500), _short(1e6)
    ('0.25', '2.5k', '1M')
    """
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"


def _ticks(low: float, high: float, *, is_log: bool) -> list[float]:
    if not is_log:
        return [one for one in ticks(low, high, 4) if low <= one <= high]
    return [one for one in (0.0, *(10.0**power for power in range(12))) if low <= one <= high]
