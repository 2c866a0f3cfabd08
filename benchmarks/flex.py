"""flex_attention compiled by inductor on the CPU, forward only, against full attention and our plain blocks.

A window, with and without global tokens, by the rules and lists of blocks that members hand to flex. All three run in
turn within a round, one record, CPU time of one thread; ratios are taken within the round. Making the list of blocks is
timed with flex, compiling is not. Full attention is torch's fused kernel without a mask. Needs a C++ compiler; shapes
are fixed, as code for any shape does not compile on a CPU (torch 2.13).
``--quick`` times encoders with fewer seeds.
"""

import math
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from benchmarks.reporting import arguments, interval, report
from training.attention import ATTENTION, AttentionMask, AttentionShape, Order
from training.attention.flex_backend import compiled_kernel, flex, order_links, rule_of, window_links, window_rule
from training.attention.windows import first_of_each

HEADS, HEAD_DIM, TOKENS, WINDOW = 4, 32, 4096, 128
PATTERNS = {"window": 0, "local_global": 16}
SEEDS, QUICK_SEEDS = (1, 2, 3, 4, 5), (1, 2, 3)
Run = Callable[[Tensor, Tensor, Tensor], Tensor]


def runs(num_global: int, order: Order) -> dict[str, Run]:
    """Full attention, our plain blocks, and flex compiled."""
    shape = AttentionShape(num_heads=HEADS, num_kv_heads=HEADS, head_dim=HEAD_DIM, max_tokens=TOKENS)
    mask = AttentionMask(attends_BT=torch.ones(1, TOKENS, dtype=torch.bool), order=order, all_real=True)
    full = ATTENTION["full"].member(shape, ATTENTION["full"].configured({}))
    options = {"window": WINDOW, "num_global_tokens": num_global, "backend": "plain"}
    plain = ATTENTION["local_global"].member(shape, ATTENTION["local_global"].configured(options))

    def compiled(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Local and global attention as one compiled kernel: (B, H, T, D) each, and so returned."""
        tokens = mask.tokens()
        shared = first_of_each(None, mask.attends_BT, num_global) if num_global else None
        links = window_links(TOKENS, WINDOW, shared, q.device) & order_links(order, tokens)
        rules = (rule_of(tokens, order), window_rule(WINDOW, shared))
        return flex(q, k, v, rules, links, kernel=compiled_kernel(dynamic=False))

    return {
        "full": lambda q, k, v: full(q, k, v, mask),
        "plain": lambda q, k, v: plain(q, k, v, mask),
        "flex": compiled,
    }


@torch.no_grad()
def timed(members: dict[str, Run], seed: int) -> tuple[dict[str, float], float]:
    """Least CPU seconds of three passes each, and the largest difference of flex to the plain blocks."""
    generator = torch.Generator().manual_seed(seed)
    q, k, v = (torch.randn(1, HEADS, TOKENS, HEAD_DIM, generator=generator) for _ in range(3))
    error = float((members["flex"](q, k, v) - members["plain"](q, k, v)).abs().max())
    best = dict.fromkeys(members, math.inf)
    for _ in range(3):
        for name, run in members.items():
            began = time.process_time()
            run(q, k, v)
            best[name] = min(best[name], time.process_time() - began)
    return best, error


def main() -> None:
    """Time both patterns in both orders."""
    options = arguments(__doc__ or "")
    torch.set_num_threads(1)
    seeds = QUICK_SEEDS if options.quick else SEEDS
    orders: tuple[Order, ...] = ("encoder",) if options.quick else ("encoder", "causal")
    figures: dict[str, Any] = {"seeds": len(seeds), "tokens": TOKENS}
    errors = []
    print(
        f"{'pattern':<14}{'order':<9}{'ms, full':>9}{'plain':>7}{'flex':>7}   flex times as fast as full, 95 %; plain"
    )
    for order in orders:
        for pattern, num_global in PATTERNS.items():
            members = runs(num_global, order)
            rounds = [timed(members, seed) for seed in seeds]
            errors += [error for _, error in rounds]
            ratios = {name: interval([best["full"] / best[name] for best, _ in rounds]) for name in ("plain", "flex")}
            full, plain, ours = (1000 * statistics.median(best[name] for best, _ in rounds) for name in members)
            spoken = {name: f"{mean:.2f} [{low:.2f}, {high:.2f}]" for name, (mean, low, high) in ratios.items()}
            print(f"{pattern:<14}{order:<9}{full:>9.1f}{plain:>7.1f}{ours:>7.1f}   {spoken['flex']}; {spoken['plain']}")
            suffix = "" if order == "encoder" else "_causal"
            for name, values in ratios.items():
                figures[f"{name}_{pattern}_speedup_{TOKENS}{suffix}"] = [round(value, 2) for value in values]
    figures["max_error"] = float(f"{max(errors):.2e}")
    report("flex", options, figures, ("torch",))


if __name__ == "__main__":
    main()
