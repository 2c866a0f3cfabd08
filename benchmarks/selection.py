"""Seconds to choose 100 of a million records of 384 dimensions, and against scikit-activeml and modAL on the same data.

    python -m benchmarks.selection [--quick] [--keep]

Everyone has one core, the same vectors, labels and fitted head, in one run. scikit-activeml and modAL work on the whole
pool; ours is timed on the whole pool too, and as `winnow` runs it, on a shortlist. The ``speedup_…`` of the last line
compare whole pool with whole pool; ``speedup_…_shortlist`` are beside them. Ours is the median of three runs, theirs
one run; against others processor seconds count, as the machine may do other things, else seconds by the clock. Beside
every time stands a statistic of what was chosen: the mean distance from a record to the nearest chosen or labelled one,
of BADGE the mean squared distance between gradients, and for ranked batch and k-center how many picks are the same
records.
"""

import statistics
import time
import tracemalloc
import warnings
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np

from benchmarks.reporting import arguments, report
from labeling.candidates import Candidates
from labeling.determinism import one_thread
from labeling.distances import nearest
from labeling.learner import Learner
from labeling.selection import choose
from labeling.shortlist import SHORTLIST_ROWS
from labeling.strategies.badge import gradient_factor, gradient_plus_plus
from labeling.strategies.kcenter import farthest_first
from labeling.strategies.ranked_batch import rank
from labeling.strategies.typiclust import typical

DIM, BATCH, NUM_LABELLED, NUM_CENTRES = 384, 100, 200, 150
CLASSES = ("business", "politics", "science", "sport")
UNCERTAINTY = ("margin", "entropy", "least_confidence")
DIVERSE = ("badge", "kcenter", "typiclust")
OTHERS = ("auto", "cal", "class_balanced", "density", "expected_error", "probcover", "ranked_batch")
CHUNK_ROWS = 65_536


def vectors(size: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """(size, 384) float32 of length 1 around centres of unequal weight, and the class of every centre's records."""
    centres = rng.standard_normal((NUM_CENTRES, DIM), dtype=np.float32)
    weight = rng.dirichlet(np.ones(NUM_CENTRES))
    of = rng.choice(NUM_CENTRES, size, p=weight)
    points = np.empty((size, DIM), dtype=np.float32)
    for start in range(0, size, CHUNK_ROWS):
        block = points[start : start + CHUNK_ROWS]
        block[:] = rng.standard_normal(block.shape, dtype=np.float32)
        block += centres[of[start : start + CHUNK_ROWS]]
        block /= np.linalg.norm(block, axis=1, keepdims=True)
    return points, (of % len(CLASSES)).astype(np.int64)


def pool_of(size: int) -> tuple[Candidates, Learner]:
    """A pool with 200 records labelled and a head fitted on them."""
    points, codes = vectors(size + NUM_LABELLED, np.random.default_rng(0))
    labelled, pool = points[:NUM_LABELLED], points[NUM_LABELLED:]
    head = Learner.fit(labelled, [CLASSES[code] for code in codes[:NUM_LABELLED]], CLASSES, 0)
    candidates = Candidates(
        embeddings=pool,
        proba=head.proba(pool),
        labelled_embeddings=labelled,
        classes=CLASSES,
        labelled_codes=codes[:NUM_LABELLED],
        labelled_proba=head.proba(labelled),
    )
    return candidates, head


def timed(work: Callable[[], Any], times: int = 1, clock: Callable[[], float] = time.perf_counter) -> tuple[float, Any]:
    """Median seconds, and the last result."""
    took, found = [], None
    for _ in range(times):
        began = clock()
        found = work()
        took.append(clock() - began)
    return statistics.median(took), found


def reach(pool: Candidates, chosen: np.ndarray) -> float:
    """Mean distance of a record to the nearest chosen or labelled one."""
    among = np.concatenate([pool.embeddings[chosen], pool.labelled_embeddings])
    return float(np.sqrt(nearest(pool.embeddings, among, 1)[1]).mean())


def spread_of_gradients(pool: Candidates, chosen: np.ndarray) -> float:
    """Mean squared distance between the gradients of the chosen records."""
    factor, points = gradient_factor(pool.probabilities()[chosen]), pool.embeddings[chosen]
    gradients = (factor[:, :, None] * points[:, None, :]).reshape(len(chosen), -1)
    return float(2 * (len(gradients) / (len(gradients) - 1)) * gradients.var(axis=0).sum())


def scikit_activeml(pool: Candidates) -> dict[str, Callable[[], np.ndarray]]:
    """Its strategies on the whole pool; rows of the pool come back."""
    from skactiveml.classifier import SklearnClassifier
    from skactiveml.pool import Badge, CoreSet, TypiClust
    from sklearn.linear_model import LogisticRegression

    everything = np.concatenate([pool.labelled_embeddings, pool.embeddings]).astype(np.float64)
    codes = np.concatenate([np.asarray(pool.labelled_codes, dtype=np.float64), np.full(len(pool), np.nan)])
    head = SklearnClassifier(LogisticRegression(C=10.0, max_iter=1000), classes=range(len(CLASSES)))
    head.fit(everything, codes)

    def badge() -> np.ndarray:
        return np.asarray(Badge(random_state=0).query(everything, codes, head, fit_clf=False, batch_size=BATCH))

    def kcenter() -> np.ndarray:
        return np.asarray(CoreSet(random_state=0).query(everything, codes, batch_size=BATCH))

    def typiclust() -> np.ndarray:
        return np.asarray(TypiClust(k=20, random_state=0).query(everything, codes, batch_size=BATCH))

    return {
        name: lambda query=query: query() - NUM_LABELLED  # type: ignore[misc]
        for name, query in {"badge": badge, "kcenter": kcenter, "typiclust": typiclust}.items()
    }


def modal_ranked(pool: Candidates) -> np.ndarray:
    """modAL's ranked batch on the whole pool."""
    from modAL.batch import ranked_batch

    learner = SimpleNamespace(X_training=pool.labelled_embeddings, on_transformed=False)
    doubt = 1 - pool.probabilities().max(axis=1)
    return np.asarray(ranked_batch(learner, pool.embeddings, doubt, BATCH, "euclidean", None)[0])


def ours_on_all(pool: Candidates, head: Learner) -> dict[str, Callable[[], np.ndarray]]:
    """Our loops on the whole pool, in random order as the strategies have it; BADGE scores the pool, as theirs does."""
    points, labelled = pool.embeddings, pool.labelled_embeddings

    def badge() -> np.ndarray:
        rng = np.random.default_rng(0)
        return gradient_plus_plus(points, head.proba(points), BATCH, rng)[0]

    return {
        "badge": badge,
        "kcenter": lambda: farthest_first(points, labelled, BATCH)[0],
        "typiclust": lambda: typical(points, labelled, BATCH, np.random.default_rng(0))[0],
        "ranked_batch": lambda: rank(points, 1 - pool.probabilities().max(axis=1), labelled, BATCH)[0],
    }


def against_peers(size: int) -> dict[str, float]:
    """Time everyone on one pool."""
    pool, head = pool_of(size)
    ours = ours_on_all(pool, head)
    theirs = scikit_activeml(pool) | {"ranked_batch": lambda: modal_ranked(pool)}
    figures: dict[str, float] = {}
    print(f"\n100 of {size:,}, {DIM} dimensions, {NUM_LABELLED} labels, {len(CLASSES)} classes")
    print(f"{'':13} {'theirs':>9} {'ours, all':>10} {'shortlist':>10}   theirs / ours on all / ours on a shortlist")
    for name, peer in theirs.items():
        seconds, chosen = timed(lambda name=name: ours[name](), 3, time.process_time)  # type: ignore[misc]
        work = partial(choose, pool, name, BATCH)
        short, few = timed(lambda work=work: work(np.random.default_rng(0)), 3, time.process_time)  # type: ignore[misc]
        slow, peers = timed(peer, 1, time.process_time)
        picks = (peers, chosen, few.indices)
        measure = spread_of_gradients if name == "badge" else reach
        told = " / ".join(f"{measure(pool, one):.4f}" for one in picks)
        if name in ("kcenter", "ranked_batch"):
            told += f"; {len(np.intersect1d(peers, chosen))} of {BATCH} picks the same"
        print(f"{name:13} {slow:>8.2f}s {seconds:>9.3f}s {short:>9.3f}s   {told}", flush=True)
        peer_name = "modal" if name == "ranked_batch" else "skactiveml"
        key = f"speedup_{name.removesuffix('_batch')}_vs_{peer_name}"
        figures |= {key: round(slow / seconds, 1), f"{key}_shortlist": round(slow / short, 1)}
    return figures


def on_a_million(size: int) -> dict[str, float]:
    """Time what `winnow` does on a large pool."""
    pool, head = pool_of(size)
    scoring, _ = timed(lambda: head.proba(pool.embeddings))
    print(f"\n100 of {size:,}; diverse strategies look at {SHORTLIST_ROWS:,}; the head's scoring takes {scoring:.2f} s")
    seconds, peak = {}, 0.0
    for name in (*UNCERTAINTY, *DIVERSE, *OTHERS):
        work = partial(choose, pool, name, BATCH)
        seconds[name], _ = timed(lambda work=work: work(np.random.default_rng(0)), 3)  # type: ignore[misc]
        tracemalloc.start()
        work(np.random.default_rng(0))
        mib = tracemalloc.get_traced_memory()[1] / 2**20
        tracemalloc.stop()
        peak = max(peak, mib)
        print(f"{name:17} {seconds[name]:>8.3f} s  {mib:>6.0f} MiB beside the pool", flush=True)
    return {
        "seconds_uncertainty_1m": round(max(seconds[name] for name in UNCERTAINTY), 3),
        "seconds_diverse_1m": round(max(seconds[name] for name in DIVERSE), 3),
        "seconds_auto_1m": round(seconds["auto"], 3),
        "seconds_scoring_1m": round(scoring, 3),
        "mib_beside_pool_1m": round(peak),
    }


def main() -> None:
    """Measure, and print the last line."""
    options = arguments(__doc__ or "")
    large, small = (100_000, 4_000) if options.quick else (1_000_000, 50_000)
    if options.quick:
        print(f"--quick: the keys' 1m are {large:,} records here, and the peers have {small:,} instead of 50,000")
    with one_thread(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        figures: dict[str, Any] = {"records": large, "peer_records": small}
        figures |= against_peers(small)
        figures |= on_a_million(large)
    report("selection", options, figures, ("modAL-python", "numpy", "scikit-activeml", "scikit-learn"))


if __name__ == "__main__":
    main()
