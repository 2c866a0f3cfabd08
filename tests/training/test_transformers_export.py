"""What is exported is loaded by transformers alone, and says the same."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from catalog.errors import ConfigError, ConflictError
from training.arm import ArmConfig
from training.data import TrainingData
from training.export import load_model, save_model
from training.fit import FitResult, fit
from training.model import Transformer
from training.transformers_export import export_to_transformers

TEXTS = ["지하철이 또 늦었어요 🚇", "the soup was cold"]


def trained(data: TrainingData, **options: Any) -> FitResult:
    common = {"vocab_size": 400, "dim": 32, "order": "causal", "vocab_bias": "none"}
    arm = ArmConfig(name="decoder", objective="clm", steps=20, batch_size=8, max_tokens=24, learning_rate=0.01)
    return fit(dataclasses.replace(arm, backbone_options=common | options), data)


@pytest.mark.parametrize(
    ("options", "architecture"),
    [
        ({"feedforward_options": {"hidden": 48}}, "GPT2LMHeadModel"),
        ({"positions": "rope", "num_kv_heads": 2, "position_options": {"base": 500.0}}, "Starcoder2ForCausalLM"),
    ],
)
def test_transformers_loads_it_and_gives_the_same_logits_and_ids(
    options: dict[str, Any],
    architecture: str,
    data: TrainingData,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    saved = load_model(save_model(trained(data, **options), tmp_path / "ours"))
    assert isinstance(saved.model, Transformer)
    capfd.readouterr()
    folder = export_to_transformers(saved.model, saved.tokenizer, tmp_path / "theirs")
    assert capfd.readouterr() == ("", "")
    assert logging.is_progress_bar_enabled()
    theirs, words = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    assert type(theirs).__name__ == architecture
    for text in TEXTS:
        (ids,) = saved.tokenizer.token_ids([text], 24)
        assert words(text)["input_ids"][:24] == ids
        with torch.inference_mode():
            encoded = saved.encode([text])
            ours = saved.model.token_logits(saved.model.hidden(*encoded))
            found = theirs(input_ids=encoded.input_ids).logits
        assert ours.std() > 0.1
        assert (found - ours).abs().max() < 1e-4
    with pytest.raises(ConflictError, match="is there already"):
        export_to_transformers(saved.model, saved.tokenizer, folder)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"vocab_bias": "own"}, r"vocab_bias='own' \(needs 'none'\)"),
        ({"positions": "alibi"}, r"positions='alibi' \(needs 'learned' or 'rope'\)"),
        ({"num_kv_heads": 1, "embedding_dim": 8}, r"embedding_dim=8 \(needs 0\), num_kv_heads=1 \(needs 0\)"),
        ({"embedding_norm": "layer"}, r"embedding_norm='layer' \(needs 'none'\)"),
        ({"positions": "rope", "position_options": {"scaling": "linear", "factor": 2.0}}, "a scaling of rope"),
    ],
)
def test_what_no_architecture_computes_is_refused_by_setting(
    options: dict[str, Any], message: str, data: TrainingData, tmp_path: Path
) -> None:
    config: Any = {"vocab_size": 300, "num_classes": 0, "order": "causal", "vocab_head": "tied", "vocab_bias": "none"}
    from training.model import ModelConfig

    model = Transformer(ModelConfig(**(config | options)))
    with pytest.raises(ConfigError, match=message):
        export_to_transformers(model, None, tmp_path / "x")  # type: ignore[arg-type]
