"""Laws of everything that reads a memory."""

import re
from pathlib import Path

import pytest
import torch

from catalog.errors import ConfigError
from tests.training.memories import KINDS, reader, remembered, tokens
from training.retrieval import RETRIEVAL
from training.retrieval.memory import Memory, weights_digest

NAMES = sorted(RETRIEVAL.load())


def test_every_member_has_a_memory_to_be_tested_with() -> None:
    assert sorted(KINDS) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_without_a_memory_or_with_an_empty_one_it_is_the_network_itself(name: str, tmp_path: Path) -> None:
    made, (ids, real) = reader(name), tokens()
    hidden = made.model.hidden(ids, real)
    plain = (made.model(ids, real) if made.model.config.num_classes else made.model.token_logits(hidden)).log_softmax(
        -1
    )
    assert torch.equal(made(ids, real), plain)
    made.use(remembered(name, made, tmp_path / "empty", num_entries=0))
    assert torch.equal(made(ids, real), plain)
    made.use(remembered(name, made, tmp_path / "memory"))
    assert not torch.allclose(made(ids, real), plain, atol=1e-3)
    made.use(None)
    assert torch.equal(made(ids, real), plain)


@pytest.mark.parametrize("name", NAMES)
def test_another_memory_changes_what_it_says_and_no_weight(name: str, tmp_path: Path) -> None:
    made, (ids, real) = reader(name), tokens()
    before = weights_digest(made)
    said = []
    for seed in (1, 2, 1):
        made.use(remembered(name, made, tmp_path / f"{seed}-{len(said)}", seed=seed))
        said.append(made(ids, real))
    assert not torch.allclose(said[0], said[1], atol=1e-3)
    assert torch.equal(said[0], said[2])
    assert weights_digest(made) == before


@pytest.mark.parametrize("name", NAMES)
def test_probabilities_sum_to_one(name: str, tmp_path: Path) -> None:
    made = reader(name)
    made.use(remembered(name, made, tmp_path / "memory"))
    total = made(*tokens()).exp().sum(-1)
    assert torch.allclose(total, torch.ones_like(total), atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_a_memory_that_is_not_its_own_is_refused(name: str, tmp_path: Path) -> None:
    made = reader(name)
    own = remembered(name, made, tmp_path / "memory")
    other = Memory(source="encoder of somebody", keys=own.keys, values=own.values)
    with pytest.raises(
        ConfigError, match=f"made by 'encoder of somebody', those of this reader by '{re.escape(made.source)}'"
    ):
        made.use(other)
    narrow = Memory(source=own.source, keys=own.keys[:, :3], values=own.values)
    with pytest.raises(ConfigError, match=f"vectors have 3 numbers and must have {made.key_dim}"):
        made.use(narrow)
    thin = Memory(source=own.source, keys=own.keys, values=own.values.repeat(5, axis=1))
    with pytest.raises(ConfigError, match=f"values have {thin.values.shape[1]} integers and must have"):
        made.use(thin)
    assert made.memory is None
