"""Full attention laid out so that hardly a pair of tokens is computed that may not meet: documents of packed rows, and
rows of very unequal length, as padded batches of like lengths each. Laid out once a forward pass, for all layers.

Shapes: B rows, T tokens of a row, X = B * T places, S slots of all groups, N documents of a group, L tokens of the
longest, H heads, D head dim.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import scaled_dot_product_attention

from training.attention import AttentionMask, Tokens, for_heads, may_attend, score_mask

_SHORTEST = 0.8
"""Of the longest document of a group; shorter ones make another group. Nearer to 1 there are more calls, nearer to 0
more padding."""
_SHORT = 32
"""Documents up to so many tokens share a group whatever their lengths: a call more costs more than their padding."""
_PAIRS_WORTH_MOVING, _SHARE_WORTH_MOVING = 2**17, 0.25
"""Pairs with padding, and their share of all, from which on rows are put beside others of their length."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """Documents that are attended to in one call.

    Parameters
    ----------
    shape : (N, L).
    is_causal : whether a token sees what came before, and that is all there is to say: padding comes behind.
    mask : what the fused kernel takes, (1 or N, 1 or H, 1 or L, L); None where all see all, or ``is_causal``.
    """

    shape: tuple[int, int]
    is_causal: bool
    mask: Tensor | None

    def attend(self, q_NHLD: Tensor, k_NGLD: Tensor, v_NGLD: Tensor) -> Tensor:
        """Softmax attention, (N, H, L, D)."""
        k_NHLD, v_NHLD = (for_heads(x, q_NHLD.shape[1]) for x in (k_NGLD, v_NGLD))
        out_NHLD: Tensor = scaled_dot_product_attention(
            q_NHLD, k_NHLD, v_NHLD, attn_mask=self.mask, is_causal=self.is_causal
        )
        return out_NHLD


@dataclass(frozen=True, kw_only=True, slots=True)
class Moves:
    """Where tokens go, and where they come back from.

    Parameters
    ----------
    place_S : (S,) int64, the place among rows of each slot's token; of an empty slot, any.
    slot_X : (X,) int64, the slot of each place's token; of padding, any.
    empty_slots, empty_places : numbers of those that hold none.
    """

    place_S: Tensor  # noqa: N815
    slot_X: Tensor  # noqa: N815
    empty_slots: Tensor
    empty_places: Tensor

    def to_slots(self, x_BHTD: Tensor) -> Tensor:
        """(S, H, D), zeros in empty slots."""
        x_XHD = x_BHTD.transpose(1, 2).flatten(0, 1)
        return _moved(x_XHD, self.place_S, self.empty_slots, self.slot_X, self.empty_places)

    def to_places(self, x_SHD: Tensor) -> Tensor:
        """(X, H, D), zeros at padding."""
        return _moved(x_SHD, self.slot_X, self.empty_places, self.place_S, self.empty_slots)


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """A forward pass's rule, laid out.

    Parameters
    ----------
    groups : together they have every token.
    moves : None where the one group is the rows as they stand.
    """

    groups: tuple[Group, ...]
    moves: Moves | None = None

    def attend(self, q_BHTD: Tensor, k_BGTD: Tensor, v_BGTD: Tensor) -> Tensor:
        """Softmax attention over what the rule allows, (B, H, T, D)."""
        if self.moves is None:
            return self.groups[0].attend(q_BHTD, k_BGTD, v_BGTD)
        out_BHTD: Tensor = _attend_apart(self, q_BHTD, k_BGTD, v_BGTD)
        return out_BHTD


def planned(mask: AttentionMask, num_heads: int) -> Plan:
    """Lay a rule out.

    Rows stay where they stand unless they hold several documents, much padding, or some that causal order does not hide
    by itself. A mask over pairs is made for a prefix or a bias alone, and then within documents.
    """
    if mask.documents_BT is not None or (not mask.all_real and (_is_worth_moving(mask) or _must_move(mask))):
        return _planned_apart(mask, num_heads)
    shape = (mask.attends_BT.shape[0], mask.attends_BT.shape[1])
    index = torch.arange(shape[1], device=mask.attends_BT.device)[None]
    is_hidden = mask.all_real or mask.order != "encoder"
    prefix = mask.prefix_BT if mask.order == "prefix" else None
    return Plan(groups=(_group(mask, shape, index, None if is_hidden else mask.attends_BT, prefix, num_heads),))


def _is_worth_moving(mask: AttentionMask) -> bool:
    """Whether padding takes part in so many pairs that bringing it out of the way is less work."""
    num_rows, num_tokens = mask.attends_BT.shape
    in_place = num_rows * num_tokens**2
    spared = in_place - int(mask.attends_BT.sum(1).square().sum())
    return spared > max(_PAIRS_WORTH_MOVING, _SHARE_WORTH_MOVING * in_place)


def _must_move(mask: AttentionMask) -> bool:
    """Whether padding stands where an order would let others see it, or a row has nothing else."""
    attends_BT = mask.attends_BT
    if mask.order == "encoder":
        return False
    is_hidden = attends_BT[:, 0].all() & (attends_BT[:, 1:] <= attends_BT[:, :-1]).all()
    if mask.order == "prefix" and mask.prefix_BT is not None:
        is_hidden &= ~(mask.prefix_BT & ~attends_BT).any()
    return not bool(is_hidden)


def _planned_apart(mask: AttentionMask, num_heads: int) -> Plan:
    """Every document, or row, without what is not attended to, beside others of about its length."""
    attends_BT, device = mask.attends_BT, mask.attends_BT.device
    place_R = attends_BT.flatten().nonzero().squeeze(-1)
    row_R = place_R // attends_BT.shape[1]
    is_first_R = row_R.diff(prepend=row_R.new_full((1,), -1)) != 0
    if mask.documents_BT is not None:
        document_R = mask.documents_BT.flatten()[place_R]
        is_first_R[1:] |= document_R.diff() != 0
    start_A = is_first_R.nonzero().squeeze(-1)
    length_A = start_A.diff(append=start_A.new_tensor([len(place_R)]))
    length_A, order_A = length_A.sort(descending=True, stable=True)
    start_A = start_A[order_A]
    ends = place_R[(start_A + length_A - 1)]
    has_holes = bool((ends - place_R[start_A] != length_A - 1).any())
    groups, places, held, first = [], [], [], 0
    for last in _ends_of_groups(length_A.tolist()):
        longest = int(length_A[first])
        offset_L = torch.arange(longest, device=device)
        real_NL = offset_L < length_A[first:last, None]
        place_NL = place_R[start_A[first:last, None] + torch.minimum(offset_L, length_A[first:last, None] - 1)]
        # An empty slot repeats the last token, and stands behind it.
        index = place_NL + offset_L * ~real_NL if has_holes else offset_L[None]
        padded = mask.order == "encoder" and int(length_A[last - 1]) < longest
        prefix = None
        if mask.order == "prefix" and mask.prefix_BT is not None:
            prefix = mask.prefix_BT.flatten()[place_NL] & real_NL
        groups.append(_group(mask, (last - first, longest), index, real_NL if padded else None, prefix, num_heads))
        places.append(place_NL.flatten())
        held.append(real_NL.flatten())
        first = last
    return Plan(groups=tuple(groups), moves=_moves(places, held, attends_BT))


def _ends_of_groups(lengths: list[int]) -> list[int]:
    """Where each group ends, of lengths in falling order."""
    ends, longest = [], lengths[0] if lengths else 0
    for number, length in enumerate(lengths):
        if length < _SHORTEST * longest and longest > _SHORT:
            ends.append(number)
            longest = length
    return [*ends, len(lengths)] if lengths else []


def _moves(places: list[Tensor], held: list[Tensor], attends_BT: Tensor) -> Moves:
    none = attends_BT.new_zeros(0)
    place_S, held_S = torch.cat([none.long(), *places]), torch.cat([none, *held])
    slots = held_S.nonzero().squeeze(-1)
    slot_X = place_S.new_zeros(attends_BT.numel()).scatter_(0, place_S[slots], slots)
    return Moves(
        place_S=place_S,
        slot_X=slot_X,
        empty_slots=(~held_S).nonzero().squeeze(-1),
        empty_places=(~attends_BT.flatten()).nonzero().squeeze(-1),
    )


def _group(
    mask: AttentionMask,
    shape: tuple[int, int],
    index: Tensor,
    real_NL: Tensor | None,
    prefix_NL: Tensor | None,
    num_heads: int,
) -> Group:
    """What the fused kernel has to be told.

    Parameters
    ----------
    index : (1 or N, L) int64, place of each token, from which distances are.
    real_NL : (N, L) bool; None where all are real, or padding comes behind all that see.
    """
    if mask.bias is None and mask.order == "causal":
        return Group(shape=shape, is_causal=True, mask=None)
    if mask.bias is None and mask.order == "encoder" and real_NL is None:
        return Group(shape=shape, is_causal=False, mask=None)
    tokens = Tokens(
        index=index[:, None],
        real=index.new_ones(index.shape, dtype=torch.bool)[:, None] if real_NL is None else real_NL[:, None],
        prefix=None if prefix_NL is None else prefix_NL[:, None],
    )
    allowed = may_attend(tokens, tokens, mask.order)
    if mask.bias is not None:
        distance = tokens.index[..., None, :] - tokens.index[..., :, None]
        allowed = score_mask(allowed, mask.bias, distance, num_heads)
    return Group(shape=shape, is_causal=False, mask=allowed)


@torch.compiler.disable  # type: ignore[untyped-decorator]
def _attend_apart(plan: Plan, q_BHTD: Tensor, k_BGTD: Tensor, v_BGTD: Tensor) -> Tensor:
    """Group by group. It is not compiled: how many groups there are changes from step to step."""
    moves = plan.moves
    assert moves is not None
    if not plan.groups:
        return v_BGTD.new_zeros(*q_BHTD.shape[:3], v_BGTD.shape[-1])
    sizes = [count * length for count, length in (group.shape for group in plan.groups)]
    parts = zip(*(torch.split(moves.to_slots(x), sizes) for x in (q_BHTD, k_BGTD, v_BGTD)), strict=True)
    done = [
        group.attend(*(torch.unflatten(x, 0, group.shape).transpose(1, 2) for x in part)).transpose(1, 2).flatten(0, 1)
        for group, part in zip(plan.groups, parts, strict=True)
    ]
    out_XHD = moves.to_places(torch.cat(done))
    return torch.unflatten(out_XHD, 0, (q_BHTD.shape[0], q_BHTD.shape[2])).transpose(1, 2)


class _Moved(torch.autograd.Function):
    """Rows in another order, each once. torch's own gradient adds them up, which on a GPU has no fixed order."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, there: Tensor, empty_there: Tensor, back: Tensor, empty_back: Tensor) -> Tensor:
        ctx.save_for_backward(back, empty_back)
        return _picked(x, there, empty_there)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return _picked(gradient, *ctx.saved_tensors), None, None, None, None


_moved: Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor] = _Moved.apply


def _picked(x: Tensor, rows: Tensor, empty: Tensor) -> Tensor:
    return x.index_select(0, rows).index_fill_(0, empty, 0)
