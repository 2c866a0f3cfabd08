"""A whole `web-text` cleaning of a gigabyte of text by two workers: memory, and every step's share of the time.

Pages are made of real texts put together in seeded order, paragraph after paragraph, until they are as long as web
pages are; a tenth of the pages are near copies of others. They are ingested and cleaned as a person would. Vectors of
tokens are distilled before, as they are once in a home. Memory is the peak of a worker process while it works on a
unit, as the kernel counts it, and seconds are those of all units of a step, one after another.
"""

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.corpora import SUMMARIES_VARIABLE, mixed
from benchmarks.dedup_scale import NUM_WORKERS, run_to_end
from benchmarks.reporting import options_parser, report
from catalog import migrate
from catalog.database import Catalog
from catalog.settings import Settings
from catalog.store import Store
from catalog.tables.engine import Run
from curation.encoders import ENCODERS
from curation.recipe import load_recipe
from service.processes import Supervisor
from workers import findings
from workers.pipelines.clean import submit_clean
from workers.pipelines.ingest import submit_ingest

RECIPE = "web-text"
FILES = 8
PAGE_CHARS = (300, 12_000)
"""Lengths of pages are drawn between these, evenly in their logarithm."""
COPIES = 0.1
SEED = 1
EMBEDDING = ("score", "embed")
"""Steps of which most is the encoder's work."""


def write_pages(folder: Path, num_bytes: int, summaries: Path | None, data: Path | None) -> tuple[list[str], int, int]:
    """JSONL files of about so many bytes of text; their paths, the number of pages and of bytes."""
    rng = np.random.default_rng(SEED)
    texts = mixed(300_000, rng, summaries_path=summaries, data=data).texts.to_list()
    order, place = rng.permutation(len(texts)), 0
    written = pages = 0
    page = ""
    paths = []
    for number in range(FILES):
        path = folder / f"pages-{number}.jsonl"
        with path.open("w", encoding="utf-8") as file:
            while written < num_bytes * (number + 1) // FILES:
                if page and rng.random() < COPIES:
                    words = page.split(" ")
                    words[int(rng.integers(len(words)))] = "copied"
                    page = " ".join(words)
                else:
                    length, parts, chars = np.exp(rng.uniform(*np.log(PAGE_CHARS))), [], 0
                    while chars < length:
                        if place == len(order):
                            order, place = rng.permutation(len(texts)), 0
                        parts.append(texts[order[place]])
                        chars += len(parts[-1])
                        place += 1
                    page = "\n\n".join(parts)
                file.write(json.dumps({"text": page}, ensure_ascii=False) + "\n")
                written += len(page.encode())
                pages += 1
        paths.append(str(path))
    return paths, pages, written


def measure(num_bytes: int, folder: Path, summaries: Path | None, data: Path | None) -> dict[str, Any]:
    """Ingest and clean pages in a home of their own."""
    settings = Settings(home=folder / "home", num_workers=NUM_WORKERS)
    settings.home.mkdir()
    catalog = Catalog(settings)
    migrate.upgrade(catalog)
    store = Store.of(settings)
    store.create()
    recipe = load_recipe(RECIPE)
    ENCODERS[recipe.encoder].member(["a text"], settings.home / "models")
    paths, pages, size = write_pages(folder, num_bytes, summaries, data)
    print(f"{pages:,} pages, {size / 1e6:,.0f} MB", flush=True)
    supervisor = Supervisor(settings)
    supervisor.add_workers(NUM_WORKERS)
    try:
        asked = submit_ingest(catalog, dataset="pages", paths=paths, text_column="text", label_column=None)
        assert asked.run_id is not None
        ingested = run_to_end(catalog, asked.run_id, supervisor)
        print(f"ingested in {ingested['seconds']:.1f} s", flush=True)
        run_id, _ = submit_clean(catalog, dataset="pages", recipe=recipe)
        cleaned = run_to_end(catalog, run_id, supervisor)
        with catalog.read() as session:
            run = session.get_one(Run, run_id)
            costs, result = findings.costs(session, run), run.result or {}
    finally:
        supervisor.stop()
        catalog.close()
    total = sum(one.seconds for one in costs)
    for one in costs:
        peak = (one.peak_bytes or 0) / 2**30
        print(f"{one.stage:10} {one.units:5} units {one.seconds:8.1f} s {one.seconds / total:6.1%} {peak:6.2f} GiB")
    shares = {one.stage: round(one.seconds / total, 4) for one in costs}
    largest = max(shares, key=lambda stage: shares[stage])
    return {
        "peak_gib": round(cleaned["peak_bytes_all"] / 2**30, 3),
        "peak_gib_a_worker": round(cleaned["peak_bytes"] / 2**30, 3),
        "largest_step": largest,
        "largest_step_share": shares[largest],
        "largest_step_share_but_embedding": max(share for stage, share in shares.items() if stage not in EMBEDDING),
        "shares": shares,
        "pages": pages,
        "bytes": size,
        "seconds": round(cleaned["seconds"], 1),
        "mb_per_second": round(size / 1e6 / cleaned["seconds"], 2),
        "kept": result["kept"],
        "dropped": result["dropped"],
    }


def main() -> None:
    """Measure."""
    parser = options_parser(__doc__ or "")
    parser.add_argument(
        "--corpus", type=Path, default=None, help=f"summaries (tab-separated); or ${SUMMARIES_VARIABLE}"
    )
    parser.add_argument("--data", type=Path, default=None, help="folder of data sets with Korean text")
    parser.add_argument("--megabytes", type=int, default=1_000, help="of text")
    options = parser.parse_args()
    megabytes = 10 if options.quick else options.megabytes
    with tempfile.TemporaryDirectory() as folder:
        found = measure(megabytes * 1_000_000, Path(folder), options.corpus, options.data)
    report("clean_run", options, found, ("polars", "numba", "py3langid", "sentence-transformers", "celery"))


if __name__ == "__main__":
    main()
