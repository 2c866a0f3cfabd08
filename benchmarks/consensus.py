"""Whose consensus is right: Winnow's, cleanlab's or crowd-kit's, on the same answers and the same probabilities?

    python -m benchmarks.consensus [--quick] [--keep] [--data FOLDER]

``--data`` is a folder with public crowd data: ``crowd-jn-product`` (Zheng et al. 2017, d_jn-product), ``snow2008``
(Snow et al. 2008) and ``hatecheck`` (Röttger et al. 2021). Without it only crowds simulated from confusion matrices are
measured, and the last line says so. Besides all answers, a few an item are drawn, as queues with overlap 2 or 3 have.

Everyone gets the same answers. Where there are texts, one logistic regression on them is fitted out of fold to the
majority labels, and its probabilities go to cleanlab's CROWDLAB and to ours alike. Differences of accuracy, ours less
theirs, so that 0 is equal and above 0 is better; the least of all data sets with all answers:

- ``accuracy_vs_crowdkit``: our default less crowd-kit's Dawid-Skene; ``…_any``: less whichever of crowd-kit's methods
  happens to be best on the set;
- ``dawid_skene_vs_crowdkit``: plain maximum likelihood less theirs;
- ``accuracy_vs_cleanlab``: ours with a classifier less CROWDLAB where there are texts, else our default less cleanlab's
  majority.

``…_few`` are the means where a few answers an item are drawn. Then ten million answers: seconds and peak memory of
alpha and of Dawid-Skene.
"""

import ast
import json
import re
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from benchmarks.reporting import options_parser, report
from labeling.annotations import Annotations
from labeling.consensus import Evidence
from labeling.truth import TRUTH

ALL = 99
"""Answers an item: as many as there are."""
WITHOUT, WITH = ("majority", "dawid_skene", "pooled_dawid_skene"), ("crowdlab", "classifier_dawid_skene")
CROWD_KIT = ("MajorityVote", "DawidSkene", "OneCoinDawidSkene", "GLAD", "MACE")
SLOW = ("GLAD", "MACE")
"""With all answers only, and not with ``--quick``."""
MAX_SLOW_ANSWERS = 10_000
"""Beyond, GLAD takes minutes: it is left out."""
QUICK_ITEMS = 1_000
"""With ``--quick`` larger sets are measured with all answers only."""
MILLIONS = 10


@dataclass(frozen=True, kw_only=True, eq=False)
class Crowd:
    """Answers with the truth. ``features`` is what a classifier sees of the items asked for, None where nothing is."""

    name: str
    answers: pl.DataFrame
    truth: dict[str, str]
    redundancies: tuple[int, ...]
    features: Callable[[Sequence[str]], Any] | None = None


def real_crowds(folder: Path) -> Iterator[Crowd]:
    """The public data sets that the folder has."""
    if (folder / "crowd-jn-product").is_dir():
        yield _products(folder / "crowd-jn-product")
    for name in ("rte", "temp", "wsd"):
        path = folder / "snow2008" / f"{name}.standardized.tsv"
        if path.is_file():
            yield _snow(path, name)
    if (folder / "hatecheck").is_dir():
        yield _hatecheck(folder / "hatecheck" / "test_suite_annotations.csv")


def _products(folder: Path) -> Crowd:
    answers = pl.read_csv(folder / "answer.csv", infer_schema=False)
    lines = (folder / "data_product.txt").read_text("utf-8").splitlines()[1:]
    products = {str(row[0]): row for row in map(ast.literal_eval, lines)}

    def features(items: Sequence[str]) -> Any:
        left, right = ([products[one.split("_")[place]] for one in items] for place in (0, 1))
        prices = [np.array([_price(row[3]) for row in side]) for side in (left, right)]
        apart = np.abs(np.log1p(prices[0]) - np.log1p(prices[1]))
        names = _pair_features([row[1] for row in left], [row[1] for row in right])
        whole = _pair_features([f"{row[1]} {row[2]}" for row in left], [f"{row[1]} {row[2]}" for row in right])
        return np.column_stack([names, whole, np.nan_to_num(apart, nan=1.0), np.isnan(apart)])

    return Crowd(
        name="jn-product",
        answers=answers.select(item="question", annotator="worker", label="answer"),
        truth=dict(pl.read_csv(folder / "truth.csv", infer_schema=False).iter_rows()),
        redundancies=(2, ALL),
        features=features,
    )


def _snow(path: Path, name: str) -> Crowd:
    rows = pl.read_csv(path, separator="\t", infer_schema=False, quote_char=None)
    features = None
    if name == "rte":
        texts = pl.read_csv(path.parent / "rte1.tsv", separator="\t", infer_schema=False, quote_char=None)
        pairs = {row[0]: (row[3], row[4]) for row in texts.iter_rows()}

        def features(items: Sequence[str]) -> Any:
            return _pair_features([pairs[one][0] for one in items], [pairs[one][1] for one in items])

    return Crowd(
        name=name,
        answers=rows.select(item="orig_id", annotator="!amt_worker_ids", label="response"),
        truth=dict(rows.select("orig_id", "gold").iter_rows()),
        redundancies=(2, 3, 5, ALL),
        features=features,
    )


def _hatecheck(path: Path) -> Crowd:
    rows = pl.read_csv(path, infer_schema=False)
    said = rows.unpivot(
        [f"label_{place}" for place in range(1, 11)], index="case_id", variable_name="annotator", value_name="label"
    )
    texts = dict(rows.select("case_id", "test_case").iter_rows())

    def features(items: Sequence[str]) -> Any:
        from sklearn.feature_extraction.text import TfidfVectorizer

        words = TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True)
        return words.fit_transform([texts[one] for one in items])

    return Crowd(
        name="hatecheck",
        answers=said.drop_nulls().select(item="case_id", annotator="annotator", label="label"),
        truth=dict(rows.select("case_id", "label_gold").iter_rows()),
        redundancies=(2, 3, ALL),
        features=features,
    )


def simulated_crowd(seed: int, *, num_labels: int, num_items: int) -> Crowd:
    """Sixty annotators with confusion matrices of their own, a fifth of whom guess; five answers an item."""
    rng = np.random.default_rng(seed)
    common = rng.dirichlet(np.ones(num_labels), num_labels)
    matrices = []
    for _ in range(60):
        right = 0.0 if rng.random() < 0.2 else rng.uniform(0.5, 0.95)
        matrices.append(right * np.eye(num_labels) + (1 - right) * common[rng.permutation(num_labels)])
    shares = rng.dirichlet(np.full(num_labels, 3.0))
    truth = rng.choice(num_labels, num_items, p=shares)
    rows = [
        (f"{item:06}", f"{annotator:02}", str(rng.choice(num_labels, p=matrices[annotator][true])))
        for item, true in enumerate(truth)
        for annotator in rng.choice(60, 5, replace=False)
    ]
    seen = np.eye(num_labels)[truth] + rng.normal(0, 0.8, (num_items, num_labels))
    return Crowd(
        name=f"simulated, {num_labels} labels",
        answers=pl.DataFrame(rows, schema=["item", "annotator", "label"], orient="row"),
        truth={f"{item:06}": str(true) for item, true in enumerate(truth)},
        redundancies=(2, 3, ALL),
        features=lambda items: seen[[int(one) for one in items]],
    )


def _price(text: str) -> float:
    digits = re.sub(r"[^0-9.]", "", str(text))
    return float(digits) if digits else float("nan")


def _pair_features(left: list[str], right: list[str]) -> np.ndarray:
    """How alike two texts are: cosines of characters and of words, and what their words share."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    columns = []
    for options in ({"analyzer": "char_wb", "ngram_range": (2, 4), "min_df": 2}, {}):
        vectors = TfidfVectorizer(**options).fit(left + right)
        both = vectors.transform(left).multiply(vectors.transform(right))
        columns.append(np.asarray(both.sum(axis=1)).ravel())
    for one, other in zip(left, right, strict=True):
        first, second = (set(re.findall(r"[a-z0-9]+", text.lower())) for text in (one, other))
        shared = first & second
        models = [word for word in shared if len(word) > 2 and any(char.isdigit() for char in word)]
        denials = [word for word in first ^ second if word.startswith("no")]
        sizes = (max(1, len(first | second)), max(1, len(first)), max(1, len(second)))
        columns.append(np.array([*(len(shared) / size for size in sizes), len(models), len(denials)]))
    return np.column_stack([columns[0], columns[1], np.array(columns[2:])])


def held_out_proba(features: Any, labels: np.ndarray, num_labels: int) -> np.ndarray:
    """Probabilities of a logistic regression that never saw the item; (n, num_labels)."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(with_mean=False), LogisticRegression(max_iter=2000))
    if not isinstance(features, np.ndarray):
        model = LogisticRegression(C=10.0, max_iter=2000)
    proba = np.zeros((len(labels), num_labels))
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    proba[:, np.unique(labels)] = cross_val_predict(model, features, labels, cv=folds, method="predict_proba")
    return proba


def drawn(crowd: Crowd, redundancy: int, seed: int) -> Annotations:
    """So many answers an item, by chance, in one order for everybody; one an annotator and item."""
    once = crowd.answers.unique(["item", "annotator"], keep="last", maintain_order=True)
    if redundancy != ALL:
        once = once.sample(fraction=1.0, shuffle=True, seed=seed).group_by("item", maintain_order=True).head(redundancy)
    return Annotations.from_frame(once.filter(pl.col("item").is_in(list(crowd.truth))))


Scores = dict[str, tuple[float, float]]
"""Accuracy and seconds, by contestant."""


def compared(crowd: Crowd, redundancy: int, seed: int, *, quick: bool) -> Scores:
    """Everyone on the same answers."""
    given = drawn(crowd, redundancy, seed)
    truth = np.array([crowd.truth[item] for item in given.items])
    names = np.array(given.labels)
    majority = TRUTH["majority"].member(Evidence(annotations=given), TRUTH["majority"].configured())
    proba = None
    if crowd.features is not None:
        proba = held_out_proba(crowd.features(given.items.to_list()), majority.label, given.num_labels)
    evidence = Evidence(annotations=given, proba=proba)
    scores: Scores = {}
    for name in (*WITHOUT, *(WITH if proba is not None else ())):
        began = time.perf_counter()
        found = TRUTH[name].member(evidence, TRUTH[name].configured())
        scores[name] = (float((names[found.label] == truth).mean()), time.perf_counter() - began)
    if proba is not None:
        scores["classifier alone"] = (float((names[proba.argmax(axis=1)] == truth).mean()), 0.0)
    for name, label in (*_cleanlab(given, proba, quick=quick), *_crowd_kit(given, redundancy, quick=quick)):
        began = time.perf_counter()
        decided = label()
        scores[name] = (float((decided == truth).mean()), time.perf_counter() - began)
    return scores


Contestant = tuple[str, Callable[[], np.ndarray]]


def _cleanlab(given: Annotations, proba: np.ndarray | None, *, quick: bool) -> list[Contestant]:
    from cleanlab.multiannotator import get_label_quality_multiannotator, get_majority_vote_label

    wide, names = np.full((given.num_items, given.num_annotators), np.nan), np.array(given.labels)
    wide[given.item, given.annotator] = given.label
    contestants: list[Contestant] = [("cleanlab majority", lambda: names[get_majority_vote_label(wide, verbose=False)])]
    if proba is not None:

        def crowdlab(*, calibrated: bool) -> np.ndarray:
            found = get_label_quality_multiannotator(wide, proba, calibrate_probs=calibrated, verbose=False)
            decided: np.ndarray = names[found["label_quality"]["consensus_label"].to_numpy()]
            return decided

        contestants.append(("cleanlab CROWDLAB", lambda: crowdlab(calibrated=False)))
        if not quick:
            contestants.append(("cleanlab CROWDLAB, calibrated", lambda: crowdlab(calibrated=True)))
    return contestants


def _crowd_kit(given: Annotations, redundancy: int, *, quick: bool) -> list[Contestant]:
    import crowdkit.aggregation
    import pandas as pd

    names = np.array(given.labels)
    frame = pd.DataFrame({"task": given.item, "worker": given.annotator, "label": names[given.label]})
    found: list[Contestant] = []
    for one in CROWD_KIT:
        if one in SLOW and (redundancy != ALL or len(given) > MAX_SLOW_ANSWERS):
            continue
        if quick and one not in ("MajorityVote", "DawidSkene"):
            continue
        member = getattr(crowdkit.aggregation, one)

        def label(member: Any = member) -> np.ndarray:
            decided: np.ndarray = member().fit_predict(frame).loc[range(given.num_items)].to_numpy()
            return decided

        found.append((f"crowd-kit {one}", label))
    return found


def millions(num: int) -> dict[str, Any]:
    """Seconds and peak memory of so many answers, in a process of its own: five labels, three answers an item."""
    code = f"from benchmarks.consensus import measure_millions; measure_millions({num})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    measured: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return measured


def measure_millions(num: int) -> None:
    """What ``millions`` runs; prints one line of JSON."""
    from labeling.agreement.krippendorff import krippendorff_alpha

    def peak() -> int:
        # getrusage would tell what the process that started this one had.
        (line,) = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text("ascii"))
        return int(line) // 1024

    rng = np.random.default_rng(0)
    num_items, num_annotators = num // 3, 1000
    truth = rng.integers(0, 5, num_items, dtype=np.int32)
    item = np.repeat(np.arange(num_items, dtype=np.int32), 3)
    label = np.where(
        rng.random(len(item), dtype=np.float32) < 0.7, truth[item], rng.integers(0, 5, len(item), np.int32)
    )
    annotator = rng.integers(0, num_annotators, len(item), dtype=np.int32)
    before, began = peak(), time.perf_counter()
    given = Annotations.from_codes(
        item=item,
        annotator=annotator,
        label=label,
        items=pl.Series(np.arange(num_items, dtype=np.int32)),
        annotators=tuple(str(one) for one in range(num_annotators)),
        labels=tuple("abcde"),
    )
    seconds = {"build": time.perf_counter() - began}
    began = time.perf_counter()
    alpha = krippendorff_alpha(given, rng=rng)
    seconds["alpha"], alpha_peak = time.perf_counter() - began, peak()
    began = time.perf_counter()
    found = TRUTH["dawid_skene"].member(Evidence(annotations=given), TRUTH["dawid_skene"].configured())
    seconds["dawid_skene"] = time.perf_counter() - began
    print(
        json.dumps(
            {
                "answers": len(given),
                "alpha": alpha.value,
                "alpha_low": alpha.low,
                "alpha_high": alpha.high,
                "iterations": found.num_iterations,
                "accuracy": round(float((found.label == truth).mean()), 4),
                "seconds_build": round(seconds["build"], 1),
                "seconds_alpha": round(seconds["alpha"], 1),
                "seconds_dawid_skene": round(seconds["dawid_skene"], 1),
                "peak_mib_before": before,
                "peak_mib_alpha": alpha_peak,
                "peak_mib_dawid_skene": peak(),
            }
        )
    )


def main() -> None:
    """Compare, and print the last line."""
    parser = options_parser(__doc__ or "")
    parser.add_argument("--data", type=Path, help="folder with the public crowd data")
    parser.add_argument("--seeds", type=int, default=5, help="draws of a few answers an item")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    crowds = list(real_crowds(options.data)) if options.data else []
    if not crowds:
        print("simulated crowds only: --data FOLDER brings real ones")
        sizes = ((2, 600), (4, 600)) if options.quick else ((2, 1500), (4, 1500))
        crowds = [
            simulated_crowd(seed, num_labels=labels, num_items=items) for seed, (labels, items) in enumerate(sizes)
        ]
    figures: dict[str, Any] = {"data": "simulated" if crowds[0].name.startswith("simulated") else "real"}
    rows: dict[str, dict[str, list[float]]] = {}
    for crowd in crowds:
        least = (-1 if len(crowd.truth) > QUICK_ITEMS else -2) if options.quick else 0
        for redundancy in crowd.redundancies[least:]:
            seeds = 1 if redundancy == ALL or options.quick else options.seeds
            measured = [compared(crowd, redundancy, seed, quick=options.quick) for seed in range(seeds)]
            key = f"{crowd.name}, {'all' if redundancy == ALL else redundancy}"
            rows[key] = {
                name: [round(float(one), 5) for one in np.mean([run[name] for run in measured], axis=0)]
                for name in measured[0]
            }
            print(
                f"{key:28} " + "  ".join(f"{name} {one[0]:.4f} {one[1]:.2f}s" for name, one in rows[key].items()),
                flush=True,
            )
    figures |= _figures(rows) | {"accuracy_and_seconds": rows}
    figures["ten_million" if not options.quick else "one_million"] = millions(
        1_000_000 * (1 if options.quick else MILLIONS)
    )
    report("consensus", options, figures, ("cleanlab", "crowd-kit", "numpy", "scipy", "scikit-learn", "polars"))


def _figures(rows: dict[str, dict[str, list[float]]]) -> dict[str, Any]:
    """Differences of accuracy: the least with all answers, the mean with a few an item."""
    default, with_classifier = "pooled_dawid_skene", "classifier_dawid_skene"

    def best(row: dict[str, list[float]], peer: str) -> float:
        return max(one[0] for name, one in row.items() if name.startswith(peer))

    crowd_kit = {key: row[default][0] - row["crowd-kit DawidSkene"][0] for key, row in rows.items()}
    any_of_it = {key: row[default][0] - best(row, "crowd-kit") for key, row in rows.items()}
    alike = {key: row["dawid_skene"][0] - row["crowd-kit DawidSkene"][0] for key, row in rows.items()}
    cleanlab = {
        key: row[with_classifier][0] - row["cleanlab CROWDLAB"][0]
        if with_classifier in row
        else row[default][0] - row["cleanlab majority"][0]
        for key, row in rows.items()
    }
    full = [key for key in rows if key.endswith(", all")]
    few = [key for key in rows if key not in full]
    speedups = [rows[key]["crowd-kit DawidSkene"][1] / rows[key]["dawid_skene"][1] for key in full]

    def mean(differences: dict[str, float]) -> float | None:
        return round(float(np.mean([differences[key] for key in few])), 5) if few else None

    return {
        "accuracy_vs_cleanlab": round(min(cleanlab[key] for key in full), 5),
        "accuracy_vs_crowdkit": round(min(crowd_kit[key] for key in full), 5),
        "accuracy_vs_crowdkit_any": round(min(any_of_it[key] for key in full), 5),
        "accuracy_vs_cleanlab_few": mean(cleanlab),
        "accuracy_vs_crowdkit_few": mean(crowd_kit),
        "accuracy_vs_crowdkit_any_few": mean(any_of_it),
        "dawid_skene_vs_crowdkit": round(min(alike[key] for key in full), 5),
        "speedup_dawid_skene_vs_crowdkit": round(float(np.median(speedups)), 1),
    }


if __name__ == "__main__":
    main()
