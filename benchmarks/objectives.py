"""Is telling replaced tokens worth more than finding hidden ones? A linear probe after equally many operations.

    python -m benchmarks.objectives [--quick] [--keep] [--data FOLDER] [--steps N]

A small encoder is trained from nothing on bytes, without labels, by each objective: MLM with 15, 30 and 40 % hidden,
with whole words and with spans of words hidden, and RTD with 15 and 30 %. All have the same texts, order, batch size
and learning rate schedule, and equally many floating-point operations, generator and head over the vocabulary counted:
an objective that costs more per step gets fewer steps. Then the encoder is frozen, and a logistic regression on the
mean of a layer's states, standardised, says which class a text is of, on texts that nothing was trained on. Which
layer, the embeddings among them, is chosen for every model alike on texts of their own. ``untrained`` are starting
weights alone: features drawn at random.

Planted: eight grammars over 24 letters, each letter followed by one of two others of its grammar's four times in five,
with a space after every six. All letters are equally frequent in all of them, so a text's grammar shows only in what
follows what. ``--data`` names a folder with ``ag_news_test``: news instead, in 1,024 tokens, and their sections.

``rtd_minus_mlm_probe_points`` is the mean over seeds of the probe's accuracy after RTD less that after MLM with 15 %,
in points, with a 95 % interval by Student's t. ``discriminator`` says whether RTD's model learnt what it was asked: its
AUROC on held-out texts (50 is chance), the share of tokens that were replaced, and the generator's loss. Settings were
looked at under a seed that is not used here. ``--quick`` trains a tenth as long, and RTD and MLM with 15 % alone.
"""

import statistics
import time
from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import polars as pl
import torch

from benchmarks.reporting import interval, options_parser, report
from training.arm import ArmConfig
from training.backbones import BACKBONES, Heads
from training.data import TrainingData
from training.fit import FitResult, fit
from training.model import Transformer, masked_mean
from training.objectives import Corpus, Records, objective_of
from training.objectives.rtd import Replaced

BACKBONE: dict[str, Any] = {
    "vocab_size": 258,
    "dim": 64,
    "num_layers": 2,
    # Positions that tell before from behind, which alibi in an encoder does not.
    "positions": "relative",
    "embedding_norm": "layer",
    "feedforward_options": {"hidden": 128},
}
NEWS_VOCABULARY = 1024
LEARNING_RATE = 3e-3
MLM, RTD, UNTRAINED = "mlm 15 %", "rtd", "untrained"
ARMS: dict[str, tuple[str, dict[str, Any]]] = {
    RTD: ("rtd", {"generator_share": 0.25, "mask_share": 0.85, "weight": 50.0}),
    MLM: ("mlm", {}),
    "rtd 30 %": ("rtd", {"generator_share": 0.25, "mask_share": 0.85, "masking_options": {"rate": 0.3}}),
    "mlm 30 %": ("mlm", {"masking_options": {"rate": 0.3}}),
    "mlm 40 %": ("mlm", {"masking_options": {"rate": 0.4}}),
    "mlm words": ("mlm", {"masking": "whole_word"}),
    "mlm spans": ("mlm", {"masking": "span"}),
}
SEEDS = (1, 2, 3)
STEPS, QUICK_STEPS = 600, 60
"""Of MLM with 15 %; who costs more gets fewer."""
NUM_TRAIN, NUM_PROBE = 6000, 1500
"""Texts to train on without labels; texts that the probe is trained on, and as many that it is measured on."""
NUM_TOLD = 500
"""Texts that RTD's model is asked about."""
GRAMMARS, LETTERS, SURE, WORD, WORDS = 8, 24, 0.8, 6, 7
MAX_TOKENS = 1 + WORDS * (WORD + 1)


@dataclass(frozen=True, eq=False)
class Texts:
    """Texts to train on without labels, and labelled ones for the probe."""

    data: TrainingData
    probe_texts: list[str]
    probe_codes: np.ndarray
    vocab_size: int


def planted(seed: int) -> pl.DataFrame:
    """Texts of eight grammars that are told apart only by what follows what."""
    rng = np.random.default_rng(seed)
    following = np.full((GRAMMARS, LETTERS, LETTERS), (1 - SURE) / LETTERS)
    for table in following:
        for _ in range(2):
            # A sum of permutations leaves all letters equally frequent.
            table[np.arange(LETTERS), rng.permutation(LETTERS)] += SURE / 2
    cumulated = following.cumsum(-1)
    count = NUM_TRAIN + 2 * NUM_PROBE
    grammar, letters = rng.integers(0, GRAMMARS, count), [rng.integers(0, LETTERS, count)]
    for _ in range(WORD * WORDS - 1):
        behind = (cumulated[grammar, letters[-1]] < rng.random(count)[:, None]).sum(-1)
        letters.append(behind.clip(max=LETTERS - 1))
    spelt = ["".join(chr(ord("a") + one) for one in row) for row in np.stack(letters, 1)]
    texts = [" ".join(row[at : at + WORD] for at in range(0, len(row), WORD)) for row in spelt]
    return pl.DataFrame({"text": texts, "label": grammar.astype(str)})


def read_news(folder: Path) -> pl.DataFrame:
    """News with their section."""
    path = folder / "ag_news_test" / "test.csv"
    frame = pl.read_csv(path, has_header=False, new_columns=["label", "title", "text"], infer_schema=False)
    return frame.select(text=pl.col("title") + ". " + pl.col("text"), label="label")


def split(rows: pl.DataFrame, seed: int, vocab_size: int = 258) -> Texts:
    """Distinct texts, of which some are kept for the probe."""
    rows = rows.unique("text", maintain_order=True)
    rows = rows[np.random.default_rng(seed).permutation(rows.height)]
    probe, train = rows.head(2 * NUM_PROBE), rows.tail(-2 * NUM_PROBE).head(NUM_TRAIN)
    ids = [f"{number:06}" for number in range(train.height)]
    frame = train.select("text").with_columns(
        id=pl.Series(ids), hash=pl.Series(ids), label=pl.lit(None, pl.String), difficulty=0.0, weight=1.0
    )
    codes = probe["label"].rank("dense").to_numpy() - 1
    return Texts(TrainingData.build(frame), probe["text"].to_list(), codes, vocab_size)


def arm(name: str, steps: int, seed: int, vocab_size: int) -> ArmConfig:
    """An arm of the comparison."""
    objective, options = ARMS[name]
    return ArmConfig(
        name=name,
        backbone_options=BACKBONE | {"vocab_size": vocab_size},
        pacing="random",
        objective=objective,
        objective_options=options,
        steps=steps,
        batch_size=32,
        learning_rate=LEARNING_RATE,
        max_tokens=MAX_TOKENS,
        seed=seed,
        checkpoint_every=10**6,
    )


def trained(name: str, texts: Texts, steps: int, seed: int) -> FitResult:
    """Train as many steps as cost what ``steps`` of MLM with 15 % cost."""
    reference, own = (fit(arm(one, 1, seed, texts.vocab_size), texts.data).flops for one in (MLM, name))
    return fit(arm(name, round(steps * reference / own), seed, texts.vocab_size), texts.data)


def untrained(result: FitResult) -> Transformer:
    """A network of the same shape, as it starts."""
    registered = BACKBONES["small"]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(result.arm.seed)
        made = registered.member.build(
            vocab_size=result.tokenizer.vocab_size,
            heads=Heads(tokens=True),
            max_tokens=result.arm.max_tokens,
            config=registered.configured(result.arm.backbone_options),
        )
    return cast("Transformer", made.eval())


@torch.no_grad()
def features(model: Transformer, result: FitResult, texts: list[str]) -> list[np.ndarray]:
    """Mean of each text's states, (texts, C): of what enters the first block, behind each block, and normalised."""
    found: list[list[torch.Tensor]] = []
    for start in range(0, len(texts), 250):
        ids, mask = result.encode(texts[start : start + 250])
        layers = [masked_mean(model.embedded(ids, torch.arange(ids.shape[1]).expand_as(ids)), mask)]

        def keep(_: int, x_BTC: torch.Tensor, mask: torch.Tensor = mask, into: list[Any] = layers) -> torch.Tensor:
            into.append(masked_mean(x_BTC, mask))
            return x_BTC

        last = masked_mean(model.hidden(ids, mask, behind=keep), mask)
        found.append([*layers, last])
    return [torch.cat(parts).numpy() for parts in zip(*found, strict=True)]


def probe(layers: list[np.ndarray], codes: np.ndarray) -> tuple[float, int]:
    """Accuracy of a logistic regression on one layer, in points, and which: the best on a sixth of the texts.

    It is trained on the texts before these, a third, and measured on the half behind them.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    end, half = len(codes) // 3, len(codes) // 2
    scores = []
    for x in layers:
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=300)).fit(x[:end], codes[:end])
        scores.append(
            [100 * float(model.score(x[part], codes[part])) for part in (slice(end, half), slice(half, None))]
        )
    layer = max(range(len(scores)), key=lambda one: scores[one][0])
    return scores[layer][1], layer


@torch.no_grad()
def discriminator(result: FitResult, texts: list[str]) -> dict[str, float]:
    """How well RTD's model tells replaced tokens of texts that it was not trained on."""
    from sklearn.metrics import roc_auc_score

    rows = list(range(len(texts)))
    ids = result.tokenizer.token_ids(texts, result.arm.max_tokens)
    frame = pl.DataFrame({"id": [f"{row:06}" for row in rows], "text": texts}).with_columns(
        hash="id", label=pl.lit(None, pl.String), difficulty=0.0, weight=1.0
    )
    corpus = Corpus(
        data=TrainingData.build(frame), tokenizer=result.tokenizer, max_tokens=result.arm.max_tokens, packed=False,
        seed=result.arm.seed, total_steps=result.steps,
    )  # fmt: skip
    objective = objective_of(result.arm)
    batch = objective.batch(Records(corpus=corpus, step=0, rows=rows, ids=[np.asarray(one) for one in ids]))
    told = cast("Replaced", result.network).tell_replaced(batch.tensors)
    return {
        "auroc": 100 * float(roc_auc_score(told.replaced_RT[batch.tensors["told"]].numpy(), told.score_M.numpy())),
        "replaced_share": float(told.replaced_RT[batch.tensors["told"]].float().mean()),
        "generator_loss": float(told.found_N.mean()),
    }


@dataclass(frozen=True)
class Found:
    """What one seed gave, by arm: points of the probe, the layer that was chosen, operations."""

    points: dict[str, float]
    layers: dict[str, int]
    flops: dict[str, int]
    told: dict[str, float]


def seed_scores(rows: pl.DataFrame, names: list[str], steps: int, seed: int, vocab_size: int) -> Found:
    """Train and probe every arm under one seed."""
    texts = split(rows, seed, vocab_size)
    found = Found({}, {}, {}, {})
    for name in names:
        began = time.process_time()
        result = trained(name, texts, steps, seed)
        models = {name: cast("Transformer", result.model)}
        if UNTRAINED not in found.points:
            models[UNTRAINED] = untrained(result)
        for one, model in models.items():
            layers = features(model, result, texts.probe_texts)
            found.points[one], found.layers[one] = probe(layers, texts.probe_codes)
        if name == RTD:
            found.told.update(discriminator(result, texts.probe_texts[:NUM_TOLD]))
            print(f"seed {seed}  {found.told}")
        found.flops[name] = result.flops
        loss = statistics.fmean(loss for _, loss in result.losses[-20:])
        print(f"seed {seed}  {name:12} {result.steps:5} steps  {result.flops:.2e} operations  loss {loss:7.3f}  "
              f"{found.points[name]:5.1f} points  layer {found.layers[name]}  {time.process_time() - began:5.1f} s",
              flush=True)  # fmt: skip
    return found


def summary(found: list[Found], names: list[str], steps: int) -> dict[str, Any]:
    """Print means and intervals over seeds, and give them back as the last line has them."""
    print(f"\n{'':12} points               more than mlm 15 %")
    table = {}
    for name in [UNTRAINED, *names]:
        mean, low, high = interval([one.points[name] for one in found])
        more, least, most = interval([one.points[name] - one.points[MLM] for one in found])
        table[name] = [round(one, 2) for one in (mean, low, high, more, least, most)]
        print(f"{name:12} {mean:5.1f} [{low:5.1f}, {high:5.1f}]  {more:+5.1f} [{least:+5.1f}, {most:+5.1f}]")
    return {
        "rtd_minus_mlm_probe_points": table[RTD][3],
        "rtd_minus_mlm_interval": table[RTD][4:],
        "flops_ratio": round(statistics.fmean(one.flops[RTD] / one.flops[MLM] for one in found), 3),
        "seeds": len(found),
        "steps": steps,
        # Points, and points more than MLM with 15 %, each with its interval.
        "arms": table,
        "layers": {name: [one.layers[name] for one in found] for name in table},
        "discriminator": {
            name: [round(value, 3) for value in interval([one.told[name] for one in found])] for name in found[0].told
        },
    }


def main() -> None:
    """Train every arm under every seed, and probe."""
    parser = options_parser(__doc__ or "")
    parser.add_argument("--data", type=Path, help="folder with ag_news_test: news instead of planted texts")
    parser.add_argument("--steps", type=int, help=f"of MLM with 15 %%; {STEPS}, or {QUICK_STEPS} with --quick")
    options: Namespace = parser.parse_args()
    torch.set_num_threads(1)
    names = [RTD, MLM] if options.quick else list(ARMS)
    steps = options.steps or (QUICK_STEPS if options.quick else STEPS)
    vocab_size = NEWS_VOCABULARY if options.data else 258
    found = [
        seed_scores(read_news(options.data) if options.data else planted(seed), names, steps, seed, vocab_size)
        for seed in SEEDS
    ]
    report("objectives", options, summary(found, names, steps), ("torch", "tokenizers", "scikit-learn"))


if __name__ == "__main__":
    main()
