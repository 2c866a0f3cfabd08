"""Memory and time to ingest one large JSONL file: 1 GB in a worker must stay within 1 GiB."""

import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.reporting import arguments, report
from catalog import migrate
from catalog.database import Catalog
from catalog.settings import Settings
from catalog.store import Store
from tests.workers.building import drain
from workers.pipelines.ingest import submit_ingest

WORDS = [f"word{number}" for number in range(5_000)]


def write(path: Path, num_bytes: int) -> int:
    """Lines of about 600 bytes, all different; return how many."""
    rng = random.Random(1)
    written = count = 0
    with path.open("w", encoding="utf-8") as file:
        while written < num_bytes:
            line = json.dumps({"body": f"{count} " + " ".join(rng.choices(WORDS, k=70)), "queue": "a"}) + "\n"
            written += file.write(line)
            count += 1
    return count


def child(home: Path, path: Path) -> None:
    """Ingest in this process; print seconds, records and peak memory."""
    catalog = Catalog(Settings(home=home))
    migrate.upgrade(catalog)
    Store.of(catalog.settings).create()
    submit_ingest(catalog, dataset="big", paths=[str(path)], text_column="body", label_column="queue")
    began = time.perf_counter()
    outcomes = drain(catalog)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    figures = {"seconds": time.perf_counter() - began, "peak_bytes": peak, "done": outcomes == ["done", "done"]}
    sys.stdout.write(json.dumps(figures) + "\n")


def main() -> None:
    """Write the file, ingest it in a process of its own."""
    if sys.argv[1:2] == ["--child"]:
        child(Path(sys.argv[2]), Path(sys.argv[3]))
        return
    options = arguments(__doc__ or "")
    num_bytes = 50_000_000 if options.quick else 1_000_000_000
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "big.jsonl"
        count = write(path, num_bytes)
        command = [sys.executable, "-m", "benchmarks.ingest", "--child", str(Path(folder) / "home"), str(path)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    measured = json.loads(done.stdout)
    assert measured["done"]
    print(
        f"{count:,} records, {num_bytes / 1e6:,.0f} MB: {measured['seconds']:.1f} s, "
        f"{measured['peak_bytes'] / 2**20:,.0f} MiB"
    )
    figures = {
        "megabytes": num_bytes / 1e6,
        "records": count,
        "seconds": round(measured["seconds"], 1),
        "megabytes_per_second": round(num_bytes / 1e6 / measured["seconds"], 1),
        "peak_mib": round(measured["peak_bytes"] / 2**20),
        "within_one_gib": measured["peak_bytes"] < 2**30,
    }
    report("ingest", options, figures, ("polars", "pyarrow"))


if __name__ == "__main__":
    main()
