"""Semantic deduplication against all pairs by brute force, SemDeDup as published, and SemHash, on the same vectors.

Truth is brute force: float32 products of all pairs. A removal is wrongful when no record that stays has a cosine of at
least 1 - epsilon to the removed one. Ours, brute force and SemDeDup run on one thread here, and ratios are of CPU
seconds, which a busy machine disturbs less; encoding is not timed. SemHash runs in its own process and environment
(``python -m benchmarks.peers.setup semhash``), on as many threads as it likes.
"""

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from threadpoolctl import threadpool_limits

from benchmarks.corpora import docstrings, summaries
from benchmarks.peers import setup
from benchmarks.reporting import options_parser, report
from curation.dedup.cells import ONE_CELL_UP_TO, assign_cells, fit_cells
from curation.dedup.exact import exact_hash
from curation.dedup.grid import snap
from curation.dedup.semantic import SemanticConfig, SemanticDuplicates, find_semantic_duplicates
from curation.dedup.sweep import threshold
from curation.encoders import ENCODERS

ROOT = Path(__file__).parents[1]
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "winnow-benchmarks" / "models"
CONFIG = SemanticConfig()
PROBES = (1, 2, 3)
PUBLISHED_ITERATIONS = 100
"""As in the configuration that its authors published."""
MARGIN = 2e-4
"""Of a cosine, where float32 and the grid may disagree."""
SEED = 1

Pairs = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Rows i < j (int64) and their cosine."""


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """What it returns, and the CPU seconds it took."""
    began = time.process_time()
    return work(), time.process_time() - began


def texts_of(corpus: Path | None, records: int) -> tuple[pl.Series, pl.Series]:
    """Ids and texts, in random order, exact duplicates removed."""
    ids, texts = docstrings() if corpus is None else summaries(corpus)
    frame = pl.DataFrame({"id": ids, "text": texts, "hash": exact_hash(texts)}).unique("hash", keep="first")
    frame = frame.sort("id").sample(min(records, len(frame)), shuffle=True, seed=SEED)
    return frame["id"], frame["text"]


def brute_force(vectors: np.ndarray, least: float) -> Pairs:
    """All pairs of at least that cosine."""
    found: list[Pairs] = [(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32))]
    for start in range(0, len(vectors), 1024):
        for left in range(start, len(vectors), 8192):
            products = vectors[start : start + 1024] @ vectors[left : left + 8192].T
            row, column = np.nonzero(products >= least)
            above = start + row < left + column
            found.append((start + row[above], left + column[above], products[row, column][above]))
    first, second, similarity = (np.concatenate(column) for column in zip(*found, strict=True))
    return first, second, similarity


def semdedup(vectors: np.ndarray, num_cells: int, epsilon: float) -> tuple[np.ndarray, np.ndarray]:
    """SemDeDup as published: who leaves, and everyone's cell.

    References
    ----------
    Abbas et al. (2023), SemDeDup, section 3 and the authors' ``semdedup.py``: of a cell, sorted so that the records
    least like its centroid come first, everyone leaves whose cosine to any before it is above 1 - epsilon.
    """
    import faiss

    clustering = faiss.Kmeans(vectors.shape[1], num_cells, niter=PUBLISHED_ITERATIONS, spherical=True, seed=1234)
    clustering.train(vectors)
    products, home = clustering.assign(vectors)
    leaves = np.zeros(len(vectors), dtype=bool)
    for cell in range(num_cells):
        members = np.flatnonzero(home == cell)
        members = members[np.argsort(products[members], kind="stable")]
        similarity = np.triu(vectors[members] @ vectors[members].T, 1)
        if len(members):
            leaves[members] = similarity.max(axis=0) > 1 - epsilon
    return leaves, home


def semhash(ids: pl.Series, texts: pl.Series, vectors: np.ndarray) -> "Outcome | str":
    """The peer's outcome, or why there is none."""
    if not setup.ready("semhash"):
        return "no environment; run python -m benchmarks.peers.setup semhash"
    with tempfile.TemporaryDirectory() as folder:
        path, removed = Path(folder) / "input.parquet", Path(folder) / "removed.json"
        frame = pl.DataFrame({"id": ids, "text": texts, "vector": vectors})
        frame.with_columns(pl.col("vector").cast(pl.Array(pl.Float32, vectors.shape[1]))).write_parquet(path)
        command = [str(setup.interpreter("semhash")), "-m", "benchmarks.peers.semhash", str(path), str(removed)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        if done.returncode:
            return (done.stderr.strip().splitlines() or [f"ended with {done.returncode}"])[-1]
        figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        gone = pl.Series(json.loads(removed.read_text(encoding="utf-8")), dtype=pl.String)
    return Outcome(f"SemHash {figures['version']}", figures["cpu_seconds"], ids.is_in(gone.implode()).to_numpy(), None)


@dataclass(frozen=True)
class Outcome:
    """What one contestant did.

    Parameters
    ----------
    seconds : of CPU time.
    leaves : (n,) bool.
    recall : share of the pairs at epsilon that it compares, where that can be known.
    """

    name: str
    seconds: float
    leaves: np.ndarray
    recall: float | None


class Truth:
    """All near pairs, and what they say about removals.

    Parameters
    ----------
    pairs : down to the widest epsilon of the sweep.
    number : of records.
    """

    def __init__(self, pairs: Pairs, number: int) -> None:
        self.first, self.second, self.similarity = pairs
        self.number, self.least = number, threshold(CONFIG.epsilon)
        self.keys = self.first * number + self.second

    def recall(self, compared: Callable[[np.ndarray, np.ndarray], np.ndarray], least: float) -> float:
        """Share of the pairs of at least that cosine for which ``compared(first, second)`` is true."""
        near = self.similarity >= least
        return float(compared(self.first[near], self.second[near]).mean()) if near.any() else 1.0

    def wrongful(self, leaves: np.ndarray) -> int:
        """Removed records to which none that stays is near. What rounding may move across the threshold is let pass."""
        near = self.similarity >= self.least - MARGIN
        covered = np.zeros(self.number, dtype=bool)
        for one, other in ((self.first[near], self.second[near]), (self.second[near], self.first[near])):
            covered[one[~leaves[other]]] = True
        return int((leaves & ~covered).sum())

    def missed(self, leaves: np.ndarray) -> int:
        """Pairs at epsilon of which both records stay."""
        near = self.similarity >= self.least + MARGIN
        return int((~leaves[self.first[near]] & ~leaves[self.second[near]]).sum())


class Ours:
    """Runs of ours on one corpus."""

    def __init__(self, ids: pl.Series, vectors: np.ndarray, length: pl.Series) -> None:
        self.ids, self.vectors, self.length = ids, vectors, length
        self.num_cells = CONFIG.cells_for(max(len(ids), ONE_CELL_UP_TO + 1))
        grid = snap(vectors)
        centroids = fit_cells(ids, grid, self.num_cells, CONFIG.seed)
        self.cells = assign_cells(grid, centroids, max(PROBES))
        self.rows = dict(zip(ids.to_list(), range(len(ids)), strict=True))

    def run(self, probes: int, order: np.ndarray) -> SemanticDuplicates:
        """With the rows in some order."""
        config = replace(CONFIG, probes=probes, num_cells=self.num_cells)
        ids, length = self.ids.gather(order), self.length.gather(order)
        return find_semantic_duplicates(ids, self.vectors[order], None, length, config)

    def places(self, found: SemanticDuplicates) -> tuple[np.ndarray, np.ndarray]:
        """Row of the record and of its keeper of each pair."""
        worse, better = (
            np.array([self.rows[one] for one in found.pairs[name].to_list()], dtype=np.int64)
            for name in ("record_id", "keeper_id")
        )
        return worse, better

    def compared(self, probes: int) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
        """Whether two rows have a cell in common, and so their cosine is computed."""
        cells = self.cells[:, :probes]
        return lambda first, second: (cells[first][:, :, None] == cells[second][:, None, :]).any(axis=(1, 2))

    def outcome(self, probes: int, found: SemanticDuplicates, seconds: float, truth: Truth) -> Outcome:
        """In the terms of all contestants."""
        leaves = np.zeros(len(self.ids), dtype=bool)
        leaves[self.places(found)[0][found.pairs["accepted"].to_numpy()]] = True
        return Outcome(f"ours, probes={probes}", seconds, leaves, truth.recall(self.compared(probes), truth.least))

    def grid_error(self, found: SemanticDuplicates) -> float:
        """By how much a stored similarity differs from the cosine in float64, at most."""
        one, other = (self.vectors[places].astype(np.float64) for places in self.places(found))
        exact = (one * other).sum(axis=1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)
        return round(float(np.abs(exact - found.pairs["similarity"].to_numpy()).max(initial=0.0)), 6)


def print_table(outcomes: list[Outcome], truth: Truth, brute_seconds: float) -> None:
    """A line a contestant."""
    print(f"{'':<24} {'CPU s':>8} {'speed':>7} {'recall':>7} {'leave':>7} {'wrongful':>8} {'missed':>7}")
    print(f"{'brute force, pairs only':<24} {brute_seconds:>8.2f} {1:>6.1f}x {1:>7.4f}")
    for one in outcomes:
        recall = "-" if one.recall is None else f"{one.recall:.4f}"
        print(
            f"{one.name:<24} {one.seconds:>8.2f} {brute_seconds / one.seconds:>6.1f}x {recall:>7} "
            f"{one.leaves.sum():>7,} {truth.wrongful(one.leaves):>8,} {truth.missed(one.leaves):>7,}"
        )


def main() -> None:
    """Measure, print, report."""
    parser = options_parser(__doc__ or "")
    parser.add_argument("--corpus", type=Path, help="tab-separated file with a column summary; else docstrings")
    parser.add_argument("--encoder", default="static", choices=sorted(ENCODERS.load()))
    parser.add_argument("--records", type=int, help="at most so many (20,000 in a quick run, otherwise 100,000)")
    options = parser.parse_args()
    ids, texts = texts_of(options.corpus, options.records or (20_000 if options.quick else 100_000))
    CACHE.mkdir(parents=True, exist_ok=True)
    vectors = ENCODERS[options.encoder].member(texts.to_list(), CACHE)
    ours, given, widest = Ours(ids, vectors, texts.str.len_chars()), np.arange(len(ids)), CONFIG.epsilons[-1]
    with threadpool_limits(1):
        pairs, brute_seconds = timed(lambda: brute_force(vectors, threshold(widest)))
        truth = Truth(pairs, len(ids))
        runs = {probes: timed(partial(ours.run, probes, given)) for probes in PROBES}
        (leaves, home), seconds = timed(lambda: semdedup(vectors, ours.num_cells, CONFIG.epsilon))
        shuffled = ours.run(CONFIG.probes, np.random.default_rng(SEED).permutation(given))
    published_recall = truth.recall(lambda first, second: home[first] == home[second], truth.least)
    published = Outcome("SemDeDup as published", seconds, leaves, published_recall)
    by_probes = {probes: ours.outcome(probes, found, seconds, truth) for probes, (found, seconds) in runs.items()}
    outcomes = [*by_probes.values(), published]
    peer = semhash(ids, texts, vectors)
    if isinstance(peer, str):
        print(f"SemHash: {peer}")
    else:
        outcomes.append(peer)
    found, best = runs[CONFIG.probes][0], by_probes[CONFIG.probes]
    num_pairs = int((truth.similarity >= truth.least).sum())
    print(f"{len(ids):,} records, {ours.num_cells} cells, {options.encoder}: {num_pairs:,} pairs at {CONFIG.epsilon}")
    print_table(outcomes, truth, brute_seconds)
    print(found.sweep.join(found.background, on="epsilon", maintain_order="left"))
    figures = {
        "records": len(ids),
        "encoder": options.encoder,
        "epsilon": CONFIG.epsilon,
        "num_cells": ours.num_cells,
        "pairs": num_pairs,
        **{f"recall_probes_{probes}": round(one.recall or 0.0, 4) for probes, one in by_probes.items()},
        "recall_published": round(published_recall, 4),
        "recall_widest_epsilon": round(truth.recall(ours.compared(CONFIG.probes), threshold(widest)), 4),
        "leaving": int(best.leaves.sum()),
        "cpu_seconds": round(best.seconds, 2),
        "speedup_vs_brute_force": round(brute_seconds / best.seconds, 2),
        "speedup_vs_published": round(published.seconds / best.seconds, 2),
        "wrongful_removals": truth.wrongful(best.leaves),
        "wrongful_published": truth.wrongful(published.leaves),
        "missed_pairs": truth.missed(best.leaves),
        "missed_published": truth.missed(published.leaves),
        "same_when_shuffled": shuffled.pairs.equals(found.pairs),
        "largest_cosine_error": ours.grid_error(found),
    }
    if not isinstance(peer, str):
        figures |= {
            "speedup_vs_semhash": round(peer.seconds / best.seconds, 2),
            "wrongful_semhash": truth.wrongful(peer.leaves),
            "missed_semhash": truth.missed(peer.leaves),
        }
    report("dedup_semantic", options, figures, ("faiss-cpu", "numpy", "polars"))


if __name__ == "__main__":
    main()
