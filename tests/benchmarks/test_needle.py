"""What the benchmark of needles asks, and that its controls cannot see what they must not find."""

from collections.abc import Iterator

import pytest
import torch

from benchmarks.needle import CONTROLS, MEMBERS, NEAR, TOKENS, Task, model_of, reached, train


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """As the benchmark runs: several threads wait for one another in steps this small."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_rows_hold_the_answer_at_its_distance_and_ask_for_it_by_its_key() -> None:
    task = Task(4)
    ids, answer, distance = task.rows(300, torch.Generator().manual_seed(0))
    key = ids[:, -1] - task.ask
    assert set(key.tolist()) == {0, 1, 2, 3}
    assert torch.equal(ids[torch.arange(300), TOKENS - 1 - distance], key * task.values + answer)
    # Nothing but its one needle of each key tells anything: the rest is filler, and the answer is drawn evenly.
    assert ((ids[:, :-1] < task.filler).sum(1) == 4).all()
    assert set(distance.tolist()) == set(range(1, TOKENS))
    assert answer.bincount(minlength=task.values).min() > 300 / task.values / 2


def test_controls_reach_no_far_place_and_those_they_stand_for_reach_all() -> None:
    task = Task(1)
    for name in MEMBERS:
        if name.startswith("lsh"):
            continue  # whom it sees depends on the weights
        share = reached(task, model_of(task, name, 1), 1)
        assert (share == 0) if name in CONTROLS else (share > 0.9), name


def test_full_attention_learns_to_find_a_needle() -> None:
    task = Task(1)
    model = model_of(task, "full", 5)
    steps = train(task, model, 150, 5, curriculum=True)
    right, far = task.found(model, 1024, 6)
    assert steps <= 150
    assert far.float().mean() > 1 - 1.5 * NEAR / TOKENS
    assert float(right[far].float().mean()) > 0.9
