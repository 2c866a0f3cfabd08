"""A needle in a row: which attentions learn to bring a token back over a distance, and which do not.

A row of 64 tokens of drawn filler holds one of 16 needles somewhere, and asks at its end which one. A model of two
layers with each attention is trained on rows drawn anew until it finds 99 % of all needles, checked every 50 steps, at
most for so many steps; needles stand near the question at first and anywhere from half of those steps on. Then other
rows are scored. Chance is 1 in 16. Windows and blocks are so narrow that two layers of them do not span the row: each
pattern that has something else to reach far with stands beside a control that lacks it, and that has to stay at chance.
``reached`` is the share of far places of which anything arrives at the question before training, so what the pattern
could carry. ``no curriculum`` trains one more with needles anywhere from the start. ``--keys 4`` puts four needles
into each row and asks for one of them by its key, of 8 values. ``--only NAME`` trains one member alone, kept in a file
of its own. ``--quick`` trains fewer models for fewer steps.
"""

import statistics
import time
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from benchmarks.reporting import interval, options_parser, report
from training.model import ModelConfig, Transformer

VALUES = {1: 16, 4: 8}
"""Values of a needle, by the number of keys."""
FILLERS, TOKENS, NEAR = 16, 64, 11
"""Controls reach 8 and 11 tokens: two windows of 4, or two blocks of 4 and what is left of the last."""
BATCH, TEST_ROWS, CHECK_ROWS, CHECK_EVERY = 32, 2048, 512, 50
FOUND, SOLVED = 0.99, 0.95
"""Shares of all and of far needles at which a training ends, and above which a model has solved the task."""
PEAK = 3e-3
LSH_ROUNDS = "lsh, 4 heads"
"""Every head hashes anew, so heads are what the paper calls rounds; it takes 4 and 8."""
MEMBERS: dict[str, tuple[str, dict[str, Any]]] = {
    "full": ("full", {}),
    "local_global": ("local_global", {"window": 4, "num_global_tokens": 1}),
    "local_global, window alone": ("local_global", {"window": 4, "num_global_tokens": 0}),
    "block_sparse": ("block_sparse", {"block_size": 4}),
    "block_sparse, drawn blocks": ("block_sparse", {"block_size": 4, "num_global_blocks": 0, "num_random_blocks": 4}),
    "block_sparse, beside alone": ("block_sparse", {"block_size": 4, "num_global_blocks": 0, "num_random_blocks": 0}),
    "lsh": ("lsh", {"num_buckets": 4, "window": 16}),
    LSH_ROUNDS: ("lsh", {"num_buckets": 4, "window": 16}),
    "linear": ("linear", {}),
    "linformer": ("linformer", {"num_projected": 16}),
    "linformer, no curriculum": ("linformer", {"num_projected": 16}),
}
CONTROLS = ("local_global, window alone", "block_sparse, beside alone")
NO_CURRICULUM = "linformer, no curriculum"
QUICK = ("full", "local_global", "local_global, window alone", "linear")
SEEDS, QUICK_SEEDS = (1, 2, 3), (1, 2)
STEPS, QUICK_STEPS = 1500, 400


class Task:
    """Rows with one needle for each key; a needle's token says its key and its value."""

    def __init__(self, keys: int) -> None:
        self.keys, self.values = keys, VALUES[keys]
        self.filler = keys * self.values
        self.ask = self.filler + FILLERS
        self.vocab_size = self.ask + keys

    def rows(self, count: int, generator: torch.Generator, farthest: int = TOKENS - 1) -> tuple[Tensor, Tensor, Tensor]:
        """Rows (B, T), answers (B,), and how far the one asked for lies from the question (B,)."""
        ids = torch.randint(self.filler, self.ask, (count, TOKENS), generator=generator)
        distance_BK = 1 + torch.rand(count, farthest, generator=generator).argsort(1)[:, : self.keys]
        value_BK = torch.randint(self.values, (count, self.keys), generator=generator)
        ids.scatter_(1, TOKENS - 1 - distance_BK, torch.arange(self.keys) * self.values + value_BK)
        key = torch.randint(self.keys, (count, 1), generator=generator)
        ids[:, -1] = self.ask + key[:, 0]
        return ids, value_BK.gather(1, key)[:, 0], distance_BK.gather(1, key)[:, 0]

    def answered(self, model: Transformer, ids: Tensor) -> Tensor:
        """Logits (B, values) at the question."""
        return model.token_logits(model.hidden(ids, torch.ones_like(ids, dtype=torch.bool))[:, -1])[:, : self.values]

    @torch.no_grad()
    def found(self, model: Transformer, count: int, seed: int) -> tuple[Tensor, Tensor]:
        """Whether each needle is found (B,), and whether it lies beyond ``NEAR`` (B,)."""
        ids, answer, distance = self.rows(count, torch.Generator().manual_seed(seed))
        model.eval()
        right = self.answered(model, ids).argmax(-1) == answer
        model.train()
        return right, distance > NEAR


def model_of(task: Task, name: str, seed: int) -> Transformer:
    """A model of two layers."""
    torch.manual_seed(seed)
    attention, options = MEMBERS[name]
    config = ModelConfig(
        vocab_size=task.vocab_size, num_classes=0, vocab_head="own", max_tokens=TOKENS, dim=32, num_layers=2,
        num_heads=4 if name == LSH_ROUNDS else 2, dropout=0.0, attention=attention, attention_options=options,
        positions="learned", embedding_norm="layer", feedforward_options={"hidden": 64},
    )  # fmt: skip
    return Transformer(config)


def reached(task: Task, model: Transformer, seed: int) -> float:
    """Share of the places beyond ``NEAR`` of which anything arrives at the question."""
    ids, _, _ = task.rows(32, torch.Generator().manual_seed(seed))
    embedded: list[Tensor] = []
    hook = model.tokens.register_forward_hook(lambda _, __, out: embedded.append(out))
    logits = task.answered(model, ids)
    hook.remove()
    (gradient,) = torch.autograd.grad(logits.square().sum(), embedded)
    arrives_BT = gradient.view(*ids.shape, -1).abs().sum(-1) > 0
    return float(arrives_BT[:, : TOKENS - 1 - NEAR].float().mean())


def train(task: Task, model: Transformer, steps: int, seed: int, *, curriculum: bool) -> int:
    """AdamW over one cycle, left where the needles are found; the steps it took."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK, weight_decay=0.0, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK, total_steps=steps, pct_start=0.1)
    for step in range(1, steps + 1):
        grown = min(1.0, 2 * step / steps) if curriculum else 1.0
        ids, answer, _ = task.rows(BATCH, generator, max(task.keys + 3, round(grown * (TOKENS - 1))))
        torch.autograd.backward(F.cross_entropy(task.answered(model, ids), answer))
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        if step % CHECK_EVERY == 0:
            right, far = task.found(model, CHECK_ROWS, 10_000 + seed)
            if float(right.float().mean()) >= FOUND and float(right[far].float().mean()) >= FOUND:
                return step
    return steps


def one(task: Task, name: str, steps: int, seed: int) -> dict[str, float]:
    """Train one model, and ask it."""
    began = time.process_time()
    model = model_of(task, name, seed)
    carried = reached(task, model, seed)
    taken = train(task, model, steps, seed, curriculum=name != NO_CURRICULUM)
    right, far = task.found(model, TEST_ROWS, 1000 + seed)
    return {
        "reached": carried,
        "steps": taken,
        "far": float(right[far].float().mean()),
        "near": float(right[~far].float().mean()),
        "seconds": time.process_time() - began,
    }


def main() -> None:
    """Train each, and ask."""
    parser = options_parser(__doc__ or "")
    parser.add_argument("--keys", type=int, choices=tuple(VALUES), default=1, help="needles of a row, each of its key")
    parser.add_argument("--only", choices=tuple(MEMBERS), help="train one member alone")
    options = parser.parse_args()
    torch.set_num_threads(1)
    task = Task(options.keys)
    seeds, steps = (QUICK_SEEDS, QUICK_STEPS) if options.quick else (SEEDS, STEPS)
    figures: dict[str, Any] = {
        "seeds": len(seeds), "most_steps": steps, "tokens": TOKENS, "keys": task.keys,
        "chance": round(1 / task.values, 4), "found_far": {}, "found_near": {}, "reached": {}, "steps": {},
    }  # fmt: skip
    names = [options.only] if options.only else QUICK if options.quick else tuple(MEMBERS)
    solved = []
    print(f"{'attention':<28}{'reached':>8}   found beyond {NEAR} tokens, 95 %; nearer; steps by seed; CPU s a model")
    for name in names:
        runs = [one(task, name, steps, seed) for seed in seeds]
        far = interval([run["far"] for run in runs])
        near, carried, seconds = (statistics.fmean(run[key] for run in runs) for key in ("near", "reached", "seconds"))
        taken = [round(run["steps"]) for run in runs]
        print(
            f"{name:<28}{carried:>8.2f}   {far[0]:.3f} [{far[1]:.3f}, {far[2]:.3f}]; {near:.3f}; "
            f"{', '.join(map(str, taken))}; {seconds:.1f}",
            flush=True,
        )
        figures["found_far"][name] = [round(value, 4) for value in far]
        figures["found_near"][name], figures["reached"][name] = round(near, 4), round(carried, 4)
        figures["steps"][name] = taken
        if min(run["far"] for run in runs) >= SOLVED:
            solved.append(name)
    figures["solved"] = solved
    # Three standard errors above chance, of as many far rows as there are at least.
    limit = 1 / task.values + 3 * (1 / task.values / (0.8 * TEST_ROWS)) ** 0.5
    controls = [name for name in CONTROLS if name in names]
    if controls:
        figures["controls_at_chance"] = all(figures["found_far"][name][0] <= limit for name in controls)
    parts = ["needle", *([f"{task.keys} keys"] if task.keys > 1 else []), *([options.only] if options.only else [])]
    report("_".join(parts).replace(",", "").replace(" ", "_"), options, figures, ("torch",))


if __name__ == "__main__":
    main()
