"""How the arms of a training learn: their losses by step, few enough to draw."""

import math
from dataclasses import dataclass

import numpy as np
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from catalog.tables.engine import Run, Unit
from catalog.tables.training import LossPoint
from service.pages.charts import Chart, Series, line_chart

MOST_LINES = 6
"""More arms than that, seeds of one taken together, are drawn in several charts."""
DRAWN_POINTS = 80
"""Of one line."""
SMOOTHED_OVER = 20
"""Steps over which a line is averaged."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ArmCurve:
    """How one arm has learned so far.

    Parameters
    ----------
    arm, seed : its name, and what it drew by; None of a run that did not note it.
    control_of, replica_of : the arm whose control it is, and the one that it repeats under another seed, if any.
    num_done, num_steps : updates done, and in all.
    points : (last step, mean loss) of equally long stretches of steps, alike for all arms of a run.
    memory : what a step takes, in bytes; None before it is known.
    """

    arm: str
    seed: int | None
    control_of: str | None
    replica_of: str | None
    num_done: int
    num_steps: int
    points: tuple[tuple[int, float], ...]
    memory: dict[str, int] | None

    @property
    def loss(self) -> float:
        """That of the last stretch."""
        return self.points[-1][1]

    @property
    def lowest(self) -> float:
        """The lowest of a stretch."""
        return min(loss for _, loss in self.points)


def arm_curves(session: Session, run: Run, *, limit: int = DRAWN_POINTS) -> list[ArmCurve]:
    """Every arm that a training plans, in order, with at most ``limit`` points each; none of other runs.

    Raises
    ------
    ValueError : ``limit`` is below 1.
    """
    if limit < 1:
        raise ValueError(f"limit={limit} must be at least 1")
    query = select(Unit).where(Unit.run_id == run.id, Unit.stage_name == "fit").order_by(Unit.position)
    units = session.scalars(query).all() if run.kind == "train" else []
    points = _points(session, run.id, limit) if units else {}
    # Units of earlier releases say nothing of controls, but their comparisons do.
    compared = {one["control"]: one["arm"] for one in (run.result or {}).get("comparisons", [])}
    return [
        ArmCurve(
            arm=unit.payload["arm"],
            seed=unit.payload.get("seed"),
            control_of=unit.payload.get("control_of", compared.get(unit.payload["arm"])),
            replica_of=unit.payload.get("replica_of"),
            num_done=points[unit.payload["arm"]][-1][0] if unit.payload["arm"] in points else 0,
            num_steps=unit.payload["steps"],
            points=tuple(points.get(unit.payload["arm"], ())),
            memory=(unit.result or {}).get("memory"),
        )
        for unit in units
    ]


def _points(session: Session, run_id: str, limit: int) -> dict[str, list[tuple[int, float]]]:
    of_run = LossPoint.run_id == run_id
    last = session.scalar(select(func.max(LossPoint.step)).where(of_run)) or 0
    stretch = (LossPoint.step - 1) // max(1, math.ceil(last / limit))
    rows = session.execute(
        select(LossPoint.arm, func.max(LossPoint.step), func.avg(LossPoint.loss))
        .where(of_run)
        .group_by(LossPoint.arm, stretch)
        .order_by(LossPoint.arm, stretch)
    )
    found: dict[str, list[tuple[int, float]]] = {}
    for arm, step, loss in rows:
        found.setdefault(arm, []).append((step, float(loss)))
    return found


def loss_charts(curves: list[ArmCurve]) -> list[Chart]:
    """Loss against steps, a line an arm: its seeds as their mean and range, its controls in grey beside it."""
    families: dict[str, list[ArmCurve]] = {}
    for one in curves:
        families.setdefault(one.replica_of or one.arm, []).append(one)
    pages: list[list[Series]] = []
    group: list[Series] = []
    for name, seeds in families.items():
        drawn = _series(name, [one for one in seeds if one.points])
        if seeds[0].control_of is None:
            _place(pages, group)
            group = []
        group += drawn
    _place(pages, group)
    charts = [line_chart(series, unit="steps") for series in pages]
    return [chart for chart in charts if chart is not None]


def _place(pages: list[list[Series]], group: list[Series]) -> None:
    """Put an arm with its controls on the last page, or on a new one where that has no room."""
    if pages and len(pages[-1]) + len(group) <= MOST_LINES:
        pages[-1] += group
    elif group:
        pages.append([*group])


def _series(name: str, seeds: list[ArmCurve]) -> list[Series]:
    if not seeds:
        return []
    longest = max((one.points for one in seeds), key=len)
    # Seeds are trained one after the other: the shorter ones say nothing yet of later steps.
    by_seed = np.full((len(seeds), len(longest)), np.nan)
    for row, one in zip(by_seed, seeds, strict=True):
        row[: len(one.points)] = _smoothed([loss for _, loss in one.points], longest)
    steps = [float(step) for step, _ in longest]
    several = len(seeds) > 1
    return [
        Series(
            name=f"{name} ({len(seeds)} seeds)" if several else name,
            is_reference=seeds[0].control_of is not None,
            points=tuple(zip(steps, np.nanmean(by_seed, axis=0).round(4).tolist(), strict=True)),
            low=tuple(np.nanmin(by_seed, axis=0).round(4).tolist()) if several else (),
            high=tuple(np.nanmax(by_seed, axis=0).round(4).tolist()) if several else (),
        )
    ]


def _smoothed(losses: list[float], points: tuple[tuple[int, float], ...]) -> list[float]:
    """Each as the mean of those of the last ``SMOOTHED_OVER`` steps."""
    width = max(1, round(SMOOTHED_OVER * len(points) / points[-1][0]))
    return [float(np.mean(losses[max(0, end - width) : end])) for end in range(1, len(losses) + 1)]
