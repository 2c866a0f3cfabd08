"""Laws of every objective."""

import pytest
import torch

from training.objectives import IGNORED
from training.objectives.classification import class_loss, class_losses

LABELS = torch.tensor([0, 2, IGNORED, 1, IGNORED, 2])


def logits() -> torch.Tensor:
    return torch.randn(6, 3, generator=torch.Generator().manual_seed(0))


def test_ignored_labels_do_not_count() -> None:
    scores = logits()
    kept = LABELS != IGNORED
    assert class_loss(scores, LABELS).item() == pytest.approx(class_loss(scores[kept], LABELS[kept]).item(), abs=1e-6)
    changed = scores.clone()
    changed[~kept] = 1e3
    assert class_loss(changed, LABELS).item() == class_loss(scores, LABELS).item()
    assert class_losses(changed, LABELS).isnan().tolist() == (~kept).tolist()
    assert class_losses(changed, LABELS).nansum().item() == pytest.approx(class_loss(scores, LABELS).item(), abs=1e-6)
