"""Laws of every objective."""

import dataclasses
from pathlib import Path

import pytest
import torch

from tests.training.objectives import Bench, arm_of, data_of
from training.fit import FitResult, fit
from training.objectives import OBJECTIVES

NAMES = sorted(OBJECTIVES.load())
ROWS = list(range(16))
PARTS = [ROWS[0:3], ROWS[3:4], ROWS[4:11], ROWS[11:16]]
SUPERVISED = {"classification", "pairwise", "tagging", "mixture"}


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def tensors_of_row(bench: Bench, rows: list[int], place: int, step: int) -> dict[str, list[float]]:
    """What the record at a place of a batch is given, without its padding."""
    batch = bench.batch(rows, step)
    found = {}
    for name, one in batch.tensors.items():
        prefix = name.rpartition("/")[0]
        mask = batch.tensors[f"{prefix}/attention_mask" if prefix else "attention_mask"]
        if one.ndim == 2 and len(one) == len(rows):
            found[name] = one[place][mask[place]].tolist()
    return found


@pytest.mark.parametrize("name", NAMES)
def test_what_a_record_is_given_follows_from_seed_step_and_row_alone(name: str) -> None:
    bench = Bench(arm_of(name), data_of(name))
    alone = tensors_of_row(bench, [9], 0, step=3)
    assert tensors_of_row(bench, [2, 0, 9, 15], 2, step=3) == alone
    assert tensors_of_row(Bench(arm_of(name), data_of(name)), [9, 2], 0, step=3) == alone
    if name not in SUPERVISED | {"clm"}:
        assert tensors_of_row(bench, [9], 0, step=2) != alone
        other = Bench(dataclasses.replace(arm_of(name), seed=1), data_of(name))
        assert tensors_of_row(other, [9], 0, step=3) != alone


@pytest.mark.parametrize("packing", ["none", "rows"])
@pytest.mark.parametrize("name", NAMES)
def test_parts_add_up_to_the_whole_batch(name: str, packing: str) -> None:
    bench = Bench(arm_of(name, packing=packing), data_of(name))
    whole = Bench(arm_of(name), data_of(name)).batch(ROWS)
    parts = [bench.batch(rows) for rows in PARTS]
    assert tuple(sum(term) for term in zip(*(one.counts for one in parts), strict=True)) == whole.counts
    assert len({one.counts[0] for one in parts}) > 1, "unequal parts, which a mean of means would get wrong"
    expected = bench.losses(whole).mean(whole.counts, whole.counts)
    total = sum(bench.losses(one).mean(one.counts, whole.counts).item() for one in parts)
    assert total == pytest.approx(expected.item(), rel=1e-5)
    by_hand = sum(
        total.item() / count for total, count in zip(bench.losses(whole).sums, whole.counts, strict=True) if count
    )
    assert expected.item() == pytest.approx(by_hand, rel=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_each_record_costs_what_it_costs_alone(name: str) -> None:
    bench = Bench(arm_of(name), data_of(name))
    each = bench.losses(bench.batch(ROWS), each=True).each
    assert each is not None
    assert each.shape == (16,)
    for row in ROWS:
        alone = bench.batch([row])
        if not any(alone.counts):
            assert each[row].isnan()
        elif all(alone.counts):
            assert each[row].item() == pytest.approx(
                bench.losses(alone).mean(alone.counts, alone.counts).item(), rel=1e-4
            )
    assert not each.isnan().all()


@pytest.mark.parametrize(
    ("name", "row"),
    # Row 4 lacks a label, row 13 a text.
    [("classification", 4), ("pairwise", 4), ("tagging", 4), *((name, 13) for name in NAMES if name not in SUPERVISED)],
)
def test_nothing_to_learn_is_zero_with_zero_gradient(name: str, row: int) -> None:
    bench = Bench(arm_of(name), data_of(name))
    batch = bench.batch([row])
    assert not any(batch.counts)
    loss = bench.losses(batch).mean(batch.counts, batch.counts)
    torch.autograd.backward(loss)
    assert loss.item() == 0
    assert all(one.grad is None or not one.grad.any() for one in bench.network.parameters())


def assert_equal_bits(one: FitResult, other: FitResult) -> None:
    assert one.losses == other.losses
    for name, value in one.model.state_dict().items():
        assert torch.equal(value, other.model.state_dict()[name]), name


@pytest.mark.parametrize("name", NAMES)
def test_a_run_stopped_and_gone_on_with_from_shards_ends_like_an_unbroken_one(name: str, tmp_path: Path) -> None:
    arm, data = arm_of(name, micro_batch_size=3), data_of(name)
    done = [0]
    fit(
        arm,
        data,
        checkpoint_dir=tmp_path,
        on_progress=lambda step, total, loss: done.append(step),
        should_stop=lambda: done[-1] >= 2,
    )
    assert done[-1] == 2
    resumed = fit(arm, data, checkpoint_dir=tmp_path, num_workers=3, token_dir=tmp_path / "tokens")
    assert_equal_bits(fit(arm, data), resumed)
