"""Whether a curriculum paid: every arm against its controls, over the seeds and the held-out records they share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    from training.recipe import PlannedArm

RANDOM = "random"
ORDERS = {RANDOM: "random order", "anti": "hardest first", "same_pacing_random": "the same pacing in random order"}
"""What is said of a control, by its pacing."""


def by_accuracy(
    plan: Sequence[PlannedArm],
    predictions: Mapping[str, npt.NDArray[np.int64]],
    gold: npt.NDArray[np.int64],
    seed: int,
) -> list[dict[str, Any]]:
    """Classifiers against their controls: over seeds where there are several, else over the examples alone.

    Parameters
    ----------
    predictions : (n,) of each arm, by name.
    gold : (n,) what is right.
    seed : of the bootstrap.

    Returns
    -------
    A row a control, as JSON, with its ``difference`` of accuracies.
    """
    from training.evaluation.quality import paired_difference, seeded_difference

    found = []
    for control, arms in _paired(plan):
        pairs = [(predictions[one], predictions[other]) for one, other in arms]
        difference = (
            seeded_difference(pairs, gold)
            if len(pairs) > 1
            else paired_difference(*pairs[0], gold, np.random.default_rng(seed))
        )
        told = {"difference": difference.diff, "low": difference.low, "high": difference.high}
        found.append(_row(control, len(pairs), told))
    return found


def by_loss(
    plan: Sequence[PlannedArm], losses: Mapping[str, npt.NDArray[np.float64]], seed: int
) -> list[dict[str, Any]]:
    """Other models against their controls, by what records cost: over seeds where there are several.

    Parameters
    ----------
    losses : (n,) nats of each arm, by name; NaN where a record has no target.
    seed : of the bootstrap.

    Returns
    -------
    A row a control, as JSON, with ``loss_saved``, the nats by which the arm's records cost less.
    """
    from training.evaluation.held_out import paired_loss_difference, seeded_loss_difference

    found = []
    for control, arms in _paired(plan):
        pairs = [(losses[one], losses[other]) for one, other in arms]
        saved, low, high = (
            seeded_loss_difference(pairs)
            if len(pairs) > 1
            else paired_loss_difference(*pairs[0], np.random.default_rng(seed))
        )
        found.append(_row(control, len(pairs), {"loss_saved": saved, "low": low, "high": high}))
    return found


def _paired(plan: Sequence[PlannedArm]) -> Iterator[tuple[PlannedArm, list[tuple[str, str]]]]:
    """Each control of an arm, with the names of arm and control under every seed."""
    for control in plan:
        if control.control_of is None or control.replica_of is not None:
            continue
        seeds = [control] + [one for one in plan if one.replica_of == control.config.name]
        yield control, [(str(one.control_of), one.config.name) for one in seeds]


def _row(control: PlannedArm, num_seeds: int, told: dict[str, float]) -> dict[str, Any]:
    order = ORDERS[control.config.pacing]
    verdict = "paid" if told["low"] > 0 else f"did worse than {order}" if told["high"] < 0 else "no gain shown"
    return {
        "arm": control.control_of,
        "control": control.config.name,
        "order": order,
        "steps": control.config.steps,
        "seeds": num_seeds,
        **told,
        "verdict": verdict,
    }


def conclusions(comparisons: list[dict[str, Any]]) -> list[dict[str, str]]:
    """Whether each arm's curriculum paid: it has to beat random order, and every other control for its order to be why.

    Parameters
    ----------
    comparisons : of ``by_accuracy`` or ``by_loss``.

    Returns
    -------
    ``arm`` and ``verdict`` of each arm.
    """
    found = []
    for arm in dict.fromkeys(one["arm"] for one in comparisons):
        verdicts = {one["order"]: one["verdict"] for one in comparisons if one["arm"] == arm}
        against_random = verdicts.pop(ORDERS[RANDOM])
        level = [order for order, verdict in verdicts.items() if verdict != "paid"]
        if against_random != "paid":
            verdict = against_random
        elif level:
            verdict = (
                f"paid against random order, but not shown against {' and '.join(level)}: the order may not be why"
            )
        else:
            verdict = "paid"
        found.append({"arm": arm, "verdict": verdict})
    return found
