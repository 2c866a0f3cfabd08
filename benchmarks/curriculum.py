"""Does a curriculum pay under label noise? Steps to random order's accuracy, beside three controls.

    python -m benchmarks.curriculum [--quick] [--keep] [--data FOLDER] [--pacing NAME] [--options JSON]

A small Transformer is trained from nothing on texts with wrong labels and measured on held-out texts with right ones,
every few steps. Records are ordered by a score of ``winnow difficulty``, found from the noisy labels alone
(``label_doubt``) or, where some records were answered by people, from their answers (``answer_doubt``). All arms of a
seed have the same records, starting weights and number of steps; only the order differs:

- ``curriculum``: the most trusted records alone, the least trusted never (``warmup_then_random`` without an end);
- ``random``: all records in random order;
- ``same pacing, any order``: as many records as the curriculum has, drawn without regard to difficulty;
- ``anti``: as many, the least trusted first.

A seed's target is the mean of random order's five best accuracies, less a point. ``steps_vs_random_…`` is the
geometric mean over seeds of steps to the target by those of random order, with a 95 % interval by Student's t on the
logarithms; who never gets there counts with all steps. It says ``no gain`` where the interval reaches 1.

Planted: docstrings of installed packages, a third of whose labels are changed. Real: headlines in Hausa that keyword
rules labelled, half of them wrongly, beside 290 that people labelled; every arm trains on all of them (Hedderich et al.
2020; ``african-noisy-news`` in the folder of ``--data``). Pacing and sizes were chosen on planted noise, under seeds
that are not used here. Whether labels are right is known of neither set to whoever orders it.
"""

import json
import math
import tempfile
import time
from argparse import Namespace
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from scipy.stats import t
from torch import nn

from benchmarks.label_errors import CACHE, Labelled, docstrings, labelled, ours, planted
from benchmarks.reporting import options_parser, report
from curation.difficulty import ranked
from curation.encoders import ENCODERS
from curation.label_errors.answers import answer_doubt
from training.arm import ArmConfig
from training.data import TrainingData
from training.fit import fit
from training.recipe import controls_of
from training.tokenizer import TextTokenizer

PACING, OPTIONS = "warmup_then_random", {"easy": 0.6, "warmup": 1.0}
RATE = 0.33
EVERY = 8
"""Steps between two measurements."""
TOP, MARGIN = 5, 0.01
HELD_OUT = 600
CURRICULUM, RANDOM, SAME, ANTI = "curriculum", "random", "same pacing, any order", "anti"
NAMES = {"arm": CURRICULUM, "arm-random": RANDOM, "arm-same-pacing": SAME, "arm-anti": ANTI}


@dataclass(frozen=True, eq=False)
class Noisy:
    """Texts to train on with labels that may be wrong, and texts to measure on whose labels are right.

    Parameters
    ----------
    data : texts to train on with the given labels.
    is_right : (n,) bool, whether a given label is; for the table alone.
    answered : (n,) bool, whose label a person gave.
    test_texts, test_codes : to measure on.
    """

    name: str
    data: Labelled
    is_right: np.ndarray
    answered: np.ndarray
    test_texts: list[str]
    test_codes: np.ndarray


def planted_noise(limit: int, seed: int) -> Noisy:
    """Docstrings with a third of the labels of the training part changed, half symmetrically and half by class."""
    whole = _docstrings(limit)
    order = np.random.default_rng(seed).permutation(len(whole.codes))
    test, train = np.sort(order[:HELD_OUT]), np.sort(order[HELD_OUT:])
    clean = Labelled("docstrings", whole.texts[train], whole.codes[train])
    vectors = vectors_of(clean)
    first = planted(clean, vectors, "symmetric", RATE / 2, seed)
    given = planted(Labelled("docstrings", clean.texts, first), vectors, "by class", RATE / 2, seed + 1)
    return Noisy(
        name=f"docstrings, {RATE:.0%} planted",
        data=Labelled("docstrings", clean.texts, given),
        is_right=given == clean.codes,
        answered=np.zeros(len(given), dtype=bool),
        test_texts=whole.texts[test].to_list(),
        test_codes=whole.codes[test],
    )


@cache
def _docstrings(limit: int) -> Labelled:
    return labelled("docstrings", docstrings(), limit)


def headlines(folder: Path) -> Noisy:
    """Headlines labelled by keyword rules, and some labelled by people; measured on others that people labelled."""

    def read(name: str) -> pl.DataFrame:
        path = folder / "african-noisy-news" / f"hausa_{name}.tsv"
        return pl.read_csv(path, separator="\t", infer_schema=False, quote_char=None).select("news_title", "label")

    ruled, true, answered, test = map(read, ("train_clean_noisy_labels", "train_clean", "dev", "test"))
    classes = sorted(true["label"].unique().to_list())
    given, right = pl.concat([ruled, answered]), pl.concat([true, answered])
    codes, right_codes, test_codes = (
        frame["label"].replace_strict(classes, range(len(classes)), return_dtype=pl.Int64).to_numpy()
        for frame in (given, right, test)
    )
    return Noisy(
        name="headlines by keyword rules",
        data=Labelled("headlines", given["news_title"], codes),
        is_right=codes == right_codes,
        answered=np.arange(given.height) >= ruled.height,
        test_texts=test["news_title"].to_list(),
        test_codes=test_codes,
    )


def vectors_of(data: Labelled) -> np.ndarray:
    """Vectors of hashed characters, which suit every language and need no model."""
    CACHE.mkdir(parents=True, exist_ok=True)
    found: np.ndarray = ENCODERS["hashing"].member(data.texts.to_list(), CACHE)
    return found


def training_data(noisy: Noisy) -> TrainingData:
    """Records with the stored doubt of their labels as difficulty."""
    vectors, codes = vectors_of(noisy.data), noisy.data.codes
    doubt = answer_doubt(vectors, codes, noisy.answered, noisy.data.num_classes)
    if doubt is None:
        doubt = 1.0 - ours(noisy.data, vectors, codes)
    frame = pl.DataFrame(
        {
            "id": [f"{number:08d}" for number in range(len(codes))],
            "hash": [f"{number:08d}" for number in range(len(codes))],
            "text": noisy.data.texts,
            "label": [f"{code:02d}" for code in noisy.data.codes],
            "difficulty": ranked(pl.Series(doubt)),
            "weight": 1.0,
        }
    )
    classes = [f"{code:02d}" for code in range(max(noisy.data.num_classes, int(noisy.test_codes.max()) + 1))]
    return TrainingData.build(frame, classes)


def arm_of(options: Namespace, seed: int) -> ArmConfig:
    """The model, and the order that is to be judged."""
    return ArmConfig(
        name="arm",
        backbone_options={"vocab_size": 4000, "dim": 64, "num_layers": 1, "num_heads": 4, "dropout": 0.1},
        pacing=options.pacing,
        pacing_options=json.loads(options.options),
        steps=options.steps,
        batch_size=32,
        learning_rate=2e-3,
        schedule="constant",
        max_tokens=40,
        seed=seed,
    )


def curve(
    arm: ArmConfig, data: TrainingData, noisy: Noisy, token_dir: Path, num_tests: int
) -> tuple[list[float], float]:
    """Accuracy on the held-out texts every ``EVERY`` steps, and the share of time spent waiting for data."""
    found: list[float] = []
    batches: list[Any] = []

    def measure(step: int, model: nn.Module, tokenizer: TextTokenizer) -> None:
        if step % EVERY:
            return
        if not batches:
            batches.append(tokenizer.encode(noisy.test_texts[:num_tests], arm.max_tokens))
        said = model(*batches[0]).argmax(-1).numpy()
        found.append(float((said == noisy.test_codes[:num_tests]).mean()))

    result = fit(arm, data, on_model=measure, token_dir=token_dir)
    return found, result.stream_wait_share


def steps_to(accuracies: list[float], target: float) -> int | None:
    """The first measured step with the target's accuracy, or None."""
    return next((EVERY * number for number, one in enumerate(accuracies, 1) if one >= target), None)


def target_of(accuracies: list[float]) -> float:
    """What random order reaches, less a point."""
    return float(np.mean(sorted(accuracies)[-TOP:])) - MARGIN


def ratio_interval(ratios: list[float]) -> tuple[float, float, float]:
    """Geometric mean of ratios and its 95 % interval."""
    logs = np.log(ratios)
    half = t.ppf(0.975, len(logs) - 1) * logs.std(ddof=1) / math.sqrt(len(logs)) if len(logs) > 1 else math.inf
    return float(np.exp(logs.mean())), float(np.exp(logs.mean() - half)), float(np.exp(logs.mean() + half))


def compared(sets: list[Noisy], options: Namespace) -> dict[str, Any]:
    """All arms on one set, a drawing of it for each seed; ``wait_share`` is the median over all trainings."""
    accuracies: dict[str, list[list[float]]] = {name: [] for name in NAMES.values()}
    waits = []
    for seed, noisy in zip(options.seeds, sets, strict=True):
        data = training_data(noisy)
        arm = arm_of(options, seed)
        with tempfile.TemporaryDirectory() as folder:
            for one in (arm, *controls_of(arm, every=not options.quick)):
                found, wait = curve(one, data, noisy, Path(folder), 300 if options.quick else HELD_OUT)
                accuracies[NAMES[one.name]].append(found)
                waits.append(wait)
        best = "  ".join(f"{name} {max(curves[-1]):.3f}" for name, curves in accuracies.items() if curves)
        print(f"  seed {seed}, {noisy.name}, best accuracy: {best}", flush=True)
    targets = [target_of(one) for one in accuracies[RANDOM]]
    steps = {
        name: [steps_to(one, target) for one, target in zip(curves, targets, strict=True)]
        for name, curves in accuracies.items()
        if curves
    }
    figures: dict[str, Any] = {
        "target": [round(one, 4) for one in targets],
        "wait_share": round(float(np.median(waits)), 4),
    }
    for name in steps:
        reached = [one if one is not None else options.steps for one in steps[name]]
        mean, low, high = ratio_interval([one / base for one, base in zip(reached, steps[RANDOM], strict=True) if base])
        figures[name] = {
            "steps": steps[name],
            "vs_random": round(mean, 3),
            "interval": [round(low, 3), round(high, 3)],
            "best_accuracy": round(float(np.mean([max(one) for one in accuracies[name]])), 4),
            "last_accuracy": round(float(np.mean([np.mean(one[-TOP:]) for one in accuracies[name]])), 4),
        }
    return figures


def verdict(figures: dict[str, Any]) -> str:
    """Whether the curriculum paid, and whether its order is why."""
    curriculum = figures[CURRICULUM]
    if curriculum["interval"][0] > 1:
        return "slower than random order"
    if curriculum["interval"][1] >= 1:
        return "no gain"
    beaten = [
        name for name in (SAME, ANTI) if figures.get(name, {}).get("vs_random", math.inf) <= curriculum["vs_random"]
    ]
    return f"paid, but so did {' and '.join(beaten)}" if beaten else "paid"


def shown(name: str, noisy: list[Noisy], figures: dict[str, Any]) -> None:
    """A table of one set."""
    wrong = np.mean([1 - one.is_right.mean() for one in noisy])
    print(f"\n{name}: {len(noisy[0].data.codes):,} records, {wrong:.0%} labelled wrongly; {figures['verdict']}")
    for arm in (CURRICULUM, RANDOM, SAME, ANTI):
        if arm in figures:
            one = figures[arm]
            steps = " ".join("never" if step is None else f"{step:5d}" for step in one["steps"])
            print(
                f"  {arm:22} {one['vs_random']:.2f}x ({one['interval'][0]:.2f} to {one['interval'][1]:.2f})  "
                f"best {one['best_accuracy']:.3f}  last {one['last_accuracy']:.3f}  steps {steps}",
                flush=True,
            )


def main() -> None:
    """Compare on every set, and print the last line."""
    parser = options_parser(__doc__ or "")
    parser.add_argument("--data", type=Path, help="folder with african-noisy-news")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--steps", type=int, default=160)
    parser.add_argument("--pacing", default=PACING)
    parser.add_argument("--options", default=json.dumps(OPTIONS), help="of the pacing, as JSON")
    options = parser.parse_args()
    limit = 4_000
    if options.quick:
        options.seeds, options.steps, limit = options.seeds[:3], 96, 2_100
        print("--quick: three seeds, fewer records and steps, and random order as the only control")
    torch.set_num_threads(1)
    began = time.perf_counter()
    by_name: dict[str, list[Noisy]] = {}
    for seed in options.seeds:
        for one in [planted_noise(limit, seed), *([headlines(options.data)] if options.data else [])]:
            by_name.setdefault(one.name, []).append(one)
    figures: dict[str, Any] = {"steps_vs_random_planted": None, "steps_vs_random_real": None}
    for number, (name, sets) in enumerate(by_name.items()):
        found = compared(sets, options)
        found["verdict"] = verdict(found)
        shown(name, sets, found)
        figures["steps_vs_random_real" if number else "steps_vs_random_planted"] = found[CURRICULUM]["vs_random"]
        figures[name] = found
    if not options.data:
        print("without --data no real noise is measured")
    print(f"{time.perf_counter() - began:.0f} s")
    report("curriculum", options, figures, ("torch", "numpy", "polars", "scikit-learn"))


if __name__ == "__main__":
    main()
