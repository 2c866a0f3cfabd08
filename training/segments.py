"""Long texts read segment by segment, each attending to what was read of the segments before.

Shapes: R rows, T tokens, S tokens of a segment, C dim.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from catalog.errors import ConfigError
from training.positions import POSITIONS

if TYPE_CHECKING:
    from training.arm import ArmConfig
    from training.backbones import Heads
    from training.backbones.small import Small
    from training.model import Transformer


def check_segments(arm: ArmConfig, heads: Heads, config: Small) -> None:
    """Refuse to read a text in segments where it would change nothing, or cannot be done.

    Raises
    ------
    ConfigError : with the setting, what it would have to be, and the remedy.
    """
    size, memory = heads.segment_tokens, heads.memory_tokens
    if size >= arm.max_tokens:
        raise ConfigError(
            f"segment_tokens={size} must be below max_tokens={arm.max_tokens}, at which texts are cut: nothing would "
            "be read in segments; raise max_tokens, or leave it out"
        )
    if memory > arm.max_tokens - size:
        raise ConfigError(
            f"memory_tokens={memory} must be at most {arm.max_tokens - size}: with max_tokens={arm.max_tokens} and "
            f"segment_tokens={size} no segment has more before it; lower it, or raise max_tokens"
        )
    for name, needed in (("attention", "full"), ("feedforward", "dense")):
        if getattr(config, name) != needed:
            raise ConfigError(
                f"segment_tokens={size} needs {name}={needed!r}, not {getattr(config, name)!r}; change it in "
                "backbone_options, or leave segment_tokens out"
            )
    if POSITIONS[config.positions].config.acts == "input":
        relative = [name for name, one in POSITIONS.load().items() if one.config.acts != "input"]
        raise ConfigError(
            f"segment_tokens={size} needs positions that count from one token to another, not {config.positions!r}; "
            f"set positions in backbone_options to one of {', '.join(sorted(relative))}"
        )
    for name in ("packing", "compile"):
        if getattr(arm, name) != "none":
            raise ConfigError(
                f"{name}={getattr(arm, name)!r} does not go with segment_tokens={size}; set it to none, or leave "
                "segment_tokens out"
            )


def states_in_segments(
    model: Transformer, input_ids: Tensor, attention_mask: Tensor, *, segment_tokens: int, memory_tokens: int
) -> Tensor:
    """States (R, T, C) as of ``Transformer.hidden``, but that tokens see no further than their segment and its memory.

    Segments of a record follow one another within the call, so nothing is carried from one batch to the next. No
    gradient flows from a segment into those before it.

    Parameters
    ----------
    input_ids, attention_mask : (R, T); padding comes after a row's tokens.
    segment_tokens : S.
    memory_tokens : tokens before a segment that each layer still sees; 0 reads every segment as a text of its own.

    References
    ----------
    Dai et al. (2019), Transformer-XL, section 3.2.
    """
    num_rows, num_tokens = input_ids.shape
    length_R = attention_mask.sum(1)
    row = torch.arange(num_rows, device=input_ids.device)
    memory: list[Tensor] = []
    parts = []
    for start in range(0, num_tokens, segment_tokens):
        goes_on = (length_R[row] > start).nonzero().squeeze(1)
        row, memory = row[goes_on], [one[goes_on] for one in memory]
        # Padding stands behind a row's last token, where causal order hides it, and such a row has no further segment.
        ids = input_ids[row, start : start + segment_tokens]
        states, seen = model.segment(ids, memory or None, max(memory_tokens, 1))
        memory = seen if memory_tokens else []
        empty = states.new_zeros(num_rows, *states.shape[1:])
        parts.append(states if len(row) == num_rows else empty.index_copy(0, row, states))
    return torch.cat(parts, 1)
