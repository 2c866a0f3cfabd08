"""Training a language model that reads passages of the other training records: what ``retrieval: cross_attention`` is.

Shapes: B records, T tokens, C dim.
"""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import cast

import numpy as np
from torch import Tensor, nn

from catalog.errors import DataError
from training.arm import ArmConfig
from training.model import Transformer
from training.objectives import IGNORED, Corpus, Losses
from training.objectives.clm import CausalLanguage, CausalLanguageModel
from training.remembering import MAX_MEMORY_BYTES, MEMORY
from training.retrieval import RETRIEVAL
from training.retrieval.cross_attention import (
    CrossAttention,
    PassageLanguageModel,
    gathered_passages,
    remember_passages,
)
from training.retrieval.memory import Memory
from training.token_targets import record_means, token_loss
from training.tokenizer import TextTokenizer

log = logging.getLogger(__name__)
_AT_A_TIME = 1024


class ReadingLanguageModel(CausalLanguageModel):
    """Cross entropy of every token given those before it and passages like the chunk before (RETRO, section 2).

    Passages are of all records that are trained on but the one that asks and those that are nearly the same. The
    memory follows from texts and tokenizer, so that a resumed run has the same.
    """

    def __init__(self, config: CrossAttention) -> None:
        super().__init__(CausalLanguage())
        self.reading = config

    def network(self, model: nn.Module) -> nn.Module:
        """The model, with an encoder of passages and readers behind some of its layers."""
        return PassageLanguageModel(cast("Transformer", model), self.reading)

    def begin(self, network: nn.Module, corpus: Corpus) -> None:
        """Remember what is trained on.

        Raises
        ------
        DataError : no text has a whole chunk.
        """
        documents = documents_of(corpus.tokenizer, corpus.data.texts, corpus.max_tokens, self.reading)
        reader = cast("PassageLanguageModel", network)
        memory = gathered_passages(documents, self.reading, corpus.tokenizer.vocab_size)
        _check_not_empty(memory, self.reading)
        reader.use(memory)

    def losses(self, network: nn.Module, tensors: dict[str, Tensor], *, each: bool) -> Losses:
        """One term, over tokens; without a memory, the model's own."""
        reader, labels_BT = cast("PassageLanguageModel", network), tensors["labels"]
        asked = tensors["input_ids"], tensors["attention_mask"]
        hidden_BTC = reader.hidden(*asked, reader.same_text(*asked))
        total, each_N = token_loss(reader.model, hidden_BTC, labels_BT)
        return Losses((total,), record_means(each_N, labels_BT != IGNORED, tensors) if each else None)


def reading_config(arm: ArmConfig) -> CrossAttention:
    """What an arm with ``retrieval: cross_attention`` reads, and where.

    Raises
    ------
    ConfigError : an option is unknown, or out of range.
    """
    options = {name: one for name, one in arm.retrieval_options.items() if name != MEMORY}
    config: CrossAttention = RETRIEVAL["cross_attention"].configured(options)
    return config


def documents_of(
    tokenizer: TextTokenizer, texts: Sequence[str], max_tokens: int, config: CrossAttention
) -> Iterator[tuple[int, list[int]]]:
    """Texts as ``remember_passages`` takes them, numbered by the first that is equal, until a memory is full."""
    entry_bytes = 4 * config.key_dim + 4 * (1 + 2 * config.chunk_tokens)
    number: dict[tuple[int, ...], int] = {}
    room = MAX_MEMORY_BYTES // entry_bytes
    for start in range(0, len(texts), _AT_A_TIME):
        for row, ids in enumerate(tokenizer.token_ids(texts[start : start + _AT_A_TIME], max_tokens), start):
            room -= len(ids) // config.chunk_tokens
            if room < 0:
                log.warning("the memory is full: it holds %d of %d records", row, len(texts))
                return
            yield number.setdefault(tuple(ids), row), ids


def remember_texts(
    tokenizer: TextTokenizer, texts: Sequence[str], max_tokens: int, config: CrossAttention, folder: Path
) -> Memory:
    """Write the memory that a model reads which is trained on these texts.

    Raises
    ------
    DataError : no text has a whole chunk. ConflictError : the folder exists.
    """
    documents = documents_of(tokenizer, texts, max_tokens, config)
    memory = remember_passages(documents, folder, config, vocab_size=tokenizer.vocab_size)
    _check_not_empty(memory, config)
    return memory


def shuffled(memory: Memory, seed: int) -> Memory:
    """The same vectors, each with another entry's passage: what a passage is worth that says nothing."""
    values = memory.values.copy()
    # Numbers stay, by which a record's own document is known.
    values[:, 1:] = values[np.random.default_rng(seed).permutation(len(values)), 1:]
    return Memory(source=memory.source, keys=memory.keys, values=values)


def _check_not_empty(memory: Memory, config: CrossAttention) -> None:
    if not len(memory):
        raise DataError(
            f"no text has chunk_tokens={config.chunk_tokens} tokens: there is nothing to remember; lower it in "
            "retrieval_options, or train on longer texts"
        )
