"""Where words and sentences stand among the tokens of a text, in any script."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from training.rows import TokenRow
from training.tokenizer import TextTokenizer

Numbers = npt.NDArray[np.int64]

_UNSPACED = r"\p{Han}\p{Hiragana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}"
"""Scripts that put no spaces between words: a character as readers see it is taken for the word."""
_WORD = rf" ?(?:[[\p{{L}}\p{{M}}\p{{N}}_'’]--[{_UNSPACED}]]+|\X)"
_SENTENCE_END = r"[.!?…]+[\"'”’)\]]*(?=\s|$)|[。！？؟।။]+[」』”’)]*|\n+"


def word_numbers(tokenizer: TextTokenizer, ids: TokenRow) -> Numbers:
    """The number of the word that each token is of, (n,) int64, rising from 0.

    A word is a run of letters, digits and marks with the space before it; in scripts without spaces, and for whatever
    is no letter, a character as readers see it (an emoji with its modifiers is one). Tokens that cut a character are of
    one word; a token that holds several words makes one of them.

    Parameters
    ----------
    tokenizer : byte-level.
    ids : (n,) token ids without special tokens.
    """
    text, starts = _decoded(tokenizer, ids)
    return _numbers(starts, [one.start() for one in _pattern(_WORD).finditer(text)], text)


def sentence_numbers(tokenizer: TextTokenizer, ids: TokenRow) -> Numbers:
    """The number of the sentence that each token is of, (n,) int64, rising from 0; arguments as of ``word_numbers``."""
    text, starts = _decoded(tokenizer, ids)
    return _numbers(starts, [0, *(one.end() for one in _pattern(_SENTENCE_END).finditer(text))], text)


def token_starts(tokenizer: TextTokenizer, ids: TokenRow) -> Numbers:
    """The byte of the text, as UTF-8, at which each token begins, and behind them where the last one ends: (n + 1,)."""
    lengths = [len(tokenizer.token_bytes[one]) for one in ids]
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).astype(np.int64)


def byte_offsets(text: str) -> Numbers:
    """The byte, as UTF-8, at which each code point begins, and behind them the length: (len(text) + 1,)."""
    if text.isascii():
        return np.arange(len(text) + 1, dtype=np.int64)
    lengths = [len(one.encode("utf-8", "surrogateescape")) for one in text]
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).astype(np.int64)


@lru_cache
def _pattern(pattern: str) -> Any:
    import regex

    return regex.compile(pattern, regex.V1)


def _decoded(tokenizer: TextTokenizer, ids: TokenRow) -> tuple[str, Numbers]:
    # A row that was cut may end within a character: its bytes stand for themselves.
    text = b"".join(tokenizer.token_bytes[one] for one in ids).decode("utf-8", "surrogateescape")
    return text, token_starts(tokenizer, ids)[:-1]


def _numbers(token_start: Numbers, part_starts: Sequence[int], text: str) -> Numbers:
    begins = np.isin(token_start, byte_offsets(text)[list(part_starts)]) if len(token_start) else np.zeros(0, bool)
    begins[:1] = True
    return np.cumsum(begins, dtype=np.int64) - 1
