"""What an arm may ask the trainer for besides: each does what it is for, and survives a stop."""

import ctypes
import dataclasses
import gc
import json
import math
import sys
import threading
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch

from catalog.errors import ConfigError, DataError
from training.arm import ArmConfig
from training.averaging import WeightAverage
from training.data import TrainingData
from training.fit import FitResult, fit, stream_of
from training.memory import container_memory, free_memory
from training.recipe import TrainRecipe
from training.run import prepare_blocks
from training.stopping import has_stalled, held_out
from training.trackers import TRACKERS, Tracked

SMALL = {"vocab_size": 300, "dim": 16, "feedforward_options": {"hidden": 16}}


def arm(**changed: Any) -> ArmConfig:
    given = ArmConfig(name="short", backbone_options=SMALL, steps=8, batch_size=4, max_tokens=16, checkpoint_every=3)
    return dataclasses.replace(given, **changed)


def weights(result: FitResult) -> torch.Tensor:
    return torch.cat([one.flatten() for one in result.model.state_dict().values()])


@pytest.fixture(scope="module")
def plain(data: TrainingData) -> FitResult:
    torch.set_num_threads(1)
    return fit(arm(), data)


OPTIONS: dict[str, dict[str, Any]] = {
    "adafactor": {"optimizer": "adafactor", "learning_rate": 0.01},
    "average": {"ema_decay": 0.9},
    "float16": {"precision": "float16", "batch_size": 1},
    "early stop": {"stop_patience": 2, "stop_every": 2},
    "packed rows": {"packing": "rows"},
    "recompute": {"recompute": "blocks"},
}


@pytest.mark.parametrize("name", sorted(OPTIONS))
def test_a_run_that_was_stopped_ends_like_an_unbroken_one(name: str, data: TrainingData, tmp_path: Path) -> None:
    config = arm(**OPTIONS[name])
    whole = fit(config, data, checkpoint_dir=tmp_path / "whole")
    for stop in (2, 5):
        done = [0]
        fit(
            config,
            data,
            checkpoint_dir=tmp_path / "stopped",
            on_progress=lambda step, total, loss, done=done: done.append(step),
            should_stop=lambda done=done, stop=stop: done[-1] >= stop,
        )
    resumed = fit(config, data, checkpoint_dir=tmp_path / "stopped")
    assert resumed.losses == whole.losses
    assert resumed.checks == whole.checks
    assert torch.equal(weights(resumed), weights(whole))
    last, other = (tmp_path / one / f"step-{whole.steps:08d}" for one in ("stopped", "whole"))
    assert {one.name for one in last.iterdir()} == {one.name for one in other.iterdir()}
    for file in {"average.safetensors", "scaler.json"} & {one.name for one in last.iterdir()}:
        assert (last / file).read_bytes() == (other / file).read_bytes()
    if name == "float16":
        # A gradient was too large once, and its step was left out.
        assert json.loads((last / "scaler.json").read_text())["scale"] < 2**16


def test_each_records_last_loss_is_kept_where_asked_for(data: TrainingData, plain: FitResult, tmp_path: Path) -> None:
    config = arm(record_losses="last", batch_size=120, steps=4)
    done: list[int] = []
    fit(
        config,
        data,
        checkpoint_dir=tmp_path,
        on_progress=lambda step, total, loss: done.append(step),
        should_stop=lambda: len(done) == 3,
    )
    result = fit(config, data, checkpoint_dir=tmp_path)
    assert result.record_losses is not None
    # All are drawn in every step, and all have a label.
    assert result.record_losses.mean() == pytest.approx(result.losses[-1][1], abs=1e-5)
    assert result.record_losses.std() > 0
    assert plain.record_losses is None


def test_recomputing_keeps_less_and_changes_no_bit(data: TrainingData, plain: FitResult) -> None:
    def kept(config: ArmConfig) -> int:
        with pytest.raises(ConfigError) as caught:
            fit(dataclasses.replace(config, batch_size=64), data, memory_limit_bytes=0)
        return int(float(str(caught.value).partition("activations ")[2].partition(" GiB")[0]) * 100)

    large: dict[str, Any] = {"backbone_options": SMALL | {"dim": 512, "num_layers": 4}, "batch_size": 64}
    assert torch.equal(weights(fit(arm(recompute="blocks"), data)), weights(plain))
    assert kept(arm(recompute="blocks", **large)) < kept(arm(**large)) / 2


def test_the_average_is_what_is_returned_and_forgets_the_start(data: TrainingData, plain: FitResult) -> None:
    seen = []
    averaged = fit(
        arm(ema_decay=0.999), data, on_model=lambda step, model, tokenizer: seen.append(model.head.weight.clone())
    )
    assert averaged.losses == plain.losses
    expected = fit(arm(steps=1, learning_rate=1e-30), data).model.head.weight  # the start
    for step, live in enumerate(seen, start=1):
        keeps = (1 + step) / (10 + step)
        expected = keeps * expected + (1 - keeps) * live
    assert torch.allclose(averaged.model.head.weight, expected, atol=1e-6)
    assert not torch.allclose(averaged.model.head.weight, seen[-1], atol=1e-4)


def test_lending_the_average_gives_the_weights_back_to_the_bit() -> None:
    model = torch.nn.Linear(3, 2)
    average = WeightAverage(model, 0.5)
    before = model.weight.detach().clone()
    with torch.no_grad():
        model.weight.add_(0.1)
    moved = model.weight.detach().clone()
    with average.in_place():
        assert torch.equal(model.weight, before)
    assert torch.equal(model.weight, moved)


def test_adafactor_learns_with_a_fraction_of_adams_state(data: TrainingData, tmp_path: Path) -> None:
    sizes = {}
    for name, rate in (("adamw", 3e-3), ("adafactor", 3e-2)):
        config = arm(optimizer=name, learning_rate=rate, steps=30, backbone_options=SMALL | {"dim": 48})
        result = fit(config, data, checkpoint_dir=tmp_path / name)
        losses = [loss for _, loss in result.losses]
        assert sum(losses[-5:]) / 5 < 0.5 * sum(losses[:5]) / 5, name
        sizes[name] = next((tmp_path / name).glob("*/optimizer.pt")).stat().st_size
    assert sizes["adafactor"] < sizes["adamw"] / 5


def test_early_stop_holds_records_out_and_ends_when_nothing_new_is_learned(data: TrainingData) -> None:
    # A rate of nothing: no check is better than the first.
    config = arm(steps=40, learning_rate=1e-30, stop_patience=2, stop_every=3, stop_share=0.2)
    result = fit(config, data)
    assert result.stopped_early
    assert result.finished
    assert result.steps == 9
    assert [step for step, _ in result.checks] == [3, 6, 9]
    out = held_out(config, data.manifest)
    assert 10 < out.sum() < 40
    stream = stream_of(config, data)
    assert not {row for step in range(40) for row in stream.batch(step)} & set(out.nonzero()[0])
    learning = fit(arm(steps=8, learning_rate=3e-3, stop_patience=4, stop_every=1), data)
    assert learning.steps == 8
    assert not learning.stopped_early
    assert learning.checks[-1][1] < learning.checks[0][1]


@pytest.mark.parametrize(
    ("losses", "patience", "stalled"),
    [
        ([3.0, 2.0, 1.0], 1, False),
        ([1.0, 2.0], 1, True),
        ([1.0, 2.0], 2, False),
        ([1.0, 2.0, 0.9], 2, False),
        ([1.0, 1.0, 1.0], 2, True),
        ([1.0, 2.0, 3.0], 0, False),
        ([], 1, False),
    ],
)
def test_stalled_is_no_new_best_within_the_patience(losses: list[float], patience: int, stalled: bool) -> None:
    assert has_stalled(losses, patience) is stalled


def test_what_fits_nowhere_is_refused_with_what_would_fit(data: TrainingData) -> None:
    config = arm(batch_size=32, backbone_options=SMALL | {"dim": 128}, ema_decay=0.9)
    with pytest.raises(ConfigError, match=r"needs about .* and 0.00 GiB are free; make the model .*adafactor"):
        fit(config, data, memory_limit_bytes=1000)
    with pytest.raises(ConfigError, match=r"set micro_batch_size to \d+ or less, or recompute to blocks") as caught:
        fit(config, data, memory_limit_bytes=7_500_000)
    fits = int(str(caught.value).partition("micro_batch_size to ")[2].split()[0])
    assert 0 < fits < 32
    assert fit(dataclasses.replace(config, micro_batch_size=fits), data, memory_limit_bytes=7_500_000).finished


def test_the_estimate_is_near_what_the_process_then_takes(data: TrainingData) -> None:
    config = arm(steps=2, batch_size=120, max_tokens=64, backbone_options=SMALL | {"dim": 192, "num_layers": 4})
    with pytest.raises(ConfigError) as caught:
        fit(config, data, memory_limit_bytes=0)
    estimated = float(str(caught.value).partition("needs about ")[2].split()[0])
    fit(dataclasses.replace(config, batch_size=4), data)  # what torch takes once
    before = free_memory(torch.device("cpu"))
    highest = [0]
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(0.002):
            highest[0] = max(highest[0], resident())

    watcher = threading.Thread(target=watch)
    # What earlier tests have freed goes back to the system, or it would be taken up again unseen.
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    start = resident()
    watcher.start()
    fit(config, data)
    stop.set()
    watcher.join()
    measured = (highest[0] - start) / 2**30
    assert before > 0
    assert measured > 0.05
    # Padding of short texts makes it less, passing gradients more.
    assert 0.5 < estimated / measured < 2, (estimated, measured)


def test_a_containers_own_limit_counts_without_the_files_it_has_read(tmp_path: Path) -> None:
    names = ("memory.max", "memory.current", "inactive_file")
    assert container_memory(tmp_path, *names) is None
    (tmp_path / "memory.current").write_text("700\n")
    (tmp_path / "memory.stat").write_text("anon 400\ninactive_file 250\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert container_memory(tmp_path, *names) is None
    (tmp_path / "memory.max").write_text("1000\n")
    assert container_memory(tmp_path, *names) == 550


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def test_a_record_that_alone_gives_no_finite_loss_is_named_alone(data: TrainingData) -> None:
    # Backbones cannot give NaN for one text, so the record's token gets an embedding of NaN by hand.
    texts = [text if number != 5 else "zzzz" for number, text in enumerate(data.texts)]
    odd = TrainingData(texts, data.labels, data.classes, data.manifest)
    config = arm(batch_size=120, steps=2)

    def poison(step: int, model: Any, tokenizer: Any) -> None:
        (z,) = set(tokenizer.token_ids(["zzzz"], 16)[0][1:])
        with torch.no_grad():
            model.tokens.weight[z] = math.nan

    with pytest.raises(DataError, match=r"records: 0{31}5-0$"):
        fit(config, odd, on_model=poison)


def test_tensorboard_is_told_every_update_once_and_changes_no_bit(data: TrainingData, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    experts = arm(backbone_options=SMALL | {"feedforward": "moe_topk", "feedforward_options": {"hidden": 16}})
    whole = fit(experts, data)

    def die(step: int, _total: int, _loss: float) -> None:
        if step == 5:
            raise KeyboardInterrupt

    told: dict[str, Any] = {"trackers": ["tensorboard"], "track_dir": tmp_path / "runs"}
    told["checkpoint_dir"] = tmp_path / "checkpoints"
    # Two updates after its newest checkpoint.
    with pytest.raises(KeyboardInterrupt):
        fit(experts, data, on_progress=die, **told)
    result = fit(experts, data, **told)
    assert torch.equal(weights(result), weights(whole))
    events = EventAccumulator(str(tmp_path / "runs" / "tensorboard")).Reload()
    assert [(one.step, pytest.approx(one.value)) for one in events.Scalars("loss")] == whole.losses
    assert {"learning_rate", "gradient_norm", "tokens", "blocks.0.feedforward/max_load"} <= set(
        events.Tags()["scalars"]
    )
    assert result.router["blocks.1.feedforward/max_load"] >= 1


@pytest.mark.parametrize("name", sorted(TRACKERS.load()))
def test_a_tracker_whose_package_is_missing_names_the_extra(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigError, match=rf"pip install 'winnow\[{name}\]'"):
        TRACKERS[name].member(Tracked(folder=tmp_path, name="a", settings={}))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"optimizer": "adam"}, "did you mean 'adamw'"),
        ({"optimizer": "adafactor", "optimizer_options": {"beta1": 0.9}}, "unknown option 'beta1'"),
        ({"optimizer_options": {"beta2": 1.0}}, r"beta2=1.0 must lie in \[0, 1\)"),
        ({"ema_decay": 1.0}, r"ema_decay=1.0 must lie in \[0, 1\)"),
        ({"recompute": "all"}, "recompute='all' must be one of none, blocks"),
        ({"stop_every": 5}, "stop_every=5 has no effect with stop_patience=0"),
        ({"stop_patience": 1}, "stop_every=50 must be below steps=8"),
        ({"stop_patience": 1, "stop_every": 2, "stop_share": 1.0}, "stop_share=1.0 must lie in"),
        ({"precision": "half"}, "precision='half' must be one of auto, float32, bfloat16, float16"),
        ({"recompute": "blocks", "compile": "inductor"}, "compile='inductor' goes without recompute='blocks'"),
        ({"record_losses": "all"}, "record_losses='all' must be one of none, last"),
        ({"schedule": "cosinus"}, "did you mean 'cosine'"),
    ],
)
def test_a_recipe_with_what_cannot_be_is_refused_when_it_is_read(changed: dict[str, Any], message: str) -> None:
    document = {"name": "a", "steps": 8} | changed
    lines = "\n".join(f"    {key}: {value}" for key, value in document.items())
    with pytest.raises(ConfigError, match=message):
        TrainRecipe.from_yaml(f"arms:\n  -\n{lines}\n", name="bad")


def test_a_share_that_holds_nothing_out_is_refused(frame: pl.DataFrame) -> None:
    few = TrainingData.build(frame.head(8))
    with pytest.raises(DataError, match=r"stop_share=0.01 holds none of 8 records out"):
        fit(arm(stop_patience=1, stop_every=2, stop_share=0.01), few)


@pytest.mark.parametrize(("name", "value"), [("recompute", "blocks"), ("compile", "inductor")])
def test_what_works_on_blocks_is_refused_where_there_are_none(name: str, value: str) -> None:
    with pytest.raises(ConfigError, match=f"{name}='{value}' .* backbone 'minilm-lora' has no blocks of ours"):
        prepare_blocks(arm(backbone="minilm-lora", backbone_options={}, **{name: value}), torch.nn.Linear(1, 1))


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_kernels_that_cannot_train_here_are_refused_before_the_first_step(data: TrainingData) -> None:
    attention = {"attention": "local_global", "attention_options": {"backend": "flex"}}
    steps: list[int] = []
    with pytest.raises(ConfigError, match="backend='flex' of the attention cannot train on a CPU; set it to auto"):
        fit(arm(backbone_options=SMALL | attention), data, on_progress=lambda step, total, loss: steps.append(step))
    assert steps == []


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")
def test_compiled_blocks_are_traced_and_compute_the_same(data: TrainingData) -> None:
    # Without code generation, which takes a compiler and twenty seconds.
    torch._dynamo.reset()
    before = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    config = arm(steps=2, backbone_options=SMALL | {"num_layers": 1})
    compiled = fit(dataclasses.replace(config, compile="aot_eager"), data)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > before
    torch._dynamo.reset()
    same = fit(config, data)
    assert [loss for _, loss in compiled.losses] == pytest.approx([loss for _, loss in same.losses], abs=1e-5)
