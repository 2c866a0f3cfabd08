"""What every peer's script does around its work: read the texts, time the work, print one line of JSON.

A script runs in its peer's own environment, so nothing is imported here but pyarrow and the standard library.
"""

import argparse
import json
import os
import re
import resource
import sys
import time
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

THRESHOLD, BANDS, ROWS, NGRAM = 0.8, 14, 8, 5
"""FineWeb's banding over word 5-grams: the parameters that all share."""
NUM_PERM = BANDS * ROWS

_WORD = re.compile(r"\w+")


def read(path: Path) -> tuple[list[str], list[str]]:
    """Ids and texts of a Parquet file."""
    table = pq.read_table(path, columns=["id", "text"])
    return table.column("id").to_pylist(), table.column("text").to_pylist()


def shingles(text: str) -> list[str]:
    """Word 5-grams of the folded text, as a user of a sketching library makes them; one of a shorter text."""
    words = _WORD.findall(unicodedata.normalize("NFKC", text).casefold())
    return [" ".join(words[at : at + NGRAM]) for at in range(max(len(words) - NGRAM, 0) + 1)]


def clock() -> tuple[float, float]:
    """Wall seconds, and CPU seconds of this process and its ended children."""
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return time.perf_counter(), sum(one.ru_utime + one.ru_stime for one in usage)


def peak_rss_mb() -> float:
    """Peak resident memory of the largest process among this one and its ended children."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    status = Path("/proc/self/status")
    if not status.exists():
        return max(children, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    # ru_maxrss begins at the starting process's own peak; VmHWM is of this program alone.
    own = re.search(r"VmHWM:\s+(\d+) kB", status.read_text(encoding="ascii"))
    return max(children, int(own[1]) / 1024 if own else 0.0)


def main(
    package: str,
    variants: Mapping[str, Callable[[Path, int], Sequence[str]]],
    parameters: Mapping[str, Any],
    warm_up: Callable[[Path, int], object] | None = None,
    cpu_counted: Callable[[int], bool] = lambda _workers: True,
) -> None:
    """Run one variant on a file: from opening it to the list of removed ids. Imports are done by then, and not timed.

    Parameters
    ----------
    package : distribution whose version is printed.
    variants : ``(path, workers) -> removed ids`` by name; the first is run unless another is asked for.
    parameters : what the variants have in common, printed as it is.
    warm_up : called before the clock starts; its seconds are printed apart.
    cpu_counted : whether the CPU time of so many workers is known here: not if they are children of a server process.
    """
    parser = argparse.ArgumentParser(description=sys.modules["__main__"].__doc__)
    parser.add_argument("input", type=Path, help="Parquet file with columns id and text")
    parser.add_argument("removed", type=Path, help="where the removed ids go, as a JSON list")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--variant", choices=list(variants), default=next(iter(variants)))
    options = parser.parse_args()
    work = variants[options.variant]
    began = time.perf_counter()
    if warm_up is not None:
        warm_up(options.input, options.workers)
    ready = clock()
    removed = list(work(options.input, options.workers))
    done = clock()
    options.removed.write_text(json.dumps(removed), encoding="utf-8")
    figures = {
        "seconds": round(done[0] - ready[0], 4),
        "cpu_seconds": round(done[1] - ready[1], 4) if cpu_counted(options.workers) else None,
        "records": pq.read_metadata(options.input).num_rows,
        "removed": len(removed),
        "peak_rss_mb": round(peak_rss_mb(), 1),
        "parameters": {**parameters, "variant": options.variant, "workers": options.workers},
        "version": version(package),
        "warm_up_seconds": round(ready[0] - began, 3),
    }
    sys.stdout.write(json.dumps(figures) + "\n")
    sys.stdout.flush()
    # Some peers leave threads behind that keep a process from ending.
    os._exit(0)
