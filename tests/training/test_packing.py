"""Packed texts lose nothing, share rows without seeing one another, and have the losses that they have alone."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from catalog.errors import ConfigError, DataError
from training.arm import ArmConfig
from training.backbones.minilm_lora import MeanPooledClassifier
from training.data import TrainingData
from training.fit import fit
from training.model import ModelConfig, Transformer
from training.network import seeing_documents
from training.objectives.classification import class_loss
from training.packing import Packed, pack, packed_logits
from training.tokenizer import padded

PAD = 0
texts = st.lists(st.lists(st.integers(1, 50), min_size=1, max_size=20), min_size=1, max_size=30)


@given(rows=texts, capacity=st.integers(20, 64))
def test_every_text_is_whole_and_in_one_row(rows: list[list[int]], capacity: int) -> None:
    packed = pack(rows, capacity, PAD)
    assert packed.input_ids.shape[1] <= capacity
    for number, row in enumerate(rows):
        places = (packed.documents == number).nonzero()
        assert len(places[:, 0].unique()) == 1
        assert np.diff(places[:, 1]).tolist() == [1] * (len(row) - 1)
        assert packed.input_ids[packed.documents == number].tolist() == row
    assert (packed.attention_mask == (packed.documents >= 0)).all()
    assert (packed.input_ids[~packed.attention_mask] == PAD).all()
    assert int(packed.attention_mask.sum()) == sum(map(len, rows))


@given(rows=texts, capacity=st.integers(20, 64))
def test_rows_are_few(rows: list[list[int]], capacity: int) -> None:
    fewest = math.ceil(sum(map(len, rows)) / capacity)
    assert fewest <= len(pack(rows, capacity, PAD).input_ids) <= 2 * fewest


def test_a_text_longer_than_a_row_is_refused() -> None:
    with pytest.raises(DataError, match="text 1 has 9 tokens, a row holds 8; cut it"):
        pack([[1], [1] * 9], 8, PAD)


class Reference(nn.Module):
    """One layer of attention by a dense mask, with positions that tell where a token stands."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(51, 16), nn.Embedding(64, 16)
        self.query_key_value, self.head = nn.Linear(16, 48), nn.Linear(16, 3)

    def hidden(self, input_ids: Tensor, attention_mask: Tensor, *, documents: Tensor | None = None) -> Tensor:
        if documents is None:
            documents = torch.where(attention_mask, 0, -1)
        together = documents[:, :, None] == documents[:, None, :]
        position = together.tril(-1).sum(-1)
        x = self.tokens(input_ids) + self.positions(position)
        q, k, v = self.query_key_value(x).chunk(3, dim=-1)
        out: Tensor = x + nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=together)
        return out


def losses(model: Reference, rows: list[list[int]], labels: Tensor, packed: Packed | None) -> Tensor:
    if packed is not None:
        return each(packed_logits(model, packed), labels)
    alone = padded(rows, PAD)
    real = alone.attention_mask[..., None].float()
    return each(model.head((model.hidden(*alone) * real).sum(1) / real.sum(1)), labels)


def each(logits: Tensor, labels: Tensor) -> Tensor:
    return torch.stack([class_loss(logits[one : one + 1], labels[one : one + 1]) for one in range(len(labels))])


@given(rows=texts, seed=st.integers(0, 100))
def test_packed_losses_and_gradients_are_those_of_one_text_a_row(rows: list[list[int]], seed: int) -> None:
    torch.manual_seed(seed)
    model = Reference()
    labels = torch.randint(0, 3, (len(rows),))
    found = []
    for packed in (None, pack(rows, 32, PAD)):
        model.zero_grad()
        each_loss = losses(model, rows, labels, packed)
        each_loss.sum().backward()
        found.append((each_loss.detach(), [one.grad.clone() for one in model.parameters()]))  # type: ignore[union-attr]
    assert torch.allclose(found[0][0], found[1][0], atol=1e-5)
    for one, other in zip(found[0][1], found[1][1], strict=True):
        assert torch.allclose(one, other, atol=1e-4)


def test_without_document_numbers_packed_losses_are_others() -> None:
    torch.manual_seed(0)
    model, rows, labels = Reference(), [[1, 2, 3], [4, 5], [6]], torch.tensor([0, 1, 2])
    packed = pack(rows, 8, PAD)
    blind = torch.where(packed.attention_mask, 0, -1)
    hidden = model.hidden(packed.input_ids, packed.attention_mask, documents=blind)
    mean = torch.stack([hidden[packed.documents == number].mean(0) for number in range(3)])
    assert (each(model.head(mean), labels) - losses(model, rows, labels, None)).abs().max() > 0.01


@pytest.mark.parametrize("positions", ["learned", "rope", "alibi"])
@pytest.mark.parametrize("attention", ["full", "local_global"])
@pytest.mark.parametrize("order", ["encoder", "causal"])
def test_a_transformer_gives_packed_texts_the_logits_that_they_have_alone(
    order: str, attention: str, positions: str
) -> None:
    torch.manual_seed(0)
    sizes = {"vocab_size": 51, "num_classes": 3, "max_tokens": 32, "dim": 16, "num_layers": 2, "num_heads": 2}
    model = Transformer(ModelConfig(**sizes, order=order, attention=attention, positions=positions)).eval()  # type: ignore[arg-type]
    rng = np.random.default_rng(0)
    rows = [rng.integers(1, 51, size).tolist() for size in (3, 20, 7, 1, 12, 5)]
    packed = pack(rows, 32, PAD)
    assert len(packed.input_ids) == 2
    alone = model(*padded(rows, PAD))
    assert torch.allclose(packed_logits(model, packed), alone, atol=1e-5)
    # Padding in front of nothing: a text in a batch of its own is still the same.
    assert torch.allclose(model(*padded(rows[:1], PAD)), alone[:1], atol=1e-5)


def test_training_on_packed_rows_has_the_losses_of_one_text_a_row(data: TrainingData) -> None:
    backbone = {"vocab_size": 300, "dim": 16, "dropout": 0.0, "feedforward_options": {"hidden": 16}}
    settings = {"name": "packed", "backbone_options": backbone, "steps": 6, "batch_size": 12, "max_tokens": 64}
    alone, packed = (fit(ArmConfig(**settings, packing=one), data) for one in ("none", "rows"))  # type: ignore[arg-type]
    assert [loss for _, loss in packed.losses] == pytest.approx([loss for _, loss in alone.losses], abs=1e-4)
    assert packed.flops != alone.flops


def test_a_backbone_that_takes_one_text_a_row_is_refused() -> None:
    arm = ArmConfig(name="lora", backbone="minilm-lora", packing="rows")
    with pytest.raises(ConfigError, match="packing='rows' of arm 'lora': backbone 'minilm-lora' takes one text a row"):
        seeing_documents(arm, MeanPooledClassifier(nn.Identity(), 4, 2))
