"""What a model gains by leaving early: its answers behind a layer once one of its heads is sure enough."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from training.evaluation.quality import Labels
from training.model import Transformer
from training.tokenizer import Encoded

THRESHOLDS = (0.8, 0.9, 0.95, 0.99)
BATCH_SIZE = 64


def early_exits(
    model: nn.Module, encode: Callable[[list[str]], Encoded], texts: Sequence[str], labels: Labels
) -> dict[str, Any] | None:
    """Accuracy and share of the layers at several thresholds; None of a model without heads behind earlier layers.

    A text leaves at the first head whose largest probability reaches the threshold, and at the last in any case.

    Parameters
    ----------
    labels : (n,) int64.

    Returns
    -------
    ``layers`` (behind which heads stand, the last among them), ``accuracy`` (of each head alone, if all texts left
    there) and ``thresholds``, a list of ``threshold``, ``accuracy`` and ``layers_share`` (mean over texts, in (0, 1]).

    References
    ----------
    Schwartz et al. (2020), The right tool for the job, section 3, without their calibration.
    """
    if not isinstance(model, Transformer) or not model.config.exit_layers:
        return None
    layers = np.array([*model.config.exit_layers, model.config.num_layers])
    proba_ENK = _probabilities(model, encode, texts)
    said_EN, sure_EN = proba_ENK.argmax(-1).numpy(), proba_ENK.amax(-1).numpy()
    told = []
    for threshold in THRESHOLDS:
        leaves_EN = sure_EN >= threshold
        leaves_EN[-1] = True
        first_N = leaves_EN.argmax(0)
        said_N = said_EN[first_N, np.arange(len(labels))]
        told.append(
            {
                "threshold": threshold,
                "accuracy": float((said_N == labels).mean()),
                "layers_share": float(layers[first_N].mean() / layers[-1]),
            }
        )
    return {"layers": layers.tolist(), "accuracy": (said_EN == labels).mean(1).tolist(), "thresholds": told}


def _probabilities(model: Transformer, encode: Callable[[list[str]], Encoded], texts: Sequence[str]) -> torch.Tensor:
    """(E, N, K): what each head says of each text; batches are sorted by length to waste little on padding."""
    by_length = sorted(range(len(texts)), key=lambda row: -len(texts[row]))
    found = []
    with torch.inference_mode():
        for start in range(0, len(texts), BATCH_SIZE):
            encoded = encode([texts[row] for row in by_length[start : start + BATCH_SIZE]])
            found.append(torch.stack(list(model.exit_logits(*encoded))).float().softmax(-1))
    back = torch.empty(len(texts), dtype=torch.int64)
    back[by_length] = torch.arange(len(texts))
    return torch.cat(found, 1)[:, back]
