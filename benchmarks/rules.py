"""Gopher, C4 and FineWeb rules against datatrove's own filters on the same text: speed, and decisions one by one.

Theirs runs in an environment of its own (``benchmarks/peers/datatrove_rules.py``), one process, every filter on every
text, as ours measures every value of every text on one thread. ``shipped`` is datatrove with its English tokenizer,
``plain`` with words between white space. Rounds take turns; a figure is the least CPU time of all rounds.

Each decision of each rule is compared. A difference is explained when one named switch turns datatrove's rule, written
out again (``benchmarks/peers/rules_causes.py``), from its decision into ours; what no switch explains is counted.
"""

import argparse
import json
import os
import subprocess
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from benchmarks.corpora import descriptions, docstrings, korean
from benchmarks.peers import setup
from benchmarks.reporting import options_parser, report
from curation.rules import RULES, judge, measure

ROOT = Path(__file__).parents[1]
SEED = 1
MIN_BYTES = 500
RECORDS = {"plain": (1_000, 10_000), "shipped": (100, 1_000)}
"""In a quick and in a full run: spaCy is slow."""
ROUNDS = (1, 3)
SHARD_BYTES = 4_000_000
TOKENIZER = "words and sentences of the tokenizer"
NAMES = (
    "word_count", "mean_word_length", "symbol_hash_ratio", "symbol_ellipsis_ratio", "bullet_line_ratio",
    "ellipsis_line_ratio", "alpha_word_ratio", "stop_word_count", "duplicate_line_ratio", "duplicate_paragraph_ratio",
    "duplicate_line_char_ratio", "duplicate_paragraph_char_ratio", "top_2gram_char_ratio", "top_3gram_char_ratio",
    "top_4gram_char_ratio", *(f"duplicate_{size}gram_char_ratio" for size in range(5, 11)),
    "c4_sentence_count_datatrove", "c4_sentence_count_fineweb", "curly_bracket_count", "lorem_ipsum_count",
    "c4_paragraph_count", "terminal_line_ratio", "short_line_ratio", "fineweb_duplicate_char_ratio",
    "fineweb_duplicate_char_ratio_shipped", "newline_word_ratio",
)  # fmt: skip
"""The rules that datatrove has too."""


def corpus(options: argparse.Namespace) -> pl.DataFrame:
    """``id`` and ``text`` of at least 500 bytes, in random order; Korean sentences are joined ten a text."""
    if options.corpus is not None:
        texts = pl.read_parquet(options.corpus)["text"] if options.corpus.suffix == ".parquet" else _paragraphs(options)
        frame = pl.DataFrame({"text": texts})
    else:
        parts = [docstrings()[1], descriptions()[1]]
        if options.data is not None:
            sentences = korean(options.data)[1]
            groups = pl.Series("at", np.arange(len(sentences)) // 10)
            parts.append(pl.DataFrame([groups, sentences]).group_by("at", maintain_order=True).agg(
                pl.col("text").str.join("\n"))["text"])  # fmt: skip
        frame = pl.concat([part.filter(part.str.len_bytes() >= MIN_BYTES).to_frame() for part in parts])
    frame = frame.filter(pl.col("text").str.len_bytes() >= MIN_BYTES)
    frame = frame[np.random.default_rng(SEED).permutation(len(frame))]
    return frame.with_row_index("id").with_columns(pl.col("id").cast(pl.String))


def _paragraphs(options: argparse.Namespace) -> list[str]:
    text: str = options.corpus.read_text(encoding="utf-8", errors="replace")
    return text.split("\n\n\n")


def theirs(path: Path, variant: str, *options: str) -> dict[str, Any]:
    """One round of a variant of datatrove; its figures. Decisions lie beside the texts."""
    files = [str(path), str(path.with_suffix(".ours")), str(path.with_suffix(".theirs"))]
    command = [str(setup.interpreter("datatrove")), "-m", "benchmarks.peers.datatrove_rules", *files]
    environment = os.environ | dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    done = subprocess.run(
        [*command, "--variant", variant, *options],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"datatrove {variant}: {done.stderr.strip().splitlines()[-1]}")
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


def ours(texts: pl.Series) -> tuple[float, pl.DataFrame]:
    """CPU seconds of one round, and every value.

    A few texts are repeated to the size of a small shard, since a call costs milliseconds whatever it is given.
    """
    times = max(1, round(SHARD_BYTES / int(texts.str.len_bytes().sum())))
    shard = pl.concat([texts] * times)
    began = time.process_time()
    values = measure(shard, NAMES)
    return (time.process_time() - began) / times, values.head(len(texts))


def kept(values: pl.DataFrame) -> dict[str, list[bool]]:
    """Whether each rule keeps each text."""
    return {name: judge(values, {name: RULES[name].configured()})["kept"].to_list() for name in NAMES}


def differences(
    stays: dict[str, list[bool]], found: dict[str, Any], plain: dict[str, Any] | None
) -> dict[str, Counter[str]]:
    """Per rule, how many decisions differ by each cause; ``""`` for what nothing explains.

    Parameters
    ----------
    plain : what the plain variant decided of the same texts first, if the variant is another.
    """
    counted: dict[str, Counter[str]] = {}
    for name in NAMES:
        causes: Counter[str] = Counter()
        for row, (ours_keeps, drops) in enumerate(zip(stays[name], found["dropped"][name], strict=False)):
            if ours_keeps is not drops:
                continue
            why = _cause(found["causes"][name][str(row)], drops=drops)
            if plain is not None and plain["dropped"][name][row] is not drops:
                why = TOKENIZER
            elif plain is not None and not why:
                why = _cause(plain["causes"][name][str(row)], drops=drops)
            causes[why] += 1
        counted[name] = causes
    return counted


def _cause(switched: dict[str, bool | None], *, drops: bool) -> str:
    """The first switch that turns datatrove's decision, told right with all of them off; or nothing."""
    if switched.get("") not in (drops, None):
        return ""
    return next((one for one, then in switched.items() if one and then is not None and then is not drops), "")


def race(part: pl.DataFrame, variant: str, rounds: int, folder: Path) -> tuple[dict[str, float], dict[str, Any]]:
    """Least CPU seconds of both, and what theirs decided."""
    path = folder / f"{variant}.parquet"
    part.write_parquet(path)
    measure(part["text"].head(10), NAMES)
    best = {"ours": float("inf"), "theirs": float("inf"), "pipeline": float("inf")}
    for one in range(rounds):
        seconds, values = ours(part["text"])
        path.with_suffix(".ours").write_text(json.dumps(kept(values)), encoding="utf-8")
        told = theirs(path, variant, *(["--only-time"] if one else []))
        found = {"ours": seconds, "theirs": told["cpu_seconds"], "pipeline": told["pipeline_cpu_seconds"]}
        best = {name: min(best[name], one) for name, one in found.items()}
    decided: dict[str, Any] = json.loads(path.with_suffix(".theirs").read_text(encoding="utf-8"))
    return best, decided | {"version": told["version"], "kept": kept(values)}


def main() -> None:
    """Race, compare, report."""
    parser = options_parser(__doc__ or "")
    parser.add_argument(
        "--corpus", type=Path, help="Parquet with a column text, or a text file; default: this machine's"
    )
    parser.add_argument("--data", type=Path, help="folder of data sets with Korean text, to be added")
    options = parser.parse_args()
    if not setup.ready("datatrove"):
        raise SystemExit("datatrove has no environment; run python -m benchmarks.peers.setup datatrove")
    frame = corpus(options)
    figures: dict[str, Any] = {}
    unexplained = 0
    plain: dict[str, Any] | None = None
    with tempfile.TemporaryDirectory() as folder:
        for variant, sizes in RECORDS.items():
            part = frame.head(sizes[not options.quick])
            megabytes = int(part["text"].str.len_bytes().sum()) / 1e6
            best, decided = race(part, variant, ROUNDS[not options.quick], Path(folder))
            ratio = best["theirs"] / best["ours"]
            figures["speedup_vs_datatrove" + "_plain" * (variant == "plain")] = round(ratio, 1)
            print(
                f"datatrove {decided['version']} {variant}: {len(part):,} texts, {megabytes:.1f} MB; theirs "
                f"{megabytes / best['theirs']:.2f} MB/s ({megabytes / best['pipeline']:.2f} where what one filter "
                f"drops goes no further), ours {megabytes / best['ours']:.1f} MB/s with every value: {ratio:.1f} times"
            )
            for name, causes in differences(decided["kept"], decided, plain).items():
                for cause, count in causes.most_common():
                    print(f"  {name:<38} {count:>6} of {len(part):,} differ: {cause or 'UNEXPLAINED'}")
                unexplained += causes[""]
            plain = decided
    figures |= {"unexplained_differences": unexplained, "rules": len(NAMES)}
    report("rules", options, figures, ("polars", "numba", "numpy"))


if __name__ == "__main__":
    main()
