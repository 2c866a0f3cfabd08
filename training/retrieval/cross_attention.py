"""A causal language model that reads passages like the one before, with what followed them.

Shapes: B records, T tokens, M tokens of a chunk, L whole chunks of a record, K neighbours of a chunk, C dim, D numbers
of a chunk's vector, P = 2 M tokens of a passage: a chunk of the memory and the one behind it.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, cast

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from catalog.errors import ConfigError
from training.model import Transformer
from training.retrieval import RETRIEVAL
from training.retrieval.memory import Entries, Memory, MemoryReader
from training.retrieval.search import Precision, nearest_entries

PADDING = -1
"""Stands in a passage where its document had ended."""
SAME_TEXT = 0.9
"""Cosine of two texts' vectors from which on one is nearly the other: what follows in it is a copy, no knowledge."""
_MOST_SAME = 8
"""Documents of the memory that a record can be, nearly; equal ones have one number."""
_PRIMES = (1_000_003, 7_368_787, 2_147_483_647)


@dataclass(frozen=True, kw_only=True, slots=True)
class CrossAttention:
    """What is retrieved, and where it is read.

    Parameters
    ----------
    chunk_tokens : tokens of a chunk.
    num_neighbours : passages for each chunk.
    key_dim : numbers of a chunk's vector.
    layers : layers, counted from 1, behind which passages are read; none means the middle one.
    spare : further passages that are looked at where those of a record's own document do not count.
    """

    chunk_tokens: int = 16
    num_neighbours: int = 2
    key_dim: int = 256
    layers: tuple[int, ...] = ()
    spare: int = 8

    def __post_init__(self) -> None:
        if not isinstance(self.layers, list | tuple) or any(type(one) is not int for one in self.layers):
            raise ValueError(f"layers={self.layers!r} must be a list of layers, counted from 1")
        for name in ("chunk_tokens", "num_neighbours", "key_dim"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        if self.spare < 0:
            raise ValueError(f"spare={self.spare} must be 0 or more")


class PassageReader(nn.Module):
    """Attention from a chunk's successor to the chunk's passages; starts as adding nothing."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm = nn.LayerNorm(dim)
        self.query = nn.Linear(dim, dim)
        self.key_value = nn.Linear(dim, 2 * dim)
        self.output = nn.Linear(dim, dim)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def forward(self, x_XMC: Tensor, passages_XYC: Tensor, real_XY: Tensor) -> Tensor:
        """What to add to the residual stream, (X, M, C); nothing where no token of a passage is real."""
        q = torch.unflatten(self.query(self.norm(x_XMC)), -1, (self.num_heads, -1)).transpose(1, 2)
        k, v = (
            torch.unflatten(one, -1, (self.num_heads, -1)).transpose(1, 2)
            for one in self.key_value(passages_XYC).chunk(2, -1)
        )
        found = real_XY.any(1)
        # A row that may attend to nothing would be NaN.
        allowed = (real_XY | ~found[:, None])[:, None, None]
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=allowed).transpose(1, 2).flatten(2)
        read: Tensor = self.output(out) * found[:, None, None]
        return read


class PassageLanguageModel(MemoryReader):
    """The network, an encoder of passages, and readers behind some layers."""

    value_width: ClassVar[int | None] = None

    def __init__(self, model: Transformer, config: CrossAttention) -> None:
        super().__init__()
        shape = model.config
        if shape.order != "causal" or shape.vocab_head == "none":
            raise ConfigError(
                f"order={shape.order!r} with vocab_head={shape.vocab_head!r} has no next token; cross_attention needs "
                "order 'causal' and a head over tokens"
            )
        layers = config.layers or ((shape.num_layers + 1) // 2,)
        if any(not 1 <= one <= shape.num_layers for one in layers):
            raise ConfigError(f"layers={layers} must lie in [1, {shape.num_layers}], the network's layers")
        self.model, self.config = model, config
        dim = shape.dim
        self.places = nn.Parameter(torch.randn(2 * config.chunk_tokens, dim) * 0.02)
        self.encoder = nn.TransformerEncoderLayer(
            dim, shape.num_heads, 2 * dim, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.encoded_norm = nn.LayerNorm(dim)
        self.readers = nn.ModuleDict({str(one): PassageReader(dim, shape.num_heads) for one in layers})
        self._texts: tuple[Tensor, np.ndarray] | None = None

    @property
    def source(self) -> str:
        """How chunks are turned into vectors: no weight takes part, so a memory outlasts training."""
        return chunk_source(self.config, self.model.config.vocab_size)

    @property
    def key_dim(self) -> int:
        """Numbers of a chunk's vector."""
        return self.config.key_dim

    def use(self, memory: Memory | None) -> None:
        """As ``MemoryReader.use``; passages have to have this reader's length.

        Raises
        ------
        ConfigError : as there.
        """
        width = 1 + 2 * self.config.chunk_tokens
        if memory is not None and memory.values.shape[1] != width:
            raise ConfigError(
                f"the memory's values have {memory.values.shape[1]} integers and must have {width}; write it by "
                "remember_passages with this reader's config"
            )
        super().use(memory)
        self._texts = None

    def forward(self, input_ids: Tensor, attention_mask: Tensor, document_B: Tensor | None = None) -> Tensor:
        """Logarithms of the next token's probabilities, (B, T, V); those at padding mean nothing.

        Parameters
        ----------
        input_ids, attention_mask : (B, T); padding comes after a row's tokens.
        document_B : (B,) int64, the document of each record, or (B, N), several: passages of these are passed over, as
            training on what the memory holds has to.
        """
        return self.model.token_logits(self.hidden(input_ids, attention_mask, document_B)).log_softmax(-1)

    def hidden(self, input_ids: Tensor, attention_mask: Tensor, document_B: Tensor | None = None) -> Tensor:
        """States (B, T, C) of which ``forward`` makes probabilities; arguments as there."""
        passages = self.passages(input_ids, attention_mask, document_B) if self.reads else None
        if passages is None:
            return self.model.hidden(input_ids, attention_mask)
        encoded, real = self.encoded(passages)
        return self.model.hidden(
            input_ids, attention_mask, behind=lambda layer, x_BTC: self.read(layer, x_BTC, encoded, real)
        )

    def _chunks(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors (B, L, D) of chunks, and which of these are whole (B, L)."""
        size, num_chunks = self.config.chunk_tokens, input_ids.shape[1] // self.config.chunk_tokens
        chunks, real = (
            torch.unflatten(one[:, : num_chunks * size], 1, (num_chunks, size)) for one in (input_ids, attention_mask)
        )
        vectors = chunk_vectors(chunks.flatten(0, 1), self.config.key_dim)
        return torch.unflatten(vectors, 0, chunks.shape[:2]), real.all(-1)

    @torch.no_grad()
    def same_text(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor | None:
        """Documents of the memory that each record is, or nearly is, by ``SAME_TEXT``: (B, N) int64, -1 for none.

        What ``document_B`` takes, so that a record that the memory holds does not read itself; None where there is
        nothing to read.
        """
        if self.memory is None or not self.reads or input_ids.shape[1] < self.config.chunk_tokens:
            return None
        if self._texts is None:
            number, place = np.unique(self.memory.values[:, 0], return_inverse=True)
            total = torch.zeros(len(number), self.config.key_dim)
            keys = torch.from_numpy(self.memory.keys.astype("f4"))
            total.index_add_(0, torch.from_numpy(place.reshape(-1)), keys)
            self._texts = torch.from_numpy(number.astype("i8")), F.normalize(total, dim=1).numpy()
        number_N, vectors_ND = self._texts
        with torch.autocast(input_ids.device.type, enabled=False):
            vectors, whole = self._chunks(input_ids, attention_mask)
            asked = F.normalize((vectors * whole[..., None]).sum(1), dim=1)
            distance, entry = nearest_entries(asked, vectors_ND, _MOST_SAME)
        # Of vectors of length 1: the squared distance is twice what the cosine lacks.
        found = number_N.to(entry.device)[entry]
        return found.where(distance <= 2 * (1 - SAME_TEXT), -1)

    @torch.no_grad()
    def passages(self, input_ids: Tensor, attention_mask: Tensor, document_B: Tensor | None) -> Tensor | None:
        """(B, L, K, P) int64 tokens, ``PADDING`` where there are none; None where no record has a whole chunk."""
        assert self.memory is not None
        if input_ids.shape[1] < self.config.chunk_tokens:
            return None
        spare = 0 if document_B is None else self.config.spare
        # In half precision others would be the nearest.
        with torch.autocast(input_ids.device.type, enabled=False):
            vectors, whole = self._chunks(input_ids, attention_mask)
            entry = nearest_entries(vectors.flatten(0, 1), self.memory.keys, self.config.num_neighbours + spare)[1]
        found = torch.from_numpy(self.memory.values[entry.cpu().numpy()].astype("i8")).to(input_ids.device)
        found = torch.unflatten(found, 0, whole.shape)
        if document_B is not None:
            own = document_B[:, None] if document_B.ndim == 1 else document_B
            other = (found[..., 0, None] != own[:, None, None]).all(-1)
            # The other documents' first, in the order in which they were found.
            order = (~other).to(torch.int8).sort(dim=-1, stable=True).indices
            found = torch.where(other[..., None], found, PADDING).gather(2, order[..., None].expand_as(found))
        tokens = found[:, :, : self.config.num_neighbours, 1:]
        return torch.where(whole[..., None, None], tokens, PADDING)

    def encoded(self, passages_BLKP: Tensor) -> tuple[Tensor, Tensor]:
        """States of the passages' tokens, (B, L, K * P, C), and which are real."""
        real = passages_BLKP != PADDING
        x = self.model.tokens(passages_BLKP.clamp(min=0))
        if self.model.config.embedding_dim:
            x = self.model.widen(x)
        rows = (x + self.places).flatten(0, 2)
        blind = ~real.flatten(0, 2)
        # A row of padding alone looks at itself, and is not looked at.
        states = self.encoder(rows, src_key_padding_mask=blind & ~blind.all(1, keepdim=True))
        states = torch.unflatten(self.encoded_norm(states), 0, passages_BLKP.shape[:3])
        return states.flatten(2, 3), real.flatten(2, 3)

    def read(self, layer: int, x_BTC: Tensor, encoded_BLYC: Tensor, real_BLY: Tensor) -> Tensor:
        """The residual stream with what was read: from a chunk's last token on, its passages, for M tokens."""
        if str(layer) not in self.readers:
            return x_BTC
        size, (num_chunks, num_tokens) = self.config.chunk_tokens, (encoded_BLYC.shape[1], x_BTC.shape[1])
        first, wanted = size - 1, num_chunks * size
        asking = F.pad(x_BTC[:, first : first + wanted], (0, 0, 0, max(0, first + wanted - num_tokens)))
        read = self.readers[str(layer)](
            torch.unflatten(asking, 1, (num_chunks, size)).flatten(0, 1),
            encoded_BLYC.flatten(0, 1),
            real_BLY.flatten(0, 1),
        )
        read = torch.unflatten(read, 0, (len(x_BTC), num_chunks)).flatten(1, 2)[:, : num_tokens - first]
        return x_BTC + F.pad(read, (0, 0, first, num_tokens - first - read.shape[1]))


@RETRIEVAL.register("cross_attention", CrossAttention)
def cross_attention(model: nn.Module, config: CrossAttention) -> MemoryReader:
    """Chunked cross-attention to retrieved passages (Borgeaud et al. 2022, RETRO, section 2.4), small.

    Passages are found by hashed pairs of tokens in place of a frozen BERT, and encoded by one layer that does not look
    at the chunk that asks.
    """
    return PassageLanguageModel(cast("Transformer", model), config)


def chunk_vectors(chunks_XM: Tensor, key_dim: int) -> Tensor:
    """Hashed counts of tokens and of pairs of neighbours, with signs, as vectors of length 1: (X, D) float32.

    References
    ----------
    Weinberger et al. (2009), Feature Hashing for Large Scale Multitask Learning, section 2.
    """
    ids = chunks_XM.to(torch.int64) + 1
    features = torch.cat([ids, ids[:, :-1] * _PRIMES[0] + ids[:, 1:]], 1)
    mixed = (features * _PRIMES[1]) % _PRIMES[2]
    sign = ((mixed // key_dim) % 2 * 2 - 1).to(torch.float32)
    counts = sign.new_zeros(len(ids), key_dim).scatter_add_(1, mixed % key_dim, sign)
    return F.normalize(counts, dim=1)


def chunk_source(config: CrossAttention, vocab_size: int) -> str:
    """What a memory of passages says made its vectors."""
    return f"hashed pairs of {config.chunk_tokens} tokens, {config.key_dim} numbers, vocabulary of {vocab_size}"


def remember_passages(
    documents: Iterable[tuple[int, list[int]]],
    folder: Path,
    config: CrossAttention,
    *,
    vocab_size: int,
    precision: Precision = "float32",
) -> Memory:
    """A memory for ``cross_attention``: every whole chunk of the documents, with the chunk that follows.

    Parameters
    ----------
    documents : number, 0 or more, and tokens of each; the number is what ``document_B`` is compared with.
    folder, precision : of the memory.
    config, vocab_size : of the reader and its network.
    """
    return Memory.write(
        folder,
        _passages(documents, config),
        source=chunk_source(config, vocab_size),
        dim=config.key_dim,
        value_width=1 + 2 * config.chunk_tokens,
        precision=precision,
    )


def gathered_passages(documents: Iterable[tuple[int, list[int]]], config: CrossAttention, vocab_size: int) -> Memory:
    """The memory of ``remember_passages``, held in memory alone; arguments as there."""
    width = 1 + 2 * config.chunk_tokens
    parts = [(np.zeros((0, config.key_dim), "f4"), np.zeros((0, width), "i4")), *_passages(documents, config)]
    keys, values = (np.concatenate(one) for one in zip(*parts, strict=True))
    return Memory(source=chunk_source(config, vocab_size), keys=keys, values=values.astype("i4"))


def _passages(documents: Iterable[tuple[int, list[int]]], config: CrossAttention) -> Iterator[Entries]:
    size = config.chunk_tokens
    for number, tokens in documents:
        num_chunks = len(tokens) // size
        if num_chunks:
            padded = np.full((num_chunks + 1) * size, PADDING, np.int64)
            padded[: min(len(tokens), len(padded))] = tokens[: len(padded)]
            chunks = padded.reshape(-1, size)
            keys = chunk_vectors(torch.from_numpy(chunks[:-1]), config.key_dim).numpy()
            yield keys, np.concatenate([np.full((num_chunks, 1), number), chunks[:-1], chunks[1:]], 1)
