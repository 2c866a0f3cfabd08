"""Whether asking on still pays: several criteria, each with its figure; advice, never an end."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

STOP_SET = 1_000
"""Records on which one model is compared with the next: always the same ones."""
KAPPA = 0.99
CHANGED = 0.005
UNCERTAIN = 0.05
GAIN = 0.005
WINDOW = 3
"""Choices in a row that must agree."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Criterion:
    """One way to tell that more labels change little.

    Parameters
    ----------
    says_stop : None while there is too little to judge by.
    figure, limit : what was measured, and from where on it says stop.
    words : one line for people.
    """

    name: str
    says_stop: bool | None
    figure: float | None
    limit: float
    words: str


def model_figures(
    proba: npt.NDArray[np.float64], stop_set: npt.NDArray[np.int64], before: Sequence[int] | None
) -> dict[str, Any]:
    """What one choice of tasks leaves for the advice.

    Parameters
    ----------
    proba : (n, num_classes) of the records that nobody was asked about.
    stop_set : (m,) predicted classes of the records that models are compared on.
    before : the same by the model before, or None.

    Returns
    -------
    ``uncertainty``, the mean entropy of ``proba`` as a share of its largest; ``kappa`` and ``changed``, of the two
    models' predictions, None for the first; ``stop_set``.
    """
    entropy = -(proba * np.log(np.maximum(proba, 1e-300))).sum(axis=1).mean() if len(proba) else 0.0
    return compared(float(entropy / np.log(max(proba.shape[1], 2))), stop_set, before)


def compared(uncertainty: float, stop_set: npt.NDArray[np.int64], before: Sequence[int] | None) -> dict[str, Any]:
    """``model_figures`` of a model whose uncertainty is known, as a share of the largest possible.

    Parameters
    ----------
    stop_set : (m,) what is predicted of the records that models are compared on, as numbers: equal ones mean the same.
    """
    known: dict[str, Any] = {"uncertainty": uncertainty, "stop_set": stop_set.tolist()}
    if before is None or len(before) != len(stop_set):
        return known | {"kappa": None, "changed": None}
    earlier = np.asarray(before)
    agreed = float((earlier == stop_set).mean())
    labels = np.union1d(earlier, stop_set)
    chance = float(sum((earlier == one).mean() * (stop_set == one).mean() for one in labels))
    kappa = 1.0 if chance >= 1.0 else (agreed - chance) / (1 - chance)
    return known | {"kappa": kappa, "changed": 1 - agreed}


def advice(figures: Sequence[dict[str, Any]], *, num_answers: int, budget: int | None) -> list[Criterion]:
    """Every criterion, by the figures of a queue's choices, oldest first.

    References
    ----------
    Agreement of successive models: Bloodgood and Vijay-Shanker (2009), A Method for Stopping Active Learning Based on
    Stabilizing Predictions; classification change and overall uncertainty: Zhu, Wang and Hovy (2008), Multi-criteria-
    based Strategy to Stop Active Learning for Data Annotation.
    """
    kappas = [one["kappa"] for one in figures if one.get("kappa") is not None][-WINDOW:]
    changed = [one["changed"] for one in figures if one.get("changed") is not None][-WINDOW:]
    doubts = [one["uncertainty"] for one in figures if one.get("uncertainty") is not None][-1:]
    gains = [one["worth"]["next_gain"] for one in figures if (one.get("worth") or {}).get("next_gain")][-1:]
    kappa = sum(kappas) / WINDOW if len(kappas) == WINDOW else None
    most = max(changed) if len(changed) == WINDOW else None
    gain = gains[0]["high"] if gains else None
    found = [
        Criterion(
            name="agreement",
            says_stop=None if kappa is None else kappa >= KAPPA,
            figure=kappa,
            limit=KAPPA,
            words=f"agreement (kappa) of each of the last {WINDOW} models with the one before, on average",
        ),
        Criterion(
            name="change",
            says_stop=None if most is None else most <= CHANGED,
            figure=most,
            limit=CHANGED,
            words=f"largest share of predictions that one of the last {WINDOW} models changed",
        ),
        Criterion(
            name="uncertainty",
            says_stop=doubts[0] <= UNCERTAIN if doubts else None,
            figure=doubts[0] if doubts else None,
            limit=UNCERTAIN,
            words="mean uncertainty about what nobody was asked about, as a share of the largest possible",
        ),
        Criterion(
            name="gain",
            says_stop=None if gain is None else gain <= GAIN,
            figure=gain,
            limit=GAIN,
            words="the most accuracy that the next 100 labels may be expected to bring (upper end of the interval)",
        ),
    ]
    if budget is not None:
        found.append(
            Criterion(
                name="budget",
                says_stop=num_answers >= budget,
                figure=float(num_answers),
                limit=float(budget),
                words="answers spent",
            )
        )
    return found
