"""Laws of every objective."""

import pytest
import torch

from training.objectives import IGNORED, OBJECTIVES

NAMES = sorted(OBJECTIVES.load())
LABELS = torch.tensor([0, 2, IGNORED, 1, IGNORED, 2])


def logits() -> torch.Tensor:
    return torch.randn(6, 3, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", NAMES)
def test_ignored_labels_do_not_count(name: str) -> None:
    objective, scores = OBJECTIVES[name].member, logits()
    kept = LABELS != IGNORED
    assert objective(scores, LABELS).item() == pytest.approx(objective(scores[kept], LABELS[kept]).item(), abs=1e-6)
    changed = scores.clone()
    changed[~kept] = 1e3
    assert objective(changed, LABELS).item() == objective(scores, LABELS).item()


@pytest.mark.parametrize("name", NAMES)
def test_means_of_parts_weighted_by_their_labels_give_the_whole(name: str) -> None:
    objective, scores = OBJECTIVES[name].member, logits()
    parts = [(slice(0, 3), 2), (slice(3, 4), 1), (slice(4, 6), 1)]
    total = sum(objective(scores[part], LABELS[part]).item() * count / 4 for part, count in parts)
    assert total == pytest.approx(objective(scores, LABELS).item(), abs=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_nothing_to_learn_is_zero_with_zero_gradient(name: str) -> None:
    scores = logits().requires_grad_()
    loss = OBJECTIVES[name].member(scores, torch.full((6,), IGNORED))
    loss.backward()
    assert loss.item() == 0
    assert scores.grad is not None
    assert scores.grad.abs().max() == 0


def test_classification_is_cross_entropy_in_nats() -> None:
    uniform = torch.zeros(2, 4)
    loss = OBJECTIVES["classification"].member(uniform, torch.tensor([1, 3]))
    assert loss.item() == pytest.approx(torch.log(torch.tensor(4.0)).item())
