"""Language models that read long texts in segments see what came before, learn from it, and resume to the bit."""

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch

from catalog.errors import ConfigError, DataError
from training.arm import ArmConfig
from training.data import TrainingData
from training.distributed import World
from training.evaluation.held_out import held_out_loss
from training.fit import fit
from training.model import ModelConfig, Transformer
from training.recipe import TrainRecipe
from training.segments import states_in_segments

SEGMENT, MEMORY = 2, 6
ARM = f"""
compare: none
arms:
  - name: reads
    objective: clm
    objective_options: {{segment_tokens: {SEGMENT}, memory_tokens: {MEMORY}}}
    backbone_options: {{vocab_size: 258, dim: 32, num_layers: 1, num_heads: 1, dropout: 0.0, order: causal,
      positions: alibi, embedding_norm: layer}}
    pacing: random
    steps: 80
    batch_size: 16
    learning_rate: 0.02
    max_tokens: 17
"""


def arm(**changed: Any) -> ArmConfig:
    return replace(TrainRecipe.from_yaml(ARM, name="segments").arms[0], **changed)


def data(count: int, seed: int) -> TrainingData:
    """Texts of one letter and dots, of which a segment has one before the letter: a byte is a token."""
    rng = random.Random(seed)
    texts = [(rng.choice("abcdefgh") + ".") * rng.choice((7, 8)) for _ in range(count)]
    return TrainingData.build(
        pl.DataFrame({"id": [f"{number:032x}-0" for number in range(count)], "text": texts}).with_columns(
            hash=pl.col("id").str.slice(0, 32),
            label=pl.lit(None, dtype=pl.String),
            difficulty=pl.lit(0.5),
            weight=pl.lit(1.0),
        )
    )


def network(**changed: Any) -> Transformer:
    settings: dict[str, Any] = {"positions": "rope", "order": "causal", "vocab_head": "tied", "num_classes": 0}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Transformer(ModelConfig(**({"vocab_size": 40, "dim": 16} | settings | changed))).eval()


def rows() -> tuple[torch.Tensor, torch.Tensor]:
    """Records of 20, 8, 13 and 3 tokens."""
    ids = torch.randint(40, (4, 20), generator=torch.Generator().manual_seed(1))
    return ids, torch.arange(20) < torch.tensor([[20], [8], [13], [3]])


@torch.no_grad()
@pytest.mark.parametrize("positions", ["rope", "alibi", "relative", "none"])
def test_a_memory_as_long_as_the_text_sees_the_whole_of_it(positions: str) -> None:
    model, (ids, real) = network(positions=positions), rows()
    read = states_in_segments(model, ids, real, segment_tokens=6, memory_tokens=20)
    assert torch.allclose(read[real], model.hidden(ids, real)[real], atol=2e-5)


@torch.no_grad()
def test_without_a_memory_every_segment_is_a_text_of_its_own() -> None:
    model, (ids, real) = network(), rows()
    read = states_in_segments(model, ids, real, segment_tokens=6, memory_tokens=0)
    for start in range(0, 20, 6):
        part, mask = ids[:, start : start + 6], real[:, start : start + 6]
        alone = model.hidden(part, mask)
        assert torch.allclose(read[:, start : start + 6][mask], alone[mask], atol=1e-5)


@torch.no_grad()
def test_a_memory_ends_where_it_is_said_to() -> None:
    model, (ids, real) = network(num_layers=1), rows()
    changed = ids.clone()
    changed[0, [5, 6]] = (changed[0, [5, 6]] + 1) % 40
    first, second = (states_in_segments(model, one, real, segment_tokens=6, memory_tokens=5) for one in (ids, changed))
    differs = (first[0] - second[0]).abs().amax(-1) > 1e-6
    # The segment of tokens 6 to 11 has 1 to 5 before it, that of 12 to 17 has 7 to 11.
    assert differs.nonzero().flatten().tolist() == list(range(5, 12))


def test_what_lies_in_the_segment_before_is_learned_and_measured_with_a_memory_alone() -> None:
    learned, blind = (
        fit(arm(objective_options={"segment_tokens": SEGMENT, "memory_tokens": size}), data(200, 0))
        for size in (MEMORY, 0)
    )
    found = [
        held_out_loss(one.network or one.model, one.model, one.tokenizer, one.arm, data(60, 1))["loss"]
        for one in (learned, blind)
    ]
    assert found[0] < 0.8 * found[1]
    assert learned.losses[-1][1] < 0.8 * blind.losses[-1][1]


def test_a_run_that_was_stopped_ends_with_the_same_bits(tmp_path: Path) -> None:
    short, records = arm(steps=6, checkpoint_every=2, stop_patience=5, stop_every=3), data(60, 0)
    unbroken = fit(short, records)
    done = [0]
    fit(
        short,
        records,
        checkpoint_dir=tmp_path,
        on_progress=lambda step, total, loss: done.append(step),
        should_stop=lambda: done[-1] >= 3,
    )
    resumed = fit(short, records, checkpoint_dir=tmp_path)
    assert (resumed.losses, resumed.checks) == (unbroken.losses, unbroken.checks)
    for name, value in unbroken.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name


def test_parts_of_a_batch_and_computing_again_change_memory_alone() -> None:
    records, short = data(60, 0), arm(steps=3)
    whole = fit(short, records)
    parts = fit(replace(short, micro_batch_size=5), records)
    again = fit(replace(short, recompute="blocks"), records)
    assert [loss for _, loss in parts.losses] == pytest.approx([loss for _, loss in whole.losses], abs=1e-5)
    assert again.losses == whole.losses
    half = fit(replace(short, precision="bfloat16"), records)
    assert [loss for _, loss in half.losses] == pytest.approx([loss for _, loss in whole.losses], abs=0.05)
    assert half.losses != whole.losses


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"segment_tokens: 2": "segment_tokens: 17"}, "segment_tokens=17 must be below max_tokens=17, at which texts"),
        ({"memory_tokens: 6": "memory_tokens: 16"}, "memory_tokens=16 must be at most 15: with max_tokens=17 and"),
        ({"memory_tokens: 6": "memory_tokens: -1"}, "memory_tokens=-1 must be a whole number, 0 or more"),
        ({"segment_tokens: 2, ": ""}, "memory_tokens=6 has no effect without segment_tokens; set both"),
        ({"objective: clm": "objective: mlm", "order: causal": "order: encoder"}, "unknown option 'segment_tokens'"),
        ({"order: causal": "order: encoder"}, "backbone order='encoder' is none that this objective can be trained"),
        ({"alibi": "learned"}, "not 'learned'; set positions in backbone_options to one of alibi, none, relative"),
        ({"dropout: 0.0": "attention: local_global"}, "segment_tokens=2 needs attention='full', not 'local_global'"),
        ({"dropout: 0.0": "feedforward: moe_topk"}, "segment_tokens=2 needs feedforward='dense', not 'moe_topk'"),
        ({"pacing: random": "packing: rows"}, "packing='rows' does not go with segment_tokens=2; set it to none"),
        ({"pacing: random": "compile: inductor"}, "compile='inductor' does not go with segment_tokens=2"),
        ({"pacing: random": "retrieval: knn_lm"}, "retrieval='knn_lm' reads texts as a whole; leave segment_tokens"),
    ],
)
def test_segments_that_would_change_nothing_or_cannot_be_read_are_refused(
    changed: dict[str, str], message: str
) -> None:
    text = ARM
    for old, new in changed.items():
        assert old in text
        text = text.replace(old, new)
    with pytest.raises(ConfigError, match=message):
        TrainRecipe.from_yaml(text, name="refused")


def test_texts_that_all_fit_into_a_segment_are_refused_before_the_first_step() -> None:
    with pytest.raises(DataError, match="segment_tokens=20 has no effect: the longest text has at most 17 tokens"):
        fit(arm(max_tokens=40, objective_options={"segment_tokens": 20}), data(30, 0))


def test_a_mixture_passes_its_segments_on() -> None:
    both = {"weights": {"clm": 1.0, "classification": 1.0}, "options": {"clm": {"segment_tokens": 30}}}
    text = ARM.replace("objective: clm", "objective: mixture")
    text = text.replace(f"{{segment_tokens: {SEGMENT}, memory_tokens: {MEMORY}}}", str(both))
    with pytest.raises(ConfigError, match="segment_tokens=30 must be below max_tokens=17"):
        TrainRecipe.from_yaml(text, name="mixed")


def test_weights_that_are_spread_are_refused() -> None:
    with pytest.raises(ConfigError, match="strategy='fsdp2' cannot train on segments of texts"):
        World(size=2, strategy="fsdp2").check(arm(), network())
