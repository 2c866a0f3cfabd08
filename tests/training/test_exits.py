"""Heads behind earlier layers: trained with the last one, kept with the model, measured, refused without effect."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from catalog.errors import ConfigError
from service.outcome import exit_lines
from tests.training.objectives import Bench, arm_of, data_of
from training.arm import ArmConfig
from training.evaluation.evaluate import evaluate
from training.evaluation.exits import THRESHOLDS, early_exits
from training.export import load_model, save_model
from training.fit import fit
from training.model import Transformer
from training.recipe import TrainRecipe


def exiting(**settings: object) -> ArmConfig:
    """Three layers, of which the first and the second have a head."""
    arm = arm_of("classification", **settings)
    return dataclasses.replace(arm, backbone_options=arm.backbone_options | {"num_layers": 3, "exit_layers": [1, 2]})


@pytest.mark.parametrize("packing", ["none", "rows"])
def test_loss_is_the_mean_of_all_heads_and_a_records_own_is_the_last_ones(packing: str) -> None:
    bench = Bench(exiting(packing=packing), data_of("classification"))
    rows = [0, 1, 4, 5, 6]
    found = bench.losses(bench.batch(rows), each=True)
    assert isinstance(bench.network, Transformer)
    labels = torch.tensor([bench.corpus.data.labels[row] for row in rows])
    expected, own = [], []
    for row, label in zip(rows, labels, strict=True):
        alone = bench.tokenizer.encode([bench.corpus.data.texts[row]], bench.max_tokens)
        costs = [F.cross_entropy(one, label[None], ignore_index=-100) for one in bench.network.exit_logits(*alone)]
        assert len(costs) == 3
        own.append(costs[-1] if label >= 0 else torch.tensor(torch.nan))
        expected += [torch.stack(costs).mean()] if label >= 0 else []
    torch.testing.assert_close(found.sums[0], torch.stack(expected).sum())
    torch.testing.assert_close(found.each, torch.stack(own).detach(), equal_nan=True)
    found.sums[0].backward()
    heads = {name: one.grad for name, one in bench.network.named_parameters() if name.startswith(("head", "exits"))}
    assert len(heads) == 2 + 2 * 4
    assert all(grad is not None and float(grad.abs().sum()) > 0 for grad in heads.values())


def test_a_trained_model_keeps_its_heads_and_is_measured_leaving_early(tmp_path: Path) -> None:
    data = data_of("classification")
    result = fit(exiting(steps=30, learning_rate=1e-2), data)
    saved = load_model(save_model(result, tmp_path / "model"))
    model = saved.model
    assert isinstance(model, Transformer)
    rows = [row for row, label in enumerate(data.labels) if label >= 0]
    texts, labels = [data.texts[row] for row in rows], np.array([data.labels[row] for row in rows])
    told = evaluate(model, saved.encode, texts, labels.tolist(), list(data.classes), seed=0)["exits"]
    assert told["layers"] == [1, 2, 3]
    sure = [[one.softmax(-1)[0].detach().numpy() for one in model.exit_logits(*saved.encode([text]))] for text in texts]
    for at, threshold in zip(told["thresholds"], THRESHOLDS, strict=True):
        left = [
            next(place for place, one in enumerate(heads) if one.max() >= threshold or place == 2) for heads in sure
        ]
        right = [heads[place].argmax() == label for heads, place, label in zip(sure, left, labels, strict=True)]
        assert at["threshold"] == threshold
        assert at["accuracy"] == pytest.approx(np.mean(right))
        assert at["layers_share"] == pytest.approx(np.mean([place + 1 for place in left]) / 3)
    assert told["accuracy"][-1] == pytest.approx(
        np.mean([heads[2].argmax() == one for heads, one in zip(sure, labels, strict=True)])
    )
    assert told["thresholds"][0]["layers_share"] < 1, "nothing left early: this shows nothing"
    line = exit_lines({"arm": "small", "variant": "none", "exits": told})[0]
    assert line.startswith("small, as trained: leaving once 0.8 sure takes ")
    plain = fit(arm_of("classification", steps=1), data)
    assert early_exits(plain.model, plain.encode, texts, labels) is None


@pytest.mark.parametrize(
    ("objective", "layers", "message"),
    [
        ("mlm", "[1]", r"exit_layers=\[1\] have no effect with this objective.*train objective classification"),
        ("tagging", "[1]", r"exit_layers=\[1\] have no effect"),
        ("pairwise", "[1]", r"exit_layers=\[1\] have no effect"),
        ("classification", "[2]", r"exit_layers=\(2,\) must rise and lie in \[1, 1\]"),
        ("classification", "[2, 1]", r"must rise and lie in"),
        ("classification", "first", r"exit_layers='first' must be a list of layers"),
        ("classification", "[1.0]", r"exit_layers=\[1.0\] must be a list of layers"),
    ],
)
def test_heads_without_effect_or_place_are_refused(objective: str, layers: str, message: str) -> None:
    text = f"arms: [{{name: one, objective: {objective}, backbone_options: {{num_layers: 2, exit_layers: {layers}}}}}]"
    with pytest.raises(ConfigError, match=message):
        TrainRecipe.from_yaml(text, name="refused")


def test_a_mixture_with_classification_trains_them() -> None:
    text = "arms: [{name: one, objective: mixture, backbone_options: {num_layers: 2, exit_layers: [1]}}]"
    assert TrainRecipe.from_yaml(text, name="mixed").arms[0].backbone_options["exit_layers"] == [1]
