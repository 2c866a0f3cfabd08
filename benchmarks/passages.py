"""What passages of other records are worth to a language model that a recipe trains to read them.

``cross_attention_ratio``: perplexity a token of docstrings of a package that were held out, with the memory of those
trained on, over that of an arm like it without retrieval, at equal steps. ``…_shuffled`` has the same model with a
memory whose passages are shuffled, ``…_none`` with none. A record reads neither itself nor what is nearly the same;
``cross_attention_step_time`` is the CPU time of a step over that of the plain arm. A seed has another package, other
starting weights and another held-out part.

``cross_attention_planted_ratio`` is the same for planted facts: seven digits and the letter that goes with them, which
stand in three records that are trained on each, and in records that were held out.
"""

import math
import random
import time
from dataclasses import dataclass, replace
from typing import Any, cast

import polars as pl

from benchmarks.corpora import docstrings_of
from training.data import TrainingData
from training.evaluation.held_out import held_out_loss
from training.fit import FitResult, fit
from training.recipe import TrainRecipe
from training.retrieval.memory import Memory, MemoryReader
from training.retrieval.reading import shuffled

PACKAGES = ("scipy", "sympy", "pandas")
RECIPE = """
compare: none
max_tokens: 96
objective: clm
arms:
  - {name: plain, pacing: random, batch_size: 16, learning_rate: 0.003, backbone_options: BACKBONE}
  - {name: reads, pacing: random, batch_size: 16, learning_rate: 0.003, backbone_options: BACKBONE,
     retrieval: cross_attention, retrieval_options: {chunk_tokens: 8}}
""".replace(
    "BACKBONE",
    "{order: causal, positions: rope, embedding_norm: layer, vocab_size: 1000, dim: 64, num_layers: 2, dropout: 0.0}",
)


PLANTED = """
compare: none
max_tokens: 24
objective: clm
arms:
  - {name: plain, pacing: random, batch_size: 16, learning_rate: 0.02, backbone_options: BACKBONE}
  - {name: reads, pacing: random, batch_size: 16, learning_rate: 0.02, backbone_options: BACKBONE,
     retrieval: cross_attention, retrieval_options: {chunk_tokens: 8, key_dim: 64}}
""".replace(
    "BACKBONE",
    "{order: causal, positions: alibi, embedding_norm: layer, vocab_size: 258, dim: 32, num_layers: 1, num_heads: 1, "
    "dropout: 0.0}",
)
NUM_FACTS = 400


@dataclass(frozen=True)
class ReadingSizes:
    """How much of everything."""

    seeds: tuple[int, ...] = (1, 2, 3)
    steps: int = 150
    records: int = 500
    held_out: int = 100
    planted_steps: int = 150


QUICK_READING = ReadingSizes(seeds=(1, 2), steps=20, records=200, held_out=40, planted_steps=40)


def reading_figures(sizes: ReadingSizes) -> dict[str, list[float]]:
    """Every ratio, a value a seed."""
    found: dict[str, list[float]] = {}
    for seed in sizes.seeds:
        package = PACKAGES[(seed - 1) % len(PACKAGES)]
        texts = docstrings_of(package).unique(maintain_order=True).sample(fraction=1.0, shuffle=True, seed=seed)
        train, held_out = prepared(texts.slice(sizes.held_out, sizes.records)), prepared(texts.head(sizes.held_out))
        for name, recipe, steps, parts in (
            (f"seed {seed}, {package}", RECIPE, sizes.steps, (train, held_out)),
            (f"seed {seed}, planted", PLANTED, sizes.planted_steps, planted(seed)),
        ):
            measured, described = ratios(recipe, seed, steps, *parts)
            print(f"{name}: {described}", flush=True)
            prefix = "cross_attention_planted" if recipe is PLANTED else "cross_attention"
            for key, value in measured.items():
                found.setdefault(f"{prefix}_{key}", []).append(value)
    return found


def planted(seed: int) -> tuple[TrainingData, TrainingData]:
    """Records of facts to train on, and others of the same facts."""
    rng = random.Random(seed)
    facts = [("".join(rng.choices("0123456789", k=7)), rng.choice("abcdefgh")) for _ in range(NUM_FACTS)]
    texts = [digits + 8 * letter + "".join(rng.choices("tuvwxyz", k=8)) for digits, letter in [*(3 * facts), *facts]]
    return prepared(pl.Series(texts[: 3 * NUM_FACTS])), prepared(pl.Series(texts[3 * NUM_FACTS :]))


def ratios(
    recipe: str, seed: int, steps: int, train: TrainingData, held_out: TrainingData
) -> tuple[dict[str, float], str]:
    """Perplexities and time over those of the arm without retrieval, and a line about them."""
    plain_arm, reading_arm = (
        replace(one, seed=seed, steps=steps) for one in TrainRecipe.from_yaml(recipe, name="passages").arms
    )
    plain, plain_seconds = timed(plain_arm, train)
    reads, seconds = timed(reading_arm, train)
    without = loss(plain, held_out)
    reader = cast("MemoryReader", reads.network)
    memory = cast("Memory", reader.memory)
    figures = {}
    for name, one in (("", memory), ("_shuffled", shuffled(memory, seed)), ("_none", None)):
        reader.use(one)
        figures[f"ratio{name}"] = math.exp(loss(reads, held_out) - without)
    described = (
        f"{len(train.texts)} records, {len(memory):,} passages, perplexity {math.exp(without):.2f} without retrieval: "
        + ", ".join(f"{name} {value:.3f}" for name, value in figures.items())
    )
    return figures | {"step_time": seconds / plain_seconds}, described


def prepared(texts: pl.Series) -> TrainingData:
    """Texts without labels."""
    ids = [f"{number:032x}-0" for number in range(len(texts))]
    frame = pl.DataFrame({"id": ids, "hash": [one[:32] for one in ids], "text": texts}).with_columns(
        label=pl.lit(None, dtype=pl.String), difficulty=pl.lit(0.5), weight=pl.lit(1.0)
    )
    return TrainingData.build(frame)


def timed(arm: Any, data: TrainingData) -> tuple[FitResult, float]:
    """A trained arm, and its CPU seconds."""
    began = time.process_time()
    return fit(arm, data, num_workers=0), time.process_time() - began


def loss(result: FitResult, data: TrainingData) -> float:
    """Nats a token."""
    assert result.network is not None
    found: float = held_out_loss(result.network, result.model, result.tokenizer, result.arm, data)["loss"]
    return found
