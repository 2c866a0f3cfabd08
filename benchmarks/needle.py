"""A needle in a row: which attentions bring a token back over a distance, and which do not.

A row of drawn filler holds one of 16 needles somewhere, and asks at its end which one. A model of two layers with each
attention is trained on rows drawn anew, for equally many steps; then rows are scored by how far the needle lies from
the question. Chance is 1 in 16. Windows are so narrow that two of them do not span the row: what a window alone cannot
reach is the control of those with global tokens, drawn blocks or buckets. ``--quick`` trains fewer models.
"""

import statistics
import time
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from benchmarks.reporting import arguments, interval, report
from training.model import ModelConfig, Transformer

NEEDLES, FILLERS, TOKENS, NEAR = 16, 16, 64, 8
ASK = NEEDLES + FILLERS
BATCH, TEST_ROWS, STEPS = 16, 512, 150
WINDOW = 4
MEMBERS: dict[str, tuple[str, dict[str, Any]]] = {
    "full": ("full", {}),
    "window alone": ("local_global", {"window": WINDOW, "num_global_tokens": 0}),
    "local_global": ("local_global", {"window": WINDOW, "num_global_tokens": 1}),
    "block_sparse": ("block_sparse", {"block_size": 4}),
    "lsh": ("lsh", {"num_buckets": 4, "window": 8}),
    "linear": ("linear", {}),
    "linformer": ("linformer", {"num_projected": 16}),
}
SEEDS, QUICK_SEEDS = (1, 2, 3), (1, 2)


def rows(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Rows (B, T), answers (B,), and how far the answer lies from the question (B,)."""
    ids = torch.randint(NEEDLES, ASK, (count, TOKENS), generator=generator)
    place = torch.randint(TOKENS - 1, (count,), generator=generator)
    answer = torch.randint(NEEDLES, (count,), generator=generator)
    ids[torch.arange(count), place] = answer
    ids[:, -1] = ASK
    return ids, answer, TOKENS - 1 - place


def answered(model: Transformer, ids: Tensor) -> Tensor:
    """Logits (B, V) at the question."""
    return model.token_logits(model.hidden(ids, torch.ones_like(ids, dtype=torch.bool))[:, -1])


def trained(attention: str, options: dict[str, Any], seed: int) -> Transformer:
    """A model of two layers, by AdamW."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    config = ModelConfig(
        vocab_size=ASK + 1, num_classes=0, vocab_head="own", max_tokens=TOKENS, dim=32, num_layers=2, num_heads=2,
        dropout=0.0, attention=attention, attention_options=options, positions="learned", embedding_norm="layer",
    )  # fmt: skip
    model = Transformer(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3, weight_decay=0.0, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-3, total_steps=STEPS, pct_start=0.1)
    for _ in range(STEPS):
        ids, answer, _ = rows(BATCH, generator)
        torch.autograd.backward(F.cross_entropy(answered(model, ids), answer))
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
    return model.eval()


@torch.no_grad()
def found(model: Transformer, seed: int) -> tuple[float, float]:
    """Share of needles found at most ``NEAR`` tokens from the question, and farther."""
    ids, answer, distance = rows(TEST_ROWS, torch.Generator().manual_seed(1000 + seed))
    right = (answered(model, ids).argmax(-1) == answer).float()
    near = distance <= NEAR
    return float(right[near].mean()), float(right[~near].mean())


def main() -> None:
    """Train each, and ask."""
    options = arguments(__doc__ or "")
    torch.set_num_threads(1)
    seeds = QUICK_SEEDS if options.quick else SEEDS
    figures: dict[str, Any] = {"seeds": len(seeds), "steps": STEPS, "tokens": TOKENS, "found_far": {}, "found_near": {}}
    print(f"{'attention':<14}{'s a model':>10}   found beyond {NEAR} tokens, 95 %; nearer")
    for name, (attention, given) in MEMBERS.items():
        shares, seconds = [], []
        for seed in seeds:
            began = time.process_time()
            shares.append(found(trained(attention, given, seed), seed))
            seconds.append(time.process_time() - began)
        mean, low, high = interval([far for _, far in shares])
        near = statistics.fmean(near for near, _ in shares)
        print(
            f"{name:<14}{statistics.fmean(seconds):>10.1f}   {mean:.3f} [{low:.3f}, {high:.3f}]; {near:.3f}", flush=True
        )
        figures["found_far"][name] = [round(value, 4) for value in (mean, low, high)]
        figures["found_near"][name] = round(near, 4)
    report("needle", options, figures, ("torch",))


if __name__ == "__main__":
    main()
