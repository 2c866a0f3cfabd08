"""Quality by a classifier trained on the user's own good and bad examples: embeddings and logistic regression."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import polars as pl

from catalog.errors import DataError
from curation.dedup.exact import exact_hash
from curation.quality import SCORERS, Model, Score, Scored

MIN_EXAMPLES = 20
FOLDS = 5
STRENGTHS = (0.1, 1.0, 10.0, 100.0)
"""Inverse regularisation strengths that are tried."""
SEED = 20_261_124
DIGITS = 4
"""Of a probability: an encoder's rounding is far below."""
BINS = 10


@dataclass(frozen=True, kw_only=True)
class Measured:
    """How well a classifier tells its own examples apart, each judged by a model that has not seen it or its copies.

    Parameters
    ----------
    num_good, num_bad : distinct examples used.
    num_contradicting : texts that stood among both and were left out.
    auroc : area under the ROC curve; ``auroc_deviation`` : standard deviation among the folds.
    accuracy : at 0.5, of both classes alike.
    log_loss : in nats; 0.693 is what knowing nothing costs.
    calibration_error : mean distance of stated probability and share of good, in ten bins.
    strength : of regularisation (its inverse), that was chosen.
    """

    num_good: int
    num_bad: int
    num_contradicting: int
    auroc: float
    auroc_deviation: float
    accuracy: float
    log_loss: float
    calibration_error: float
    strength: float


@dataclass(frozen=True, kw_only=True)
class Classifier:
    """Logistic regression over an encoder's vectors: p(good) = sigmoid(scale (v · weights + bias) + shift).

    Parameters
    ----------
    encoder, encoder_version : whose vectors it reads.
    weights : d numbers.
    scale, shift : the calibration.
    """

    encoder: str
    encoder_version: int
    weights: tuple[float, ...]
    bias: float
    scale: float
    shift: float

    def probabilities(self, vectors: np.ndarray) -> np.ndarray:
        """p(good) of (n, d) vectors, (n,) float64, where good and bad are as frequent as each other."""
        decision = vectors.astype(np.float64) @ np.asarray(self.weights) + self.bias
        return _sigmoid(self.scale * decision + self.shift)

    def to_bytes(self) -> bytes:
        """As JSON, which anybody can read."""
        return json.dumps(asdict(self), sort_keys=True).encode()

    @classmethod
    def from_bytes(cls, raw: bytes) -> "Classifier":
        """The classifier of ``to_bytes``."""
        found = json.loads(bytes(raw))
        return cls(**found | {"weights": tuple(found["weights"])})


@SCORERS.register("classifier", Scored)
def classifier(model: Model) -> Score:
    """Probability that a text is one of the good examples that a classifier was trained on, rather than a bad one.

    References
    ----------
    Brown et al. (2020), Language Models are Few-Shot Learners (GPT-3), appendix A, who filter web pages by a logistic
    regression that tells curated texts from raw ones; here over embeddings, calibrated, and with the user's examples.
    """
    known = Classifier.from_bytes(model.raw)

    def score(texts: pl.Series) -> np.ndarray:
        if not len(texts):
            return np.empty(0)
        assert model.encode is not None
        return np.round(known.probabilities(model.encode(known.encoder, texts.to_list())), DIGITS)

    return score


@dataclass(frozen=True)
class Examples:
    """Distinct texts with their class: ``texts`` n strings, ``is_good`` (n,) bool, how many contradicted each other."""

    texts: pl.Series
    is_good: np.ndarray
    num_contradicting: int


def examples_of(good: pl.Series, bad: pl.Series) -> Examples:
    """Good and bad texts, each once, without those that are both; compared as exact duplicates are.

    Raises
    ------
    DataError : fewer than 20 of a class are left.
    """
    frame = pl.DataFrame({"text": [*good, *bad], "is_good": [True] * len(good) + [False] * len(bad)})
    frame = frame.with_columns(hash=exact_hash(frame["text"])).unique(["hash", "is_good"]).sort("hash", "is_good")
    both = frame.filter(pl.col("hash").is_duplicated())["hash"].unique()
    frame = frame.filter(~pl.col("hash").is_in(both.implode()))
    for name, number in (("good", int(frame["is_good"].sum())), ("bad", int((~frame["is_good"]).sum()))):
        if number < MIN_EXAMPLES:
            raise DataError(
                f"{number} distinct {name} examples; at least {MIN_EXAMPLES} are needed, hundreds are better"
            )
    return Examples(frame["text"], frame["is_good"].to_numpy(), len(both))


def fit_classifier(
    examples: Examples, vectors: np.ndarray, *, encoder: str, encoder_version: int
) -> tuple[Classifier, Measured]:
    """Train, calibrate and measure.

    The strength of regularisation is the one of the least log loss in five folds; the calibration is Platt's sigmoid
    over the decisions of those folds, and the figures are of the same decisions. Classes weigh alike, so the number of
    examples given of each does not move the probability.

    Parameters
    ----------
    vectors : (n, d), of the examples' texts.

    References
    ----------
    Platt (1999), Probabilistic Outputs for Support Vector Machines, with his smoothed targets.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedKFold
    from threadpoolctl import threadpool_limits

    is_good, rows = examples.is_good, vectors.astype(np.float64)
    folds = list(StratifiedKFold(FOLDS, shuffle=True, random_state=SEED).split(rows, is_good))
    weight = np.where(is_good, 0.5 / is_good.mean(), 0.5 / (~is_good).mean())
    tried = []
    with threadpool_limits(1):
        for strength in STRENGTHS:
            decision = np.empty(len(rows))
            for train, test in folds:
                part = LogisticRegression(C=strength, class_weight="balanced", max_iter=2_000)
                decision[test] = part.fit(rows[train], is_good[train]).decision_function(rows[test])
            scale, shift = _platt(decision, is_good, weight)
            proba = _sigmoid(scale * decision + shift)
            tried.append((_log_loss(proba, is_good, weight), strength, decision, scale, shift))
        loss, strength, decision, scale, shift = min(tried, key=lambda one: one[:2])
        final = LogisticRegression(C=strength, class_weight="balanced", max_iter=2_000).fit(rows, is_good)
    proba = _sigmoid(scale * decision + shift)
    of_folds = [roc_auc_score(is_good[test], decision[test]) for _, test in folds]
    measured = Measured(
        num_good=int(is_good.sum()),
        num_bad=int((~is_good).sum()),
        num_contradicting=examples.num_contradicting,
        auroc=round(float(np.mean(of_folds)), 4),
        auroc_deviation=round(float(np.std(of_folds)), 4),
        accuracy=round(float(np.average((proba >= 0.5) == is_good, weights=weight)), 4),
        log_loss=round(loss, 4),
        calibration_error=round(_calibration_error(proba, is_good, weight), 4),
        strength=strength,
    )
    trained = Classifier(
        encoder=encoder,
        encoder_version=encoder_version,
        weights=tuple(final.coef_[0].tolist()),
        bias=float(final.intercept_[0]),
        scale=scale,
        shift=shift,
    )
    return trained, measured


def _sigmoid(values: np.ndarray) -> np.ndarray:
    found: np.ndarray = 1 / (1 + np.exp(-np.clip(values, -500, 500)))
    return found


def _platt(decision: np.ndarray, is_good: np.ndarray, weight: np.ndarray) -> tuple[float, float]:
    """Scale and shift of the sigmoid that fits the decisions best; the scale is never negative."""
    from scipy.optimize import minimize

    num_good, num_bad = is_good.sum(), (~is_good).sum()
    target = np.where(is_good, (num_good + 1) / (num_good + 2), 1 / (num_bad + 2))

    def loss(given: Sequence[float]) -> float:
        values = given[0] * decision + given[1]
        # ln(1 + e^v) - t v: the cross entropy, without overflow.
        return float(np.average(np.logaddexp(0, values) - target * values, weights=weight))

    scale, shift = minimize(loss, (1.0, 0.0), method="L-BFGS-B", bounds=[(0.0, None), (None, None)]).x
    return float(scale), float(shift)


def _log_loss(proba: np.ndarray, is_good: np.ndarray, weight: np.ndarray) -> float:
    right = np.clip(np.where(is_good, proba, 1 - proba), 1e-12, 1)
    return float(np.average(-np.log(right), weights=weight))


def _calibration_error(proba: np.ndarray, is_good: np.ndarray, weight: np.ndarray) -> float:
    """Expected calibration error (Guo et al. 2017, equation 3), with bins of equal width."""
    bins = np.minimum((proba * BINS).astype(np.int64), BINS - 1)
    stated = np.bincount(bins, weight * proba, BINS)
    found = np.bincount(bins, weight * is_good, BINS)
    return float(np.abs(stated - found).sum() / weight.sum())
