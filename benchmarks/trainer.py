"""Our trainer against a bare loop and transformers' own model; and whether kills and processes change anything.

    python -m benchmarks.trainer [--quick] [--keep]

Tokens a second of training a decoder (4 layers of 128, 4 heads, vocabulary 4,096, rows of 128 tokens, 8 rows a step,
float32, one thread): forward, backward, clipping, AdamW. Ours is ``fit`` with the objective ``clm`` as recipes run it,
with its stream, token shards read in the step itself, seeds and books. ``plain_loop`` is
``benchmarks/peers/plain_decoder``: random crops of one array, nothing else. ``transformers`` is its GPT2LMHeadModel of
the same sizes with its own loss. All have the same optimizer, and every row is full, so that none has padding to save.
CPU time; they take turns of a few steps inside one run, a ratio is taken within a turn, and a seed's figure is the
median of its turns.

``padded``: the same on texts of unequal length, by real tokens, against transformers' model with its attention mask.

Then: a run that is killed by SIGKILL and resumed, against an unbroken one, bit by bit; and two processes, under DDP and
FSDP2, against one: the records that each step reads, in order, and the losses.
"""

import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor, nn

from benchmarks.peers.plain_decoder import PlainDecoder
from benchmarks.reporting import interval, options_parser, report
from training.arm import ArmConfig
from training.data import TrainingData
from training.distributed import Strategy, World
from training.fit import FitResult, fit
from training.tokenizer import TextTokenizer

VOCAB, DIM, LAYERS, HEADS, TOKENS, ROWS = 4096, 128, 4, 4, 128, 8
RATE = 1e-3
TURN = 2
"""Steps of each before the next has its turn."""
SEEDS, QUICK_SEEDS = (1, 2, 3, 4, 5), (1, 2, 3)
Step = Callable[[], int]
"""Trains for one step and says how many real tokens it read."""


@cache
def sources() -> list[str]:
    """Passages of the standard library's source, each longer than a row."""
    text = "\n".join(path.read_text("utf-8", errors="ignore") for path in sorted(Path(os.__file__).parent.glob("*.py")))
    return [text[at : at + 1500] for at in range(0, min(len(text), 3_000_000), 1500)]


def lines() -> list[str]:
    """The same text by lines joined to unequal lengths."""
    rng = np.random.default_rng(0)
    return [passage[: int(rng.integers(20, 500))] for passage in sources()]


def data_of(texts: list[str]) -> TrainingData:
    """Texts without labels, all alike to the stream."""
    rows = [(f"{number:08d}", f"{number:08d}", text, None, 0.5, 1.0) for number, text in enumerate(texts)]
    schema: dict[str, Any] = dict.fromkeys(("id", "hash", "text", "label"), pl.String)
    schema |= dict.fromkeys(("difficulty", "weight"), pl.Float64)
    return TrainingData.build(pl.DataFrame(rows, schema=schema, orient="row"))


def arm(seed: int, steps: int, **changed: Any) -> ArmConfig:
    """Our decoder."""
    given: dict[str, Any] = {
        "name": "decoder",
        "objective": "clm",
        "pacing": "random",
        "steps": steps,
        "batch_size": ROWS,
        "max_tokens": TOKENS,
        "learning_rate": RATE,
        "seed": seed,
        "checkpoint_every": 10**6,
        "backbone_options": {
            "vocab_size": VOCAB,
            "dim": DIM,
            "num_layers": LAYERS,
            "num_heads": HEADS,
            "dropout": 0.0,
            "order": "causal",
            "feedforward_options": {"hidden": 4 * DIM},
        },
    }
    return ArmConfig(**(given | changed))


def stepping(model: nn.Module, loss_of: Callable[[], tuple[Tensor, int]]) -> Step:
    """A training step as a script has it."""
    parameters = list(model.train().parameters())
    optimizer = torch.optim.AdamW(parameters, lr=RATE, fused=True)

    def step() -> int:
        """One update; returns the tokens that it learned from."""
        loss, num_tokens = loss_of()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return num_tokens

    return step


def plain_loop(ids: np.ndarray[Any, Any], seed: int) -> Step:
    """Random crops of one long array."""
    torch.manual_seed(seed)
    model, rng = PlainDecoder(VOCAB, DIM, LAYERS, HEADS, TOKENS), np.random.default_rng(seed)

    def loss() -> tuple[Tensor, int]:
        """Mean nats of the next token over new crops, and how many tokens that were."""
        starts = rng.integers(0, len(ids) - TOKENS - 1, ROWS)
        rows = torch.from_numpy(np.stack([ids[at : at + TOKENS + 1] for at in starts]))
        return model(rows[:, :-1], rows[:, 1:]), ROWS * TOKENS

    return stepping(model, loss)


def transformers_model(rows: list[list[int]], seed: int, *, padded: bool) -> Step:
    """GPT2LMHeadModel with its own loss, on rows cut to equal length or padded to the longest of a batch."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(seed)
    config = GPT2Config(
        vocab_size=VOCAB,
        n_positions=TOKENS,
        n_embd=DIM,
        n_layer=LAYERS,
        n_head=HEADS,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        # Ours; its own default is an approximation in several kernels.
        activation_function="gelu",
        bos_token_id=0,
        eos_token_id=0,
    )
    model, rng = GPT2LMHeadModel(config), np.random.default_rng(seed)

    def loss() -> tuple[Tensor, int]:
        """Mean nats of the next token over rows drawn anew, and how many tokens that were, padding left out."""
        chosen = [rows[number] for number in rng.choice(len(rows), ROWS, replace=False)]
        longest = max(len(one) for one in chosen)
        input_ids = torch.tensor([one + [0] * (longest - len(one)) for one in chosen])
        if not padded:
            return model(input_ids=input_ids, labels=input_ids, use_cache=False).loss, input_ids.numel()
        mask = torch.tensor([[1] * len(one) + [0] * (longest - len(one)) for one in chosen])
        labels = input_ids.masked_fill(mask == 0, -100)
        out = model(input_ids=input_ids, attention_mask=mask, labels=labels, use_cache=False)
        return out.loss, int(mask.sum())

    return stepping(model, loss)


def in_turns(seed: int, data: TrainingData, peers: dict[str, Step], turns: int, folder: Path) -> dict[str, list[float]]:
    """Tokens a CPU second of each, a figure a turn. Peers run in our own run's callback, whose time is not ours."""
    rates: dict[str, list[float]] = {"ours": [], **{name: [] for name in peers}}
    lengths: Iterator[int] = iter(())
    began = [0.0]

    def on_progress(step: int, _total: int, _loss: float) -> None:
        """After every turn of our own steps, tokens a CPU second of it, and a turn of each peer."""
        if step % TURN:
            return
        spent = time.process_time() - began[0]
        tokens = sum(next(lengths) for _ in range(TURN))
        if step > TURN:  # the first turn warms up
            rates["ours"].append(tokens / spent)
        for name, one in peers.items():
            started = time.process_time()
            read = sum(one() for _ in range(TURN))
            if step > TURN:
                rates[name].append(read / (time.process_time() - started))
        began[0] = time.process_time()

    config = arm(seed, TURN * (turns + 1))
    lengths = tokens_of_steps(config, data, folder)
    result = fit(config, data, token_dir=folder, num_workers=0, on_progress=on_progress)
    rates["wait"] = [result.stream_wait_share]
    return rates


def tokens_of_steps(config: ArmConfig, data: TrainingData, folder: Path) -> Iterator[int]:
    """Real tokens of each global batch, in order."""
    from training.fit import stream_of
    from training.token_shards import TokenShards

    stream = stream_of(config, data)
    lengths = TokenShards.open(folder, data.texts, tokenizer_of(data), TOKENS).lengths
    return iter([int(lengths[stream.batch(step)].sum()) for step in range(config.steps)])


@cache
def _tokenizer(key: int, texts: tuple[str, ...]) -> TextTokenizer:  # noqa: ARG001 - hashing texts again is slow
    from training.tokenizer import train_tokenizer

    return train_tokenizer(texts, vocab_size=VOCAB)


def tokenizer_of(data: TrainingData) -> TextTokenizer:
    """The tokenizer that ``fit`` trains on these texts."""
    return _tokenizer(id(data), tuple(data.texts))


def throughput(options: Namespace, folder: Path) -> dict[str, Any]:
    """Ratios of tokens a second, with their intervals over seeds."""
    seeds, turns = (QUICK_SEEDS, 4) if options.quick else (SEEDS, 24)
    full = data_of(sources())
    rows = tokenizer_of(full).token_ids(full.texts, TOKENS)
    full = data_of([text for text, row in zip(full.texts, rows, strict=True) if len(row) == TOKENS])
    rows = tokenizer_of(full).token_ids(full.texts, TOKENS)
    full_rows = [row for row in rows if len(row) == TOKENS]
    unequal = data_of(lines())
    unequal_rows = tokenizer_of(unequal).token_ids(unequal.texts, TOKENS)
    ratios: dict[str, list[float]] = {"transformers": [], "plain_loop": [], "transformers_padded": []}
    waits = []
    for seed in seeds:
        peers = {
            "transformers": transformers_model(full_rows, seed, padded=False),
            "plain_loop": plain_loop(np.concatenate(full_rows), seed),
        }
        rates = in_turns(seed, full, peers, turns, folder)
        padded = {"transformers_padded": transformers_model(unequal_rows, seed, padded=True)}
        uneven = in_turns(seed, unequal, padded, turns, folder)
        waits += [*rates["wait"], *uneven["wait"]]
        for name, values in ratios.items():
            one = uneven if name in uneven else rates
            values.append(statistics.median(a / b for a, b in zip(one["ours"], one[name], strict=True)))
        print(
            f"seed {seed}: ours {statistics.median(rates['ours']):.0f} tokens/s; "
            + str({name: round(values[-1], 3) for name, values in ratios.items()})
        )
    figures: dict[str, Any] = {"seeds": len(seeds)}
    for name, values in ratios.items():
        mean, low, high = interval(values)
        key = f"tokens_per_second_vs_{name}"
        figures |= {key: round(mean, 3), f"{key}_low": round(low, 3), f"{key}_high": round(high, 3)}
    figures["stream_wait_share"] = round(max(waits), 4)
    return figures


def small_data() -> TrainingData:
    """Few records of two classes, enough for questions of bits."""
    frame = data_of(lines()[:200]).manifest.frame
    texts = lines()[:200]
    labels = ["import" if "import" in text else "other" for text in texts]
    return TrainingData.build(frame.with_columns(text=pl.Series(texts), label=pl.Series(labels)))


def small_arm(objective: str) -> ArmConfig:
    """A decoder of seconds."""
    options = {"vocab_size": 300, "dim": 32, "dropout": 0.0, "order": "causal", "feedforward_options": {"hidden": 64}}
    changed = {"objective": objective, "backbone_options": options, "checkpoint_every": 3, "batch_size": 9}
    return arm(1, 12, **changed, max_tokens=32)


def equal_bits(one: FitResult, other: FitResult) -> bool:
    """Whether every weight and every loss is the same number."""
    weights = other.model.state_dict()
    return one.losses == other.losses and all(torch.equal(v, weights[k]) for k, v in one.model.state_dict().items())


def resumed_identically(folder: Path) -> bool:
    """Kill runs in the middle of their seventh step, go on, and compare."""
    same = []
    for objective in ("clm", "classification"):
        home = folder / f"killed-{objective}"
        killed = subprocess.run([sys.executable, "-m", "benchmarks.trainer", "--part", f"kill:{objective}:{home}"])
        assert killed.returncode == -signal.SIGKILL
        whole = fit(small_arm(objective), small_data())
        again = fit(small_arm(objective), small_data(), checkpoint_dir=home)
        same.append(equal_bits(whole, again))
    return all(same)


class Watched(list[str]):
    """Texts that note which of them are read."""

    def __init__(self, texts: list[str]) -> None:
        super().__init__(texts)
        self.read: list[int] = []

    def __getitem__(self, row: Any) -> Any:
        """The text, noting its number."""
        self.read.append(row)
        return super().__getitem__(row)


def watched_run(world: World) -> dict[str, Any]:
    """Rows that this process read in each step, and the losses."""
    data = small_data()
    texts = Watched(list(data.texts))
    config = small_arm("clm")
    share = len(range(world.rank, config.batch_size, world.size))
    steps: list[list[int]] = []

    def on_progress(_step: int, _total: int, _loss: float) -> None:
        """Keep the numbers of the texts that this process has read for the step."""
        steps.append(texts.read[-share:])

    watched = TrainingData(texts, data.labels, data.classes, data.manifest)
    result = fit(config, watched, world=world, num_workers=0, on_progress=on_progress)
    return {"rows": steps, "losses": [loss for _, loss in result.losses]}


def one_rank(rank: int, folder: Path) -> None:
    """One of two processes, under both strategies."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    strategies: tuple[Strategy, ...] = ("ddp", "fsdp2")
    found = {one: watched_run(World(rank=rank, size=2, strategy=one)) for one in strategies}
    (folder / f"rank-{rank}.json").write_text(json.dumps(found))
    torch.distributed.destroy_process_group()


def same_in_two_processes(folder: Path) -> tuple[bool, float]:
    """Whether ids and order are those of one process, and by how much a loss differs at most."""
    alone = watched_run(World())
    parts = [f"rank:{rank}:{folder}" for rank in range(2)]
    ranks = [subprocess.Popen([sys.executable, "-m", "benchmarks.trainer", "--part", part]) for part in parts]
    assert [one.wait() for one in ranks] == [0, 0]
    first, second = (json.loads((folder / f"rank-{rank}.json").read_text()) for rank in range(2))
    same, difference = True, 0.0
    for strategy in first:
        for whole, even, odd in zip(alone["rows"], first[strategy]["rows"], second[strategy]["rows"], strict=True):
            together = [0] * len(whole)
            together[::2], together[1::2] = even, odd
            same = same and together == whole
        for rank in (first, second):
            pairs = zip(alone["losses"], rank[strategy]["losses"], strict=True)
            difference = max(difference, *(abs(one - other) for one, other in pairs))
    return same and difference <= 1e-5, difference


def part(described: str) -> None:
    """What this benchmark starts in other processes: ``kill:OBJECTIVE:FOLDER`` or ``rank:NUMBER:FOLDER``."""
    kind, which, folder = described.split(":", 2)
    if kind == "rank":
        return one_rank(int(which), Path(folder))
    done = [0]

    def die() -> bool:
        """End this process at the eighth look, as a power cut would."""
        done[0] += 1
        if done[0] == 8:
            os.kill(os.getpid(), signal.SIGKILL)
        return False

    fit(small_arm(which), small_data(), checkpoint_dir=Path(folder), should_stop=die)
    return None


def main() -> None:
    """Measure, and print a line of JSON."""
    parser = options_parser(__doc__ or "")
    parser.add_argument("--part", help="used by the benchmark itself")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.part:
        part(options.part)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        figures = throughput(options, folder / "tokens")
        figures["resume_identical"] = resumed_identically(folder)
        same, difference = same_in_two_processes(folder)
        figures |= {"world_size_identical": same, "largest_loss_difference": float(f"{difference:.1e}")}
    report("trainer", options, figures, ("torch", "transformers"))


if __name__ == "__main__":
    main()
