"""The last tokens are kept, and the first ones."""

from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from training.caches import CACHES, GrowingCache, Kept, Stored, in_order, joined, size_in_bytes

Numbering = Literal["text", "cache"]


@dataclass(frozen=True, kw_only=True)
class WindowSink:
    """What is kept.

    Parameters
    ----------
    window : tokens seen before a token.
    num_sinks : first tokens of the text, which are never dropped.
    numbering : positions count in the ``text``, or among what the ``cache`` keeps: the latter never outgrows the model,
        so that generation may go on for ever.
    """

    window: int = 128
    num_sinks: int = 4
    numbering: Numbering = "text"

    def __post_init__(self) -> None:
        if self.window < 1:
            raise ValueError(f"window={self.window} must be at least 1")
        if self.num_sinks < 0:
            raise ValueError(f"num_sinks={self.num_sinks} must be 0 or more")
        if self.numbering not in get_args(Numbering):
            raise ValueError(f"numbering={self.numbering!r} must be one of {', '.join(get_args(Numbering))}")


@CACHES.register("window_sink", WindowSink)
class WindowSinkCache(GrowingCache):
    """A window and attention sinks (Xiao et al. 2023, StreamingLLM, section 3.2).

    With ``numbering`` text it is what causal ``local_global`` attention sees, and stands for one of equal numbers.
    """

    def __init__(self, config: WindowSink) -> None:
        super().__init__()
        self.config = config
        self.capacity = config.num_sinks + config.window + 1
        self.renumbers = config.numbering == "cache"
        # Renumbered positions differ from query to query once something was dropped between.
        self.one_by_one = self.renumbers
        self.stored: Stored | None = None
        self.kept_K: Tensor | None = None

    @property
    def num_bytes(self) -> int:
        """Size of what is kept."""
        return size_in_bytes(*(self.stored or ()))

    def stands_for(self, attention: str, options: Any) -> bool:
        """Full attention, whose sight it cuts; or local and global attention of the same sight."""
        if attention == "local_global":
            same = (options.window, options.num_global_tokens) == (self.config.window, self.config.num_sinks)
            return same and not self.renumbers
        return attention == "full"

    def extend(self, stored: Stored, *, sees_ahead: bool) -> Kept:
        """Keep the new tokens, and drop what the next one will not see."""
        first = self.num_seen == 0
        query_S = self.number(stored[0].shape[2], stored[0].device)
        everything = joined(self.stored, stored)
        key_K = query_S if self.kept_K is None else torch.cat([self.kept_K, query_S])
        near_SK = (query_S[:, None] - key_K <= self.config.window) | (key_K < self.config.num_sinks)
        kept = Kept(
            stored=everything,
            query_position=(self._renumbered(len(query_S), len(key_K), query_S) if self.renumbers else query_S)[None],
            key_position=(torch.arange(len(key_K), device=key_K.device) if self.renumbers else key_K)[None],
            allowed=in_order(query_S, key_K, first=first, sees_ahead=sees_ahead) & near_SK,
        )
        stays_K = (key_K < self.config.num_sinks) | (key_K > self.num_seen - 1 - self.config.window)
        index = stays_K.nonzero().squeeze(-1)
        self.stored = (everything[0].index_select(2, index), everything[1].index_select(2, index))
        self.kept_K = key_K[index]
        return kept

    @staticmethod
    def _renumbered(num_new: int, num_kept: int, like: Tensor) -> Tensor:
        return torch.arange(num_kept - num_new, num_kept, device=like.device)
