"""Who chooses in ``label_efficiency``: ours, and the query strategies of modAL, scikit-activeml and small-text.

Everyone asks the same fitted head: scikit-activeml gets it as an estimator and small-text as a classifier, so equal
rules choose equal records, and what differs is the rule. small-text has no seed of its own, so numpy's global one is
set around it and put back.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np

from labeling.candidates import Candidates
from labeling.learner import Learner
from labeling.selection import choose

AUTO, AUTO_SAME_START, RANDOM = "auto", "auto, same start", "random"
OURS = (AUTO, AUTO_SAME_START, RANDOM)
DISCRIMINATIVE_STEPS = 5
"""Fits of the discriminative head a round: small-text asks for a number and has no default."""


@dataclass(frozen=True, eq=False)
class State:
    """The pool in a round: ``labelled`` (n,) bool, and ``codes`` (n,) int64 to be looked at where labelled."""

    vectors: np.ndarray
    codes: np.ndarray
    labelled: np.ndarray
    classes: tuple[str, ...]
    head: Learner | None
    seed: int

    @property
    def pool(self) -> np.ndarray:
        """Rows without a label."""
        return np.flatnonzero(~self.labelled)

    def proba(self, rows: np.ndarray) -> np.ndarray:
        """The head's probabilities."""
        assert self.head is not None
        return self.head.proba(self.vectors[rows])


Contestant = Callable[[State, int], np.ndarray]


def ours(strategy: str) -> Contestant:
    """A strategy of ``labeling.strategies``."""

    def pick(state: State, batch_size: int) -> np.ndarray:
        pool, labelled = state.pool, np.flatnonzero(state.labelled)
        candidates = Candidates(
            embeddings=state.vectors[pool],
            proba=None if state.head is None else state.proba(pool),
            labelled_embeddings=state.vectors[labelled],
            classes=state.classes,
            labelled_codes=state.codes[labelled],
            labelled_proba=None if state.head is None else state.proba(labelled),
        )
        return np.asarray(pool[choose(candidates, strategy, batch_size, np.random.default_rng(state.seed)).indices])

    return pick


def modal(name: str) -> Contestant:
    """One of modAL's query strategies."""

    def pick(state: State, batch_size: int) -> np.ndarray:
        import modAL.uncertainty

        proba = state.proba(state.pool)
        learner = SimpleNamespace(predict_proba=lambda _: proba)
        found = getattr(modAL.uncertainty, name)(learner, state.vectors[state.pool], n_instances=batch_size)
        return np.asarray(state.pool[found[0]])

    return pick


def scikit_activeml(name: str, *, needs_head: bool = True, **options: Any) -> Contestant:
    """One of scikit-activeml's query strategies."""

    def pick(state: State, batch_size: int) -> np.ndarray:
        import skactiveml.pool

        codes = np.where(state.labelled, state.codes, np.nan)
        vectors = state.vectors.astype(np.float64)
        given = {"clf": _as_estimator(state).fit(vectors, codes), "fit_clf": False} if needs_head else {}
        asked = getattr(skactiveml.pool, name)(random_state=state.seed, **options)
        return np.asarray(asked.query(vectors, codes, batch_size=batch_size, **given))

    return pick


def _as_estimator(state: State) -> Any:
    """The common head, which fitting leaves as it is, where scikit-activeml wants a classifier of scikit-learn."""
    from skactiveml.classifier import SklearnClassifier
    from sklearn.base import BaseEstimator, ClassifierMixin

    assert state.head is not None
    proba, num_classes = state.head.proba, len(state.classes)

    class Fitted(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
        # Named as scikit-activeml passes them on.
        def fit(self, X: np.ndarray, y: np.ndarray) -> "Fitted":  # noqa: ARG002
            self.classes_ = np.arange(num_classes)
            return self

        def predict_proba(self, X: np.ndarray) -> np.ndarray:
            return proba(X)

    return SklearnClassifier(Fitted(), classes=range(num_classes))


@dataclass(frozen=True, eq=False)
class _AsClassifier:
    """The common head, which fitting leaves as it is, where small-text wants a classifier or who makes them."""

    head: Learner

    def new(self) -> "_AsClassifier":
        return self

    def fit(self, _train_set: Any) -> "_AsClassifier":
        return self

    def predict_proba(self, data_set: Any) -> np.ndarray:
        return self.head.proba(data_set.x)

    def embed(self, data_set: Any, *, return_proba: bool = False, pbar: str | None = None) -> Any:  # noqa: ARG002
        return (data_set.x, self.predict_proba(data_set)) if return_proba else data_set.x


def small_text(name: str, **options: Any) -> Contestant:
    """One of small-text's query strategies, asked through its active learner."""

    def pick(state: State, batch_size: int) -> np.ndarray:
        assert state.head is not None
        with warnings.catch_warnings(), _numpy_seed(state.seed):
            # It warns of a default that changed three releases ago.
            warnings.simplefilter("ignore")
            import small_text as package

            unlabelled = np.where(state.labelled, state.codes, package.LABEL_UNLABELED)
            data = package.SklearnDataset(state.vectors, unlabelled, target_labels=np.arange(len(state.classes)))
            strategy = getattr(package, name)(**{key: one() if callable(one) else one for key, one in options.items()})
            learner = package.PoolBasedActiveLearner(_AsClassifier(state.head), strategy, data)
            known = np.flatnonzero(state.labelled)
            learner.initialize_data(known, state.codes[known])
            return np.asarray(learner.query(num_samples=batch_size))

    return pick


def _labelled_or_not() -> Any:
    """Who makes heads, of the common kind, that tell labelled records from others."""
    from sklearn.linear_model import LogisticRegression
    from small_text import SklearnClassifierFactory

    return SklearnClassifierFactory(LogisticRegression(C=10.0, max_iter=1000), num_classes=2)


@contextmanager
def _numpy_seed(seed: int) -> Iterator[None]:
    before = np.random.get_state()
    np.random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(before)


PEERS: dict[str, Contestant] = {
    "modAL margin": modal("margin_sampling"),
    "modAL entropy": modal("entropy_sampling"),
    "modAL least confident": modal("uncertainty_sampling"),
    "skactiveml margin": scikit_activeml("UncertaintySampling", method="margin_sampling"),
    "skactiveml BADGE": scikit_activeml("Badge"),
    "skactiveml CoreSet": scikit_activeml("CoreSet", needs_head=False),
    "skactiveml TypiClust": scikit_activeml("TypiClust", needs_head=False),
    "skactiveml CAL": scikit_activeml("ContrastiveAL"),
    "small-text BreakingTies": small_text("BreakingTies"),
    "small-text PredictionEntropy": small_text("PredictionEntropy"),
    "small-text LeastConfidence": small_text("LeastConfidence"),
    "small-text GreedyCoreset": small_text("GreedyCoreset"),
    "small-text LightweightCoreset": small_text("LightweightCoreset"),
    "small-text EmbeddingKMeans": small_text("EmbeddingKMeans"),
    "small-text Contrastive": small_text("ContrastiveActiveLearning"),
    "small-text Discriminative": small_text(
        "DiscriminativeActiveLearning", classifier_factory=_labelled_or_not, num_iterations=DISCRIMINATIVE_STEPS
    ),
}
CONTESTANTS: dict[str, Contestant] = {one: ours(one.split(",")[0]) for one in OURS} | PEERS
