"""Memory and time to ingest 1 GB of JSON lines, long and short, by a real worker process: within 1 GiB."""

import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.reporting import arguments, report
from catalog import migrate
from catalog.database import Catalog
from catalog.settings import Settings
from catalog.store import Store
from workers import runs
from workers.app import make_app, relay
from workers.pipelines.ingest import submit_ingest

WORDS = [f"word{number}" for number in range(5_000)]
POLL_SECONDS = 0.05


def long_line(rng: random.Random, number: int) -> str:
    """About 650 bytes, no two equal."""
    return f'{{"body": "{number} {" ".join(rng.choices(WORDS, k=70))}", "queue": "a"}}\n'


def short_line(rng: random.Random, number: int) -> str:
    """About 140 bytes, the length of a tweet; one in fifty says what others say."""
    words = " ".join(rng.choices(WORDS, k=12))
    said = f"retweet {number % 1_000} of something that many say" if rng.random() < 0.02 else f"{number} {words}"
    return f'{{"body": "{said}", "queue": "a"}}\n'


CASES: dict[str, Callable[[random.Random, int], str]] = {"long_lines": long_line, "short_lines": short_line}


def write(path: Path, num_bytes: int, line: Callable[[random.Random, int], str]) -> int:
    """Write lines up to a size; return how many."""
    rng = random.Random(1)
    written = count = 0
    with path.open("w", encoding="utf-8") as file:
        while written < num_bytes:
            written += file.write(line(rng, count))
            count += 1
    return count


def peak_bytes(pid: int) -> int:
    """The most memory that a process ever held, from the kernel: unlike ``getrusage`` it knows nothing of a parent."""
    (line,) = [one for one in Path(f"/proc/{pid}/status").read_text().splitlines() if one.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024


def ingest(home: Path, path: Path) -> tuple[float, int, int]:
    """Ingest with one worker process, Celery and all; seconds, records and the worker's peak memory in bytes."""
    catalog = Catalog(Settings(home=home))
    home.mkdir()
    migrate.upgrade(catalog)
    Store.of(catalog.settings).create()
    run_id = submit_ingest(catalog, dataset="big", paths=[str(path)], text_column="body", label_column="queue")[0]
    assert run_id is not None
    environment = os.environ | {"WINNOW_HOME": str(home)}
    command = [sys.executable, "-m", "workers.main", "--name", "w1", "--parent", str(os.getpid())]
    with (home / "log").open("wb") as log, subprocess.Popen(command, env=environment, stdout=log, stderr=log) as worker:
        try:
            while runs.num_workers_alive(catalog) == 0:
                assert worker.poll() is None
                time.sleep(POLL_SECONDS)
            began = time.perf_counter()
            relay(catalog, make_app(catalog.settings))
            result = _finished(catalog, run_id)
            seconds = time.perf_counter() - began
            peak = peak_bytes(worker.pid)
        finally:
            worker.terminate()
    catalog.close()
    return seconds, int(result["records"]), peak


def _finished(catalog: Catalog, run_id: str) -> dict[str, Any]:
    while True:
        with catalog.read() as session:
            seen = runs.run_progress(session, run_id, catalog.now(session))
        if seen.state != "running":
            assert seen.state == "done", seen.reason
            return seen.result or {}
        time.sleep(POLL_SECONDS)


def main() -> None:
    """Measure every case on a file and a home folder of its own."""
    options = arguments(__doc__ or "")
    num_bytes = 25_000_000 if options.quick else 1_000_000_000
    figures: dict[str, Any] = {"megabytes": num_bytes / 1e6}
    for name, line in CASES.items():
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "big.jsonl"
            count = write(path, num_bytes, line)
            seconds, records, peak = ingest(Path(folder) / "home", path)
        assert records == count
        print(f"{name}: {count:,} records, {num_bytes / 1e6:,.0f} MB: {seconds:.1f} s, {peak / 2**20:,.0f} MiB")
        figures[name] = {
            "records": count,
            "seconds": round(seconds, 1),
            "megabytes_per_second": round(num_bytes / 1e6 / seconds, 1),
            "records_per_second": round(count / seconds),
            "peak_mib": round(peak / 2**20),
            "within_one_gib": peak < 2**30,
        }
    report("ingest", options, figures, ("polars", "pyarrow"))


if __name__ == "__main__":
    main()
