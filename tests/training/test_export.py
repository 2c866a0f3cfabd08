"""A model survives its folder."""

import json
from pathlib import Path

import pytest
import torch

from catalog.errors import CorruptionError, NotFoundError
from training.arm import ArmConfig
from training.data import TrainingData
from training.export import load_model, save_model
from training.fit import fit

TEXTS = ["지하철 🚇", "the soup was cold", ""]


@pytest.mark.parametrize("backbone", ["small", "minilm-lora"])
def test_loaded_model_gives_equal_logits(backbone: str, data: TrainingData, tmp_path: Path) -> None:
    arm = ArmConfig(name="한글 | arm", backbone=backbone, steps=2, batch_size=4, max_tokens=16)
    result = fit(arm, data)
    folder = save_model(result, tmp_path / "models" / "one", facts={"dataset": "tickets"})
    loaded = load_model(folder)
    with torch.inference_mode():
        assert torch.equal(loaded.model(*loaded.encode(TEXTS)), result.model(*result.encode(TEXTS)))
    assert loaded.classes == tuple(data.classes)
    assert loaded.arm == arm
    card = (folder / "README.md").read_text()
    assert "한글 \\| arm" in card
    assert "| dataset | tickets |" in card
    assert arm.digest() in card


def test_saving_again_replaces_and_leaves_nothing_else(data: TrainingData, tmp_path: Path) -> None:
    for steps in (1, 2):
        save_model(fit(ArmConfig(name="a", steps=steps, batch_size=4), data), tmp_path / "one")
    assert [one.name for one in tmp_path.iterdir()] == ["one"]
    assert load_model(tmp_path / "one").arm.steps == 2
    assert sorted(one.name for one in (tmp_path / "one").iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    ]


def test_missing_and_damaged_models_are_told_apart(data: TrainingData, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no model in"):
        load_model(tmp_path / "none")
    folder = save_model(fit(ArmConfig(name="a", steps=1, batch_size=4), data), tmp_path / "one")
    config = folder / "config.json"
    document = json.loads(config.read_text())
    config.write_text(json.dumps(document | {"classes": ["only", "one", "more"]}))
    with pytest.raises(CorruptionError, match="cannot be read"):
        load_model(folder)
    config.write_text(json.dumps(document))
    (folder / "model.safetensors").write_bytes(b"short")
    with pytest.raises(CorruptionError, match="cannot be read"):
        load_model(folder)
