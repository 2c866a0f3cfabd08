"""Replaced tokens that are drawn of what follows in the training texts, and told by the mean of a text's states."""

import dataclasses
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from catalog.errors import DataError
from tests.training.objectives import Bench, arm_of, data_of
from training.arm import ArmConfig
from training.data import TrainingData
from training.evaluation.held_out import held_out_loss
from training.export import load_model, save_model
from training.fit import FitResult, fit
from training.objectives import IGNORED
from training.objectives.rtd import Replaced, Rtd

ROWS = list(range(16))
FREE: dict[str, Any] = {"generator": "successors", "tells": "text", "masking_options": {"rate": 0.4}}


def arm(**settings: Any) -> ArmConfig:
    return arm_of("rtd", objective_options=FREE, **settings)


def begun(one: ArmConfig, data: TrainingData) -> Bench:
    bench = Bench(one, data)
    bench.objective.begin(bench.network, bench.corpus)
    return bench


def weights(result: FitResult) -> dict[str, torch.Tensor]:
    assert result.network is not None
    return dict(result.network.state_dict())


def test_what_is_drawn_follows_the_token_before_it_somewhere_in_the_texts() -> None:
    data = data_of("rtd")
    bench = begun(arm(), data)
    follows = {
        pair
        for ids in bench.tokenizer.token_ids(data.texts, 64)
        for pair in zip(list(ids)[:-1], list(ids)[1:], strict=True)
    }
    seen = set()
    for step in range(6):
        tensors = bench.batch(ROWS, step).tensors
        at = tensors["labels"] != IGNORED
        _, drawn = cast("Replaced", bench.network)._fill(tensors, at)
        seen |= set(zip(tensors["input_ids"].roll(1, 1)[at].tolist(), drawn.tolist(), strict=True))
    assert len(seen) > 100
    assert seen <= follows
    # Of a token that several follow, more than one is drawn.
    assert len(seen) > len({before for before, _ in seen})


def test_all_tokens_but_the_start_are_told_and_nothing_else_is_learned() -> None:
    bench = begun(arm(), data_of("rtd"))
    batch = bench.batch(ROWS)
    assert batch.counts == (int(batch.tensors["told"].sum()),)
    assert "masked_ids" not in batch.tensors
    found = bench.losses(batch, each=True)
    (told,) = found.sums
    told.backward()
    parts = cast("Replaced", bench.network)
    assert parts.goes_with is not None
    for one in (parts.tell[0].weight, parts.goes_with.weight, parts.model.tokens.weight):  # type: ignore[union-attr]
        assert cast("torch.Tensor", one.grad).abs().sum() > 0
    each = cast("torch.Tensor", found.each)
    per_record = batch.tensors["told"].sum(1)
    assert (each.nan_to_num() * per_record).sum().item() == pytest.approx(told.item(), rel=1e-5)


def test_texts_that_share_a_row_are_told_as_alone() -> None:
    data = data_of("rtd")
    apart, packed = (begun(arm(packing=one), data) for one in ("none", "rows"))
    packed.network.load_state_dict(apart.network.state_dict())
    assert len(packed.batch(ROWS).tensors["input_ids"]) < 16
    one, other = (bench.losses(bench.batch(ROWS), each=True) for bench in (apart, packed))
    assert torch.allclose(one.sums[0], other.sums[0], rtol=1e-5)
    assert torch.allclose(cast("torch.Tensor", one.each), cast("torch.Tensor", other.each), atol=1e-5, equal_nan=True)


def test_a_stopped_run_ends_like_an_unbroken_one_and_is_measured_alike_when_read_back(tmp_path: Path) -> None:
    data, one = data_of("rtd"), arm(steps=6)
    whole = fit(one, data)
    done: list[int] = []
    fit(one, data, checkpoint_dir=tmp_path / "c", on_progress=lambda step, *_: done.append(step),
        should_stop=lambda: len(done) == 3)  # fmt: skip
    resumed = fit(one, data, checkpoint_dir=tmp_path / "c")
    assert done == [1, 2, 3]
    assert all(torch.equal(value, weights(resumed)[name]) for name, value in weights(whole).items())
    assert weights(whole)["followers_VK"].any()
    read = load_model(save_model(whole, tmp_path / "model"))
    costs = [
        held_out_loss(cast("torch.nn.Module", found.network), found.model, found.tokenizer, one, data)["loss"]
        for found in (whole, read)
    ]
    assert costs[0] == costs[1]


def test_a_mixture_sees_what_follows_as_well() -> None:
    mixed = arm_of("mixture", objective_options={"weights": {"mlm": 1.0, "rtd": 1.0}, "options": {"rtd": FREE}})
    bench = begun(mixed, data_of("rtd"))
    assert bench.network.state_dict()["parts.1.followers_VK"].any()


def test_texts_without_a_token_are_refused() -> None:
    data = data_of("rtd")
    bench = Bench(arm(), data)
    empty = TrainingData([""] * 16, data.labels, data.classes, data.manifest)
    with pytest.raises(DataError, match="generator='successors' draws tokens of the training texts, and no text has"):
        bench.objective.begin(bench.network, dataclasses.replace(bench.corpus, data=empty))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"generator": "unigrams"}, "generator='unigrams' must be one of network, successors"),
        ({"tells": "words"}, "tells='words' must be one of state, text"),
        ({"generator": "successors", "weight": 10.0}, "weight=10.0 has no effect with generator='successors'"),
        ({"generator": "successors", "mask_share": 0.85}, "mask_share=0.85 has no effect with generator='successors'"),
    ],
)
def test_options_without_effect_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Rtd(**options)
