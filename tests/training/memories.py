"""A small network of every kind that reads a memory, and memories for it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from training.model import ModelConfig, Transformer
from training.retrieval import RETRIEVAL
from training.retrieval.cross_attention import CrossAttention, remember_passages
from training.retrieval.memory import Memory, MemoryReader

VOCAB, DIM, CHUNK, CLASSES = 30, 16, 4, 3
KINDS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "knn_lm": ({"order": "causal", "vocab_head": "tied", "num_classes": 0}, {"num_neighbours": 4}),
    "knn_classifier": ({"num_classes": CLASSES}, {"num_neighbours": 4}),
    "cross_attention": (
        {"order": "causal", "vocab_head": "tied", "num_classes": 0},
        {"chunk_tokens": CHUNK, "key_dim": 32},
    ),
}
"""Changes to the network and options of the reader."""


def reader(name: str) -> MemoryReader:
    """In evaluation mode, and with weights by which passages matter."""
    network, options = KINDS[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Transformer(ModelConfig(**({"vocab_size": VOCAB, "dim": DIM, "positions": "rope"} | network))).eval()
        made = RETRIEVAL[name].member(model, RETRIEVAL[name].configured(options)).eval()
        for part in made.modules():
            if isinstance(part, nn.Linear) and not part.weight.any():
                nn.init.normal_(part.weight)
    return made.requires_grad_(requires_grad=False)


def tokens() -> tuple[Tensor, Tensor]:
    """Three records of 11 tokens, the last one shorter."""
    ids = torch.randint(VOCAB, (3, 11), generator=torch.Generator().manual_seed(3))
    real = torch.ones_like(ids, dtype=torch.bool)
    real[2, 6:] = False
    return ids, real


def remembered(name: str, made: MemoryReader, folder: Path, *, seed: int = 1, num_entries: int = 40) -> Memory:
    """Random entries."""
    makers: dict[str, Callable[[], Memory]] = {
        "cross_attention": lambda: passages(made, folder, seed, num_entries),
    }
    return makers.get(name, lambda: points(name, made, folder, seed, num_entries))()


def points(name: str, made: MemoryReader, folder: Path, seed: int, num_entries: int) -> Memory:
    rng = np.random.default_rng(seed)
    keys = rng.normal(size=(num_entries, DIM)).astype(np.float32)
    values = rng.integers(CLASSES if name == "knn_classifier" else VOCAB, size=(num_entries, 1))
    return Memory.write(folder, [(keys, values)], source=made.source, dim=DIM)


def passages(made: MemoryReader, folder: Path, seed: int, num_entries: int) -> Memory:
    rng = np.random.default_rng(seed)
    documents = [(number, rng.integers(VOCAB, size=2 * CHUNK + 1).tolist()) for number in range(num_entries // 2)]
    config: CrossAttention = made.config  # type: ignore[assignment]
    return remember_passages(documents, folder, config, vocab_size=VOCAB)
