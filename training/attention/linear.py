"""Attention whose cost grows with the number of tokens: a kernel instead of a softmax.

Shapes: N chunks, C tokens of a chunk, V = D + 1 (values and a one, which sums the weights); the rest as in
``training.attention``.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from training.attention import (
    ATTENTION,
    Acts,
    AttentionMask,
    AttentionOptions,
    AttentionShape,
    for_heads,
)


@dataclass(frozen=True, kw_only=True)
class Linear(AttentionOptions):
    """How it is computed; no option changes the result beyond rounding.

    Parameters
    ----------
    chunk_size : tokens that are compared pairwise in causal order, and in packed rows.
    """

    # A score is a product of features: nothing can be added to it, and a rotation would not stay one.
    positions: ClassVar[frozenset[Acts]] = frozenset({"input", "nothing"})
    chunk_size: int = 64

    def __post_init__(self) -> None:
        if self.chunk_size < 1:
            raise ValueError(f"chunk_size={self.chunk_size} must be at least 1")


@ATTENTION.register("linear", Linear)
class LinearAttention(nn.Module):
    """Weights elu(q) + 1 times elu(k) + 1, normalised, in place of the softmax (Katharopoulos et al. 2020, section 3).

    Chunked in causal order as Hua et al. (2022), section 3.3: within a chunk pair by pair, before it by the running sum
    of keys times values. It has one backend: products of matrices, on every device.
    """

    def __init__(self, shape: AttentionShape, config: Linear) -> None:  # noqa: ARG002
        super().__init__()
        self.config = config

    def forward(self, q_BHTD: Tensor, k_BGTD: Tensor, v_BGTD: Tensor, mask: AttentionMask) -> Tensor:
        """Attend with the kernel's weights."""
        kind = v_BGTD.dtype
        with torch.autocast(q_BHTD.device.type, enabled=False):
            # Sums over a whole row: bfloat16 would stop adding after a few hundred tokens.
            q_BHTD = F.elu(q_BHTD.float()) + 1
            k_BGTD = (F.elu(k_BGTD.float()) + 1) * mask.attends_BT[:, None, :, None]
            v_BGTV = F.pad(v_BGTD.float(), (0, 1), value=1)
            k, v = (for_heads(x, q_BHTD.shape[1]) for x in (k_BGTD, v_BGTV))
            if mask.order == "encoder" and mask.documents_BT is None:
                out = q_BHTD @ (k.transpose(-1, -2) @ v)
            else:
                out = self._running(q_BHTD, k, v, mask.documents_BT, strict=False)
                ahead = self._ahead(k, mask)
                if ahead is not None:
                    documents = None if mask.documents_BT is None else mask.documents_BT.flip(1)
                    out = out + self._running(q_BHTD.flip(2), ahead.flip(2), v.flip(2), documents, strict=True).flip(2)
            # Without any key the weights sum to zero, and so do the values.
            return (out[..., :-1] / out[..., -1:].clamp(min=torch.finfo(out.dtype).tiny)).to(kind)

    @staticmethod
    def _ahead(k_BHTD: Tensor, mask: AttentionMask) -> Tensor | None:
        """Features of the keys that are seen from before: none, those of the prefix, or all."""
        if mask.order == "causal":
            return None
        return (
            k_BHTD if mask.prefix_BT is None or mask.order == "encoder" else k_BHTD * mask.prefix_BT[:, None, :, None]
        )

    def _running(
        self, q_BHTD: Tensor, k_BHTD: Tensor, v_BHTV: Tensor, documents_BT: Tensor | None, *, strict: bool
    ) -> Tensor:
        """Sum of weights times values over the document's earlier tokens, and over the token itself unless strict."""
        num_tokens = q_BHTD.shape[2]
        size = min(self.config.chunk_size, num_tokens)
        extra = -num_tokens % size
        q, k, v = (torch.unflatten(F.pad(x, (0, 0, 0, extra)), 2, (-1, size)) for x in (q_BHTD, k_BHTD, v_BHTV))
        earlier_CC = torch.ones(size, size, dtype=torch.bool, device=q.device).tril(-1 if strict else 0)
        if documents_BT is None:
            sums = k.transpose(-1, -2) @ v
            before = F.pad(sums, (0, 0, 0, 0, 1, 0))[:, :, :-1].cumsum(2)
            within = (q @ k.transpose(-1, -2)).masked_fill(~earlier_CC, 0) @ v
            return (within + q @ before).flatten(2, 3)[:, :, :num_tokens]
        ends = documents_BT[:, -1:].expand(-1, extra)
        document_BNC = torch.unflatten(torch.cat([documents_BT, ends], 1), 1, (-1, size))
        same_BNCC = document_BNC[..., :, None] == document_BNC[..., None, :]
        within = (q @ k.transpose(-1, -2)).masked_fill(~(earlier_CC & same_BNCC)[:, None], 0) @ v
        last_BN = document_BNC[..., -1]
        # What a chunk hands on is its last document's alone, together with what came before of the same.
        sums = (k * (document_BNC == last_BN[..., None])[:, None, :, :, None]).transpose(-1, -2) @ v
        continues_BNC = document_BNC == F.pad(last_BN, (1, -1))[..., None]
        continues_BNC[:, 0] = False
        goes_on_BN = continues_BNC.all(-1)
        states, state = [torch.zeros_like(sums[:, :, 0])], torch.zeros_like(sums[:, :, 0])
        for chunk in range(sums.shape[2] - 1):
            state = state * goes_on_BN[:, chunk, None, None, None] + sums[:, :, chunk]
            states.append(state)
        before = (q * continues_BNC[:, None, ..., None]) @ torch.stack(states, 2)
        return (within + before).flatten(2, 3)[:, :, :num_tokens]
