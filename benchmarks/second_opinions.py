"""What asking again is worth under noise: `auto` with and without it, as many answers each.

    python -m benchmarks.second_opinions [--quick] [--keep] [--data FILE:TEXT:LABEL …]

Five simulated annotators, each wrong about three texts in ten, answer in rounds of 50; a label is the majority of its
answers. Both arms spend the same answers. The last line: of each set the share of labels that are right and the
accuracy of a model fitted on them, on held-out records, with new records only and with asking again: mean and standard
error over seeds; and how many records were labelled.
"""

import warnings
from collections import Counter
from typing import Any

import numpy as np
import polars as pl

from benchmarks.label_efficiency import HELD_OUT, settings
from benchmarks.reporting import options_parser, report
from labeling.candidates import Candidates
from labeling.determinism import one_thread
from labeling.learner import Learner
from labeling.relabels import MOST_ANSWERS
from labeling.selection import choose
from workers.second_opinions import Again, Opinions, in_order

NUM_PEOPLE, NOISE, PER_ROUND, NUM_ENTRIES = 5, 0.3, 50, 200


def spend(
    points: np.ndarray, truth: np.ndarray, classes: tuple[str, ...], *, asks_again: bool, seed: int, num_answers: int
) -> dict[int, str]:
    """Spend answers of noisy people, chosen by `auto` as a queue does it.

    Parameters
    ----------
    points : (n, dim) float32; ``truth`` (n,) int64, places in ``classes``.

    Returns
    -------
    the majority's label of each row that was asked about.
    """
    rng = np.random.default_rng(seed)
    said: dict[int, dict[int, str]] = {}
    ids = pl.Series([f"{row:06}" for row in range(len(points))])

    def label(row: int) -> str:
        votes = Counter(said[row].values())
        return min(votes, key=lambda name: (-votes[name], name))

    spent = 0
    while spent < num_answers:
        rows = np.array(sorted(said), dtype=np.int64)
        given = [label(int(row)) for row in rows]
        learner = Learner.fit(points[rows], given, classes, 0) if len(set(given)) > 1 else None
        opinions = Opinions()
        if asks_again and learner is not None:
            given_by = [(ids[row], str(who), value) for row, votes in said.items() for who, value in votes.items()]
            askable = {ids[row] for row, votes in said.items() if len(votes) < min(NUM_PEOPLE, MOST_ANSWERS)}
            opinions = Opinions(given=sorted(given_by), askable=askable)
        again = Again.of(ids, np.ones(len(points), dtype=bool), rows, points, given, classes, opinions, seed)
        pool = np.setdiff1d(np.arange(len(points)), rows)
        asked = np.concatenate([pool, again.rows])
        proba = None if learner is None else learner.proba(points[asked])
        if proba is not None:
            proba[len(pool) :] = again.proba
        candidates = Candidates(
            embeddings=points[asked],
            proba=proba,
            labelled_embeddings=points[rows],
            classes=classes,
            answers=again.answers(len(pool)),
        )
        size = min(NUM_ENTRIES, len(pool) + int(again.is_open.sum()))
        chosen = choose(candidates, "auto", size, np.random.default_rng([seed, spent]))
        for place, _ in in_order(chosen.indices.tolist(), len(pool), PER_ROUND, 0.0, rng)[:PER_ROUND]:
            if spent == num_answers:
                break
            row = int(asked[place])
            who = int(rng.choice([one for one in range(NUM_PEOPLE) if one not in said.get(row, {})]))
            right = classes[truth[row]]
            wrong = [one for one in classes if one != right]
            said.setdefault(row, {})[who] = str(rng.choice(wrong)) if rng.random() < NOISE else right
            spent += 1
    return {row: label(row) for row in said}


def main() -> None:
    """Compare, and print the last line."""
    parser = options_parser(__doc__ or "")
    parser.add_argument("--data", action="append", default=[], help="FILE:TEXT:LABEL, instead of what is installed")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--answers", type=int, default=1_000)
    parser.add_argument("--limit", type=int, default=4_000, help="records of a set, the held-out ones included")
    options = parser.parse_args()
    options.encoder = ["static"]
    if options.quick:
        options.seeds, options.answers = 1, 300
        print("--quick: one set, one seed, 300 answers")
    figures: dict[str, Any] = {}
    with one_thread(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for data, _, vectors in settings(options):
            classes = tuple(f"{code:03}" for code in range(data.num_classes))
            for arm, asks_again in (("new", False), ("again", True)):
                found = []
                for seed in range(1, options.seeds + 1):
                    order = np.random.default_rng(seed).permutation(len(vectors))
                    held_out, pool = order[:HELD_OUT], order[HELD_OUT:]
                    points, truth = vectors[pool], data.codes[pool]
                    spent = {"asks_again": asks_again, "seed": seed, "num_answers": options.answers}
                    labels = spend(points, truth, classes, **spent)
                    rows = np.array(sorted(labels))
                    right = np.mean([labels[row] == classes[truth[row]] for row in labels])
                    head = Learner.fit(points[rows], [labels[row] for row in rows.tolist()], classes, seed)
                    accuracy = (head.proba(vectors[held_out]).argmax(axis=1) == data.codes[held_out]).mean()
                    found.append((right, accuracy, len(labels)))
                mean = np.mean(found, axis=0)
                error = np.std(found, axis=0, ddof=min(1, options.seeds - 1)) / np.sqrt(options.seeds)
                told = {name: round(float(mean[at]), 4) for at, name in enumerate(("right", "held_out", "records"))}
                told |= {"right_error": round(float(error[0]), 4), "held_out_error": round(float(error[1]), 4)}
                figures[f"{data.name}, {arm}"] = told
                print(f"{data.name}, {arm}: {told}", flush=True)
    report("second_opinions", options, figures, ("numpy", "scikit-learn"))


if __name__ == "__main__":
    main()
