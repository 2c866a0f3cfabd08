"""Charts as plain geometry: numbers in, SVG coordinates out. Templates draw them without any inline style."""

import itertools
import math
from dataclasses import dataclass, field

REFERENCE_COLOUR, OTHER_COLOURS = 1, (0, 2, 3)
WIDTH, HEIGHT = 680.0, 320.0
NUM_DASHES = 4
"""As the style sheet has them: ``dash-0`` is unbroken."""
MOST_MARKED = 40
"""A line of more points than that is drawn without a dot at each."""
LEFT, RIGHT, TOP, BOTTOM = 52.0, 16.0, 14.0, 42.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Series:
    """One line of a chart.

    Parameters
    ----------
    name : shown in the legend.
    points : (x, y) in rising x.
    low, high : bounds of y at each x, both empty for a line without an interval.
    is_reference : drawn in grey, as what the others are measured against.
    """

    name: str
    points: tuple[tuple[float, float], ...]
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    is_reference: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """A series in SVG coordinates; ``number`` picks its colour, ``dash`` tells those of one colour apart."""

    name: str
    number: int
    dash: int
    path: str
    band: str
    markers: list[tuple[float, float, str]] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True, slots=True)
class Chart:
    """A line chart in a ``width`` by ``height`` view box; ticks are (position, text)."""

    width: float
    height: float
    left: float
    right: float
    top: float
    bottom: float
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    lines: list[Line]


def ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    """Round numbers that cover [low, high], about ``wanted`` of them.

    Examples
    --------
    >>> ticks(0, 100)
    [0.0, 20.0, 40.0, 60.0, 80.0, 100.0]
    >>> ticks(0.61, 0.83)
    [0.6, 0.65, 0.7, 0.75, 0.8, 0.85]
    """
    span = high - low
    if not math.isfinite(span) or span <= 0:
        low, high, span = low - 0.5, high + 0.5, 1.0
    rough = span / wanted
    size = 10.0 ** math.floor(math.log10(rough))
    step = next(size * factor for factor in (1, 2, 2.5, 5, 10) if size * factor >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(step * position, 10) for position in range(first, last + 1)]


def line_chart(series: list[Series], *, unit: str = "labels") -> Chart | None:
    """Lay out a line chart, or None when there is not one point. ``unit`` is what the points' titles say of x."""
    points = [point for one in series for point in one.points]
    if not points:
        return None
    ys = [y for _, y in points] + [bound for one in series for bound in (*one.low, *one.high)]
    x_values, y_values = ticks(min(x for x, _ in points), max(x for x, _ in points)), ticks(min(ys), max(ys))
    plot_right, plot_bottom = WIDTH - RIGHT, HEIGHT - BOTTOM

    def across(x: float) -> float:
        return round(LEFT + (x - x_values[0]) / (x_values[-1] - x_values[0]) * (plot_right - LEFT), 1)

    def down(y: float) -> float:
        return round(plot_bottom - (y - y_values[0]) / (y_values[-1] - y_values[0]) * (plot_bottom - TOP), 1)

    return Chart(
        width=WIDTH,
        height=HEIGHT,
        left=LEFT,
        right=plot_right,
        top=TOP,
        bottom=plot_bottom,
        x_ticks=[(across(x), f"{x:g}") for x in x_values],
        y_ticks=[(down(y), f"{y:g}") for y in y_values],
        lines=[
            Line(
                name=one.name,
                number=number,
                dash=dash,
                path=" ".join(f"{across(x)},{down(y)}" for x, y in one.points),
                band=" ".join(
                    [f"{across(x)},{down(y)}" for (x, _), y in zip(one.points, one.high, strict=False)]
                    + [f"{across(x)},{down(y)}" for (x, _), y in reversed([*zip(one.points, one.low, strict=False)])]
                ),
                markers=[
                    (across(x), down(y), f"{one.name}: {x:g} {unit}, {y:.3f}")
                    for x, y in one.points
                    if len(one.points) <= MOST_MARKED
                ],
            )
            for (number, dash), one in zip(_looks(series), series, strict=True)
        ],
    )


def _looks(series: list[Series]) -> list[tuple[int, int]]:
    """Colour and dash: grey for references, for the others the accent first; unbroken until a colour comes again."""
    others = itertools.cycle(OTHER_COLOURS)
    colours = [REFERENCE_COLOUR if one.is_reference else next(others) for one in series]
    return [(colour, colours[:position].count(colour) % NUM_DASHES) for position, colour in enumerate(colours)]
