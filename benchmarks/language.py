"""What benchmarks of causal language models share: text as tokens, batches, updates and held-out loss."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from benchmarks.corpora import docstrings
from training.model import Transformer, auxiliary_loss

VOCABULARY = 256


@dataclass(frozen=True)
class ByteText:
    """Bytes of distinct docstrings, drawn apart by document.

    Parameters
    ----------
    train, held_out : int64 tensors of bytes.
    """

    train: Tensor
    held_out: Tensor


def byte_text(num_train: int, num_held_out: int, seed: int) -> ByteText:
    """Docstrings of installed packages in random order, one of 20 held out, joined by a zero byte."""
    texts = docstrings()[1].unique(maintain_order=True)
    held_out, train = shared_out(texts, (0.05, 0.95), seed)
    return ByteText(train[:num_train], held_out[:num_held_out])


def shared_out(texts: pl.Series, shares: Sequence[float], seed: int) -> list[Tensor]:
    """Whole documents in random order, in parts of these shares of their number, each joined by zero bytes."""
    order = np.random.default_rng(seed).permutation(len(texts))
    ends = np.cumsum([round(share * len(texts)) for share in shares])
    return [as_bytes(texts.gather(rows)) for rows in np.split(order, ends[:-1])]


def as_bytes(texts: pl.Series) -> Tensor:
    """Documents joined by zero bytes, int64."""
    data = "".join(f"{text}\0" for text in texts).encode()
    return torch.from_numpy(np.frombuffer(data, np.uint8).astype(np.int64))


def batch(tokens: Tensor, size: int, num_tokens: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Random stretches and the tokens after each, (B, T) both."""
    start = torch.randint(len(tokens) - num_tokens - 1, (size, 1), generator=generator)
    place = start + torch.arange(num_tokens + 1)
    return tokens[place[:, :-1]], tokens[place[:, 1:]]


def next_token_loss(model: Transformer, input_ids: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy of the next token, in nats."""
    hidden = model.hidden(input_ids, torch.ones_like(input_ids, dtype=torch.bool))
    return F.cross_entropy(model.token_logits(hidden).flatten(0, 1), labels.flatten())


def update(model: Transformer, optimizer: torch.optim.Optimizer, input_ids: Tensor, labels: Tensor) -> float:
    """One step; the loss before it."""
    loss = next_token_loss(model, input_ids, labels)
    extra = auxiliary_loss(model)
    optimizer.zero_grad()
    torch.autograd.backward(loss if extra is None else loss + extra)
    optimizer.step()
    return loss.item()


def rate(step: int, num_steps: int, peak: float) -> float:
    """Linear warm-up over a tenth of the steps, constant, then linear to 0 over the last fifth."""
    return peak * min(1.0, (step + 1) / (0.1 * num_steps), (num_steps - step) / (0.2 * num_steps))


@torch.no_grad()
def held_out_loss(model: Transformer, tokens: Tensor, num_tokens: int) -> float:
    """Mean loss over consecutive stretches, each from its own start."""
    model.eval()
    rows = (len(tokens) - 1) // num_tokens
    inputs = tokens[: rows * num_tokens].view(rows, num_tokens)
    labels = tokens[1 : rows * num_tokens + 1].view(rows, num_tokens)
    parts = list(zip(torch.split(inputs, 32), torch.split(labels, 32), strict=True))
    total = sum(float(next_token_loss(model, *part)) * len(part[0]) for part in parts)
    model.train()
    return total / rows
