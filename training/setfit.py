"""Few labels: a pretrained sentence encoder is tuned on pairs of labelled texts, before a head is fitted on it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from catalog.errors import DataError
from training.model import masked_mean
from training.tokenizer import TextTokenizer

Vectors = np.ndarray[Any, np.dtype[np.float32]]
BATCH_TEXTS = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class SetFit:
    """How the encoder is tuned.

    Parameters
    ----------
    steps : updates; what bounds the time, whatever the number of labels.
    num_pairs : pairs of texts in an update: half of one class, half of two.
    learning_rate : of AdamW, falling linearly to 0.
    max_tokens : of a text so many are read.
    """

    steps: int = 60
    num_pairs: int = 16
    learning_rate: float = 5e-5
    max_tokens: int = 64

    def __post_init__(self) -> None:
        for name in ("steps", "num_pairs", "max_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")


@dataclass(frozen=True, slots=True)
class SentenceEncoder:
    """An encoder with its tokenizer: texts to vectors of length 1."""

    model: nn.Module
    tokenizer: TextTokenizer
    max_tokens: int

    def encode(self, texts: Sequence[str]) -> Vectors:
        """(n, dim) float32."""
        by_length = sorted(range(len(texts)), key=lambda row: -len(texts[row]))
        with torch.inference_mode():
            parts = [
                self.vectors([texts[row] for row in by_length[start : start + BATCH_TEXTS]]).numpy()
                for start in range(0, len(texts), BATCH_TEXTS)
            ]
        back = np.empty(len(texts), dtype=np.int64)
        back[by_length] = np.arange(len(texts))
        return np.concatenate(parts)[back]

    def vectors(self, texts: Sequence[str]) -> Tensor:
        """(n, dim), for training."""
        input_ids, attention_mask = self.tokenizer.encode(texts, self.max_tokens)
        hidden_BTC = self.model(input_ids=input_ids, attention_mask=attention_mask.long()).last_hidden_state
        return nn.functional.normalize(masked_mean(hidden_BTC, attention_mask), dim=-1)


def pretrained(config: SetFit) -> SentenceEncoder:
    """all-MiniLM-L6-v2 as it came, from the installed package.

    Raises
    ------
    ConfigError : the package with the weights is missing.
    """
    from training.backbones import Heads
    from training.backbones.minilm_lora import MiniLmLora, MiniLmLoraBackbone

    backbone, plain = MiniLmLoraBackbone(), MiniLmLora()
    tokenizer = backbone.tokenizer([], plain)
    heads = Heads(num_classes=1)
    built = backbone.build(vocab_size=tokenizer.vocab_size, heads=heads, max_tokens=config.max_tokens, config=plain)
    return SentenceEncoder(built.get_submodule("encoder").eval(), tokenizer, config.max_tokens)


def tune(
    texts: Sequence[str],
    labels: Sequence[str],
    config: SetFit,
    seed: int,
    on_step: Callable[[int], None] = lambda _: None,
) -> SentenceEncoder:
    """Draw texts of one class together and those of two apart: the cosine of a pair is to be 1 or 0.

    Word embeddings stay as they are; no dropout. The same input and seed give the same vectors on one kind of machine.

    Parameters
    ----------
    labels : of each text its class; at least two classes, and one of them twice.
    on_step : called before each update; what it raises ends the tuning.

    Raises
    ------
    DataError : a single class, or every class once: there are no pairs.

    References
    ----------
    Tunstall et al. (2022), Efficient Few-Shot Learning Without Prompts, section 3. We draw as many pairs as ``steps``
    take instead of a number for each text.
    """
    codes = np.unique(np.asarray(labels, dtype=object), return_inverse=True)[1]
    counts = np.bincount(codes) if len(codes) else np.zeros(0, dtype=np.int64)
    if len(counts) < 2 or counts.max() < 2:
        raise DataError(
            f"{len(codes)} labels of {len(counts)} classes, at most {counts.max(initial=0)} of one, make no pairs; "
            "label at least two texts of one class and one of another"
        )
    rng = np.random.default_rng(seed)
    encoder = pretrained(config)
    encoder.model.get_submodule("embeddings").requires_grad_(requires_grad=False)
    trained = [one for one in encoder.model.parameters() if one.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=config.learning_rate, weight_decay=0.01)
    for step in range(config.steps):
        on_step(step)
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * (1 - step / config.steps)
        pairs = _pairs(codes, config.num_pairs, rng)
        rows, places = np.unique(pairs, return_inverse=True)
        vectors = encoder.vectors([texts[row] for row in rows])
        first, second = vectors[torch.from_numpy(places.reshape(-1, 2).T)]
        same = torch.from_numpy((codes[pairs[:, 0]] == codes[pairs[:, 1]]).astype(np.float32))
        loss = nn.functional.mse_loss((first * second).sum(-1), same)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
    encoder.model.requires_grad_(requires_grad=False)
    return encoder


def _pairs(codes: np.ndarray[Any, Any], num_pairs: int, rng: np.random.Generator) -> np.ndarray[Any, Any]:
    """(num_pairs, 2) rows: every second pair of one class, the others of two; classes as often as each other."""
    classes = np.unique(codes)
    twice = classes[np.bincount(codes)[classes] > 1]
    found = np.empty((num_pairs, 2), dtype=np.int64)
    for number in range(num_pairs):
        if number % 2 == 0:
            found[number] = rng.choice(np.flatnonzero(codes == rng.choice(twice)), 2, replace=False)
        else:
            found[number] = [rng.choice(np.flatnonzero(codes == one)) for one in rng.choice(classes, 2, replace=False)]
    return found
