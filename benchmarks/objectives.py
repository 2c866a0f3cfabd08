"""Is telling replaced tokens worth more than finding hidden ones? A linear probe after equally many operations.

    python -m benchmarks.objectives [--quick] [--keep] [--texts planted | --data FOLDER] [--steps N]

A small encoder is trained from nothing, without labels, by each objective. All have the same texts and order, and
equally many floating-point operations, generator and head over the vocabulary counted: an objective that costs more per
step gets fewer steps. Then the encoder is frozen, and a logistic regression on the mean of a layer's states,
standardised, says which class a text is of, on texts that nothing was trained on. Which layer, the embeddings among
them, is chosen for every model alike on texts of their own. ``untrained`` are starting weights alone: features drawn at
random.

Docstrings of the standard library and of eleven packages, their names blotted out, say what they are about by their
words: 16,384 tokens, so that MLM's head over the vocabulary is most of what it costs, and RTD with tokens drawn of the
training texts (``generator: successors``) has none. Rates and batch sizes were chosen for both objectives on twelve
other packages, and ``rtd`` among the two ways of telling on seeds 1 to 3; all of these are not used here. ``mlm 15 %,
batches of 8`` has the batch size that was best for it, ``rtd, texts' means`` tells by ``text``, ``rtd, a network`` has
a generator that is trained.

``--texts planted``: eight grammars over 24 letters, each letter followed by one of two others of its grammar's four
times in five, with a space after every six. All letters are equally frequent in all of them, so a text's grammar shows
only in what follows what. Bytes; RTD has the paper's generator. ``--data`` names a folder with ``ag_news_test``: news
and their sections, in 1,024 tokens, by the same arms.

``rtd_minus_mlm_probe_points`` is the mean over seeds of the probe's accuracy after RTD less that after MLM with 15 %,
in points, with a 95 % interval by Student's t. ``discriminator`` says whether RTD's model learnt what it was asked: its
AUROC on held-out texts (50 is chance), the share of tokens that were replaced, and the generator's loss, if there is
one. ``--quick`` trains a twentieth as long, RTD and MLM with 15 % alone, under two seeds, with fewer texts.
"""

import statistics
import time
from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import polars as pl
import torch

from benchmarks.probe_texts import WORD, WORDS, docstrings, planted, read_news
from benchmarks.reporting import interval, options_parser, report
from training.arm import ArmConfig
from training.backbones import BACKBONES, Heads
from training.data import TrainingData
from training.fit import FitResult, fit
from training.model import Transformer, masked_mean
from training.objectives import Corpus, Records, objective_of
from training.objectives.rtd import Replaced

MLM, RTD, UNTRAINED = "mlm 15 %", "rtd", "untrained"
NUM_PROBE = 1500
"""Texts that the probe is trained on, and as many that it is measured on."""
NUM_TOLD = 500
"""Texts that RTD's model is asked about."""


@dataclass(frozen=True)
class Learns:
    """An objective, its options, and how it is trained."""

    objective: str
    options: dict[str, Any] = field(default_factory=dict)
    batch_size: int = 32
    learning_rate: float = 3e-3
    embedding_std: float = 0.02


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Texts of a kind, the network for them, and what is compared.

    Parameters
    ----------
    rows : texts and their class, of a seed.
    steps : of MLM with 15 %; who costs more gets fewer.
    num_train : texts at most to train on without labels.
    seeds : of the texts' order, of starting weights and of all that is drawn.
    """

    rows: Callable[[int], pl.DataFrame]
    backbone: dict[str, Any]
    max_tokens: int
    steps: int
    num_train: int
    arms: dict[str, Learns]
    seeds: tuple[int, ...]


def _hides(rate: float) -> dict[str, Any]:
    return {"masking_options": {"rate": rate}}


FREE = {"generator": "successors"} | _hides(0.3)
NETWORK = {"generator_share": 0.25, "mask_share": 0.85}
WORDS_ARMS = {
    RTD: Learns("rtd", FREE),
    MLM: Learns("mlm", learning_rate=6e-3),
    "mlm 15 %, batches of 8": Learns("mlm", batch_size=8),
    "mlm 30 %": Learns("mlm", _hides(0.3), learning_rate=6e-3),
    "rtd, texts' means": Learns("rtd", FREE | {"tells": "text"}, learning_rate=6e-3, embedding_std=0.5),
    "rtd, a network": Learns("rtd", NETWORK),
}
LETTERS_ARMS = {
    RTD: Learns("rtd", NETWORK),
    MLM: Learns("mlm"),
    "rtd 30 %": Learns("rtd", NETWORK | _hides(0.3)),
    "mlm 30 %": Learns("mlm", _hides(0.3)),
    "mlm 40 %": Learns("mlm", _hides(0.4)),
    "mlm words": Learns("mlm", {"masking": "whole_word"}),
    "mlm spans": Learns("mlm", {"masking": "span"}),
}
SMALL: dict[str, Any] = {"dim": 64, "embedding_norm": "layer", "feedforward_options": {"hidden": 128}}


def setting(texts: str, folder: Path | None, *, quick: bool) -> Setting:
    """What ``--texts`` or ``--data`` asks for."""
    if texts == "docstrings" and folder is None:
        found = docstrings(600 if quick else 1500)
        return Setting(
            rows=lambda _: found, backbone=SMALL | {"vocab_size": 16384, "num_layers": 1, "positions": "none"},
            max_tokens=32, steps=750, num_train=12_000, arms=WORDS_ARMS, seeds=(4, 5, 6),
        )  # fmt: skip
    num_train, tokens = 6000, 1024 if folder else 258
    return Setting(
        rows=lambda seed: read_news(folder) if folder else planted(seed, num_train + 2 * NUM_PROBE),
        # Positions that tell before from behind, which alibi in an encoder does not.
        backbone=SMALL | {"vocab_size": tokens, "num_layers": 2, "positions": "relative"},
        max_tokens=1 + WORDS * (WORD + 1), steps=600, num_train=num_train, arms=LETTERS_ARMS,
        seeds=(1, 2, 3),
    )  # fmt: skip


_PROBED_STEPS = 8


@dataclass(frozen=True, eq=False)
class Texts:
    """Texts to train on without labels, and labelled ones for the probe."""

    data: TrainingData
    probe_texts: list[str]
    probe_codes: np.ndarray


def split(rows: pl.DataFrame, seed: int, num_train: int) -> Texts:
    """Distinct texts, of which some are kept for the probe."""
    rows = rows.unique("text", maintain_order=True)
    rows = rows[np.random.default_rng(seed).permutation(rows.height)]
    probe, train = rows.head(2 * NUM_PROBE), rows.tail(-2 * NUM_PROBE).head(num_train)
    ids = [f"{number:06}" for number in range(train.height)]
    frame = train.select("text").with_columns(
        id=pl.Series(ids), hash=pl.Series(ids), label=pl.lit(None, pl.String), difficulty=0.0, weight=1.0
    )
    codes = probe["label"].rank("dense").to_numpy() - 1
    return Texts(TrainingData.build(frame), probe["text"].to_list(), codes)


def arm(given: Setting, name: str, steps: int, seed: int) -> ArmConfig:
    """An arm of the comparison."""
    learns = given.arms[name]
    return ArmConfig(
        name="arm",
        backbone_options=given.backbone | {"embedding_std": learns.embedding_std},
        pacing="random",
        objective=learns.objective,
        objective_options=learns.options,
        steps=steps,
        batch_size=learns.batch_size,
        learning_rate=learns.learning_rate,
        max_tokens=given.max_tokens,
        seed=seed,
        checkpoint_every=10**6,
    )


def flops_per_step(given: Setting, name: str, texts: Texts, seed: int) -> float:
    """Mean floating-point operations of an arm's first steps: texts differ in length, and with them steps in cost."""
    return fit(arm(given, name, _PROBED_STEPS, seed), texts.data).flops / _PROBED_STEPS


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
    at = batch.tensors["told"]
    found = {
        "auroc": 100 * float(roc_auc_score(told.replaced_RT[at].numpy(), told.score_M.numpy())),
        "replaced_share": float(told.replaced_RT[at].float().mean()),
    }
    return found if told.found_N is None else found | {"generator_loss": float(told.found_N.mean())}


@dataclass(frozen=True)
class Found:
    """What one seed gave, by arm: points of the probe, the layer that was chosen, operations, seconds of CPU time."""

    points: dict[str, float]
    layers: dict[str, int]
    flops: dict[str, int]
    told: dict[str, float]
    seconds: dict[str, float] = field(default_factory=dict)


def seed_scores(given: Setting, names: list[str], steps: int, seed: int) -> Found:
    """Train and probe every arm under one seed."""
    texts = split(given.rows(seed), seed, given.num_train)
    found = Found({}, {}, {}, {})
    budget = steps * flops_per_step(given, MLM, texts, seed)
    for name in names:
        affordable = steps if name == MLM else round(budget / flops_per_step(given, name, texts, seed))
        began = time.process_time()
        result = fit(arm(given, name, affordable, seed), texts.data)
        spent = time.process_time() - began
        models = {name: cast("Transformer", result.model)}
        if name == MLM:
            models[UNTRAINED] = untrained(result)
        for one, model in models.items():
            layers = features(model, result, texts.probe_texts)
            found.points[one], found.layers[one] = probe(layers, texts.probe_codes)
        if name == RTD:
            found.told.update(discriminator(result, texts.probe_texts[:NUM_TOLD]))
            print(f"seed {seed}  {found.told}")
        found.flops[name], found.seconds[name] = result.flops, spent
        loss = statistics.fmean(loss for _, loss in result.losses[-20:])
        print(f"seed {seed}  {name:22} {result.steps:5} steps  {result.flops:.2e} operations  loss {loss:7.3f}  "
              f"{found.points[name]:5.1f} points  layer {found.layers[name]}  {spent:5.1f} s",
              flush=True)  # fmt: skip
    return found


def summary(found: list[Found], names: list[str], steps: int) -> dict[str, Any]:
    """Print means and intervals over seeds, and give them back as the last line has them."""
    print(f"\n{'':22} points               more than mlm 15 %")
    table = {}
    for name in [UNTRAINED, *names]:
        mean, low, high = interval([one.points[name] for one in found])
        more, least, most = interval([one.points[name] - one.points[MLM] for one in found])
        table[name] = [round(one, 2) for one in (mean, low, high, more, least, most)]
        print(f"{name:22} {mean:5.1f} [{low:5.1f}, {high:5.1f}]  {more:+5.1f} [{least:+5.1f}, {most:+5.1f}]")
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
        "seconds": {name: round(statistics.fmean(one.seconds[name] for one in found), 1) for name in names},
    }


def main() -> None:
    """Train every arm under every seed, and probe."""
    parser = options_parser(__doc__ or "")
    chosen = parser.add_mutually_exclusive_group()
    chosen.add_argument("--texts", choices=("docstrings", "planted"), default="docstrings", help="what is learned from")
    chosen.add_argument("--data", type=Path, help="folder with ag_news_test: news instead")
    parser.add_argument("--steps", type=int, help="of MLM with 15 %%; 750, or 600 on planted texts and news")
    options: Namespace = parser.parse_args()
    torch.set_num_threads(1)
    given = setting(options.texts, options.data, quick=options.quick)
    names = [RTD, MLM] if options.quick else list(given.arms)
    steps = options.steps or (given.steps // 20 if options.quick else given.steps)
    found = [seed_scores(given, names, steps, seed) for seed in given.seeds[: 2 if options.quick else None]]
    kind = "_news" if options.data else "_planted" * (options.texts == "planted")
    report(f"objectives{kind}", options, summary(found, names, steps), ("torch", "tokenizers", "scikit-learn"))


if __name__ == "__main__":
    main()
