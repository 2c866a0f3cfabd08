"""What a memory beside the weights is good for: perplexity, planted facts, and labels.

    python -m benchmarks.retrieval [--quick] [--keep] [--data FILE:TEXT:LABEL …]
    python -m benchmarks.retrieval --only cross_attention [--quick] [--keep]

``perplexity_ratio``: a small causal network learns bytes of some packages' docstrings and is measured on those of
another package, most of whose docstrings lie in its memory, none of the measured ones among them; perplexity a byte
with the memory over that without (``knn_lm``). Weight and temperature are chosen on docstrings that are measured
nowhere else. ``…_shuffled`` has the same vectors with what followed them in another order, at the same weight,
``…_shuffled_refit`` at the weight that would then be chosen. A seed has another package and other starting weights.

``planted_…``: pairs of random chunks, one of which tells the other, are learned by ``cross_attention``; it is measured
on pairs that it was not trained on, with a memory that holds them, with one whose passages are shuffled, and with none.

``accuracy_gain_…``: logistic regression on an encoder's vectors, and the labels of the nearest records beside it
(``knn_classifier``): trained on eight records a class with all records in the memory, which costs no training, and
trained on all of them; penalty, weight and temperature are chosen by likelihood on records that are in neither. A set
is called by its file's folder. Where no file is given, packages' docstrings stand in.

``--only cross_attention`` measures arms of a recipe that read passages of real text (``benchmarks/passages.py``), kept
in a file of its own.

Search is timed against faiss's flat index and scikit-learn, CPU seconds of one thread, in turn.
"""

import math
import statistics
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from benchmarks.corpora import docstrings_of
from benchmarks.label_errors import CACHE, Labelled, docstrings, from_file, labelled
from benchmarks.language import VOCABULARY, as_bytes, batch, rate, shared_out, update
from benchmarks.passages import QUICK_READING, ReadingSizes, reading_figures
from benchmarks.reporting import interval, options_parser, report
from curation.encoders import ENCODERS
from training.model import ModelConfig, Transformer
from training.retrieval.cross_attention import CrossAttention, PassageLanguageModel, remember_passages
from training.retrieval.knn_lm import KnnLanguageModel, KnnLm, remember_contexts
from training.retrieval.memory import Memory
from training.retrieval.search import nearest_entries
from training.retrieval.votes import best_weight, interpolated, neighbour_proba

PACKAGES = ("scipy", "sympy", "pandas")
OTHERS = ("numpy", "sklearn", "matplotlib", "sqlalchemy")
TOKENS, BATCH, PEAK, NEIGHBOURS = 128, 32, 3e-3, 64
TEMPERATURES = (0.3, 1.0, 3.0, 10.0, 30.0)
CHUNK, SYMBOLS = 8, 64
PENALTIES = (1.0, 10.0, 100.0, 1000.0)
NEAR_LABELS, LABEL_TEMPERATURES = 16, (0.02, 0.05, 0.1, 0.2, 0.5)


@dataclass(frozen=True)
class Sizes:
    """How much of everything."""

    seeds: tuple[int, ...] = (1, 2, 3)
    steps: int = 200
    memory_rows: int = 800
    held_out_rows: int = 60
    planted_steps: int = 300
    records: int = 2_000


QUICK = Sizes(seeds=(1, 2), steps=25, memory_rows=200, held_out_rows=10, planted_steps=60, records=300)


def network(**options: Any) -> Transformer:
    """A causal network without dropout."""
    settings: dict[str, Any] = {
        "num_classes": 0,
        "num_layers": 2,
        "dropout": 0.0,
        "order": "causal",
        "positions": "rope",
    }
    return Transformer(ModelConfig(**(settings | {"vocab_head": "tied"} | options)))


def byte_rows(tokens: Tensor, count: int) -> Tensor:
    """The first stretches of a text, (count, T)."""
    return tokens[: count * TOKENS].view(count, TOKENS)


def real(ids: Tensor) -> Tensor:
    """The mask of rows without padding."""
    return torch.ones_like(ids, dtype=torch.bool)


def right(log_proba: Tensor, ids: Tensor) -> Tensor:
    """Logarithms that the tokens that followed were given."""
    return log_proba[:, :-1].gather(-1, ids[:, 1:, None]).flatten()


@torch.no_grad()
def perplexities(seed: int, sizes: Sizes, folder: Path) -> dict[str, float]:
    """Ratios of perplexity with the memory and with a shuffled one."""
    package = PACKAGES[(seed - 1) % len(PACKAGES)]
    base = trained_on_others(seed, sizes.steps)
    parts = shared_out(docstrings_of(package), (0.75, 0.1, 0.15), seed)
    kept, tuning, held_out = (
        byte_rows(part, min(count, len(part) // TOKENS))
        for part, count in zip(parts, (sizes.memory_rows, sizes.held_out_rows // 2, sizes.held_out_rows), strict=True)
    )
    memory = remember_contexts(base, [(one, real(one)) for one in torch.split(kept, 64)], folder / f"{seed}")
    order = np.random.default_rng(seed).permutation(len(memory))
    shuffled = Memory(source=memory.source, keys=memory.keys, values=memory.values[order])
    config, refit = tuned(base, memory, tuning), tuned(base, shuffled, tuning)
    plain = reader(base, config, None, held_out)
    ratios = {
        name: math.exp(plain - reader(base, chosen, used, held_out))
        for name, chosen, used in (
            ("perplexity_ratio", config, memory),
            ("perplexity_ratio_shuffled", config, shuffled),
            ("perplexity_ratio_shuffled_refit", refit, shuffled),
        )
    }
    print(
        f"seed {seed}, {package}: {len(memory):,} contexts, perplexity {math.exp(-plain):.3f} without, weight "
        f"{config.weight:.2f}, temperature {config.temperature:.0f}: "
        + ", ".join(f"{name} {value:.3f}" for name, value in ratios.items()),
        flush=True,
    )
    return ratios


@torch.enable_grad()
def trained_on_others(seed: int, num_steps: int) -> Transformer:
    """The network that learns other packages' docstrings."""
    text = as_bytes(pl.concat([docstrings_of(one) for one in OTHERS]).sample(fraction=1.0, shuffle=True, seed=seed))
    torch.manual_seed(seed)
    base = network(vocab_size=VOCABULARY, dim=128)
    optimizer = torch.optim.AdamW(base.parameters(), lr=PEAK, weight_decay=0.01, fused=True)
    generator = torch.Generator().manual_seed(seed)
    for step in range(num_steps):
        optimizer.param_groups[0]["lr"] = rate(step, num_steps, PEAK)
        update(base, optimizer, *batch(text, BATCH, TOKENS, generator))
    return base.eval()


def tuned(base: Transformer, memory: Memory, ids: Tensor) -> KnnLm:
    """The temperature and weight under which text outside of the memory is likeliest."""
    hidden = base.hidden(ids, real(ids))
    proba = right(base.token_logits(hidden).log_softmax(-1), ids).exp()
    distance, entry = nearest_entries(hidden[:, :-1].flatten(0, 1), memory.keys, NEIGHBOURS)
    token = torch.from_numpy(memory.values[entry.numpy(), 0].astype("i8"))
    found = []
    for temperature in TEMPERATURES:
        votes = neighbour_proba(distance, token, VOCABULARY, temperature).gather(1, ids[:, 1:].reshape(-1, 1))[:, 0]
        weight = best_weight(proba, votes)
        found.append((float(((1 - weight) * proba + weight * votes).log().mean()), weight, temperature))
    _, weight, temperature = max(found)
    return KnnLm(num_neighbours=NEIGHBOURS, weight=weight, temperature=temperature)


def reader(base: Transformer, config: KnnLm, memory: Memory | None, ids: Tensor) -> float:
    """Mean logarithm that the tokens that followed were given."""
    made = KnnLanguageModel(base, config)
    made.use(memory)
    return float(torch.cat([right(made(one, real(one)), one) for one in torch.split(ids, 32)]).mean())


def planted(seed: int, sizes: Sizes, folder: Path) -> dict[str, float]:
    """Perplexity of the told chunk, on pairs that were not trained on."""
    generator = torch.Generator().manual_seed(seed)
    pairs = torch.randint(SYMBOLS, (3_000, 2 * CHUNK), generator=generator)
    learned, held_out = pairs[:2_500], pairs[2_500:]
    config = CrossAttention(chunk_tokens=CHUNK, num_neighbours=2)
    torch.manual_seed(seed)
    made = PassageLanguageModel(network(vocab_size=SYMBOLS, dim=64), config)

    def remembered(name: str, rows: Tensor) -> Memory:
        documents = enumerate(rows.tolist())
        return remember_passages(documents, folder / f"planted-{seed}-{name}", config, vocab_size=SYMBOLS)

    made.use(remembered("learned", learned))
    optimizer = torch.optim.AdamW(made.parameters(), lr=PEAK, weight_decay=0.0)
    for step in range(sizes.planted_steps):
        optimizer.param_groups[0]["lr"] = rate(step, sizes.planted_steps, PEAK)
        ids = learned[torch.randint(len(learned), (BATCH,), generator=generator)]
        loss = told_loss(made, ids)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
    made.eval()
    told = held_out[torch.randperm(len(held_out), generator=generator)]
    memories = {
        "memory": remembered("held-out", held_out),
        "shuffled": remembered("shuffled", torch.cat([held_out[:, :CHUNK], told[:, CHUNK:]], 1)),
        "none": None,
    }
    found = {}
    for name, memory in memories.items():
        made.use(memory)
        with torch.no_grad():
            found[f"planted_perplexity_{name}"] = math.exp(float(told_loss(made, held_out)))
    print(f"seed {seed}, planted: { {name: round(value, 2) for name, value in found.items()} }", flush=True)
    return found


def told_loss(made: PassageLanguageModel, ids: Tensor) -> Tensor:
    """Cross-entropy of the second chunk."""
    return F.nll_loss(made(ids, real(ids))[:, CHUNK - 1 : -1].flatten(0, 1), ids[:, CHUNK:].flatten())


@dataclass(frozen=True)
class Split:
    """Vectors and labels of a part of the records."""

    vectors: np.ndarray
    codes: np.ndarray


def folder_name(described: str) -> str:
    """What a data set is called: its folder's name, since its file is often ``train`` or ``test``."""
    return Path(described.rsplit(":", 2)[0]).resolve().parent.name


def with_enough(rows: pl.DataFrame, limit: int) -> pl.DataFrame:
    """As many of the largest classes as a sample of ``limit`` records holds, each with at least twenty of them."""
    sizes = rows.drop_nulls()["label"].value_counts(sort=True)
    return rows.filter(pl.col("label").is_in(sizes["label"].head(limit // 20).to_list()))


def accuracy_gains(data: Labelled, vectors: np.ndarray, seed: int) -> dict[str, float]:
    """Points of accuracy that the memory adds on a third of the records."""
    order = np.random.default_rng(seed).permutation(len(data.codes))
    held_out, tuning, known = (
        Split(vectors[rows], data.codes[rows]) for rows in np.split(order, [len(order) // 3, len(order) // 2])
    )
    few = np.concatenate([np.flatnonzero(known.codes == one)[:8] for one in range(data.num_classes)])
    gains = {}
    for name, rows in (("few", few), ("all", np.arange(len(known.codes)))):
        proba = classifier(Split(known.vectors[rows], known.codes[rows]), tuning, data.num_classes)
        choice = tuned_labels(known, tuning, proba(tuning.vectors), data.num_classes)
        before = proba(held_out.vectors)
        after = interpolated(before.log(), label_votes(known, held_out, choice[1], data.num_classes), choice[0])
        truth = torch.from_numpy(held_out.codes)
        accuracies = [100 * float((one.argmax(1) == truth).float().mean()) for one in (before, after)]
        gains[f"accuracy_gain_{name}"] = accuracies[1] - accuracies[0]
        print(
            f"{data.name}, seed {seed}, trained on {len(rows)}: {accuracies[0]:.1f} % alone, {accuracies[1]:.1f} % "
            f"with {len(known.codes)} remembered, weight {choice[0]:.2f}, temperature {choice[1]}",
            flush=True,
        )
    return gains


def classifier(split: Split, tuning: Split, num_classes: int) -> Callable[[np.ndarray], Tensor]:
    """Probabilities by logistic regression, with the penalty under which labels of ``tuning`` are likeliest."""
    from sklearn.linear_model import LogisticRegression

    def fitted(penalty: float) -> Callable[[np.ndarray], Tensor]:
        """A classifier of vectors, by an inverse strength of its penalty."""
        made = LogisticRegression(C=penalty, max_iter=500).fit(split.vectors, split.codes)

        def proba(vectors: np.ndarray) -> Tensor:
            """(n, num_classes) float32 of (n, dim) vectors, by code; a class that was never seen gets 1e-9."""
            spread = np.full((len(vectors), num_classes), 1e-9)
            spread[:, made.classes_] += made.predict_proba(vectors)
            return torch.from_numpy(spread).float()

        return proba

    def likelihood(proba: Callable[[np.ndarray], Tensor]) -> float:
        """Mean logarithm, in nats, of what the records to tune on are."""
        given = proba(tuning.vectors).gather(1, torch.from_numpy(tuning.codes)[:, None])
        return float(given.log().mean())

    # One that is too sure or too unsure would make a weight chosen by likelihood lean on the memory whatever it knows.
    return max(map(fitted, PENALTIES), key=likelihood)


def label_votes(known: Split, asked: Split, temperature: float, num_classes: int) -> Tensor:
    """What ``knn_classifier`` asks its memory."""
    distance, entry = nearest_entries(torch.from_numpy(asked.vectors), known.vectors, NEAR_LABELS)
    return neighbour_proba(distance, torch.from_numpy(known.codes)[entry], num_classes, temperature)


def tuned_labels(known: Split, asked: Split, proba: Tensor, num_classes: int) -> tuple[float, float]:
    """Weight and temperature under which labels outside of the memory are likeliest."""
    truth = torch.from_numpy(asked.codes)[:, None]
    given = proba.gather(1, truth)[:, 0]
    found = []
    for temperature in LABEL_TEMPERATURES:
        votes = label_votes(known, asked, temperature, num_classes).gather(1, truth)[:, 0]
        weight = best_weight(given, votes)
        found.append((float(((1 - weight) * given + weight * votes).log().mean()), weight, temperature))
    _, weight, temperature = max(found)
    return weight, temperature


def search_ratios(rounds: int) -> dict[str, list[float]]:
    """CPU seconds of our search over those of others, and the largest difference of votes to scikit-learn's."""
    import faiss
    from sklearn.neighbors import KNeighborsClassifier

    faiss.omp_set_num_threads(1)
    rng = np.random.default_rng(0)
    keys, questions = ((rng.normal(size=(count, 128)) / 11).astype(np.float32) for count in (50_000, 1_000))
    codes = rng.integers(10, size=len(keys))
    fitted = KNeighborsClassifier(NEAR_LABELS, weights=lambda far: np.exp(-(far**2) / 0.5), algorithm="brute")
    fitted.fit(keys, codes)
    index = faiss.IndexFlatL2(128)
    index.add(keys)
    asked: dict[str, Callable[[], Any]] = {
        "ours": lambda: nearest_entries(torch.from_numpy(questions), keys, NEAR_LABELS),
        "faiss": lambda: index.search(questions, NEAR_LABELS),
        "sklearn": lambda: fitted.kneighbors(questions),
    }
    seconds: dict[str, list[float]] = {name: [] for name in asked}
    for _ in range(rounds):
        for name, ask in asked.items():
            began = time.process_time()
            ask()
            seconds[name].append(time.process_time() - began)
    known, wanted = Split(keys, codes), Split(questions, codes[:1_000])
    votes = label_votes(known, wanted, 0.5, 10).numpy()
    difference = float(np.abs(votes - fitted.predict_proba(questions)).max())
    return {
        "search_time_vs_faiss": [a / b for a, b in zip(seconds["ours"], seconds["faiss"], strict=True)],
        "search_time_vs_sklearn": [a / b for a, b in zip(seconds["ours"], seconds["sklearn"], strict=True)],
        "votes_minus_sklearn": [difference],
    }


def arguments() -> Namespace:
    """What is asked for."""
    parser = options_parser(__doc__ or "")
    parser.add_argument("--data", action="append", default=[], help="FILE:TEXT:LABEL, as often as wanted")
    parser.add_argument("--only", choices=("cross_attention",), help="measure arms that read passages alone")
    return parser.parse_args()


def main() -> None:
    """Measure all, then print the figures."""
    options = arguments()
    torch.set_num_threads(1)
    if options.only:
        reading = QUICK_READING if options.quick else ReadingSizes()
        figures = {"seeds": len(reading.seeds)} | summed_up(reading_figures(reading))
        report("retrieval_cross_attention", options, figures, ("torch", "tokenizers"))
        return
    sizes = QUICK if options.quick else Sizes()
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for seed in sizes.seeds:
            for part in (perplexities(seed, sizes, Path(folder)), planted(seed, sizes, Path(folder))):
                for name, value in part.items():
                    found.setdefault(name, []).append(value)
    sources = [(folder_name(one), from_file(one)[1]) for one in options.data] or [("docstrings", docstrings())]
    for name, rows in sources:
        data = labelled(name, with_enough(rows, sizes.records), sizes.records)
        vectors = np.ascontiguousarray(ENCODERS["minilm"].member(data.texts.to_list(), CACHE), dtype=np.float32)
        for seed in sizes.seeds:
            for key, value in accuracy_gains(data, vectors, seed).items():
                found.setdefault(f"{key}_{name}", []).append(value)
    figures = {"seeds": len(sizes.seeds)} | summed_up(found | search_ratios(3 if options.quick else 7))
    report("retrieval", options, figures, ("torch", "faiss-cpu", "scikit-learn"))


def summed_up(found: dict[str, list[float]]) -> dict[str, Any]:
    """Mean and interval of every figure, or its one value."""
    figures: dict[str, Any] = {}
    for name, values in found.items():
        if len(values) == 1:
            figures[name] = float(f"{values[0]:.2e}")
            continue
        mean, low, high = (round(value, 3) for value in interval(values))
        print(f"{name}: {mean} [{low}, {high}], median {statistics.median(values):.3f}")
        figures |= {name: mean, f"{name}_low": low, f"{name}_high": high}
    return figures


if __name__ == "__main__":
    main()
