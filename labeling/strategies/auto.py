"""The default: a schedule by how much is labelled."""

import numpy as np
import numpy.typing as npt

from labeling.candidates import Candidates, Selection
from labeling.clustering import k_means
from labeling.coverage import NUM_STOOD_FOR, shares, stand_for_most
from labeling.distances import squared_distances
from labeling.second_opinions import doubted
from labeling.shortlist import by_chance
from labeling.strategies import STRATEGIES, AnyTask
from labeling.strategies.active_lab import open_scores, opinions_so_far
from labeling.strategies.mnlp import unsure_of_spans
from labeling.uncertainty import best_first, hesitations, measure

ROUND = 25
"""Records that are spread over what is uncertain together. The first of a large batch are chosen as if they were all of
it: a queue is refilled before it is empty."""
SPREAD = 3
"""Of so many times ``ROUND`` uncertain records those that represent the others are taken: with 5 and 10 the curves of
four sets were no better (docs/strategies.md)."""
MOST_SECOND_OPINIONS = 0.5
"""Share of a batch that may be asked for the second time."""


@STRATEGIES.register("auto", AnyTask)
def auto(candidates: Candidates, batch_size: int, rng: np.random.Generator) -> Selection:
    """Records that stand for most; with a model, middles of clusters of uncertain ones; with answers, second opinions.

    While there is no model that record is next by which the pool's likeness to its nearest labelled or taken record
    rises most (``labeling.coverage``), in a sample of a large pool. Then, 25 at a time, the 75 records of the smallest
    margins are clustered by k-means, weighted by uncertainty, and the record in the middle of each cluster is taken,
    heavier clusters first. In span tasks, whose model has no margins, MNLP says what is uncertain.
    Where candidates have ``answers``, those whose label is doubted get another one, the least trusted by ActiveLab
    first, at most half of the batch, evenly among the new ones. ActiveLab's own comparison with new records asked
    hardly any of them in measurements, and the labels were no better for it (docs/strategies.md).

    Returns
    -------
    Selection : utility is 1 - place / batch_size.

    References
    ----------
    Bae, Oliveira and Sutherland (2024), Generalized Coverage for More Robust Low-Budget Active Learning (MaxHerding);
    Zhdanov (2019), Diverse mini-batch Active Learning, algorithm 1; Goh and Mueller (2023), ActiveLab.
    """
    if candidates.proba is None and candidates.sequence_log_proba is None:
        indices, why = _standing_for_most(candidates, batch_size, rng)
    elif candidates.proba is None:
        indices, why = _spread_uncertain(candidates, batch_size, rng)
    else:
        again, reasons = _second_opinions(candidates, candidates.proba, batch_size, rng)
        new, new_reasons = _spread_uncertain(candidates, batch_size - len(again), rng)
        indices, why = _interleave(again, reasons, new, new_reasons)
    return Selection(indices=indices, utility=1.0 - np.arange(batch_size) / batch_size, why=why)


def _standing_for_most(
    candidates: Candidates, batch_size: int, rng: np.random.Generator
) -> tuple[npt.NDArray[np.int64], list[str]]:
    points, labelled = candidates.embeddings, candidates.labelled_embeddings
    rows = by_chance(len(candidates), batch_size, rng)
    others = points[by_chance(len(candidates), 1, rng, NUM_STOOD_FOR)]
    picks = rows[stand_for_most(points[rows], others, labelled, batch_size)]
    sizes = np.maximum(1, np.rint(shares(points[picks], others, labelled) * len(candidates))).astype(int)
    return picks, [f"no model yet; stands for {size} records" for size in sizes]


def _second_opinions(
    candidates: Candidates, proba: npt.NDArray[np.float64], batch_size: int, rng: np.random.Generator
) -> tuple[npt.NDArray[np.int64], list[str]]:
    told, answers = opinions_so_far(candidates), candidates.answers
    if not told or answers is None:
        return np.empty(0, dtype=np.int64), []
    rows = np.array(sorted(told), dtype=np.int64)
    least_trusted = rows[best_first(-open_scores(candidates, proba)[rows], len(rows), rng)]
    is_doubted = doubted(proba, answers)[least_trusted]
    # New records may be too few to fill the rest.
    at_least = batch_size - (len(candidates) - len(rows) - len(answers.closed))
    size = max(min(int(MOST_SECOND_OPINIONS * batch_size), int(is_doubted.sum())), at_least)
    again = np.concatenate([least_trusted[is_doubted], least_trusted[~is_doubted]])[:size]
    return again, [told[int(row)] for row in again]


def _spread_uncertain(
    candidates: Candidates, batch_size: int, rng: np.random.Generator
) -> tuple[npt.NDArray[np.int64], list[str]]:
    # Drawn first, so that the rounds are the same however many follow.
    rounds = np.random.default_rng(int(rng.integers(2**63)))
    new = np.arange(len(candidates))
    if candidates.answers is not None:
        new = np.setdiff1d(new, candidates.answers.rows)
    sure = _sureness(candidates, new)
    wanted = min(len(new), batch_size + SPREAD * ROUND)
    waiting = best_first(-sure, wanted, rng) if wanted else np.empty(0, dtype=np.int64)
    taken: list[int] = []
    sizes: list[int] = []
    while len(taken) < batch_size:
        few = waiting[: SPREAD * ROUND]
        picks, counts = _middles(candidates.embeddings[new[few]], 1.0 - sure[few], batch_size - len(taken), rounds)
        taken += few[picks].tolist()
        sizes += counts.tolist()
        waiting = np.concatenate([np.delete(few, picks), waiting[SPREAD * ROUND :]])
    indices = new[np.array(taken, dtype=np.int64)]
    lines = _doubts(candidates, indices)
    return indices, [f"{line}; {size} like it" for line, size in zip(lines, sizes, strict=True)]


def _sureness(candidates: Candidates, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """(len(rows),) in [0, 1]: margins, or in span tasks how likely the likeliest tags are, a token."""
    if candidates.proba is not None:
        return measure("classifier_margin", candidates.proba[rows])
    assert candidates.sequence_log_proba is not None
    return np.asarray(np.exp(candidates.sequence_log_proba[rows]))


def _doubts(candidates: Candidates, rows: npt.NDArray[np.int64]) -> list[str]:
    if candidates.proba is not None:
        return hesitations(candidates.proba, candidates.classes, rows)
    assert candidates.sequence_log_proba is not None
    return unsure_of_spans(candidates.sequence_log_proba, rows)


def _middles(
    points: npt.NDArray[np.float32], doubt: npt.NDArray[np.float64], batch_size: int, rng: np.random.Generator
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The point nearest to each centre, heavier clusters first, and how many points are in its cluster."""
    num_clusters = min(ROUND, len(points))
    # All of it certain is all of it alike.
    weights = np.maximum(doubt, 1e-6)
    cluster, centres = k_means(points, num_clusters, int(rng.integers(2**31)), weights=weights)
    distance = squared_distances(points, np.asarray(centres, dtype=np.float32))[np.arange(len(points)), cluster]
    weight = np.bincount(cluster, weights, minlength=num_clusters)
    counts = np.bincount(cluster, minlength=num_clusters)
    first = np.lexsort((distance, cluster))
    place = np.empty(len(points), dtype=np.int64)
    place[first] = np.arange(len(points)) - (np.cumsum(counts) - counts)[cluster[first]]
    picks = np.lexsort((distance, -weight[cluster], place))[: min(ROUND, batch_size)]
    return picks, counts[cluster[picks]]


def _interleave(
    again: npt.NDArray[np.int64], reasons: list[str], new: npt.NDArray[np.int64], new_reasons: list[str]
) -> tuple[npt.NDArray[np.int64], list[str]]:
    """Second opinions evenly among the new records."""
    places = np.concatenate([(np.arange(len(part)) + 0.5) / max(1, len(part)) for part in (new, again)])
    order = np.argsort(places, kind="stable")
    why = new_reasons + reasons
    return np.concatenate([new, again])[order], [why[place] for place in order]
