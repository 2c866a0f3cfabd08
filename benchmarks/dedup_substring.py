"""Repeated passages on real text, against a suffix array: the method of Lee et al. (2022), and an independent oracle.

No peer that pip can install finds repeated passages: text-dedup's suffix array is a wrapper of a Rust program that its
user builds. So the same method stands here, on divsufsort (C): sort all suffixes, take the common prefixes of
neighbours. Once over bytes as that program does it (stretches of 100 bytes, its default; letters as they are, nothing
cut to characters), and once over our own normalized tokens, where it must find the windows that we find, all of them.

Every contestant runs in a process of its own on one core, three times; the fastest counts. What is timed begins with a
column of texts and ends with spans (ours: verified, cut, named), or with where stretches repeat (suffix arrays). On a
busy machine trust CPU seconds more than wall seconds.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from benchmarks.corpora import docstrings
from benchmarks.peers.measuring import peak_rss_mb
from benchmarks.reporting import arguments, report
from curation.dedup.cutting import remove_spans
from curation.dedup.places import place_tokens
from curation.dedup.rows import utf8
from curation.dedup.substring import SubstringConfig, find_repeated_spans, sample_windows, shared_anchors, windows_at
from curation.dedup.substring_kernels import BASE

SEED = 1
CONFIG = SubstringConfig()
BYTES_THRESHOLD = 100
ROUNDS = 3
PEER = "pydivsufsort==0.0.20"
PEER_FOLDER = Path(__file__).parents[1] / ".peers" / "pydivsufsort"


def install_peer() -> str:
    """Fetch the suffix sorter; why it cannot be had, or nothing."""
    if (PEER_FOLDER / "pydivsufsort").exists():
        return ""
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    done = subprocess.run([*pip, "--target", str(PEER_FOLDER), PEER], capture_output=True, text=True)
    return (done.stderr.strip().splitlines() or [f"pip ended with {done.returncode}"])[-1] if done.returncode else ""


def stretches(symbols: np.ndarray, threshold: int) -> np.ndarray:
    """Where ``threshold`` symbols begin that stand elsewhere too."""
    from pydivsufsort import divsufsort, kasai  # type: ignore[import-not-found]

    order = divsufsort(symbols)
    common = kasai(symbols, order)
    # ``common[i]`` is shared by the suffixes ``order[i]`` and ``order[i + 1]``.
    long = common >= threshold
    long[1:] |= long[:-1].copy()
    return np.sort(order[long])


def by_bytes(texts: pl.Series) -> dict[str, Any]:
    """All texts in one, parted by a byte that UTF-8 has not."""
    joined = bytearray(b"\xff".join(text.encode() for text in texts.to_list()))
    begins = stretches(np.frombuffer(joined, np.uint8), BYTES_THRESHOLD)
    return {"windows": len(begins)}


def by_tokens(texts: pl.Series) -> dict[str, Any]:
    """All tokens in one array, each text ended by a number of its own."""
    tokens = place_tokens(utf8(texts))
    hashes = tokens.prefix[1:] - tokens.prefix[:-1] * np.uint64(BASE)
    _, numbers = np.unique(hashes, return_inverse=True)
    ends = np.arange(len(texts)) + int(numbers.max()) + 1
    begins = stretches(np.insert(numbers, tokens.offsets[1:], ends).astype(np.uint32), CONFIG.min_tokens)
    rows = np.searchsorted(tokens.offsets[1:] + np.arange(1, len(texts) + 1), begins, side="right")
    return {"windows": len(begins), "digest": digest(rows, begins - tokens.offsets[rows] - rows)}


def digest(rows: np.ndarray, positions: np.ndarray) -> int:
    """A number that stands for a set of windows, whatever its order."""
    keys = rows.astype(np.uint64) << np.uint64(32) | positions.astype(np.uint64)
    return int((keys * np.uint64(BASE) ^ keys >> np.uint64(7)).sum(dtype=np.uint64))


def ours(threads: int) -> Callable[[pl.Series], dict[str, Any]]:
    """Spans of a column of texts."""

    def run(texts: pl.Series) -> dict[str, Any]:
        spans = find_repeated_spans(numbered(texts), texts, None, CONFIG, threads=threads)
        return {"spans": len(spans), "characters": int((spans["end"] - spans["start"]).sum())}

    return run


def check(texts: pl.Series) -> dict[str, Any]:
    """The windows that stand in more than one place, and what is found again once all is cut out; not timed."""
    ids, rows = numbered(texts), np.arange(len(texts), dtype=np.uint32)
    windows = windows_at(texts, rows, shared_anchors(sample_windows(texts, rows, CONFIG)), CONFIG)
    repeated = windows.filter(pl.col("hash").is_duplicated())
    spans = find_repeated_spans(ids, texts, None, CONFIG)
    again = find_repeated_spans(ids, remove_spans(ids, texts, spans), None, CONFIG)
    return {
        "windows": len(repeated),
        "digest": digest(repeated["row"].to_numpy(), repeated["position"].to_numpy()),
        "tokens": int(spans["num_tokens"].sum()),
        "tokens_again": int(again["num_tokens"].sum()),
    }


def numbered(texts: pl.Series) -> pl.Series:
    """Ids."""
    return pl.select(pl.int_range(len(texts)).cast(pl.String).str.zfill(9)).to_series()


CONTESTANTS: dict[str, Callable[[pl.Series], dict[str, Any]]] = {
    "ours": ours(1),
    "ours_2_threads": ours(2),
    "suffix_array_bytes": by_bytes,
    "suffix_array_tokens": by_tokens,
}


def child(name: str, path: Path) -> None:
    """Run one contestant in this process; print its figures."""
    sys.path.append(str(PEER_FOLDER))
    texts = pl.read_parquet(path)["text"]
    work = {**CONTESTANTS, "check": check}[name]
    work(texts.head(1_000))
    figures: dict[str, Any] = {"seconds": [], "cpu_seconds": []}
    for _ in range(ROUNDS if name in CONTESTANTS else 1):
        began, cpu_began = time.perf_counter(), time.process_time()
        figures |= work(texts)
        figures["seconds"].append(time.perf_counter() - began)
        figures["cpu_seconds"].append(time.process_time() - cpu_began)
    sys.stdout.write(json.dumps({**figures, "peak_mib": peak_rss_mb()}) + "\n")


def run(name: str, path: Path) -> dict[str, Any]:
    """Run one contestant in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.dedup_substring", "--child", name, str(path)]
    alone = {**os.environ, "POLARS_MAX_THREADS": "2" if name == "ours_2_threads" else "1"}
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=alone)
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return {**figures, "seconds": min(figures["seconds"]), "cpu_seconds": min(figures["cpu_seconds"])}


def main() -> None:
    """Measure all on the same text."""
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2], Path(sys.argv[3]))
        return
    options = arguments(__doc__ or "")
    most = 4_000_000 if options.quick else 64_000_000
    texts = docstrings()[1].sample(fraction=1, shuffle=True, seed=SEED)
    texts = texts.filter(texts.str.len_bytes().cum_sum() <= most)
    megabytes = int(texts.str.len_bytes().sum()) / 1e6
    reason = install_peer()
    contestants = [name for name in CONTESTANTS if not (reason and name.startswith("suffix"))]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "texts.parquet"
        texts.to_frame("text").write_parquet(path)
        measured = {name: run(name, path) for name in [*contestants, "check"]}
    print(f"{len(texts):,} docstrings of installed packages, {megabytes:.1f} MB; {reason or PEER}")
    for name in contestants:
        one = measured[name]
        per_cpu_second = megabytes / one["cpu_seconds"]
        ratio = one["cpu_seconds"] / measured["ours"]["cpu_seconds"]
        print(
            f"{name:<20} {megabytes / one['seconds']:>7.1f} MB/s {per_cpu_second:>7.1f} MB a CPU second "
            f"{one['peak_mib']:>7,.0f} MiB   ours is {ratio:.2f} times as fast"
        )
    checked, sorter = measured["check"], measured.get("suffix_array_tokens", {})
    same = all(checked[name] == sorter.get(name) for name in ("windows", "digest"))
    speedups = {
        f"speedup_vs_{name}": round(measured[name]["cpu_seconds"] / measured["ours"]["cpu_seconds"], 2)
        for name in contestants
        if name.startswith("suffix")
    }
    figures = {
        "megabytes": round(megabytes, 1),
        "records": len(texts),
        "megabytes_per_second": round(megabytes / measured["ours"]["seconds"], 1),
        "megabytes_per_cpu_second": round(megabytes / measured["ours"]["cpu_seconds"], 1),
        "megabytes_per_second_2_threads": round(megabytes / measured["ours_2_threads"]["seconds"], 1),
        **speedups,
        "windows": checked["windows"],
        "same_windows_as_suffix_array": None if reason else same,
        "spans": measured["ours"]["spans"],
        "share_of_characters": round(measured["ours"]["characters"] / int(texts.str.len_chars().sum()), 4),
        "tokens_removed": checked["tokens"],
        "tokens_found_again": checked["tokens_again"],
        **{f"peak_mib_{name}": round(measured[name]["peak_mib"]) for name in contestants},
    }
    report("dedup_substring", options, figures, ("numba", "numpy", "polars"))


if __name__ == "__main__":
    main()
