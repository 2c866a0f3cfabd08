"""Two processes train what one trains, go on where one left off, and the other way round."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch

from tests.training.ranks import READING, SEGMENTS, adafactor_arm, experts_arm, plain_arm
from training.data import TrainingData
from training.export import load_folder
from training.fit import FitResult, fit


@pytest.fixture(scope="module")
def partly(frame: pl.DataFrame) -> pl.DataFrame:
    """A third of the records without a label, so that shares of a batch have different numbers of them."""
    return frame.with_columns(label=pl.when(pl.int_range(pl.len()) % 3 == 0).then(None).otherwise("label"))


def stopped_after_four(data: TrainingData, folder: Path) -> None:
    done = [0]
    fit(
        plain_arm(),
        data,
        checkpoint_dir=folder,
        on_progress=lambda step, total, loss: done.append(step),
        should_stop=lambda: done[-1] >= 4,
    )


@pytest.fixture(scope="module")
def two(partly: pl.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("world")
    torch.set_num_threads(1)
    partly.write_parquet(folder / "frame.parquet")
    stopped_after_four(TrainingData.build(partly), folder / "one-to-two")
    ranks = [
        subprocess.Popen([sys.executable, "-m", "tests.training.ranks", str(rank), str(folder)]) for rank in range(2)
    ]
    assert [one.wait(timeout=240) for one in ranks] == [0, 0]
    first, second = (json.loads((folder / f"found-{rank}.json").read_text()) for rank in range(2))
    for name, one in first.items():
        if isinstance(one, dict):
            assert one["losses"] == second[name]["losses"], "every process reports the loss of the whole batch"
            assert one["weights"] == second[name]["weights"], f"weights of {name} part"
    return folder, first


@pytest.fixture(scope="module")
def alone(partly: pl.DataFrame) -> FitResult:
    torch.set_num_threads(1)
    return fit(plain_arm(), TrainingData.build(partly))


def assert_same(folder: Path, found: dict[str, Any], name: str, one: FitResult) -> None:
    losses = [loss for _, loss in found[name]["losses"]]
    assert losses == pytest.approx([loss for _, loss in one.losses], abs=1e-5)
    weights = torch.load(folder / f"{name}.pt")
    for key, value in one.model.state_dict().items():
        # The softmax ignores the key's bias: its gradient is rounding noise, which AdamW scales up to full steps.
        if not key.endswith("query_key_value.bias"):
            assert torch.allclose(weights[key], value, atol=2e-5), key


@pytest.mark.parametrize("name", ["ddp", "ddp-micro", "fsdp2", "fsdp2-resumed"])
def test_two_processes_train_what_one_trains(name: str, two: tuple[Path, dict[str, Any]], alone: FitResult) -> None:
    assert_same(*two, name, alone)


@pytest.fixture(scope="module")
def alone_with_experts(partly: pl.DataFrame) -> FitResult:
    torch.set_num_threads(1)
    return fit(experts_arm(), TrainingData.build(partly))


@pytest.mark.parametrize("name", ["ddp-experts", "expert", "expert-two-one-two", "fsdp2-experts"])
def test_experts_in_two_processes_train_what_one_trains(
    name: str, two: tuple[Path, dict[str, Any]], alone_with_experts: FitResult
) -> None:
    folder, found = two
    assert_same(folder, found, name, alone_with_experts)
    weights = torch.load(folder / f"{name}.pt")
    moved = [key for key in weights if key.endswith("choice_bias_E")]
    assert len(moved) == 2
    for key in moved:
        # It moves by the sign of the load's error alone, whose gradient is a thousandth.
        assert float(weights[key].abs().max()) > 1e-6
        assert torch.allclose(weights[key], alone_with_experts.model.state_dict()[key], atol=1e-7)
    assert found[name]["router"] == pytest.approx(alone_with_experts.router, abs=1e-5)


def test_checkpoints_of_placed_experts_are_those_of_one_process(two: tuple[Path, dict[str, Any]]) -> None:
    _, found = two
    steps = (found["expert-stopped"]["done"], found["expert-between"], found["expert-two-one-two"]["done"])
    assert steps == ([1, 2], [3, 4], [5, 6])
    assert {
        "model.safetensors",
        "optimizer.pt",
        "average.safetensors",
        "config.json",
        "state.json",
        "tokenizer.json",
    } == set(found["expert-files"])


def test_segments_and_passages_in_two_processes_train_what_one_trains(
    two: tuple[Path, dict[str, Any]], partly: pl.DataFrame
) -> None:
    data = TrainingData.build(partly)
    assert_same(*two, "ddp-segments", fit(SEGMENTS, data))
    reads = fit(READING, data)
    for name in ("ddp-reads", "fsdp2-reads"):
        assert_same(*two, name, reads)


def test_adafactor_in_two_processes_trains_what_one_trains(
    two: tuple[Path, dict[str, Any]], partly: pl.DataFrame
) -> None:
    assert_same(*two, "ddp-adafactor", fit(adafactor_arm(), TrainingData.build(partly)))


def test_one_process_goes_on_where_two_stopped(
    two: tuple[Path, dict[str, Any]], alone: FitResult, partly: pl.DataFrame
) -> None:
    folder, found = two
    assert found["fsdp2-stopped"]["steps"] == 4
    assert {".metadata", "__0_0.distcp", "__1_0.distcp", "config.json", "state.json", "tokenizer.json"} == set(
        found["files"]
    )
    seen: list[int] = []
    resumed = fit(
        plain_arm(),
        TrainingData.build(partly),
        checkpoint_dir=folder / "two-to-one",
        on_progress=lambda step, total, loss: seen.append(step),
    )
    assert seen == [5, 6]
    for key, value in alone.model.state_dict().items():
        if not key.endswith("query_key_value.bias"):
            assert torch.allclose(resumed.model.state_dict()[key], value, atol=2e-5), key


def test_one_process_goes_on_where_two_stopped_and_two_go_on_where_it_did(
    two: tuple[Path, dict[str, Any]], alone: FitResult
) -> None:
    folder, found = two
    steps = (found["two-again-stopped"]["done"], found["between"], found["two-one-two"]["done"])
    assert steps == ([1, 2], [3, 4], [5, 6])
    assert_same(folder, found, "two-one-two", alone)


def test_one_process_reads_the_average_that_two_wrote_as_a_model(two: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = two
    saved = load_folder(folder / "two-to-one" / "step-00000004")
    averaged = torch.load(folder / "fsdp2-stopped.pt")
    assert saved.model.state_dict().keys() == averaged.keys()
    assert all(torch.equal(one, averaged[name]) for name, one in saved.model.state_dict().items())


def test_an_order_that_follows_losses_is_the_same_in_two_processes(
    two: tuple[Path, dict[str, Any]], partly: pl.DataFrame
) -> None:
    arm = plain_arm(pacing="self_paced", pacing_options={"every": 2}, batch_size=20)
    assert_same(*two, "online", fit(arm, TrainingData.build(partly)))


def test_what_cannot_be_shared_out_is_refused(two: tuple[Path, dict[str, Any]]) -> None:
    _, found = two
    assert found["few-refused"].startswith("batch_size=1 leaves nothing for some of 2 processes")
    assert found["uneven-refused"].startswith("micro_batch_size=1 cuts 2 records of a process into 2 parts")
    assert found["adafactor-refused"].startswith("strategy='fsdp2' cannot train with optimizer='adafactor'")
    assert found["adafactor-refused"].endswith("use adamw, or strategy ddp")
    assert found["no-experts-refused"].startswith("there are no experts to place; set feedforward to moe_topk")
    assert found["odd-experts-refused"].startswith("num_experts=3 of")
    assert found["half-refused"].startswith("strategy='expert' does not scale losses")
    assert found["fsdp2-experts-refused"].startswith("checkpoint step-00000006 lies in the parts of strategy fsdp2")
