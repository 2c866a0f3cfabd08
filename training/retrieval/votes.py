"""What neighbours say, and how much of it to believe.

Shapes: Q questions, K neighbours, V outcomes (tokens or classes), X a shape of any kind.
"""

import math

import torch
from torch import Tensor

from catalog.errors import DataError


def check_votes(num_neighbours: int, weight: float, temperature: float) -> None:
    """Refuse options of neighbours that are out of range.

    Raises
    ------
    ValueError : with value, limit and remedy.
    """
    if num_neighbours < 1:
        raise ValueError(f"num_neighbours={num_neighbours} must be at least 1")
    if not 0 < weight < 1:
        raise ValueError(f"weight={weight} must lie in (0, 1); to read nothing, use no memory")
    if not 0 < temperature < math.inf:
        raise ValueError(f"temperature={temperature} must be above 0 and finite")


def neighbour_proba(distance_QK: Tensor, outcome_QK: Tensor, num_outcomes: int, temperature: float) -> Tensor:
    """Each neighbour votes for its outcome with a softmax of its negative squared distance.

    Parameters
    ----------
    distance_QK : (Q, K) squared distances, K at least 1.
    outcome_QK : (Q, K) int64 in [0, num_outcomes).
    temperature : the distances are divided by it.

    Returns
    -------
    (Q, V) float32, rows summing to 1.

    References
    ----------
    Khandelwal et al. (2020), Generalization through Memorization, equation 2; the temperature as in Khandelwal et al.
    (2021), section 2.
    """
    weight_QK = (-distance_QK / temperature).softmax(-1)
    empty_QV = weight_QK.new_zeros(len(weight_QK), num_outcomes)
    return empty_QV.scatter_add_(1, outcome_QK, weight_QK)


def interpolated(log_proba_QV: Tensor, votes_QV: Tensor, weight: float) -> Tensor:
    """Logarithms of ``(1 - weight)`` times the network's probabilities and ``weight`` times the votes, (Q, V) float32.

    References
    ----------
    Khandelwal et al. (2020), equation 3.
    """
    return torch.logaddexp(log_proba_QV.float() + math.log1p(-weight), votes_QV.log() + math.log(weight))


def best_weight(proba_X: Tensor, votes_X: Tensor, num_steps: int = 100) -> float:
    """The weight of the votes under which right outcomes are likeliest, by expectation maximisation.

    Parameters
    ----------
    proba_X, votes_X : of each right outcome, what the network and the neighbours gave it; of texts in neither the
        training nor the memory.

    Returns
    -------
    In [0.001, 0.999]: at the ends one of the two would never be asked.

    Raises
    ------
    DataError : no outcomes, other numbers of the two, or none that either deems possible.
    """
    proba, votes = proba_X.double().flatten(), votes_X.double().flatten()
    if len(proba) == 0 or len(proba) != len(votes) or not bool((proba + votes > 0).any()):
        raise DataError(
            f"{len(proba)} probabilities and {len(votes)} votes must be equally many, at least 1, and not all 0; give "
            "those of held-out outcomes"
        )
    possible = proba + votes > 0
    proba, votes = proba[possible], votes[possible]
    weight = 0.5
    for _ in range(num_steps):
        given = weight * votes
        weight = float((given / ((1 - weight) * proba + given)).mean())
        weight = min(max(weight, 1e-3), 1 - 1e-3)
    return weight
