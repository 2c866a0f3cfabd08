"""What span answers are worth: F1 by texts spent, `mnlp` and `auto` against random, in the queue's own model.

    python -m benchmarks.span_efficiency [--quick] [--keep] [--data FILE …] [--seeds N] [--per-round N]

FILE is JSONL of ``{"text", "spans": [{"start", "end", "label"}]}``, or the JSON of presidio-research. A fifth of the
texts is held out. Everyone begins with the same texts, drawn (with more where nothing is marked in them), then
asks for as many a round, of a small set for two thirds of the others at most; a strategy's figure is the mean over
seeds of the area under the curve of exact span F1. Texts differ in length, so the tokens that the asked texts have are
told too, and the area over tokens.

The last line: of each set the areas, their differences to random's seed by seed, both with Student's interval at 95 %,
and ``cells_below_random``: sets in which the area of `mnlp` is below random's.
"""

import json
import time
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import t as student

from benchmarks.label_errors import CACHE
from benchmarks.reporting import options_parser, report
from curation.encoders import ENCODERS, installed_encoders
from labeling.candidates import Candidates
from labeling.selection import choose
from labeling.span_tokens import tokens
from labeling.tagger import SpanModel

STRATEGIES = ("random", "mnlp", "auto")
HELD_OUT = 0.2
ASKED = 2 / 3
"""Of a set's other texts at most: strategies that ask about all of them end alike."""
Texts = list[str]
Answers = list[list[dict[str, Any]]]


def read(path: Path, limit: int) -> tuple[Texts, Answers]:
    """Texts and their spans, without texts that occurred before."""
    body = path.read_text(encoding="utf-8")
    if path.suffix == ".json":
        rows = [
            {
                "text": one["full_text"],
                "spans": [
                    {"start": span["start_position"], "end": span["end_position"], "label": span["entity_type"]}
                    for span in one["spans"]
                ],
            }
            for one in json.loads(body)
        ]
    else:
        rows = [json.loads(line) for line in body.splitlines()]
    once = list({one["text"]: one for one in rows}.values())[:limit]
    return [one["text"] for one in once], [one["spans"] for one in once]


def exact_f1(given: Answers, said: Answers) -> float:
    """Of spans with the same start, end and label, over all texts."""
    both = total = 0
    for right, found in zip(given, said, strict=True):
        truth, guess = ({(one["start"], one["end"], one["label"]) for one in spans} for spans in (right, found))
        both, total = both + len(truth & guess), total + len(truth) + len(guess)
    return 2 * both / max(total, 1)


def curve(
    texts: Texts, answers: Answers, vectors: np.ndarray, strategy: str, seed: int, per_round: int, rounds: int
) -> tuple[list[float], list[int]]:
    """F1 on held-out texts after every round, and the tokens asked about so far."""
    order = np.random.default_rng(seed).permutation(len(texts))
    held_out, pool = np.split(order, [round(HELD_OUT * len(order))])
    labels = sorted({span["label"] for spans in answers for span in spans})
    sizes = np.array([len(tokens(one)) for one in texts])
    rounds = min(rounds, int(ASKED * len(pool)) // per_round - 1)
    asked = pool[:per_round].tolist()
    while not any(answers[row] for row in asked):
        asked = pool[: len(asked) + per_round].tolist()
    found: list[float] = []
    spent: list[int] = []
    for number in range(rounds + 1):
        model = SpanModel.fit([texts[row] for row in asked], [answers[row] for row in asked], labels, seed)
        found.append(exact_f1([answers[row] for row in held_out], model.predict([texts[row] for row in held_out])))
        spent.append(int(sizes[asked].sum()))
        if number == rounds:
            break
        left = np.setdiff1d(pool, asked)
        candidates = Candidates(
            embeddings=vectors[left],
            proba=None,
            labelled_embeddings=vectors[asked],
            classes=tuple(labels),
            sequence_log_proba=model.mean_log_proba([texts[row] for row in left]),
        )
        rng = np.random.default_rng(seed * 1000 + number)
        asked += left[choose(candidates, strategy, per_round, rng).indices].tolist()
    return found, spent


def interval(values: np.ndarray) -> dict[str, float]:
    """Mean over seeds and Student's interval at 95 %, whose ends are the mean where there is one seed."""
    error = values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else 0.0
    half = float(error * student.ppf(0.975, max(len(values) - 1, 1)))
    mean = float(values.mean())
    return {"mean": round(mean, 4), "low": round(mean - half, 4), "high": round(mean + half, 4)}


def compare(texts: Texts, answers: Answers, vectors: np.ndarray, options: Namespace) -> dict[str, dict[str, Any]]:
    """What every strategy comes to on one set."""
    areas: dict[str, np.ndarray] = {}
    found: dict[str, dict[str, Any]] = {}
    for strategy in STRATEGIES:
        began = time.process_time()
        curves = [
            curve(texts, answers, vectors, strategy, seed, options.per_round, options.rounds)
            for seed in range(1, options.seeds + 1)
        ]
        f1 = np.array([one for one, _ in curves])
        areas[strategy] = (f1[:, :-1] + f1[:, 1:]).mean(axis=1) / 2
        over_tokens = [np.trapezoid(one, spent) / (spent[-1] - spent[0]) for one, spent in curves]
        found[strategy] = {
            "area": interval(areas[strategy]),
            "difference_to_random": interval(areas[strategy] - areas["random"]),
            "area_over_tokens": round(float(np.mean(over_tokens)), 4),
            "tokens": round(float(np.mean([spent[-1] for _, spent in curves]))),
            "f1": [round(float(one), 3) for one in f1.mean(axis=0)],
        }
        print(f"  {strategy:8} {found[strategy]}   {time.process_time() - began:.0f} CPU s", flush=True)
    return found


def main() -> None:
    """Compare, and print the last line."""
    parser = options_parser(__doc__ or "")
    parser.add_argument("--data", action="append", default=[])
    parser.add_argument("--encoder", default="static" if "static" in installed_encoders() else "hashing")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--per-round", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--limit", type=int, default=1_000, help="texts of a set")
    options = parser.parse_args()
    if options.quick:
        options.seeds, options.rounds, options.limit = 1, 2, 500
        print("--quick: one seed, two rounds, 500 texts")
    files = [Path(one) for one in options.data or ["../shared/data/presidio-pii/synth_dataset_v2.json"]]
    for path in files:
        if not path.is_file():
            parser.error(f"{path} is no file; name texts with spans by --data FILE")
    sets: dict[str, Any] = {}
    CACHE.mkdir(parents=True, exist_ok=True)
    for path in files:
        texts, answers = read(path, options.limit)
        vectors = ENCODERS[options.encoder].member(texts, CACHE)
        num_spans = sum(map(len, answers))
        print(f"{path.name}: {len(texts):,} texts, {num_spans:,} spans", flush=True)
        sets[path.stem] = {"texts": len(texts), "spans": num_spans} | compare(texts, answers, vectors, options)
    below = sum(one["mnlp"]["area"]["mean"] < one["random"]["area"]["mean"] for one in sets.values())
    figures = {"cells": len(sets), "cells_below_random": below, "seeds": options.seeds, "sets": sets}
    report("span_efficiency", options, figures, ("numpy", "scipy"))


if __name__ == "__main__":
    main()
