"""What span answers are worth: F1 by texts spent, `mnlp` and `auto` against random, in the queue's own model.

    python -m benchmarks.span_efficiency [--quick] [--keep] [--data FILE …] [--seeds N] [--per-round N]

FILE is JSONL of ``{"text", "spans": [{"start", "end", "label"}]}``, or the JSON of presidio-research. A fifth of the
texts is held out. Everyone begins with the same texts, drawn (with more where nothing is marked in them), then
asks for as many a round; a strategy's figure is the mean over seeds of the area under the curve of exact span F1.
Texts differ in length, so the tokens that the asked texts have are told too, and the area over tokens.

The last line: of each set the areas, and ``cells_below_random``: sets in which the area of `mnlp` is below random's.
"""

import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.label_errors import CACHE
from benchmarks.reporting import options_parser, report
from curation.encoders import ENCODERS, installed_encoders
from labeling.candidates import Candidates
from labeling.selection import choose
from labeling.span_tokens import tokens
from labeling.tagger import SpanModel

STRATEGIES = ("random", "mnlp", "auto")
HELD_OUT = 0.2
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


def main() -> None:
    """Compare, and print the last line."""
    parser = options_parser(__doc__ or "")
    parser.add_argument("--data", action="append", default=[])
    parser.add_argument("--encoder", default="static" if "static" in installed_encoders() else "hashing")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--per-round", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--limit", type=int, default=2_000, help="texts of a set")
    options = parser.parse_args()
    if options.quick:
        options.seeds, options.rounds, options.limit = 1, 2, 500
        print("--quick: one seed, two rounds, 500 texts")
    files = options.data or ["../shared/data/presidio-pii/synth_dataset_v2.json"]
    figures: dict[str, Any] = {"cells": len(files), "cells_below_random": 0, "areas": {}}
    for path in map(Path, files):
        texts, answers = read(path, options.limit)
        CACHE.mkdir(parents=True, exist_ok=True)
        vectors = ENCODERS[options.encoder].member(texts, CACHE)
        print(f"{path.name}: {len(texts):,} texts, {sum(map(len, answers)):,} spans", flush=True)
        areas = {}
        for strategy in STRATEGIES:
            began = time.process_time()
            curves = [
                curve(texts, answers, vectors, strategy, seed, options.per_round, options.rounds)
                for seed in range(1, options.seeds + 1)
            ]
            f1 = np.array([one for one, _ in curves])
            by_seed = (f1[:, :-1] + f1[:, 1:]).mean(axis=1) / 2
            error = by_seed.std(ddof=1) / np.sqrt(len(by_seed)) if len(by_seed) > 1 else float("nan")
            areas[strategy] = float(by_seed.mean())
            per_token = np.mean([np.trapezoid(one, spent) / (spent[-1] - spent[0]) for one, spent in curves])
            num_tokens = np.mean([spent[-1] for _, spent in curves])
            print(
                f"  {strategy:8} area {areas[strategy]:.4f} ± {error:.4f}   F1 {f1[:, 0].mean():.3f} to "
                f"{f1[:, -1].mean():.3f}   tokens {num_tokens:,.0f}, area over them {per_token:.4f}   "
                f"curve {np.round(f1.mean(axis=0), 3).tolist()}   {time.process_time() - began:.0f} CPU s",
                flush=True,
            )
        figures["areas"][path.stem] = {name: round(value, 4) for name, value in areas.items()}
        figures["cells_below_random"] += int(areas["mnlp"] < areas["random"])
    report("span_efficiency", options, figures, ("numpy", "scipy"))


if __name__ == "__main__":
    main()
