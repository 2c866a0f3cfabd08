"""Attention that grows with the row, against all pairs: time of forward and backward, and how far results are off.

CPU time of one thread, so that other work on the machine counts little; every member and full attention are timed in
turn within one round, and a ratio is taken within the round. Full attention is torch's fused kernel without a mask.
``--quick`` times fewer rounds and members. ``--only packed`` asks instead what packed and padded rows cost full
attention, which keeps apart what may not meet, against a dense mask of the same rule: see
``benchmarks/packed_attention.py``.
"""

import math
import statistics
import time
from typing import Any

import torch
from torch import Tensor

from benchmarks import packed_attention
from benchmarks.reporting import interval, options_parser, report
from training.attention import ATTENTION, AttentionMask, AttentionShape, Order

HEADS, HEAD_DIM, LONGEST = 4, 32, 8192
MEMBERS: dict[str, dict[str, Any]] = {
    "full": {},
    "local_global": {"window": 128, "num_global_tokens": 16},
    "block_sparse": {},
    "lsh": {},
    "linear": {},
    "linformer": {"num_projected": 128},
}
SEEDS = (1, 2, 3, 4, 5)
QUICK_SEEDS = (1, 2, 3)


def attention(name: str, num_tokens: int) -> Any:
    """A member for rows up to ``num_tokens``."""
    shape = AttentionShape(num_heads=HEADS, num_kv_heads=HEADS, head_dim=HEAD_DIM, max_tokens=num_tokens)
    return ATTENTION[name].member(shape, ATTENTION[name].configured(MEMBERS[name]))


def heads(num_tokens: int, seed: int) -> list[Tensor]:
    """Queries, keys and values of one record."""
    generator = torch.Generator().manual_seed(seed)
    shape = (1, HEADS, num_tokens, HEAD_DIM)
    return [torch.randn(shape, generator=generator).requires_grad_() for _ in range(3)]


def cpu_seconds(layer: Any, num_tokens: int, order: Order, seed: int) -> float:
    """CPU time of one forward and backward pass, after one that warms up."""
    mask = AttentionMask(attends_BT=torch.ones(1, num_tokens, dtype=torch.bool), order=order, all_real=True)
    q, k, v = heads(num_tokens, seed)
    gradient = torch.randn(q.shape, generator=torch.Generator().manual_seed(seed + 100))
    best = math.inf
    for _ in range(2):
        began = time.process_time()
        torch.autograd.grad(layer(q, k, v, mask), (q, k, v), gradient)
        best = min(best, time.process_time() - began)
    return best


def dense_error(name: str, order: Order, num_tokens: int, seed: int) -> float:
    """Largest difference to a dense mask in float64, of the result and the gradients."""
    layer = attention(name, num_tokens)
    mask = AttentionMask(attends_BT=torch.ones(1, num_tokens, dtype=torch.bool), order=order, all_real=True)
    q, k, v = heads(num_tokens, seed)
    allowed = sight(name, layer, q, k, mask)
    gradient = torch.randn(q.shape, generator=torch.Generator().manual_seed(seed))
    out = layer(q, k, v, mask)
    ours = [out, *torch.autograd.grad(out, (q, k, v), gradient)]
    q, k, v = (x.detach().double().requires_grad_() for x in (q, k, v))
    if name == "linear":
        weight = (torch.nn.functional.elu(q) + 1) @ (torch.nn.functional.elu(k) + 1).transpose(-1, -2)
        weight = weight.masked_fill(~allowed, 0)
        weight = weight / weight.sum(-1, keepdim=True)
    else:
        scores = q @ k.transpose(-1, -2) / math.sqrt(HEAD_DIM)
        weight = scores.masked_fill(~allowed, -math.inf).softmax(-1)
    out = weight @ v
    theirs = [out, *torch.autograd.grad(out, (q, k, v), gradient.double())]
    return max(float((one - other).detach().abs().max()) for one, other in zip(ours, theirs, strict=True))


def sight(name: str, layer: Any, q: Tensor, k: Tensor, mask: AttentionMask) -> Tensor:
    """The member's pattern as a matrix of all pairs."""
    place = torch.arange(q.shape[2])
    allowed = torch.ones(1, 1, len(place), len(place), dtype=torch.bool)
    if name == "local_global":
        first = place < MEMBERS[name]["num_global_tokens"]
        allowed = ((place[:, None] - place).abs() <= MEMBERS[name]["window"]) | first | first[:, None]
    elif name == "block_sparse":
        adjacent = layer.adjacency(layer.links(mask.order, q.device))
        allowed = adjacent[place[:, None] // layer.config.block_size, place // layer.config.block_size]
    elif name == "lsh":
        group = layer.groups(q, k, mask)
        same = group[..., :, None] == group[..., None, :]
        rank = same.tril().sum(-1)
        allowed = same & ((rank[..., :, None] - rank[..., None, :]).abs() <= layer.config.window)
    return allowed & (place[:, None] >= place) if mask.order == "causal" else allowed


def main() -> None:
    """Time every member at doubling lengths, and compare with dense masks."""
    parser = options_parser(__doc__ or "")
    parser.add_argument("--only", choices=("packed",), help="time packed and padded rows alone")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.only:
        report("attention_packed", options, packed_attention.figures(quick=options.quick), ("torch",))
        return
    seeds = QUICK_SEEDS if options.quick else SEEDS
    orders: tuple[Order, ...] = ("encoder",) if options.quick else ("encoder", "causal")
    lengths = (4096, LONGEST) if options.quick else (1024, 2048, 4096, LONGEST)
    names = ["full", "local_global", "linear"] if options.quick else list(MEMBERS)
    seconds: dict[tuple[str, Order, int], list[float]] = {}
    for order in orders:
        for num_tokens in lengths:
            layers = {name: attention(name, num_tokens) for name in names if order in ATTENTION[name].config.orders}
            for seed in seeds:
                for name, layer in layers.items():
                    spent = cpu_seconds(layer, num_tokens, order, seed)
                    seconds.setdefault((name, order, num_tokens), []).append(spent)
    figures: dict[str, Any] = {"seeds": len(seeds), "heads": HEADS, "head_dim": HEAD_DIM}
    print(f"{'member':<14}{'order':<9}{'tokens':>7}{'ms':>10}   times as fast as full, 95 %")
    for (name, order, num_tokens), times in seconds.items():
        ratios = [full / one for full, one in zip(seconds["full", order, num_tokens], times, strict=True)]
        mean, low, high = interval(ratios)
        milliseconds = 1000 * statistics.median(times)
        print(f"{name:<14}{order:<9}{num_tokens:>7}{milliseconds:>10.1f}   {mean:6.2f}  [{low:.2f}, {high:.2f}]")
        if num_tokens == LONGEST and name != "full":
            short = {"local_global": "local"}.get(name, name)
            key = f"{short}_speedup_{LONGEST}" + ("" if order == "encoder" else "_causal")
            figures |= {key: round(mean, 2), f"{key}_low": round(low, 2), f"{key}_high": round(high, 2)}
    growth = {}
    for (name, order, num_tokens), times in seconds.items():
        shorter = seconds.get((name, order, num_tokens // 2))
        if shorter is not None and num_tokens == LONGEST:
            ratios = [long / short for long, short in zip(times, shorter, strict=True)]
            growth[f"{name} {order}"] = round(interval(ratios)[0], 2)
    print(f"growth from {LONGEST // 2} to {LONGEST} tokens: {growth}")
    figures["growth_by_member"] = growth
    figures["growth_per_doubling"] = max(
        value for key, value in growth.items() if key.split()[0] in ("local_global", "linear")
    )
    errors = {
        f"{name} {order}": max(dense_error(name, order, 513, seed) for seed in seeds)
        for name in MEMBERS
        if name != "linformer"
        for order in orders
    }
    print(f"largest difference to a dense mask in float64, 513 tokens: { {k: f'{v:.1e}' for k, v in errors.items()} }")
    figures["max_error"] = float(f"{max(errors.values()):.2e}")
    report("attention", options, figures, ("torch",))


if __name__ == "__main__":
    main()
