"""Attention within a window, in blocks: time and memory grow with T times the window.

Shapes: B records, H heads, M heads of a rule (1 or H), N blocks, C tokens of a block, K keys of a block, S shared
(global) tokens of a row, W shared tokens that a block may see.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from training.attention import Order, ScoreBias, Tokens, head_numbers, may_attend, score_mask

_MIN_BLOCK = 32
"""Smaller blocks cost more in calls than they save in products."""
_BLOCKS_A_WINDOW = 2
"""Smaller blocks compare fewer pairs in vain, but copy every key more often."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Window:
    """A pattern: each token sees ``size`` tokens on either side, global tokens see and are seen by all.

    Parameters
    ----------
    order : which sides count.
    size : how far a token sees, in places of the row.
    shared_BT : (B, T) bool, the global tokens; None where there are none.
    """

    order: Order
    size: int
    shared_BT: Tensor | None = None  # noqa: N815


def windowed(
    q_BHTD: Tensor, k_BHTD: Tensor, v_BHTD: Tensor, tokens: Tokens, window: Window, bias: ScoreBias | None = None
) -> Tensor:
    """Softmax attention over a window and global tokens, equal to a dense mask of the same pattern.

    Parameters
    ----------
    q_BHTD, k_BHTD, v_BHTD : all (B, H, T, D).
    tokens : fields (B, 1 or H, T), in the order of the rows. ``index`` gives distances for the bias and for the order;
        the window counts places in the row.
    window : the pattern.
    bias : what positions add to scores.
    """
    num_tokens = q_BHTD.shape[2]
    size = min(max(-(-window.size // _BLOCKS_A_WINDOW), _MIN_BLOCK), num_tokens)
    extra = -num_tokens % size
    q, k, v = (F.pad(x, (0, 0, 0, extra)) if extra else x for x in (q_BHTD, k_BHTD, v_BHTD))
    padded = tokens.apply(lambda field: F.pad(field, (0, extra)) if extra else field)
    blocks = _Blocks(padded, size, window, None if window.shared_BT is None else F.pad(window.shared_BT, (0, extra)))
    out_BHTD = blocks.attend(q, k, v, bias)[:, :, :num_tokens]
    shared = blocks.shared
    if shared is None:
        return out_BHTD
    far_BHSD = blocks.attend_from_shared(shared, q, k, v, bias)
    # Slots that hold no global token go one past the end, which is cut off again.
    place_BHSD = shared.index_BS.clamp(max=num_tokens)[:, None, :, None].expand_as(far_BHSD)
    longer = F.pad(out_BHTD, (0, 0, 0, 1))
    return longer.scatter(2, place_BHSD, far_BHSD)[:, :, :num_tokens]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Shared:
    """Global tokens of each row, and which of them each block may have to do with.

    Documents stand together, so those of one block are a range of the row's: blocks of other documents stay out.
    """

    index_BS: Tensor  # noqa: N815
    slot_BNW: Tensor  # noqa: N815
    used_BNW: Tensor  # noqa: N815


class _Blocks:
    """Rows cut into blocks of queries, each with the keys it may see."""

    def __init__(self, tokens: Tokens, size: int, window: Window, shared_BT: Tensor | None) -> None:
        self.size, self.window = size, window
        self.queries = tokens.apply(lambda field: torch.unflatten(field, -1, (-1, size)))
        self.num_blocks = self.queries.real.shape[-2]
        # As many blocks before as the window reaches into; after it too, unless nobody looks forward.
        reach = min(-(-window.size // size), self.num_blocks - 1)
        self.sides = (reach, 0 if window.order == "causal" else reach)
        self.keys = tokens.apply(self._around)
        self.shared = None if shared_BT is None else _shared(tokens, shared_BT, size)
        self.shared_BT = shared_BT
        device = tokens.index.device
        place_C = torch.arange(size, device=device)
        key_K = torch.arange(-size * self.sides[0], size * (1 + self.sides[1]), device=device)
        self.near_CK = (place_C[:, None] - key_K).abs() <= window.size

    def attend(self, q_BHTD: Tensor, k_BHTD: Tensor, v_BHTD: Tensor, bias: ScoreBias | None) -> Tensor:
        """Every query to its window and to the global tokens."""
        num_records, num_heads, _, head_dim = q_BHTD.shape
        allowed = may_attend(self.queries, self.keys, self.window.order) & self.near_CK
        index = self.keys.index
        keys, values = (self._around(x, dim=2) for x in (k_BHTD, v_BHTD))
        if self.shared is not None and self.shared_BT is not None:
            far = self._facts(self.shared)
            # A global token inside the window is seen once, as a global one.
            allowed = allowed & ~self._around(self.shared_BT[:, None])[..., None, :]
            to_far = may_attend(self.queries, far, self.window.order)
            allowed = torch.cat([to_far.expand(*allowed.shape[:-1], -1), allowed], -1)
            index = torch.cat([far.index, index], -1)
            keys = torch.cat([_at(k_BHTD, self.shared), keys], -2)
            values = torch.cat([_at(v_BHTD, self.shared), values], -2)
        distance = index[..., None, :] - self.queries.index[..., :, None] if bias else allowed
        # Blocks count as records: the fused kernel takes four dimensions, and masks without copies for every head.
        q, k, v, allowed, distance = (
            x.transpose(1, 2).flatten(0, 1)
            for x in (torch.unflatten(q_BHTD, 2, (-1, self.size)), keys, values, allowed, distance)
        )
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=score_mask(allowed, bias, distance, num_heads))
        out = torch.unflatten(out, 0, (num_records, self.num_blocks)).transpose(1, 2)
        return out.reshape(num_records, num_heads, -1, head_dim)

    def attend_from_shared(
        self, shared: _Shared, q_BHTD: Tensor, k_BHTD: Tensor, v_BHTD: Tensor, bias: ScoreBias | None
    ) -> Tensor:
        """Every global token to all of its document, (B, H, S, D).

        Block by block of keys, then put together by the sums of exponentials: one token's document may be a row long,
        and another's a few tokens.
        """
        num_records, num_heads, _, head_dim = q_BHTD.shape
        far = self._facts(shared)
        allowed = may_attend(far, self.queries, self.window.order) & shared.used_BNW[:, None, :, :, None]
        q_BHNWD = _at(q_BHTD, shared)
        k_BHNCD, v_BHNCD = (torch.unflatten(x, 2, (-1, self.size)) for x in (k_BHTD, v_BHTD))
        scores = q_BHNWD @ k_BHNCD.transpose(-1, -2) / math.sqrt(head_dim)
        if bias:
            distance = self.queries.index[..., None, :] - far.index[..., :, None]
            scores = scores + bias.score(distance, head_numbers(num_heads, scores.device)[..., None])
        scores = scores.masked_fill(~allowed, -torch.inf)
        slot_BHL = shared.slot_BNW.flatten(1)[:, None].expand(-1, num_heads, -1)
        num_slots = shared.index_BS.shape[1]
        with torch.no_grad():
            highest = scores.new_full((num_records, num_heads, num_slots), -torch.inf)
            highest = highest.scatter_reduce(2, slot_BHL, scores.amax(-1).flatten(2), "amax")
            # A global token that nobody may be seen by has no highest score.
            highest = highest.clamp(min=torch.finfo(scores.dtype).min)
            highest_BHNW1 = highest.gather(2, slot_BHL).view(*scores.shape[:-1], 1)
        weight = (scores - highest_BHNW1).exp()
        parts = torch.cat([weight @ v_BHNCD, weight.sum(-1, keepdim=True)], -1).flatten(2, 3)
        total = parts.new_zeros(num_records, num_heads, num_slots, head_dim + 1)
        total = total.scatter_add(2, slot_BHL[..., None].expand_as(parts), parts)
        return total[..., :-1] / total[..., -1:].clamp(min=torch.finfo(total.dtype).tiny)

    def _around(self, x: Tensor, dim: int = -1) -> Tensor:
        """Replace T by N, K: each block with its neighbours, zeros beyond the ends."""
        dim = dim % x.ndim
        before, after = self.sides
        if not before:
            return torch.unflatten(x, dim, (-1, self.size))
        return _around(x, dim, self.size, before, after)

    def _facts(self, shared: _Shared) -> Tokens:
        """Fields (B, M, N, W) of the global tokens that each block may see."""

        def look_up(field: Tensor) -> Tensor:
            index = shared.index_BS.clamp(max=field.shape[-1] * field.shape[-2] - 1)
            picked_BMS = field.flatten(2).gather(2, index[:, None].expand(-1, field.shape[1], -1))
            slot = shared.slot_BNW.flatten(1)[:, None].expand(-1, field.shape[1], -1)
            return picked_BMS.gather(2, slot).view(*field.shape[:2], *shared.slot_BNW.shape[1:])

        facts = self.queries.apply(look_up)
        real = facts.real & shared.used_BNW[:, None]
        return Tokens(index=facts.index, real=real, document=facts.document, prefix=facts.prefix)


class _Around(torch.autograd.Function):
    """Each block with its neighbours. torch's own gradient of it would fill a tensor with zeros for every neighbour."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, dim: int, size: int, before: int, after: int) -> Tensor:
        ctx.shape = (dim, size, before, after)
        num_blocks = x.shape[dim] // size
        padded = F.pad(x, [*[0, 0] * (x.ndim - 1 - dim), size * before, size * after])
        cut = torch.unflatten(padded, dim, (-1, size))
        return torch.cat([cut.narrow(dim, start, num_blocks) for start in range(1 + before + after)], dim + 1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None, None]:
        dim, size, before, _ = ctx.shape
        parts = torch.split(gradients[0], size, dim + 1)
        num_blocks = gradients[0].shape[dim]
        # The middle part is every block's own; the others land beside it, and beyond the ends nowhere.
        total = parts[before].clone()
        for number, part in enumerate(parts):
            shift = number - before
            if shift:
                length = num_blocks - abs(shift)
                total.narrow(dim, max(shift, 0), length).add_(part.narrow(dim, max(-shift, 0), length))
        return total.flatten(dim, dim + 1), None, None, None, None


_around: Callable[[Tensor, int, int, int, int], Tensor] = _Around.apply


def _at(x_BHTD: Tensor, shared: _Shared) -> Tensor:
    """(B, H, N, W, D): the vectors of the global tokens that each block may see."""
    num_records, num_heads, num_tokens, head_dim = x_BHTD.shape
    index = shared.index_BS.clamp(max=num_tokens - 1)[:, None, :, None].expand(-1, num_heads, -1, head_dim)
    picked_BHSD = x_BHTD.gather(2, index)
    slot = shared.slot_BNW.flatten(1)[:, None, :, None].expand(-1, num_heads, -1, head_dim)
    return picked_BHSD.gather(2, slot).view(num_records, num_heads, *shared.slot_BNW.shape[1:], head_dim)


def _shared(tokens: Tokens, shared_BT: Tensor, size: int) -> _Shared | None:
    """List the global tokens of rows whose lengths are multiples of ``size``; None where there are none."""
    num_records, num_tokens = shared_BT.shape
    up_to_BT = shared_BT.cumsum(1)
    num_slots = int(up_to_BT[:, -1].max())
    if num_slots == 0:
        return None
    held, order = shared_BT.to(torch.uint8).sort(dim=1, descending=True, stable=True)
    index_BS = torch.where(held[:, :num_slots] > 0, order[:, :num_slots], num_tokens)
    num_blocks = num_tokens // size
    first_BN = up_to_BT.new_zeros(num_records, num_blocks)
    last_BN = up_to_BT[:, -1:].expand(-1, num_blocks)
    if tokens.document is not None:
        start_BT, end_BT = document_ends(tokens.document[:, 0])
        before_BT = up_to_BT - shared_BT.long()
        first_BN = before_BT.gather(1, start_BT[:, ::size])
        last_BN = up_to_BT.gather(1, end_BT[:, size - 1 :: size])
    width = max(1, int((last_BN - first_BN).max()))
    slot_BNW = first_BN[..., None] + torch.arange(width, device=shared_BT.device)
    used_BNW = slot_BNW < last_BN[..., None]
    return _Shared(index_BS=index_BS, slot_BNW=slot_BNW.clamp(max=num_slots - 1), used_BNW=used_BNW)


def document_ends(documents_BT: Tensor) -> tuple[Tensor, Tensor]:
    """First and last place of the document that each token belongs to, both (B, T) int64."""
    place_T = torch.arange(documents_BT.shape[1], device=documents_BT.device)
    changes = documents_BT[:, 1:] != documents_BT[:, :-1]
    start = F.pad(changes, (1, 0)) * place_T
    end = torch.where(F.pad(changes, (0, 1), value=True), place_T, len(place_T))
    return start.cummax(1).values, end.flip(1).cummin(1).values.flip(1)


def first_of_each(documents_BT: Tensor | None, real_BT: Tensor, count: int) -> Tensor:
    """The first ``count`` real tokens of each document, or of each row where documents are None: (B, T) bool."""
    before_BT = real_BT.cumsum(1) - real_BT.long()
    if documents_BT is not None:
        before_BT = before_BT - before_BT.gather(1, document_ends(documents_BT)[0])
    return real_BT & (before_BT < count)
