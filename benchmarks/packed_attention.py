"""What packed and padded rows cost: full attention that keeps documents apart, against a dense mask of the same rule.

Run by ``python -m benchmarks.attention --only packed``. Four rows of 2,048 tokens, packed from texts of 20 to 180
tokens (100 in the mean), and 16 padded rows of 16 to 256. Time is CPU time of one thread, forward and backward, the two
in turn: of attention alone, the rule laid out (or the mask made) in each pass, and of a network of four layers of 128,
whose dense mask is made once for all layers. Memory is how much a process of its own grows by in a pass of the network.
"""

import math
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from benchmarks.reporting import interval
from training.attention import ATTENTION, AttentionMask, AttentionShape, Order, may_attend
from training.model import ModelConfig, Transformer

HEADS, HEAD_DIM, LAYERS, VOCABULARY = 4, 32, 4, 1000
ROWS: dict[str, tuple[int, int]] = {"packed": (4, 2048), "padded": (16, 256)}
SEEDS = (1, 2, 3)
QUICK_SEEDS = (1, 2)
ROUNDS = {
    ("packed", "attention"): 3,
    ("packed", "network"): 1,
    ("padded", "attention"): 6,
    ("padded", "network"): 4,
}
"""Passes whose least counts; short ones are disturbed more."""


class DenseMask(nn.Module):
    """Full attention by a matrix of all pairs, which it makes unless a layer before did."""

    def prepared(self, mask: AttentionMask) -> AttentionMask:
        """The rule with its matrix."""
        tokens = mask.tokens()
        return replace(mask, plan=may_attend(tokens, tokens, mask.order))

    def forward(self, q_BHTD: Tensor, k_BHTD: Tensor, v_BHTD: Tensor, mask: AttentionMask) -> Tensor:
        """Attend."""
        allowed: Any = mask.plan if mask.plan is not None else self.prepared(mask).plan
        out: Tensor = scaled_dot_product_attention(q_BHTD, k_BHTD, v_BHTD, attn_mask=allowed)
        return out


def rows(kind: str, seed: int) -> tuple[Tensor, Tensor | None]:
    """Which tokens are real, and of which document."""
    rng = np.random.default_rng(seed)
    num_rows, num_tokens = ROWS[kind]
    if kind == "padded":
        lengths = rng.integers(16, num_tokens + 1, num_rows)
        lengths[0] = num_tokens
        return torch.arange(num_tokens) < torch.from_numpy(lengths)[:, None], None
    documents = np.full((num_rows, num_tokens), -1)
    for row in documents:
        start = 0
        for number in range(num_tokens):
            end = start + int(rng.integers(20, 181))
            if end > num_tokens:
                break
            row[start:end] = number
            start = end
    numbered = torch.from_numpy(documents)
    return numbered >= 0, numbered


def attention_pass(
    layer: Any, kind: str, order: Order, seed: int
) -> tuple[Callable[[], None], Callable[[], list[Tensor]]]:
    """A forward and backward pass of attention alone, and one that gives the output and gradients at real tokens."""
    real, documents = rows(kind, seed)
    generator = torch.Generator().manual_seed(seed)
    shape = (*real.shape, HEADS, HEAD_DIM)
    leaves = [torch.randn(shape, generator=generator).requires_grad_() for _ in range(3)]
    gradient = torch.randn(shape, generator=generator) * real[..., None, None]

    def run() -> list[Tensor]:
        mask = AttentionMask(attends_BT=real, order=order, documents_BT=documents)
        out = layer(*(x.transpose(1, 2) for x in leaves), mask).transpose(1, 2)
        return [out.detach() * real[..., None, None], *torch.autograd.grad(out, leaves, gradient)]

    return lambda: void(run()), run


def void(_: object) -> None:
    """Forget what came of it."""


def network(name: str, order: Order) -> Transformer:
    """Four layers, ours or with a dense mask."""
    torch.manual_seed(0)
    model = Transformer(
        ModelConfig(
            vocab_size=VOCABULARY,
            num_classes=2,
            max_tokens=2048,
            dim=HEADS * HEAD_DIM,
            num_layers=LAYERS,
            num_heads=HEADS,
            dropout=0.0,
            order=order,
        )
    )
    if name == "dense":
        for block in model.blocks:
            block.attention.pattern = DenseMask()  # type: ignore[union-attr]
    return model


def network_pass(name: str, kind: str, order: Order, seed: int) -> Callable[[], None]:
    """A forward and backward pass of the whole network, without a head."""
    model = network(name, order)
    real, documents = rows(kind, seed)
    ids = torch.randint(VOCABULARY, real.shape, generator=torch.Generator().manual_seed(seed))

    def run() -> None:
        model.hidden(ids, real, documents=documents).square().mean().backward()  # type: ignore[no-untyped-call]
        model.zero_grad()

    return run


def growth_mib(name: str, kind: str, order: Order) -> float:
    """How much this process grows by over one pass; for a process of its own."""
    torch.set_num_threads(1)
    run = network_pass(name, kind, order, SEEDS[0])
    before = memory_mib("VmRSS")
    run()
    return memory_mib("VmHWM") - before


def memory_mib(field: str) -> float:
    """What Linux says of this process: ``VmRSS`` now, ``VmHWM`` at its height."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:")) / 1024


def ratios(
    make: Callable[[str, int], Callable[[], None]], seeds: tuple[int, ...], rounds: int
) -> tuple[list[float], dict[str, float]]:
    """Time of the dense mask by ours, a seed, in turn; and the least of each in milliseconds."""
    found, least = [], {"ours": math.inf, "dense": math.inf}
    for seed in seeds:
        passes = {name: make(name, seed) for name in least}
        best = dict.fromkeys(least, math.inf)
        for number in range(1 + rounds):
            for name, run in passes.items():
                began = time.process_time()
                run()
                if number:
                    best[name] = min(best[name], time.process_time() - began)
        found.append(best["dense"] / best["ours"])
        least = {name: min(one, 1000 * best[name]) for name, one in least.items()}
    return found, least


def figures(*, quick: bool) -> dict[str, Any]:
    """Time, memory and differences of all kinds of rows, printed and returned."""
    seeds = QUICK_SEEDS if quick else SEEDS
    orders: tuple[Order, ...] = ("causal",) if quick else ("encoder", "causal")
    shape = AttentionShape(num_heads=HEADS, num_kv_heads=HEADS, head_dim=HEAD_DIM, max_tokens=2048)
    layers = {"ours": ATTENTION["full"].member(shape, ATTENTION["full"].configured()), "dense": DenseMask()}
    all_figures: dict[str, Any] = {"seeds": len(seeds), "heads": HEADS, "head_dim": HEAD_DIM, "layers": LAYERS}
    for kind in ROWS:
        for order in orders:
            key = f"{kind}_{order}"
            makes: dict[str, Callable[[str, int], Callable[[], None]]] = {
                "attention": lambda name, seed: attention_pass(layers[name], kind, order, seed)[0],  # noqa: B023
                "network": lambda name, seed: network_pass(name, kind, order, seed),  # noqa: B023
            }
            for what, make in makes.items():
                found, least = ratios(make, seeds, ROUNDS[kind, what])
                mean, low, high = interval(found)
                times = f"{least['ours']:.1f} ms against {least['dense']:.1f}"
                print(f"{key:<16} {what:<10} {mean:6.2f} times as fast [{low:.2f}, {high:.2f}], {times}")
                all_figures |= {
                    f"{key}_{what}_speedup": round(mean, 2),
                    f"{key}_{what}_speedup_low": round(low, 2),
                    f"{key}_{what}_speedup_high": round(high, 2),
                }
            for name in ("ours", "dense"):
                with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as alone:
                    grown = alone.submit(growth_mib, name, kind, order).result()
                print(f"{key:<16} network    grows by {grown:.0f} MiB, {name}")
                all_figures[f"{key}_{name}_mib"] = round(grown)
    all_figures["max_error"] = float(f"{largest_difference(layers, seeds):.2e}")
    return all_figures


def largest_difference(layers: dict[str, Any], seeds: tuple[int, ...]) -> float:
    """Between the two, of outputs and gradients at real tokens."""
    worst = 0.0
    for kind in ROWS:
        for order in ("encoder", "causal"):
            for seed in seeds:
                ours, dense = (attention_pass(one, kind, order, seed)[1]() for one in layers.values())
                worst = max(worst, *(float((a - b).abs().max()) for a, b in zip(ours, dense, strict=True)))
    return worst
