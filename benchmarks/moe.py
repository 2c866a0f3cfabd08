"""Many small experts against a dense layer of equal active FLOPs: held-out loss at equal steps, and what a step costs.

    python -m benchmarks.moe [--quick] [--keep]

Small causal Transformers over bytes of docstrings. The dense layer's hidden units are those of the experts a token
visits plus the gate's share, so that a token costs as many operations. Arms of a seed have the same batches, rate and
steps, and are trained in turn, step by step: ``step_time_vs_dense`` is the ratio within a seed of the median CPU
seconds of forward, backward and optimizer on one thread. ``loss_minus_dense`` is in nats a byte on held-out documents.
A third arm, in three seeds, routes without balancing. Then the layers alone, in turn: ours, the dense one, a loop over
experts in plain torch, and OLMoE's of transformers, per operation, since its experts have three matrices.
``--quick`` trains two seeds more briefly. All arms have one peak rate, which was not searched for.
"""

import statistics
import time
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from benchmarks.language import VOCABULARY, ByteText, batch, byte_text, held_out_loss, rate, update
from benchmarks.reporting import arguments, interval, report
from training.feedforward.moe_topk import GroupedExperts, MoeFeedForward, MoeTopK
from training.model import ModelConfig, Transformer
from training.upcycling import router_statistics

DIM, LAYERS, HEADS, TOKENS, BATCH = 128, 2, 4, 128, 32
EXPERTS, TOP_K, HIDDEN = 32, 4, 128
DENSE_HIDDEN = TOP_K * HIDDEN + EXPERTS // 2
"""Two matrices of C by this are as many multiplications as k experts and the gate."""
PEAK = 3e-3
ROUTED: dict[str, Any] = {"num_experts": EXPERTS, "top_k": TOP_K, "hidden": HIDDEN, "balance_weight": 0.0}
ARMS: dict[str, tuple[str, dict[str, Any]]] = {
    "dense": ("dense", {"hidden": DENSE_HIDDEN}),
    "experts": ("moe_topk", ROUTED | {"balancing": "bias"}),
    "unbalanced": ("moe_topk", ROUTED),
}
MATURE = 20
"""Steps before times count."""


@dataclass(frozen=True)
class Trained:
    """What one arm came to under one seed."""

    loss: float
    seconds: list[float]
    max_load: float
    idle: float


def train(names: list[str], num_steps: int, seed: int, text: ByteText) -> dict[str, Trained]:
    """Train the arms in turn, a step of each."""
    models, optimizers = {}, {}
    for name in names:
        torch.manual_seed(seed)
        models[name] = model(name)
        optimizers[name] = torch.optim.AdamW(models[name].parameters(), lr=PEAK, weight_decay=0.01, fused=True)
    generator = torch.Generator().manual_seed(seed)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for step in range(num_steps):
        inputs, labels = batch(text.train, BATCH, TOKENS, generator)
        for name in names:
            optimizers[name].param_groups[0]["lr"] = rate(step, num_steps, PEAK)
            began = time.process_time()
            update(models[name], optimizers[name], inputs, labels)
            seconds[name].append(time.process_time() - began)
    return {name: measured(models[name], seconds[name][MATURE:], text.held_out) for name in names}


def model(name: str) -> Transformer:
    """An arm with fresh weights."""
    feedforward, options = ARMS[name]
    return Transformer(
        ModelConfig(
            vocab_size=VOCABULARY,
            num_classes=0,
            max_tokens=TOKENS,
            dim=DIM,
            num_layers=LAYERS,
            num_heads=HEADS,
            dropout=0.0,
            order="causal",
            positions="rope",
            vocab_head="tied",
            feedforward=feedforward,
            feedforward_options=options,
        )
    )


def measured(trained: Transformer, seconds: list[float], held_out: Tensor) -> Trained:
    """Held-out loss, and the worst layer's load over all held-out tokens."""
    loss = held_out_loss(trained, held_out, TOKENS)
    trained.hidden(held_out[: 64 * TOKENS].view(64, TOKENS), torch.ones(64, TOKENS, dtype=torch.bool))
    routed = router_statistics(trained)
    loads = [value for key, value in routed.items() if key.endswith("/max_load")]
    idle = [value for key, value in routed.items() if key.endswith("/idle")]
    return Trained(loss=loss, seconds=seconds, max_load=max(loads, default=1.0), idle=max(idle, default=0.0))


class LoopedMoe(nn.Module):
    """Experts one after the other over the tokens that chose them, as plain torch code is written."""

    def __init__(self, layer: MoeFeedForward) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x_NC: Tensor) -> Tensor:
        """(N, C) to (N, C)."""
        weight_NK, expert_NK = F.linear(x_NC, self.layer.gate.weight).softmax(-1).topk(TOP_K, dim=-1)
        weight_NK = weight_NK / weight_NK.sum(-1, keepdim=True)
        out_NC = torch.zeros_like(x_NC)
        experts = cast("GroupedExperts", self.layer.experts)
        for expert in range(EXPERTS):
            token, place = torch.where(expert_NK == expert)
            hidden = F.gelu(x_NC[token] @ experts.up_ECH[expert])
            out = hidden @ experts.down_EHC[expert] * weight_NK[token, place, None]
            out_NC = out_NC.index_add(0, token, out)
        return out_NC


class Olmoe(nn.Module):
    """The layer of transformers' OLMoE, from a config alone."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        from transformers import OlmoeConfig
        from transformers.models.olmoe.modeling_olmoe import OlmoeSparseMoeBlock

        config = OlmoeConfig(
            hidden_size=DIM,
            intermediate_size=hidden,
            num_experts=EXPERTS,
            num_experts_per_tok=TOP_K,
            norm_topk_prob=True,
        )
        config._experts_implementation = "grouped_mm"
        made: Any = OlmoeSparseMoeBlock
        self.block: nn.Module = made(config)
        for parameter in self.block.parameters():
            nn.init.normal_(parameter, std=0.05)

    def forward(self, x_NC: Tensor) -> Tensor:
        """(N, C) to (N, C)."""
        out_NC: Tensor = self.block(x_NC[None])[0]
        return out_NC


def layer_seconds(rounds: int) -> dict[str, list[float]]:
    """CPU seconds of forward and backward of each layer alone, best of 3 a round, the layers in turn."""
    torch.manual_seed(0)
    ours = MoeFeedForward(DIM, MoeTopK(**ROUTED, z_weight=0.0))
    hidden = 88
    layers = {
        "ours": ours,
        "dense": nn.Sequential(nn.Linear(DIM, DENSE_HIDDEN), nn.GELU(), nn.Linear(DENSE_HIDDEN, DIM)),
        "loop": LoopedMoe(ours),
        "olmoe": Olmoe(hidden),
    }
    x, gradient = torch.randn(2, BATCH * TOKENS, DIM).unbind()
    seconds: dict[str, list[float]] = {name: [] for name in layers}
    for number in range(rounds + 1):
        for name, layer in layers.items():
            spent = min(layer_pass(layer, x, gradient) for _ in range(3))
            if number:
                seconds[name].append(spent / (3 * hidden / (2 * HIDDEN) if name == "olmoe" else 1))
    return seconds


def layer_pass(layer: nn.Module, x: Tensor, gradient: Tensor) -> float:
    """One pass with the gradients of the input and all weights."""
    began = time.process_time()
    torch.autograd.backward(layer(x.clone().requires_grad_()), gradient)
    spent = time.process_time() - began
    layer.zero_grad()
    return spent


def main() -> None:
    """Train all arms, then time layers."""
    options = arguments(__doc__ or "")
    torch.set_num_threads(1)
    seeds, num_steps, rounds = ((1, 2), 30, 3) if options.quick else ((1, 2, 3, 4, 5), 200, 10)
    num_held_out = 40_000 if options.quick else 200_000
    names = ["dense", "experts"] if options.quick else list(ARMS)
    found: dict[str, list[Trained]] = {name: [] for name in names}
    for seed in seeds:
        text = byte_text(4_000_000, num_held_out, seed)
        for name, one in train(names if seed in seeds[:3] else names[:2], num_steps, seed, text).items():
            found[name].append(one)
            milliseconds = 1000 * statistics.median(one.seconds)
            print(
                f"seed {seed} {name:<11} loss {one.loss:.4f}, step {milliseconds:6.1f} ms, busiest expert "
                f"{one.max_load:.2f} times the mean, idle {one.idle:.2f}",
                flush=True,
            )
    figures: dict[str, Any] = {"seeds": len(seeds), "steps": num_steps}
    pairs = list(zip(found["experts"], found["dense"], strict=True))
    ratios = [statistics.median(one.seconds) / statistics.median(other.seconds) for one, other in pairs]
    figures |= with_interval("step_time_vs_dense", ratios, 3)
    figures |= with_interval("loss_minus_dense", [one.loss - other.loss for one, other in pairs], 4)
    for name in names[1:]:
        figures |= with_interval(f"max_load_{name}", [one.max_load for one in found[name]], 2)
        figures[f"idle_{name}"] = round(max(one.idle for one in found[name]), 3)
    seconds = layer_seconds(rounds)
    for name in ("dense", "loop", "olmoe"):
        ratios = [one / other for one, other in zip(seconds["ours"], seconds[name], strict=True)]
        figures |= with_interval(f"layer_time_vs_{name}", ratios, 3)
    report("moe", options, figures, ("torch", "transformers"))


def with_interval(name: str, values: list[float], digits: int) -> dict[str, float]:
    """A figure with its 95 % interval."""
    mean, low, high = (round(value, digits) for value in interval(values))
    print(f"{name}: {mean} [{low}, {high}]")
    return {name: mean, f"{name}_low": low, f"{name}_high": high}


if __name__ == "__main__":
    main()
