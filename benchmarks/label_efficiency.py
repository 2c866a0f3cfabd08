"""What labels are worth: accuracy by labels spent, `auto` against random and the choices of scikit-activeml and modAL.

    python -m benchmarks.label_efficiency [--quick] [--keep] [--data FILE:TEXT:LABEL …] [--encoder NAME …]

Everyone has the same records, held-out records, vectors, head (``labeling.learner``) and number of labels a round; a
cell is a data set and an encoder. Peers, who ask a model, begin with the same 25 random labels; `auto` is taken as it
is used, from no label, and once more, beside it, from those 25. A strategy's figure is the mean over seeds of the area
under its curve from 25 to 525 labels. small-text is not among the peers: its breaking ties and greedy core-set are here
by others.

The last line: ``cells_below_random`` and ``cells_below_best_peer``, of ``cells``, in which the area of `auto` is less
than that of random, or of the peers' best strategy in that cell; ``…_same_start`` of `auto` from the 25. And the share
of cells in which `auto` reaches random's accuracy at the end with half of the labels.
"""

import time
import warnings
from argparse import Namespace
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from types import SimpleNamespace
from typing import Any

import numpy as np

from benchmarks.label_errors import CACHE, Labelled, docstrings, from_file, labelled, tweets
from benchmarks.reporting import options_parser, report
from curation.encoders import ENCODERS, installed_encoders
from labeling.candidates import Candidates
from labeling.determinism import one_thread
from labeling.learner import Learner
from labeling.selection import choose
from labeling.simulation import CurvePoint, LearningCurve, labels_to_reach

BUDGET, FIRST = 525, 25
HELD_OUT = 1_000
AUTO, AUTO_SAME_START, RANDOM = "auto", "auto, same start", "random"
OURS = (AUTO, AUTO_SAME_START, RANDOM)


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


def scikit_activeml(name: str, **options: Any) -> Contestant:
    """One of scikit-activeml's query strategies."""

    def pick(state: State, batch_size: int) -> np.ndarray:
        import skactiveml.pool
        from skactiveml.classifier import SklearnClassifier
        from sklearn.linear_model import LogisticRegression

        codes = np.where(state.labelled, state.codes, np.nan)
        head = SklearnClassifier(LogisticRegression(C=10.0, max_iter=1000), classes=range(len(state.classes)))
        vectors = state.vectors.astype(np.float64)
        head.fit(vectors, codes)
        asked = getattr(skactiveml.pool, name)(random_state=state.seed, **options)
        with_head = {} if name in ("CoreSet", "TypiClust") else {"clf": head, "fit_clf": False}
        return np.asarray(asked.query(vectors, codes, batch_size=batch_size, **with_head))

    return pick


PEERS: dict[str, Contestant] = {
    "modAL margin": modal("margin_sampling"),
    "modAL entropy": modal("entropy_sampling"),
    "modAL least confident": modal("uncertainty_sampling"),
    "skactiveml margin": scikit_activeml("UncertaintySampling", method="margin_sampling"),
    "skactiveml BADGE": scikit_activeml("Badge"),
    "skactiveml CoreSet": scikit_activeml("CoreSet"),
    "skactiveml TypiClust": scikit_activeml("TypiClust"),
    "skactiveml CAL": scikit_activeml("ContrastiveAL"),
}
CONTESTANTS: dict[str, Contestant] = {one: ours(one.split(",")[0]) for one in OURS} | PEERS


def curve(data: Labelled, vectors: np.ndarray, name: str, seed: int, per_round: int) -> list[float]:
    """Accuracy on held-out records with 25 labels, and after every round."""
    order = np.random.default_rng(seed).permutation(len(vectors))
    held_out, pool = order[:HELD_OUT], order[HELD_OUT:]
    classes = tuple(str(code) for code in range(data.num_classes))
    marked = np.zeros(len(pool), dtype=bool)
    state = State(vectors[pool], data.codes[pool], marked, classes, None, seed)
    first = ours(AUTO if name == AUTO else RANDOM)
    marked[first(state, FIRST)] = True
    found: list[float] = []
    while True:
        known = [classes[code] for code in state.codes[marked]]
        # One class alone is no model: whoever it is says that class.
        head = Learner.fit(state.vectors[marked], known, classes, seed) if len(set(known)) > 1 else None
        said = head.proba(vectors[held_out]).argmax(axis=1) if head else np.full(len(held_out), int(known[0]))
        found.append(float((said == data.codes[held_out]).mean()))
        if marked.sum() >= BUDGET:
            return found
        state = State(state.vectors, state.codes, marked, classes, head, seed * 1000 + len(found))
        contestant = CONTESTANTS[name] if head else first
        picks = contestant(state, per_round)
        assert len(np.unique(picks)) == per_round
        assert not marked[picks].any()
        marked[picks] = True


def settings(options: Namespace) -> Iterator[tuple[Labelled, str, np.ndarray]]:
    """Data sets with the vectors of each encoder."""
    given = [from_file(one) for one in options.data] or [("docstrings", docstrings()), ("tweets", tweets())]
    for (name, rows), encoder in product(given[:1] if options.quick else given, options.encoder):
        data = labelled(name, rows, 2_000 if options.quick else options.limit)
        CACHE.mkdir(parents=True, exist_ok=True)
        yield data, encoder, ENCODERS[encoder].member(data.texts.to_list(), CACHE)


def compared(data: Labelled, vectors: np.ndarray, options: Namespace, names: list[str]) -> dict[str, np.ndarray]:
    """Accuracies (num_seeds, num_rounds + 1) of every contestant."""
    found = {}
    for name in names:
        began = time.perf_counter()
        found[name] = np.array(
            [curve(data, vectors, name, seed, options.per_round) for seed in range(1, options.seeds + 1)]
        )
        areas = area(found[name])
        error = areas.std(ddof=1) / np.sqrt(len(areas)) if len(areas) > 1 else float("nan")
        ends = found[name].mean(axis=0)
        took = (time.perf_counter() - began) / options.seeds
        print(
            f"  {name:22} area {areas.mean():.4f} ± {error:.4f}   {FIRST}: {ends[0]:.3f}  "
            f"{BUDGET}: {ends[-1]:.3f}   {took:.1f} s a curve",
            flush=True,
        )
    return found


def area(accuracies: np.ndarray) -> np.ndarray:
    """(num_seeds,) mean accuracy between the first label count and the last, by trapezoids of equal width."""
    return np.asarray((accuracies[:, :-1] + accuracies[:, 1:]).mean(axis=1) / 2)


def labels_needed(accuracies: np.ndarray, target: float, per_round: int) -> int | None:
    """Labels at which the mean curve reaches an accuracy, or None."""
    points = tuple(
        CurvePoint(num_labels=FIRST + number * per_round, accuracy=float(one), macro_f1=0.0, low=0.0, high=1.0)
        for number, one in enumerate(accuracies.mean(axis=0))
    )
    return labels_to_reach(LearningCurve(points), target)


def main() -> None:
    """Compare, and print the last line."""
    parser = options_parser(__doc__ or "")
    parser.add_argument("--data", action="append", default=[], help="FILE:TEXT:LABEL, instead of what is installed")
    parser.add_argument("--encoder", action="append", choices=installed_encoders(), help="default static")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--per-round", type=int, default=25, help="labels between two fits")
    parser.add_argument("--limit", type=int, default=4_000, help="records of a set, the held-out ones included")
    options = parser.parse_args()
    options.encoder = options.encoder or [one for one in ("static", "hashing") if one in installed_encoders()][:1]
    names = list(CONTESTANTS)
    if options.quick:
        options.seeds, options.per_round = 1, 100
        print("--quick: one set, one seed, 100 labels a round")
    assert (BUDGET - FIRST) % options.per_round == 0
    below = dict.fromkeys(("random", "best_peer", "random_same_start", "best_peer_same_start"), 0)
    cells, halves, needs = 0, 0, {}
    with one_thread(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for data, encoder, vectors in settings(options):
            print(f"{data.name}, {encoder}: {len(vectors):,} records, {data.num_classes} classes", flush=True)
            found = compared(data, vectors, options, names)
            areas = {name: float(area(one).mean()) for name, one in found.items()}
            best = max(areas[name] for name in PEERS)
            below["random"] += areas[AUTO] < areas[RANDOM]
            below["best_peer"] += areas[AUTO] < best
            below["random_same_start"] += areas[AUTO_SAME_START] < areas[RANDOM]
            below["best_peer_same_start"] += areas[AUTO_SAME_START] < best
            need = labels_needed(found[AUTO], float(found[RANDOM].mean(axis=0)[-1]), options.per_round)
            needs[f"{data.name}, {encoder}"] = need
            halves += need is not None and need <= BUDGET / 2
            cells += 1
            print(f"  {AUTO} has random's accuracy at {BUDGET} labels with {need}\n", flush=True)
    figures: dict[str, Any] = {f"cells_below_{name}": int(count) for name, count in below.items()}
    figures |= {"share_of_sets_at_half_labels": round(halves / cells, 3), "cells": cells, "labels_needed": needs}
    report("label_efficiency", options, figures, ("modAL-python", "numpy", "scikit-activeml", "scikit-learn"))


if __name__ == "__main__":
    main()
