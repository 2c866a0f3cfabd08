"""A decoder and a training step with nothing around them: what a page of torch does without a trainer.

The published GPT-2 shape (Radford et al. 2019, section 2.3): learned positions, pre-norm blocks, one projection for
queries, keys and values, a feed-forward of four widths, output weights shared with the embedding. Written anew from
that description, as small training scripts such as nanoGPT are: every row full, no mask, one fused AdamW.

Shapes: B rows, T tokens, C dim, H heads, V vocabulary.
"""

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn


class PlainBlock(nn.Module):
    """One layer."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.first_norm, self.second_norm = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.up, self.down = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) to (B, T, C)."""
        q, k, v = (
            part.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for part in self.qkv(self.first_norm(x)).chunk(3, dim=-1)
        )
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(attended.transpose(1, 2).flatten(2))
        out: Tensor = x + self.down(F.gelu(self.up(self.second_norm(x))))
        return out


class PlainDecoder(nn.Module):
    """Next-token loss of full rows."""

    def __init__(self, vocab_size: int, dim: int, num_layers: int, num_heads: int, max_tokens: int) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(vocab_size, dim), nn.Embedding(max_tokens, dim)
        self.blocks = nn.ModuleList(PlainBlock(dim, num_heads) for _ in range(num_layers))
        self.norm = nn.LayerNorm(dim)
        for embedding in (self.tokens, self.positions):
            nn.init.normal_(embedding.weight, std=0.02)

    def forward(self, input_ids: Tensor, targets: Tensor) -> Tensor:
        """Mean cross entropy of (B, T) tokens against the (B, T) that follow them, in nats."""
        x = self.tokens(input_ids) + self.positions(torch.arange(input_ids.shape[1], device=input_ids.device))
        for block in self.blocks:
            x = block(x)
        logits = F.linear(self.norm(x), self.tokens.weight)
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten())
