"""Beyond the length trained on, and with less kept of it: positions and caches of small causal models of bytes.

Each model reads rows of 64 bytes of docstrings of installed packages; then rows of 256 from other packages are scored.
A rise is the perplexity of rows of 256 bytes over that of the same text in rows of 64, minus one: context that helps
makes it negative. Rotations are trained plain, and scaled without any training; then, as YaRN's paper does, with a
tenth of the steps at 256 on top, at a tenth of the rate, beside plain rotations that got the same steps. The rise of
these two is over the perplexity at 64 of plain rotations that got as many more steps at 64. Caches are fed a byte at a
time, by models that were trained on rows of 256, and compared with all keys and values in float32. Last,
generating 96 bytes with the cache of all keys and values is timed against computing all bytes anew for each.
``--quick`` trains fewer models for fewer steps. ``--only`` does one thing alone, kept in a file of its own:
``generation`` times that; ``scaling`` compares more ways to read rotations at 256 without training, with five seeds.
"""

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from benchmarks import corpora
from benchmarks.reporting import interval, options_parser, report
from training.caches import CACHES
from training.generation import generate
from training.model import ModelConfig, Transformer

SHORT, LONG = 64, 256
SEEDS, QUICK_SEEDS = (1, 2, 3), (1, 2)
BATCH_BYTES = 2048
PEAK, MORE = 3e-3, 0.1
"""Learning rate of a training, and the share of its steps and rate that one gets on top."""
CHARS = 4_000_000
TEST_ROWS, CACHE_ROWS = 96, 16
SIZE: dict[str, Any] = {"vocab_size": 256, "num_classes": 0, "dim": 64, "num_layers": 2, "num_heads": 2, "dropout": 0.0}
TRAINED = ("learned", "sinusoidal", "rope", "alibi", "relative", "none")
SCALED: dict[str, dict[str, Any]] = {
    "linear": {"scaling": "linear", "factor": 4.0},
    "ntk": {"scaling": "ntk", "factor": 4.0},
    "yarn": {"scaling": "yarn", "factor": 4.0, "original_tokens": SHORT},
}
SHORT_YARN: dict[str, Any] = SCALED["yarn"] | {"beta_fast": 2.0}
READ: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "plain": ({}, {}),
    **{name: (options, {}) for name, options in SCALED.items()},
    "yarn, beta_fast 2": (SHORT_YARN, {}),
    "yarn, beta_fast 2, factor 3": (SHORT_YARN | {"factor": 3.0}, {}),
    "plain, window 63": (
        {},
        {"attention": "local_global", "attention_options": {"window": 63, "num_global_tokens": 0}},
    ),
}
"""Ways to read what was trained plain: options of the rotations, and of the model around them.

``beta_fast`` and ``factor`` of the one by hand were chosen for 64 tokens under seeds 11, 12 and 13.
"""
SCALING_SEEDS = (1, 2, 3, 4, 5)
CACHED: dict[str, tuple[str, dict[str, Any]]] = {
    "int8": ("int8", {}),
    "window_sink 4 + 44": ("window_sink", {"num_sinks": 4, "window": 44}),
    "heavy_hitter 24 + 24": ("heavy_hitter", {"num_recent": 24, "num_heavy": 24}),
}
NEW_TOKENS = 96
PROMPTS, QUICK_PROMPTS = (32, 416), (32,)
TIMED_SEEDS = (1, 2, 3, 4, 5)
TIMED_SIZE = SIZE | {"dim": 256, "num_layers": 4, "num_heads": 4, "max_tokens": 512}


def split_text() -> tuple[Tensor, Tensor]:
    """Bytes to train on, and bytes of later files to test on."""
    texts = corpora.docstrings()[1].unique(maintain_order=True)
    chosen = texts.sample(fraction=1.0, shuffle=True, seed=0)
    joined = "\n\n".join(chosen.head(40_000)).encode()[:CHARS]
    data = torch.from_numpy(np.frombuffer(joined, dtype=np.uint8).astype(np.int64))
    cut = len(data) * 9 // 10
    return data[:cut], data[cut:]


def model_of(positions: str, options: dict[str, Any] | None = None) -> Transformer:
    """A causal model for up to 256 bytes."""
    config = ModelConfig(
        **SIZE, max_tokens=LONG, order="causal", positions=positions, position_options=options or {}, vocab_head="tied"
    )
    return Transformer(config)


def losses(model: Transformer, rows_BT: Tensor) -> Tensor:
    """Nats of each byte after the first, (B, T - 1)."""
    states = model.hidden(rows_BT, torch.ones_like(rows_BT, dtype=torch.bool))
    logits = model.token_logits(states[:, :-1])
    return F.cross_entropy(logits.flatten(0, 1).float(), rows_BT[:, 1:].flatten(), reduction="none").view(
        len(rows_BT), -1
    )


def fit(model: Transformer, steps: int, loss: Callable[[], Tensor], peak: float = PEAK) -> None:
    """AdamW, one cycle."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=peak, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, peak, total_steps=steps, pct_start=0.1)
    model.train()
    for _ in range(steps):
        torch.autograd.backward(loss())
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
    model.eval()


def train(model: Transformer, data: Tensor, num_bytes: int, steps: int, seed: int, peak: float = PEAK) -> None:
    """On rows drawn by the seed, the same for every model."""
    generator = torch.Generator().manual_seed(seed)

    def loss() -> Tensor:
        starts = torch.randint(len(data) - num_bytes, (BATCH_BYTES // num_bytes,), generator=generator)
        return losses(model, data[starts[:, None] + torch.arange(num_bytes)]).mean()

    fit(model, steps, loss, peak)


def trained_on(
    model: Transformer, data: Tensor, num_bytes: int, steps: int, seed: int, options: dict[str, Any]
) -> Transformer:
    """A copy with other options of its positions that gets some steps more, on rows of their own."""
    other = with_options(model, options)
    train(other, data, num_bytes, round(MORE * steps), 1_000 + seed, MORE * PEAK)
    return other


def with_options(model: Transformer, options: dict[str, Any], around: dict[str, Any] | None = None) -> Transformer:
    """The same weights with other options of the positions, and of the model around them."""
    other = Transformer(replace(model.config, position_options=options, **around or {})).eval()
    other.load_state_dict(model.state_dict())
    return other


@torch.no_grad()
def mean_loss(model: Transformer, rows_BT: Tensor, num_bytes: int) -> float:
    """Mean nats a byte when rows are cut to this length; each cut's first quarter has too little context to count."""
    cut = rows_BT.reshape(-1, num_bytes)
    return float(losses(model, cut)[:, SHORT // 4 :].mean())


@torch.no_grad()
def cached_loss(model: Transformer, rows_BT: Tensor, name: str, options: dict[str, Any]) -> tuple[float, int]:
    """Mean nats a byte of the last half, fed one by one; and bytes that all caches hold at the end."""
    registered = CACHES[name]
    caches = [registered.member(registered.configured(options)) for _ in range(model.config.num_layers)]
    found = []
    for place in range(rows_BT.shape[1] - 1):
        logits = model.token_logits(model.extend(rows_BT[:, place : place + 1], caches)[:, -1])
        if place >= LONG // 2:
            found.append(F.cross_entropy(logits.float(), rows_BT[:, place + 1]))
    return float(torch.stack(found).mean()), sum(cache.num_bytes for cache in caches)


def rises_of(name: str, rows_BT: Tensor, data: Tensor, steps: int, seed: int) -> tuple[float, dict[str, float]]:
    """Perplexity at 64 of one kind of positions, and the rise at 256 of all that is made of it."""
    torch.manual_seed(seed)
    model = model_of(name)
    train(model, data, SHORT, steps, seed)
    short = mean_loss(model, rows_BT, SHORT)

    def rise(one: Transformer, over: float) -> float:
        return math.exp(mean_loss(one, rows_BT, LONG) - over) - 1

    found = {name: rise(model, short)}
    if name == "rope":
        for scaling, options in SCALED.items():
            found[f"rope, {scaling}"] = rise(with_options(model, options), short)
        over = mean_loss(trained_on(model, data, SHORT, steps, seed, {}), rows_BT, SHORT)
        for scaling, options in {"": {}, "yarn, ": SCALED["yarn"]}.items():
            more = trained_on(model, data, LONG, steps, seed, options)
            found[f"rope, {scaling}{round(MORE * steps)} steps at {LONG}"] = rise(more, over)
    return math.exp(short), found


def scaling(seeds: tuple[int, ...], steps: int, train_data: Tensor, test_data: Tensor) -> dict[str, Any]:
    """Rows of 64 and of 256 by rotations trained plain on rows of 64, without any more training."""
    at_short: dict[str, list[float]] = {}
    at_long: dict[str, list[float]] = {}
    rises: dict[str, list[float]] = {}
    for seed in seeds:
        rows = test_rows(test_data, seed, LONG)
        torch.manual_seed(seed)
        model = model_of("rope")
        train(model, train_data, SHORT, steps, seed)
        over = mean_loss(model, rows, SHORT)
        for name, (options, around) in READ.items():
            one = with_options(model, options, around)
            short, long = (mean_loss(one, rows, num_bytes) for num_bytes in (SHORT, LONG))
            at_short.setdefault(name, []).append(math.exp(short))
            at_long.setdefault(name, []).append(math.exp(long))
            rises.setdefault(name, []).append(math.exp(long - over) - 1)
    print(f"\n{'trained plain, read':<30}{'at 64':>8}{'at 256':>8}   perplexity; rise over plain at 64, 95 %")
    for name, values in rises.items():
        short, long = (statistics.fmean(where[name]) for where in (at_short, at_long))
        print(f"{name:<30}{short:>8.2f}{long:>8.2f}   {spoken(values)}")
    return {
        "seeds": len(seeds),
        "steps": steps,
        "rise": {name: [round(one, 4) for one in interval(values)] for name, values in rises.items()},
        "rise_by_seed": {name: [round(one, 4) for one in values] for name, values in rises.items()},
        "perplexity_64": {name: round(statistics.fmean(values), 3) for name, values in at_short.items()},
        "perplexity_256": {name: round(statistics.fmean(values), 3) for name, values in at_long.items()},
    }


def test_rows(test_data: Tensor, seed: int, num_bytes: int) -> Tensor:
    """Rows (B, T) of the text that nothing is trained on."""
    generator = torch.Generator().manual_seed(100 + seed)
    starts = torch.randint(len(test_data) - num_bytes, (TEST_ROWS,), generator=generator)
    return test_data[starts[:, None] + torch.arange(num_bytes)]


def spoken(values: list[float]) -> str:
    """Mean and interval, in percent."""
    mean, low, high = interval(values)
    return f"{100 * mean:+7.1f} %  [{100 * low:+.1f}, {100 * high:+.1f}]"


def generation(prompts: tuple[int, ...]) -> dict[str, Any]:
    """Times as fast with a cache as without, of one record; weights are drawn, as time does not depend on them."""
    figures: dict[str, Any] = {"new_tokens": NEW_TOKENS, "seeds_timed": len(TIMED_SEEDS)}
    same = []
    print(f"\n{'prompt':>7}{'ms, none':>10}{'ms, full':>10}   times as fast, 95 %")
    for num_tokens in prompts:
        seconds: dict[str, list[float]] = {"none": [], "full": []}
        for seed in TIMED_SEEDS:
            torch.manual_seed(seed)
            config = ModelConfig(**TIMED_SIZE, order="causal", positions="rope", vocab_head="tied")
            model, prompt = Transformer(config).eval(), torch.randint(256, (1, num_tokens))
            best, written = dict.fromkeys(seconds, math.inf), {}
            for _ in range(2):
                for cache in seconds:
                    began = time.process_time()
                    written[cache] = generate(model, prompt, NEW_TOKENS, cache=cache)
                    best[cache] = min(best[cache], time.process_time() - began)
            same.append(bool((written["none"] == written["full"]).all()))
            for cache, spent in best.items():
                seconds[cache].append(spent)
        found = interval([none / full for none, full in zip(seconds["none"], seconds["full"], strict=True)])
        mean, low, high = found
        none, full = (1000 * statistics.median(seconds[cache]) for cache in ("none", "full"))
        print(f"{num_tokens:>7}{none:>10.0f}{full:>10.0f}   {mean:5.2f}  [{low:.2f}, {high:.2f}]")
        key = "cache_speedup" if num_tokens == prompts[0] else f"cache_speedup_prompt_{num_tokens}"
        figures |= {key: round(mean, 2), f"{key}_low": round(low, 2), f"{key}_high": round(high, 2)}
    return figures | {"cache_same_text": sum(same) / len(same)}


def main() -> None:
    """Train, stretch, score; then the same with less kept; then time what keeping saves."""
    parser = options_parser(__doc__ or "")
    parser.add_argument("--only", choices=("generation", "scaling"), help="do one thing alone")
    options = parser.parse_args()
    torch.set_num_threads(1)
    prompts = QUICK_PROMPTS if options.quick else PROMPTS
    if options.only == "generation":
        report("long_context_generation", options, generation(prompts), ("torch",))
        return
    seeds, steps = (QUICK_SEEDS, 40) if options.quick else (SEEDS, 400)
    train_data, test_data = split_text()
    if options.only == "scaling":
        figures = scaling(QUICK_SEEDS if options.quick else SCALING_SEEDS, steps, train_data, test_data)
        report("long_context_scaling", options, figures, ("torch",))
        return
    trained = ("learned", "rope", "alibi") if options.quick else TRAINED
    began = time.process_time()
    rises: dict[str, list[float]] = {}
    perplexity: dict[str, list[float]] = {}
    cached: dict[str, list[tuple[float, float]]] = {}
    for seed in seeds:
        rows = test_rows(test_data, seed, LONG)
        for name in trained:
            short, found = rises_of(name, rows, train_data, steps, seed)
            perplexity.setdefault(name, []).append(short)
            for variant, rise in found.items():
                rises.setdefault(variant, []).append(rise)
        torch.manual_seed(seed)
        model = model_of("rope")
        train(model, train_data, LONG, steps, seed)
        whole, whole_bytes = cached_loss(model, rows[:CACHE_ROWS], "full", {})
        for label, (cache, kept) in CACHED.items():
            loss, num_bytes = cached_loss(model, rows[:CACHE_ROWS], cache, kept)
            cached.setdefault(label, []).append((loss / whole - 1, num_bytes / whole_bytes))
        print(f"seed {seed}: {time.process_time() - began:.0f} s of CPU time")
    print(f"\ntrained on {SHORT} bytes, read at {LONG}\n{'positions':<28}{'perplexity at 64':>17}   rise at 256, 95 %")
    for name, values in rises.items():
        at_short = f"{statistics.fmean(perplexity[name]):.2f}" if name in perplexity else "as rope"
        print(f"{name:<28}{at_short:>17}   {spoken(values)}")
    print(f"\n{'cache':<24}{'bytes of full':>14}   more loss, 95 %")
    for name, pairs in cached.items():
        print(f"{name:<24}{statistics.fmean(size for _, size in pairs):>14.3f}   {spoken([one for one, _ in pairs])}")
    figures = {
        "seeds": len(seeds),
        "steps": steps,
        "rise_by_positions": {name: [round(one, 4) for one in interval(values)] for name, values in rises.items()},
        "cache_bytes": {name: round(statistics.fmean(size for _, size in pairs), 4) for name, pairs in cached.items()},
        "cache_more_loss": {
            name: [round(value, 4) for value in interval([one for one, _ in pairs])] for name, pairs in cached.items()
        },
    }
    figures |= generation(prompts)
    report("long_context", options, figures, ("torch",))


if __name__ == "__main__":
    main()
