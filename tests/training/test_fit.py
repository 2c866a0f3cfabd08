"""Training learns, repeats itself, resumes to the bit, and refuses what would waste the run."""

import dataclasses
import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from catalog.errors import ConflictError, CorruptionError, DataError, NotFoundError
from training.arm import ArmConfig
from training.data import TrainingData
from training.fit import FitResult, fit
from training.model import Transformer


def weights(result: FitResult) -> dict[str, torch.Tensor]:
    return dict(result.model.state_dict())


def assert_equal_bits(one: FitResult, other: FitResult) -> None:
    assert weights(one).keys() == weights(other).keys()
    for name, value in weights(one).items():
        assert torch.equal(value, weights(other)[name]), name
    assert one.losses == other.losses
    assert one.flops == other.flops


@pytest.fixture(scope="module")
def unbroken(data: TrainingData) -> FitResult:
    torch.set_num_threads(1)
    return fit(short_arm(), data)


def short_arm() -> ArmConfig:
    return ArmConfig(
        name="short",
        backbone_options={
            "vocab_size": 300,
            "dim": 16,
            "feedforward": "moe_topk",
            "feedforward_options": {"hidden": 16},
        },
        steps=9,
        batch_size=4,
        max_tokens=16,
        checkpoint_every=2,
    )


def test_loss_falls_on_a_learnable_set_in_five_scripts(data: TrainingData, arm: ArmConfig) -> None:
    result = fit(dataclasses.replace(arm, steps=60), data)
    losses = [loss for _, loss in result.losses]
    assert losses[0] == pytest.approx(math.log(2), abs=0.3)
    assert sum(losses[-5:]) / 5 < 0.1
    assert result.finished
    assert not result.model.training


def test_same_seed_gives_the_same_bits_and_another_does_not(data: TrainingData, unbroken: FitResult) -> None:
    assert_equal_bits(unbroken, fit(short_arm(), data))
    assert fit(dataclasses.replace(short_arm(), seed=1), data).losses != unbroken.losses


def test_the_global_generator_is_left_as_it_was(data: TrainingData) -> None:
    before = torch.random.get_rng_state()
    fit(dataclasses.replace(short_arm(), steps=1), data)
    assert torch.equal(torch.random.get_rng_state(), before)


def stopped_after(stop: int, data: TrainingData, folder: Path) -> FitResult:
    done = [0]
    return fit(
        short_arm(),
        data,
        checkpoint_dir=folder,
        on_progress=lambda step, total, loss: done.append(step),
        should_stop=lambda: done[-1] >= stop,
    )


@settings(max_examples=5, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(stops=st.lists(st.integers(0, 8), min_size=1, max_size=3, unique=True))
def test_a_run_stopped_anywhere_ends_like_an_unbroken_one(
    stops: list[int], data: TrainingData, unbroken: FitResult, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("checkpoints")
    for stop in sorted(stops):
        assert not stopped_after(stop, data, folder).finished
    assert_equal_bits(unbroken, fit(short_arm(), data, checkpoint_dir=folder))


def test_a_run_killed_without_warning_ends_like_an_unbroken_one(
    frame: pl.DataFrame, tmp_path: Path, unbroken: FitResult, data: TrainingData
) -> None:
    frame.write_parquet(tmp_path / "frame.parquet")
    (tmp_path / "arm.json").write_text(json.dumps(dataclasses.asdict(short_arm())))
    code = (
        "import json, os, signal, sys; from pathlib import Path; import polars as pl; import torch;"
        "torch.set_num_threads(1);"
        "from training.arm import ArmConfig; from training.data import TrainingData; from training.fit import fit;"
        "home = Path(sys.argv[1]); data = TrainingData.build(pl.read_parquet(home / 'frame.parquet'));"
        "arm = ArmConfig(**json.loads((home / 'arm.json').read_text()));"
        "die = lambda step, total, loss: os.kill(os.getpid(), signal.SIGKILL) if step == 7 else None;"
        "fit(arm, data, checkpoint_dir=home / 'checkpoints', on_progress=die)"
    )
    killed = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], check=False, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    assert killed.returncode == -signal.SIGKILL
    assert [one.name for one in sorted((tmp_path / "checkpoints").iterdir())] == ["step-00000004", "step-00000006"]
    seen: list[int] = []
    resumed = fit(
        short_arm(),
        data,
        checkpoint_dir=tmp_path / "checkpoints",
        on_progress=lambda step, total, loss: seen.append(step),
    )
    assert seen == [7, 8, 9]
    assert_equal_bits(unbroken, resumed)


def test_a_half_written_checkpoint_is_ignored(data: TrainingData, unbroken: FitResult, tmp_path: Path) -> None:
    half = tmp_path / "step-00000008.abc.tmp"
    half.mkdir()
    (half / "model.safetensors").write_bytes(b"half")
    assert_equal_bits(unbroken, fit(short_arm(), data, checkpoint_dir=tmp_path))


def test_a_finished_run_is_not_trained_again(data: TrainingData, unbroken: FitResult, tmp_path: Path) -> None:
    fit(short_arm(), data, checkpoint_dir=tmp_path)
    seen: list[int] = []
    again = fit(short_arm(), data, checkpoint_dir=tmp_path, on_progress=lambda step, total, loss: seen.append(step))
    assert seen == []
    assert_equal_bits(unbroken, again)


def test_a_checkpoint_of_another_run_is_refused(frame: pl.DataFrame, data: TrainingData, tmp_path: Path) -> None:
    fit(short_arm(), data, checkpoint_dir=tmp_path)
    with pytest.raises(ConflictError, match="written under another config"):
        fit(dataclasses.replace(short_arm(), learning_rate=0.5), data, checkpoint_dir=tmp_path)
    other = TrainingData.build(frame.with_columns(difficulty=0.5))
    with pytest.raises(ConflictError, match="written under another manifest"):
        fit(short_arm(), other, checkpoint_dir=tmp_path)
    relabelled = TrainingData.build(frame, list(reversed(data.classes)))
    with pytest.raises(ConflictError, match="labels or classes"):
        fit(short_arm(), relabelled, checkpoint_dir=tmp_path)


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.pt", "tokenizer.json", "state.json"])
def test_a_damaged_checkpoint_is_refused(name: str, data: TrainingData, tmp_path: Path) -> None:
    fit(dataclasses.replace(short_arm(), steps=2), data, checkpoint_dir=tmp_path)
    file = tmp_path / "step-00000002" / name
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(CorruptionError, match="step-00000002"):
        fit(dataclasses.replace(short_arm(), steps=2), data, checkpoint_dir=tmp_path)


def test_micro_batches_add_up_to_the_whole_batch(frame: pl.DataFrame) -> None:
    # Unequal numbers of labels in the micro-batches, which a plain mean of means would get wrong. No balancing loss:
    # it is defined on what is routed together.
    partly = frame.with_columns(label=pl.when(pl.int_range(pl.len()) % 3 == 0).then(None).otherwise("label"))
    plain = {"vocab_size": 300, "dim": 16, "dropout": 0.0, "feedforward_options": {"hidden": 16}}
    arm = dataclasses.replace(short_arm(), backbone_options=plain, steps=3, batch_size=8)
    whole = fit(arm, TrainingData.build(partly))
    parts = fit(dataclasses.replace(arm, micro_batch_size=3), TrainingData.build(partly))
    for (_, one), (_, other) in zip(whole.losses, parts.losses, strict=True):
        assert one == pytest.approx(other, abs=1e-5)
    for name, value in weights(whole).items():
        # The softmax ignores the key's bias: its gradient is rounding noise, which AdamW scales up to full steps.
        if not name.endswith("query_key_value.bias"):
            assert torch.allclose(value, weights(parts)[name], atol=2e-5), name


def test_a_loss_that_is_not_finite_names_the_records(data: TrainingData) -> None:
    arm = dataclasses.replace(
        short_arm(), learning_rate=1e30, max_gradient_norm=1e30, schedule_options={"warmup": 0.0, "decay": 0.0}
    )
    with pytest.raises(DataError, match=r"must be finite; lower learning_rate=1e\+30 .*records: .*-0, ") as caught:
        fit(arm, data)
    named = str(caught.value).rpartition("records: ")[2].split(", ")
    assert len(named) == 4
    assert set(named) <= set(data.manifest.frame["id"])


def test_fewer_records_than_a_batch_and_unknown_names_are_refused_at_once(data: TrainingData) -> None:
    with pytest.raises(DataError, match=r"120 records .* fewer than one batch of 121"):
        fit(dataclasses.replace(short_arm(), batch_size=121), data)
    with pytest.raises(NotFoundError, match="did you mean 'small'"):
        fit(dataclasses.replace(short_arm(), backbone="smal"), data)


def test_flops_are_three_forward_passes_of_the_dense_parts(data: TrainingData) -> None:
    options = {"vocab_size": 300, "dim": 16, "num_layers": 1, "feedforward_options": {"hidden": 16}}
    arm = dataclasses.replace(short_arm(), backbone_options=options, batch_size=1, steps=1)
    result = fit(arm, data)
    network = result.model
    assert isinstance(network, Transformer)
    tokens = None
    for text in data.texts:  # the one drawn is among them
        tokens = result.encode([text]).input_ids.numel()
        per_token = 2 * (16 * 48 + 16 * 16 + 2 * 16 * 16)
        forward = tokens * per_token + 2 * 16 * 2
        attention = 2 * tokens * tokens * 16
        # The head's and the embeddings' inputs: the first linear layer's input does need a gradient here.
        if result.flops == 3 * forward + 2 * attention + 5 * attention:
            break
    else:
        pytest.fail(f"{result.flops} is no closed form of any text's length")


def test_bfloat16_stays_close_to_float32(data: TrainingData, unbroken: FitResult) -> None:
    halved = fit(dataclasses.replace(short_arm(), precision="bfloat16"), data)
    assert halved.precision == "bfloat16"
    assert halved.losses[0][1] == pytest.approx(unbroken.losses[0][1], abs=0.02)
