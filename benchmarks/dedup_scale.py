"""Deduplication of a million and of ten million short records by two worker processes: memory, time, disk.

Real one-line texts, each repeated with seeded edits, ingested and deduplicated as a person would: `winnow dedup` by
the engine, on the embedded database and broker. Memory is the peak of each worker process while it works on a unit, as
the kernel counts it.
"""

import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from sqlalchemy import func, select

from benchmarks.corpora import SUMMARIES_VARIABLE, docstrings, summaries
from benchmarks.reporting import options_parser, report
from catalog import migrate
from catalog.database import Catalog
from catalog.settings import Settings
from catalog.store import Store
from catalog.tables.engine import Run, Unit
from curation.dedup.config import NearConfig
from curation.recipe import Recipe
from service.processes import Supervisor
from workers.app import deliver, make_app
from workers.index import size_bytes, state_of
from workers.pipelines.deduplicate import submit_dedup
from workers.pipelines.ingest import submit_ingest

NUM_WORKERS = 2
POLL_SECONDS = 0.5
FILES = 8
PREFIXES = ("A ", "The ", "Simple ", "New: ", "", "", "")
SUFFIXES = (".", "!", " for Python", " (beta)", " v2", " - updated", "", "")


def short_texts(path: Path | None) -> list[str]:
    """One-line texts: summaries where a file of them is given, else the first lines of docstrings."""
    if path is not None:
        _, texts = summaries(path)
        return texts.to_list()
    _, texts = docstrings()
    lines = texts.str.split("\n").list.first().str.strip_chars().unique(maintain_order=True)
    return lines.filter(lines.str.len_chars() > 0).to_list()


def write_corpus(folder: Path, base: list[str], count: int) -> list[str]:
    """``count`` records in a few JSONL files: every text as it is, then with one more seeded edit each time round."""
    rng = np.random.default_rng(1)
    paths = []
    share = -(-count // FILES)
    for number in range(FILES):
        path = folder / f"part-{number}.jsonl"
        with path.open("w", encoding="utf-8") as file:
            for index in range(number * share, min(count, (number + 1) * share)):
                file.write(json.dumps({"text": _edited(base[index % len(base)], index // len(base), rng)}) + "\n")
        paths.append(str(path))
    return paths


def _edited(text: str, time_round: int, rng: np.random.Generator) -> str:
    if not time_round:
        return text
    prefix, suffix = PREFIXES[rng.integers(len(PREFIXES))], SUFFIXES[rng.integers(len(SUFFIXES))]
    words = text.split(" ")
    place = int(rng.integers(len(words)))
    if time_round % 3 == 1:
        words[place] = words[place].swapcase()
    elif time_round % 3 == 2:
        words[place] = f"{words[place]}{time_round}"
    return f"{prefix}{' '.join(words)}{suffix}"


def run_to_end(catalog: Catalog, run_id: str, supervisor: Supervisor) -> dict[str, Any]:
    """Announce a run, as the command does, and wait for it; its seconds and its peaks of memory."""
    deliver(catalog, make_app(catalog.settings))
    began = time.perf_counter()
    while True:
        supervisor.tend()
        with catalog.read() as session:
            run = session.get_one(Run, run_id)
            state, reason = run.state, run.reason
            of_worker = select(func.max(Unit.peak_bytes)).where(Unit.run_id == run_id).group_by(Unit.owner)
            peaks = [peak or 0 for peak in session.scalars(of_worker)]
            of_stage = (
                select(Unit.stage_name, func.max(Unit.peak_bytes))
                .where(Unit.run_id == run_id)
                .group_by(Unit.stage_name)
            )
            stages = {
                stage: round((peak or 0) / 2**30, 3)
                for stage, peak in session.execute(of_stage.group_by(Unit.stage_name))
            }
        if state != "running":
            assert state == "done", reason
            return {
                "seconds": time.perf_counter() - began,
                "peak_bytes": max(peaks),
                "peak_bytes_all": sum(peaks),
                "peak_gib_by_stage": stages,
            }
        time.sleep(POLL_SECONDS)


def measure(base: list[str], count: int, folder: Path) -> dict[str, Any]:
    """Ingest and deduplicate ``count`` records in a home of its own."""
    home = folder / f"home-{count}"
    home.mkdir()
    settings = Settings(home=home, num_workers=NUM_WORKERS)
    catalog = Catalog(settings)
    migrate.upgrade(catalog)
    Store.of(settings).create()
    corpus = folder / f"corpus-{count}"
    corpus.mkdir()
    paths = write_corpus(corpus, base, count)
    supervisor = Supervisor(settings)
    supervisor.add_workers(NUM_WORKERS)
    try:
        asked = submit_ingest(catalog, dataset="scale", paths=paths, text_column="text", label_column=None)
        assert asked.run_id is not None
        ingested = run_to_end(catalog, asked.run_id, supervisor)
    finally:
        supervisor.stop()
    for path in paths:
        Path(path).unlink()
    before = _disk(home / "store")
    # Workers of their own, so that the memory is the deduplication's.
    supervisor = Supervisor(settings)
    supervisor.add_workers(NUM_WORKERS)
    try:
        recipe = Recipe(name="dedup", near=NearConfig())
        run_id, _ = submit_dedup(catalog, dataset="scale", recipe=recipe)
        found = run_to_end(catalog, run_id, supervisor)
        with catalog.read() as session:
            result = session.get_one(Run, run_id).result or {}
            state_file = state_of(session, run_id)
        assert state_file is not None
        index_bytes = size_bytes(Store.of(settings).read_json(state_file))
    finally:
        supervisor.stop()
        catalog.close()
    return {
        "records": count,
        "ingest_seconds": round(ingested["seconds"], 1),
        "seconds": round(found["seconds"], 1),
        "records_per_second": round(count / found["seconds"]),
        "peak_gib_a_worker": round(found["peak_bytes"] / 2**30, 3),
        "peak_gib": round(found["peak_bytes_all"] / 2**30, 3),
        "peak_gib_by_stage": found["peak_gib_by_stage"],
        "index_bytes_per_record": round(index_bytes / count, 1),
        "store_bytes_per_record": round((_disk(home / "store") - before) / count, 1),
        **{
            name: result[name]
            for name in ("kept", "exact_duplicates", "near_duplicates", "clusters", "biggest_cluster")
        },
    }


def _disk(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def main() -> None:
    """Measure one size and ten times as many."""
    parser = options_parser(__doc__ or "")
    parser.add_argument(
        "--corpus", type=Path, default=None, help=f"summaries (tab-separated); or ${SUMMARIES_VARIABLE}"
    )
    parser.add_argument("--records", type=int, default=1_000_000, help="the smaller of the two sizes")
    options = parser.parse_args()
    records = 4_000 if options.quick else options.records
    base = short_texts(options.corpus)
    print(f"{len(base):,} real texts, repeated with seeded edits; {NUM_WORKERS} workers")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for count in (records, 10 * records):
            rows.append(measure(base, count, Path(folder)))
            print(json.dumps(rows[-1]))
    small, large = rows
    print(pl.DataFrame(rows).select("records", "seconds", "records_per_second", "peak_gib_a_worker", "peak_gib"))
    report(
        "dedup_scale",
        options,
        {
            "memory_growth_10x": round(large["peak_gib_a_worker"] / small["peak_gib_a_worker"], 3),
            "peak_gib_10m": large["peak_gib"] if large["records"] == 10_000_000 else None,
            "index_bytes_per_record": large["index_bytes_per_record"],
            "small": small,
            "large": large,
        },
        ("numba", "polars", "pyarrow", "celery", "sqlalchemy"),
    )


if __name__ == "__main__":
    main()
