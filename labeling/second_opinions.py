"""Relabel or new: what one more answer to a record is worth, be it the first or the fourth."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from labeling.candidates import Answers

COARSE = (0.1, 0.2, 0.5, 0.8, 1.0, 2.0, 3.0, 5.0, 8.0)
"""Temperatures tried first; eight between the best one's neighbours follow."""
LEAST_WEIGHT = 1e-6
FLOOR = 1e-30
"""Probabilities below are raised to it, so that logarithms are finite."""
BLOCK_ROWS = 65_536


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Trust:
    """How much the model and each annotator are worth, relative to guessing the commonest label.

    Parameters
    ----------
    temperature : the model's probabilities are flattened by it, so that they agree with the answers.
    model : weight of the model.
    annotators : (num_annotators,) float64 weight of each annotator.
    mean : over the annotators who gave an answer.
    """

    temperature: float
    model: float
    annotators: npt.NDArray[np.float64]
    mean: float


def doubted(proba: npt.NDArray[np.float64], answers: Answers) -> npt.NDArray[np.bool_]:
    """Which candidates' label leads by less than one answer, the model's probabilities being one vote more.

    One answer is doubted where the model prefers another label, two that differ always are, two that agree never: so
    asking again comes to an end, which ActiveLab's scores by themselves do not bring.

    Parameters
    ----------
    proba : (num_candidates, num_classes) float64, rows summing to 1; for answered ones, out of sample.
    answers : of those that have some.

    Returns
    -------
    (num_candidates,) bool; False where there is no answer.
    """
    votes = np.zeros_like(proba)
    np.add.at(votes, (answers.rows, answers.codes), 1.0)
    first_two = -np.partition(-(votes + proba), 1, axis=1)[:, :2]
    return np.asarray((votes.sum(axis=1) > 0) & (first_two[:, 0] - first_two[:, 1] < 1.0))


def active_lab_scores(proba: npt.NDArray[np.float64], answers: Answers | None) -> npt.NDArray[np.float64]:
    """ActiveLab's quality of every candidate's label so far; the lowest gain most by one more answer.

    Parameters
    ----------
    proba : (num_candidates, num_classes) float64, rows summing to 1; for answered ones, out of sample if they can be.
    answers : of those that have some.

    Returns
    -------
    (num_candidates,) float64 in [0, 1].

    References
    ----------
    Goh and Mueller (2023), ActiveLab: Active Learning with Re-Labeling by Multiple Annotators, section 3; Goh,
    Tkachenko and Mueller (2022), CROWDLAB, for the weights. As in cleanlab, but sparse: time and memory go with the
    answers, not with records times annotators. A majority tied in probability and in its classes' frequency goes to the
    first class.
    """
    num_classes = proba.shape[1]
    if answers is None or not len(answers.rows):
        trust = Trust(temperature=1.0, model=1.0, annotators=np.ones(0), mean=1.0)
        return _scores_of_new(proba, trust)
    rows, place = np.unique(answers.rows, return_inverse=True)
    votes = np.zeros((len(rows), num_classes))
    np.add.at(votes, (place, answers.codes), 1.0)
    num_answers = votes.sum(axis=1)
    if (num_answers == 1).all():
        annotators = np.ones(int(answers.annotators.max()) + 1)
        trust = Trust(temperature=1.0, model=1.0, annotators=annotators, mean=1.0)
        quality = proba[rows, votes.argmax(axis=1)]
    else:
        trust, quality = _crowdlab(proba[rows], votes, answers, place)
    weight = np.bincount(place, trust.annotators[answers.annotators]) + trust.model
    scores = _scores_of_new(proba, trust)
    scores[rows] = (quality * weight + trust.mean / num_classes) / (weight + trust.mean)
    return scores


def _scores_of_new(proba: npt.NDArray[np.float64], trust: Trust) -> npt.NDArray[np.float64]:
    scores = np.empty(len(proba))
    for start in range(0, len(proba), BLOCK_ROWS):
        some = slice(start, start + BLOCK_ROWS)
        # Temperature 1 is taken as it is: clipping would only add rounding.
        block = proba[some] if trust.temperature == 1.0 else _flattened(proba[some], trust.temperature)
        scores[some] = (block.max(axis=1) * trust.model + trust.mean / proba.shape[1]) / (trust.model + trust.mean)
    return scores


def _crowdlab(
    proba: npt.NDArray[np.float64], votes: npt.NDArray[np.float64], answers: Answers, place: npt.NDArray[np.int64]
) -> tuple[Trust, npt.NDArray[np.float64]]:
    """Weights, and the consensus label's probability, for the answered records."""
    temperature = best_temperature(proba, votes)
    proba = _flattened(proba, temperature)
    consensus = _majority(proba, votes)
    trust, posterior = _weighed(proba, votes, answers, place, consensus, temperature)
    best = posterior.max(axis=1, keepdims=True)
    consensus = np.where((posterior == best).sum(axis=1) == 1, posterior.argmax(axis=1), consensus)
    trust, posterior = _weighed(proba, votes, answers, place, consensus, temperature)
    return trust, posterior[np.arange(len(votes)), consensus]


def _weighed(
    proba: npt.NDArray[np.float64],
    votes: npt.NDArray[np.float64],
    answers: Answers,
    place: npt.NDArray[np.int64],
    consensus: npt.NDArray[np.int64],
    temperature: float,
) -> tuple[Trust, npt.NDArray[np.float64]]:
    num_classes, num_answers = proba.shape[1], votes.sum(axis=1)
    several = num_answers > 1
    likelihood = (votes[np.arange(len(votes)), consensus] / num_answers)[several].mean()
    decided = consensus[several]
    guess_error = max((decided != np.bincount(decided, minlength=num_classes).argmax()).mean(), LEAST_WEIGHT)
    agreeing = np.bincount(answers.annotators, votes[place, answers.codes] - 1)
    others = np.bincount(answers.annotators, num_answers[place] - 1)
    # Whoever never met another is taken to agree as the others do on average.
    agreement = np.divide(agreeing, others, out=np.full(len(others), np.nan), where=others > 0)
    agreement[np.isnan(agreement)] = np.nanmean(agreement)
    weights = np.maximum(1 - (1 - agreement) / guess_error, LEAST_WEIGHT)
    model_error = (proba[several].argmax(axis=1) != decided).mean()
    model = max(1 - model_error / guess_error, LEAST_WEIGHT) * np.sqrt(num_answers.mean())
    given = weights[answers.annotators]
    heard = np.bincount(place, given)
    by_class = np.zeros_like(votes)
    np.add.at(by_class, (place, answers.codes), given)
    missed = (1 - likelihood) / (num_classes - 1)
    posterior = proba * model + by_class * likelihood + (heard[:, None] - by_class) * missed
    posterior /= (heard + model)[:, None]
    present = np.unique(answers.annotators)
    trust = Trust(temperature=temperature, model=float(model), annotators=weights, mean=float(weights[present].mean()))
    return trust, posterior


def _majority(proba: npt.NDArray[np.float64], votes: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    tied = votes == votes.max(axis=1, keepdims=True)
    likely = np.where(tied, proba, -1.0)
    tied &= likely == likely.max(axis=1, keepdims=True)
    return np.asarray(np.where(tied, votes.sum(axis=0), np.inf).argmin(axis=1), dtype=np.int64)


def best_temperature(proba: npt.NDArray[np.float64], votes: npt.NDArray[np.float64]) -> float:
    """The temperature at which the probabilities agree best with the answers, by cross-entropy.

    Parameters
    ----------
    proba : (n, num_classes) float64, rows summing to 1.
    votes : (n, num_classes) float64, answers by class, at least one a row.
    """
    share = votes / votes.sum(axis=1, keepdims=True)
    logs = np.log(proba, out=np.full_like(proba, -np.inf), where=proba > 0)

    def loss(temperature: float) -> float:
        weight = np.exp(logs / temperature)
        weight /= weight.sum(axis=1, keepdims=True)
        return float(-(share * np.log(np.maximum(weight, FLOOR))).sum(axis=1).mean())

    best = int(np.argmin([loss(one) for one in COARSE]))
    finer: list[float] = []
    if best > 0:
        finer += np.linspace(COARSE[best - 1], COARSE[best], 4, endpoint=False).tolist()
    if best < len(COARSE) - 1:
        finer += np.linspace(COARSE[best], COARSE[best + 1], 5).tolist()
    return finer[int(np.argmin([loss(one) for one in finer]))]


def _flattened(proba: npt.NDArray[np.float64], temperature: float) -> npt.NDArray[np.float64]:
    logs = np.log(np.maximum(proba, FLOOR))
    weight = np.exp((logs - logs.max(axis=1, keepdims=True)) / temperature)
    return np.asarray(weight / weight.sum(axis=1, keepdims=True), dtype=np.float64)
