"""A long text in segments: what it saves to remember what the layers read of the segment before (Transformer-XL).

Small causal models of bytes are trained on segments of 64 of the same texts in the same order, with and without a
memory of 64 bytes; then other texts of 512 are read by each with and without. Scored are the segments behind the first
two. A memory of 64 reaches back 128 in two layers; whoever is read without one knows nothing at a segment's start, so
that its first eighth is told apart. ``--quick`` trains for fewer steps.
"""

import statistics
import time
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from benchmarks.long_context import BATCH_BYTES, SHORT, fit, model_of, split_text, spoken, test_rows
from benchmarks.reporting import arguments, interval, report
from training.model import Transformer

POSITIONS = ("rope",)
TEXT_BYTES = 512
SEEDS, QUICK_SEEDS = (1, 2, 3), (1, 2)
STEPS, QUICK_STEPS = 400, 60


def segment_losses(model: Transformer, rows_BT: Tensor, memory_tokens: int) -> Tensor:
    """Nats of each byte after the first, (B, T - 1), read in segments of 64; 0 remembers nothing."""
    memory, found = None, []
    for start in range(0, rows_BT.shape[1] - 1, SHORT):
        states, kept = model.segment(rows_BT[:, start : start + SHORT], memory, max(memory_tokens, 1))
        memory = kept if memory_tokens else None
        logits = model.token_logits(states)
        targets = rows_BT[:, start + 1 : start + SHORT + 1]
        found.append(F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none").view_as(targets))
    return torch.cat(found, 1)


def train_segments(model: Transformer, data: Tensor, steps: int, seed: int, memory_tokens: int) -> None:
    """On as many texts as a batch has rows, a segment a step, in the order of the text."""
    starts = torch.randint(
        len(data) - steps * SHORT - 1, (BATCH_BYTES // SHORT,), generator=torch.Generator().manual_seed(seed)
    )
    memory: list[Tensor] | None = None
    places = iter(range(0, steps * SHORT, SHORT))

    def loss() -> Tensor:
        nonlocal memory
        rows = data[starts[:, None] + next(places) + torch.arange(SHORT + 1)]
        states, kept = model.segment(rows[:, :-1], memory, max(memory_tokens, 1))
        memory = kept if memory_tokens else None
        return F.cross_entropy(model.token_logits(states).flatten(0, 1), rows[:, 1:].flatten())

    fit(model, steps, loss)


@torch.no_grad()
def remembered(model: Transformer, rows_BT: Tensor, memory_tokens: int) -> tuple[float, float]:
    """Mean nats a byte behind the first two segments, and of the first eighth of each of these segments."""
    loss = torch.unflatten(segment_losses(model, rows_BT, memory_tokens), 1, (-1, SHORT))[:, 2:]
    return float(loss.mean()), float(loss[..., : SHORT // 8].mean())


def measured(seeds: tuple[int, ...], steps: int, train_data: Tensor, test_data: Tensor) -> dict[str, Any]:
    """Held-out loss in segments of 64 by models trained with and without memory, read with and without."""
    found: dict[str, list[tuple[float, float]]] = {}
    seconds: dict[str, list[float]] = {}
    for seed in seeds:
        rows = test_rows(test_data, seed, TEXT_BYTES + 1)
        for positions in POSITIONS:
            for trained in (0, SHORT):
                torch.manual_seed(seed)
                model = model_of(positions)
                began = time.process_time()
                train_segments(model, train_data, steps, seed, trained)
                seconds.setdefault(f"{positions}, trained with {trained}", []).append(time.process_time() - began)
                for read in (0, SHORT):
                    name = f"{positions}, trained with {trained}, read with {read}"
                    found.setdefault(name, []).append(remembered(model, rows, read))
    print(f"\n{'bytes remembered':<44}{'nats a byte':>12}{'first 8':>9}   less than without any, 95 %")
    saved: dict[str, list[float]] = {}
    for name, values in found.items():
        plain = found[f"{name.split(',')[0]}, trained with 0, read with 0"]
        less = [1 - one / other for (one, _), (other, _) in zip(values, plain, strict=True)]
        saved[name] = [round(one, 4) for one in interval(less)] if values is not plain else [0.0, 0.0, 0.0]
        whole, early = (statistics.fmean(column) for column in zip(*values, strict=True))
        spelled = spoken(less) if values is not plain else "-"
        print(f"{name:<44}{whole:>12.3f}{early:>9.3f}   {spelled}")
    times = [
        with_ / without
        for positions in POSITIONS
        for with_, without in zip(
            seconds[f"{positions}, trained with {SHORT}"], seconds[f"{positions}, trained with 0"], strict=True
        )
    ]
    print(f"a training with memory takes {statistics.fmean(times):.2f} times as long")
    return {
        "seeds": len(seeds),
        "steps": steps,
        "loss": {name: round(statistics.fmean(one for one, _ in values), 4) for name, values in found.items()},
        "loss_first_8": {name: round(statistics.fmean(one for _, one in values), 4) for name, values in found.items()},
        "less_loss": saved,
        "training_time_ratio": round(statistics.fmean(times), 3),
    }


def main() -> None:
    """Train, read, compare."""
    options = arguments(__doc__ or "")
    torch.set_num_threads(1)
    seeds, steps = (QUICK_SEEDS, QUICK_STEPS) if options.quick else (SEEDS, STEPS)
    report("segments", options, measured(seeds, steps, *split_text()), ("torch",))


if __name__ == "__main__":
    main()
