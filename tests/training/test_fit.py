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
from training.fit import FitResult, fit, stream_of
from training.model import Transformer
from training.tokenizer import TextTokenizer


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


def test_tokens_ahead_and_threads_change_no_bit(data: TrainingData, unbroken: FitResult, tmp_path: Path) -> None:
    for _ in range(2):  # written, then read
        assert_equal_bits(unbroken, fit(short_arm(), data, token_dir=tmp_path, num_workers=3))
    assert_equal_bits(unbroken, fit(short_arm(), data, num_workers=0))
    assert 0 < unbroken.stream_wait_share < 1


def test_looking_at_the_model_changes_no_bit(data: TrainingData, unbroken: FitResult) -> None:
    seen = []

    def look(step: int, model: torch.nn.Module, tokenizer: TextTokenizer) -> None:
        seen.append((step, model.training, torch.is_grad_enabled()))
        model(*tokenizer.encode(["one", "two"], 16))
        torch.rand(3)

    assert_equal_bits(unbroken, fit(short_arm(), data, on_model=look))
    assert seen == [(step, False, False) for step in range(1, 10)]


def test_a_window_by_length_resumes_like_an_unbroken_run(
    data: TrainingData, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    arm = dataclasses.replace(short_arm(), length_window=4, micro_batch_size=2)
    whole = fit(arm, data)
    assert whole.losses != fit(dataclasses.replace(arm, length_window=1), data).losses
    done = [0]
    fit(
        arm,
        data,
        checkpoint_dir=tmp_path / "run",
        on_progress=lambda step, total, loss: done.append(step),
        should_stop=lambda: done[-1] >= 6,
    )
    with caplog.at_level("INFO", logger="training.fit"):
        assert_equal_bits(whole, fit(arm, data, checkpoint_dir=tmp_path / "run", token_dir=tmp_path / "tokens"))
    assert f"goes on from step 6 of {arm.steps}" in caplog.text


def online_arm(pacing: str = "self_paced") -> ArmConfig:
    return dataclasses.replace(short_arm(), pacing=pacing, pacing_options={"every": 2}, steps=12, batch_size=20)


@pytest.fixture(scope="module")
def online(data: TrainingData) -> FitResult:
    torch.set_num_threads(1)
    return fit(online_arm(), data)


def test_an_online_pacing_publishes_what_it_draws_from(data: TrainingData, online: FitResult) -> None:
    assert [start for start, _ in online.revisions] == [2, 4, 6, 8, 10]
    weights = [one.frame["weight"].to_numpy() for _, one in online.revisions]
    assert [int((weight > 0).sum()) for weight in weights] == sorted(int((weight > 0).sum()) for weight in weights)
    assert 20 <= (weights[0] > 0).sum() < 120
    for step in range(12):
        stream = stream_of(online_arm(), data)
        for start, one in online.revisions:
            stream = stream.revised(start, one)
        assert (stream.manifest_at(step).frame["weight"].to_numpy()[stream.batch(step)] > 0).all()
    assert fit(online_arm("low_loss"), data).losses != fit(online_arm("high_loss"), data).losses


@settings(max_examples=4, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(stops=st.lists(st.integers(0, 11), min_size=1, max_size=3))
def test_an_online_run_stopped_anywhere_ends_like_an_unbroken_one(
    stops: list[int], data: TrainingData, online: FitResult, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("checkpoints")
    for stop in sorted(stops):
        done = [0]
        fit(
            online_arm(),
            data,
            checkpoint_dir=folder,
            on_progress=lambda step, total, loss, done=done: done.append(step),
            should_stop=lambda done=done, stop=stop: done[-1] >= stop,
        )
    resumed = fit(online_arm(), data, checkpoint_dir=folder)
    assert_equal_bits(online, resumed)
    assert [(start, one.digest) for start, one in resumed.revisions] == [
        (start, one.digest) for start, one in online.revisions
    ]


def test_a_published_manifest_that_is_damaged_or_gone_is_refused(data: TrainingData, tmp_path: Path) -> None:
    arm = dataclasses.replace(online_arm(), steps=4)
    fit(arm, data, checkpoint_dir=tmp_path)
    (path,) = (tmp_path / "manifests").iterdir()
    frame = pl.read_parquet(path)
    path.unlink()
    with pytest.raises(CorruptionError, match=r"manifest .* cannot be read .*; restore it, or delete"):
        fit(arm, data, checkpoint_dir=tmp_path)
    frame.with_columns(weight=2.0).write_parquet(path)
    with pytest.raises(CorruptionError, match="has the digest"):
        fit(arm, data, checkpoint_dir=tmp_path)


def test_checkpoints_from_before_revisions_and_windows_are_gone_on_from(
    data: TrainingData, unbroken: FitResult, tmp_path: Path
) -> None:
    assert short_arm().digest() == DIGEST_BEFORE
    stopped_after(6, data, tmp_path)
    path = tmp_path / "step-00000006" / "state.json"
    document = json.loads(path.read_text())
    path.write_text(
        json.dumps({name: one for name, one in document.items() if name not in ("wait_seconds", "revisions")})
    )
    assert_equal_bits(unbroken, fit(short_arm(), data, checkpoint_dir=tmp_path))


DIGEST_BEFORE = "c7e682ef30672b31a36732f017e07afc4ed9c02936d5888840ab37fa39ff1654"
