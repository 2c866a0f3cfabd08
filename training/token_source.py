"""Where the token ids of records come from while a run trains."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from training.arm import ArmConfig
from training.data import TrainingData
from training.token_shards import TokenShards
from training.tokenizer import TextTokenizer


class TokenSource:
    """Token ids by row number: from shards, from memory where lengths are needed before, or made when asked for."""

    def __init__(self, arm: ArmConfig, data: TrainingData, tokenizer: TextTokenizer, token_dir: Path | None) -> None:
        self.tokenizer, self._texts, self._max_tokens = tokenizer, data.texts, arm.max_tokens
        self.lengths: npt.NDArray[np.int64] | None = None
        self.rows: Callable[[list[int]], Sequence[Any]] = self._tokenized
        if token_dir is not None:
            shards = TokenShards.open(token_dir, data.texts, tokenizer, arm.max_tokens)
            self.rows, self.lengths = shards.rows, shards.lengths
        elif arm.length_window > 1:
            ids = tokenizer.token_ids(data.texts, arm.max_tokens)
            self.rows = lambda rows: [ids[row] for row in rows]
            self.lengths = np.array([len(one) for one in ids], dtype=np.int64)

    def _tokenized(self, rows: list[int]) -> Sequence[Any]:
        return self.tokenizer.token_ids([self._texts[row] for row in rows], self._max_tokens)
