"""Text to token ids and back: byte-level BPE trained on the records, or any tokenizer of the ``tokenizers`` library."""

import json
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from catalog.errors import ConfigError, DataError

PAD, START = "[PAD]", "[START]"
_BYTES = 256
_ONE_AT_A_TIME = threading.Lock()
"""The library changes a tokenizer to set its truncation, and refuses to while another thread uses it."""


class Encoded(NamedTuple):
    """A padded batch: ``input_ids`` (B, T) int64 and ``attention_mask`` (B, T) bool, True at real tokens."""

    input_ids: Tensor
    attention_mask: Tensor


@dataclass(frozen=True)
class TextTokenizer:
    """A trained tokenizer, as the JSON document that fully describes it.

    Parameters
    ----------
    document : JSON of the ``tokenizers`` library. Its padding and truncation settings are ignored.
    """

    document: str

    @cached_property
    def _tokenizer(self) -> Any:
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_str(self.document)
        tokenizer.no_padding()
        # A record that spells "[PAD]" gets these characters, not the special token.
        tokenizer.encode_special_tokens = True
        return tokenizer

    @property
    def vocab_size(self) -> int:
        """Entries of the vocabulary, special tokens included."""
        return int(self._tokenizer.get_vocab_size())

    @cached_property
    def pad_id(self) -> int:
        """The id that fills short rows."""
        return int(self._tokenizer.token_to_id(PAD))

    def token_id(self, token: str) -> int:
        """The id of a token that the vocabulary has."""
        found = self._tokenizer.token_to_id(token)
        assert found is not None, token
        return int(found)

    @cached_property
    def ordinary_ids(self) -> npt.NDArray[np.int64]:
        """Ids of what texts are made of: all but the special tokens, rising."""
        special = {number for number, one in self._tokenizer.get_added_tokens_decoder().items() if one.special}
        return np.array([one for one in range(self.vocab_size) if one not in special], dtype=np.int64)

    @cached_property
    def token_bytes(self) -> list[bytes]:
        """What each token spells as UTF-8, by id; nothing for special tokens.

        Raises
        ------
        ConfigError : the vocabulary is not one of bytes, so that its tokens do not spell the text.
        """
        if (json.loads(self.document).get("decoder") or {}).get("type") != "ByteLevel":
            raise ConfigError(
                "the tokenizer is not byte-level, and its tokens do not spell the text; use backbone small"
            )
        spelled = [b""] * self.vocab_size
        byte_of = _bytes_by_letter()
        for number in self.ordinary_ids.tolist():
            spelled[number] = bytes(byte_of[letter] for letter in self._tokenizer.id_to_token(number))
        return spelled

    def with_special(self, tokens: Sequence[str]) -> Self:
        """The same with more special tokens, behind the rest of the vocabulary; those it has stay where they are."""
        from tokenizers import Tokenizer

        if all(self._tokenizer.token_to_id(one) is not None for one in tokens):
            return self
        tokenizer = Tokenizer.from_str(self.document)
        tokenizer.add_special_tokens(list(tokens))
        return type(self)(_sorted_document(tokenizer))

    def encode(self, texts: Sequence[str], max_tokens: int) -> Encoded:
        """Tokenize, cut to ``max_tokens`` and pad to the longest of the batch; raises as ``token_ids`` does."""
        return padded(self.token_ids(texts, max_tokens), self.pad_id)

    def token_ids(self, texts: Sequence[str], max_tokens: int) -> list[list[int]]:
        """Tokenize and cut to ``max_tokens``.

        A start token is always there, so that even an empty text has one real token.

        Raises
        ------
        DataError : a text is null or holds a lone surrogate, which is no Unicode text.
        """
        try:
            with _ONE_AT_A_TIME:
                self._tokenizer.enable_truncation(max_tokens)
                encodings = self._tokenizer.encode_batch_fast(list(texts))
        except (TypeError, UnicodeEncodeError) as error:
            raise DataError(f"a text is null or no Unicode text ({error}); clean the version first") from error
        return [one.ids for one in encodings]

    def decode(self, input_ids: Sequence[int]) -> str:
        """The text of token ids, special tokens left out."""
        return str(self._tokenizer.decode(list(input_ids)))


def padded(rows: Sequence[Sequence[int] | npt.NDArray[np.integer[Any]]], pad_id: int) -> Encoded:
    """Pad token ids to the longest row, which has at least one."""
    lengths = np.array([len(row) for row in rows])
    real = np.arange(lengths.max()) < lengths[:, None]
    input_ids = np.full(real.shape, pad_id, dtype=np.int64)
    # Row by row, left to right: the order in which the mask is walked.
    input_ids[real] = np.concatenate(rows)
    return Encoded(torch.from_numpy(input_ids), torch.from_numpy(real))


def train_tokenizer(texts: Iterable[str], *, vocab_size: int = 8000) -> TextTokenizer:
    """Learn a byte-level BPE vocabulary: every Unicode text survives a round trip, none needs an unknown token.

    The order of the texts does not matter: only word counts do, and ties are broken by the library by token.

    Parameters
    ----------
    texts : the training texts.
    vocab_size : upper limit of the vocabulary; at least 258 (all bytes, padding and start).

    Raises
    ------
    ValueError : the vocabulary is too small to hold every byte.

    References
    ----------
    Sennrich et al. (2016); byte-level as in Radford et al. (2019), section 2.2.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    if vocab_size < _BYTES + 2:
        raise ValueError(f"vocab_size={vocab_size} must be at least {_BYTES + 2}: all bytes, {PAD} and {START}")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        special_tokens=[PAD, START],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{START} $A", special_tokens=[(START, 1)])
    return TextTokenizer(_sorted_document(tokenizer))


def _bytes_by_letter() -> dict[str, int]:
    """The byte that each letter of a byte-level vocabulary stands for (Radford et al. 2019)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [one for one in range(_BYTES) if one not in set(printable)]
    return {chr(one): one for one in printable} | {chr(_BYTES + place): one for place, one in enumerate(others)}


def _sorted_document(tokenizer: Any) -> str:
    # Keys sorted: the library writes its vocabulary in id order, but promises nothing about the rest.
    return json.dumps(json.loads(tokenizer.to_str()), ensure_ascii=False, sort_keys=True)
