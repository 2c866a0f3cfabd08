"""Expected error reduction: the record whose answer would make the model surest of all the others."""

import numpy as np
import numpy.typing as npt

from labeling.candidates import Candidates, Selection
from labeling.shortlist import hesitant
from labeling.strategies import STRATEGIES
from labeling.uncertainty import best_first

SHORTLIST = 500
"""Records whose answers are imagined; a larger batch has as many as it asks for twice."""
REFERENCES = 500
"""Records of the pool on which the model that would come of an answer is measured."""
MAX_ANSWERS = 5
"""Likeliest answers that are imagined of each record; the others' probability is shared among them."""
REGULARIZATION = 0.1
"""1 / C of the head (``labeling.learner``)."""
BLOCK_CELLS = 4_000_000


@STRATEGIES.register("expected_error")
def expected_error(candidates: Candidates, batch_size: int, rng: np.random.Generator) -> Selection:
    """Largest expected fall of the pool's mean entropy first.

    Among the ``SHORTLIST`` records of the smallest margins. The head is not refitted for every imagined answer: it
    takes one Newton step, a rank-one update of each class's weights (curvature between classes is left out).

    Returns
    -------
    Selection : utility in nats, minus ln num_classes to ln num_classes: mean entropy of a sample of the pool now, less
        the expected one after an answer.

    Raises
    ------
    ColdStartError : there is no model yet.
    DataError : there is a model, but ``labelled_proba`` is missing.

    References
    ----------
    Roy and McCallum (2001), Toward Optimal Active Learning through Sampling Estimation of Error Reduction, section 3
    (log loss).
    """
    proba, known = candidates.probabilities(), candidates.labelled_proba
    if known is None:
        candidates.require("labelled_proba", "give the model's probabilities of labelled_embeddings")
    assert known is not None
    rows = hesitant(proba, batch_size, rng, SHORTLIST)
    sample = rng.choice(len(candidates), min(REFERENCES, len(candidates)), replace=False)
    fall = expected_fall(
        candidates.embeddings[rows],
        proba[rows],
        candidates.embeddings[sample],
        proba[sample],
        candidates.labelled_embeddings,
        known,
    )
    picks = best_first(fall, batch_size, rng)
    why = [
        f"an answer would make the model surer of the rest by {fall[pick]:.4f} nats: best guess "
        f"{candidates.classes[proba[rows[pick]].argmax()]} {proba[rows[pick]].max():.2f}"
        for pick in picks
    ]
    return Selection(indices=rows[picks], utility=fall[picks], why=why)


def expected_fall(
    points: npt.NDArray[np.float32],
    proba: npt.NDArray[np.float64],
    references: npt.NDArray[np.float32],
    reference_proba: npt.NDArray[np.float64],
    labelled: npt.NDArray[np.float32],
    labelled_proba: npt.NDArray[np.float64],
) -> npt.NDArray[np.float64]:
    """By how much an answer about each point is expected to lower the mean entropy of the references.

    Returns
    -------
    (n,) float64, nats.
    """
    answers = np.argsort(-proba, axis=1, kind="stable")[:, :MAX_ANSWERS]
    chance = np.take_along_axis(proba, answers, axis=1)
    chance /= chance.sum(axis=1, keepdims=True)
    # The answer's indicator less the probabilities: the direction in which an answer moves the head.
    error = np.eye(proba.shape[1])[answers] - proba[:, None, :]
    own, others, known = _with_intercept(points), _with_intercept(references), _with_intercept(labelled)
    logits = np.log(np.clip(reference_proba, 1e-12, None))
    expected = np.empty(len(points))
    step = max(1, BLOCK_CELLS // (answers.shape[1] * len(references) * proba.shape[1]))
    inverses = [_inverse_curvature(known, labelled_proba[:, code]) for code in range(proba.shape[1])]
    for start in range(0, len(points), step):
        some = slice(start, start + step)
        reach = np.stack(
            [_reach(own[some], proba[some, code], others, inverse) for code, inverse in enumerate(inverses)],
            axis=-1,
        )
        moved = logits + error[some][:, :, None, :] * reach[:, None]
        moved -= moved.max(axis=-1, keepdims=True)
        weight = np.exp(moved)
        total = weight.sum(axis=-1)
        entropy = np.log(total) - (weight * moved).sum(axis=-1) / total
        expected[some] = (entropy.mean(axis=-1) * chance[some]).sum(axis=1)
    now = -(reference_proba * logits).sum(axis=1).mean()
    return np.asarray(now - expected, dtype=np.float64)


def _with_intercept(points: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    return np.concatenate([points.astype(np.float64), np.ones((len(points), 1))], axis=1)


def _inverse_curvature(
    labelled: npt.NDArray[np.float64], class_proba: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Of the fitted loss in one class's weights: (dim + 1, dim + 1)."""
    hessian = (labelled * (class_proba * (1 - class_proba))[:, None]).T @ labelled
    hessian[np.diag_indices_from(hessian)] += REGULARIZATION
    return np.asarray(np.linalg.inv(hessian), dtype=np.float64)


def _reach(
    points: npt.NDArray[np.float64],
    class_proba: npt.NDArray[np.float64],
    references: npt.NDArray[np.float64],
    inverse: npt.NDArray[np.float64],
) -> npt.NDArray[np.float64]:
    """How far a unit of error at a point moves a class's logit of a reference: (num_points, num_references)."""
    moved = points @ inverse
    damping = 1.0 + np.einsum("ij,ij->i", points, moved) * class_proba * (1 - class_proba)
    return np.asarray((moved / damping[:, None]) @ references.T, dtype=np.float64)
