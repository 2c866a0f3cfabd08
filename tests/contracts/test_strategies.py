"""The laws of every query strategy."""

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labeling.candidates import Answers, Candidates, Selection
from labeling.selection import choose
from labeling.strategies import STRATEGIES

CLASSES = ("긍정", "부정", "중립 😐")


def pool(seed: int, size: int, *, ties: bool = False) -> Candidates:
    """Everything that any strategy asks for; with ``ties`` no candidate differs from another."""
    rng = np.random.default_rng(seed)
    num_labelled = int(rng.integers(1, 12))
    opinions = rng.dirichlet([0.7] * len(CLASSES), (4, size))
    given: dict[str, Any] = {
        "embeddings": rng.normal(size=(size, 6)).astype(np.float32),
        "proba": rng.dirichlet([0.7] * len(CLASSES), size),
        "suspicion": rng.random(size),
        "label_proba": rng.random((size, len(CLASSES))),
        "sequence_log_proba": -rng.random(size),
    }
    if ties:
        for values in (*given.values(), *opinions):
            values[:] = values[0]
    half = np.arange(size // 2)
    answers = Answers(
        rows=np.repeat(half, 2), annotators=np.tile([0, 1], len(half)), codes=rng.integers(0, 3, 2 * len(half))
    )
    return Candidates(
        labelled_embeddings=rng.normal(size=(num_labelled, 6)).astype(np.float32),
        classes=CLASSES,
        labelled_codes=rng.integers(0, len(CLASSES), num_labelled),
        labelled_proba=rng.dirichlet([0.7] * len(CLASSES), num_labelled),
        labelled_label_sets=rng.random((num_labelled, len(CLASSES))) < 0.4,
        committee=lambda rows: opinions[:, rows],
        answers=None if ties else answers,
        **given,
    )


def ask(name: str, candidates: Candidates, batch_size: int, seed: int) -> Selection:
    return choose(candidates, name, batch_size, np.random.default_rng(seed))


@pytest.mark.parametrize("name", sorted(STRATEGIES.load()))
@given(seed=st.integers(0, 2**32 - 1), size=st.integers(1, 40), ties=st.booleans(), data=st.data())
@settings(max_examples=20)
def test_selection_is_distinct_best_first_and_repeats_under_one_seed(
    name: str, seed: int, size: int, ties: bool, data: st.DataObject
) -> None:
    candidates = pool(seed, size, ties=ties)
    batch_size = data.draw(st.integers(1, size))
    before = candidates.embeddings.tobytes(), candidates.probabilities().tobytes()
    selection = ask(name, candidates, batch_size, seed)
    assert selection.indices.dtype == np.int64
    assert selection.indices.shape == selection.utility.shape == (batch_size,)
    assert len(set(selection.indices.tolist())) == batch_size
    assert selection.indices.min() >= 0
    assert selection.indices.max() < size
    assert np.isfinite(selection.utility).all()
    assert (np.diff(selection.utility) <= 0).all()
    assert len(selection.why) == batch_size
    assert all(line and len(line) <= 200 and "\n" not in line for line in selection.why)
    again = ask(name, candidates, batch_size, seed)
    assert (again.indices.tobytes(), again.utility.tobytes(), again.why) == (
        selection.indices.tobytes(),
        selection.utility.tobytes(),
        selection.why,
    )
    assert (candidates.embeddings.tobytes(), candidates.probabilities().tobytes()) == before


# To k-means equal records are one record, and it ranks them by place.
@pytest.mark.parametrize("name", sorted(set(STRATEGIES.load()) - {"kmeans"}))
def test_ties_are_broken_by_chance_not_by_place(name: str) -> None:
    candidates = pool(0, 200, ties=True)
    chosen = [frozenset(ask(name, candidates, 20, seed).indices.tolist()) for seed in range(5)]
    assert len(set(chosen)) == 5


@pytest.mark.parametrize("name", sorted(STRATEGIES.load()))
def test_cold_start_is_answered_by_every_strategy(name: str) -> None:
    warm = pool(3, 30)
    cold = Candidates(embeddings=warm.embeddings, proba=None, labelled_embeddings=warm.embeddings[:0], classes=CLASSES)
    selection = ask(name, cold, 5, 0)
    assert len(set(selection.indices.tolist())) == 5


def test_registering_a_strategy_loads_nothing_heavy() -> None:
    code = (
        "import sys; from labeling.strategies import STRATEGIES; STRATEGIES.load(); "
        "print([name for name in ('sklearn', 'modAL', 'torch', 'scipy') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
