"""Adding one percent to an index: time against the batch over everything, and whether the verdicts are the same.

Real texts with seeded edits, in random order, ingested and deduplicated as a person would, by two workers that
keep running: first all but the last parts, then one part after the other, then everything again without the index.
Compared are all pairs by which a record leaves and all pairs that were measured. The first update pays for what a
process loads once; the share is that of the later ones, and the first is printed beside it.
"""

import json
import random
import statistics
import tempfile
from pathlib import Path
from typing import Any

import polars as pl
from sqlalchemy import select

from benchmarks.corpora import SUMMARIES_VARIABLE, docstrings
from benchmarks.dedup_scale import NUM_WORKERS, run_to_end, short_texts, write_corpus
from benchmarks.reporting import options_parser, report
from catalog import migrate
from catalog.database import Catalog
from catalog.settings import Settings
from catalog.store import Store
from catalog.tables.curation import DuplicatePair
from catalog.tables.engine import Run
from curation.dedup.config import NearConfig
from curation.recipe import Recipe
from service.processes import Supervisor
from workers import clusters
from workers.index import size_bytes, state_of
from workers.pipelines.deduplicate import submit_dedup
from workers.pipelines.ingest import submit_ingest

UPDATES = 4
DATASET = "incremental"


def write_parts(folder: Path, base: list[str], records: int) -> list[str]:
    """The first file has ``records`` texts, each further one a hundredth of that."""
    added = max(1, records // 100)
    lines = []
    for path in map(Path, write_corpus(folder, base, records + UPDATES * added)):
        lines += path.read_text(encoding="utf-8").splitlines(keepends=True)
        path.unlink()
    random.Random(1).shuffle(lines)
    paths = []
    for number in range(UPDATES + 1):
        start = records + (number - 1) * added if number else 0
        path = folder / f"added-{number}.jsonl"
        path.write_text("".join(lines[start : start + (added if number else records)]), encoding="utf-8")
        paths.append(str(path))
    return paths


def deduplicate(catalog: Catalog, supervisor: Supervisor, *, rebuild: bool = False) -> tuple[Run, float]:
    """One deduplication; the run and its seconds from being asked for to the published version."""
    recipe = Recipe(name="dedup", near=NearConfig())
    run_id, _ = submit_dedup(catalog, dataset=DATASET, recipe=recipe, rebuild=rebuild)
    run_to_end(catalog, run_id, supervisor)
    with catalog.read() as session:
        run = session.get_one(Run, run_id)
        assert run.finished_at is not None
        return run, (run.finished_at - run.created_at).total_seconds()


def verdicts(catalog: Catalog, run: Run) -> tuple[pl.DataFrame, pl.DataFrame]:
    """All pairs in force after a run: those by which a record leaves, and all that were measured."""
    columns = [one for one in DuplicatePair.__table__.columns if one.key != "run_id"]
    with catalog.read() as session:
        rows = [tuple(row) for row in session.execute(select(*columns).where(clusters.in_force(run)))]
        measured = pl.concat(list(clusters.measured_pairs(session, Store.of(catalog.settings), run)))
    left = pl.DataFrame(rows, schema=[one.key for one in columns], orient="row", infer_schema_length=None)
    key = ["record_id", "keeper_id"]
    return left.sort(key), measured.sort(key)


def measure(base: list[str], records: int, folder: Path) -> dict[str, Any]:
    """A base, updates, and the batch over all of it."""
    settings = Settings(home=folder / "home", num_workers=NUM_WORKERS)
    settings.home.mkdir()
    catalog = Catalog(settings)
    migrate.upgrade(catalog)
    Store.of(settings).create()
    supervisor = Supervisor(settings)
    supervisor.add_workers(NUM_WORKERS)
    seconds, reread = [], []
    try:
        for number, path in enumerate(write_parts(folder, base, records)):
            asked = submit_ingest(catalog, dataset=DATASET, paths=[path], text_column="text", label_column=None)
            assert asked.run_id is not None
            run_to_end(catalog, asked.run_id, supervisor)
            run, took = deduplicate(catalog, supervisor)
            assert bool(run.config.get("chain")) == bool(number), (
                "an update must build on the index, the base on nothing"
            )
            seconds.append(took)
            reread.append((run.result or {}).get("read_again"))
            print(f"{'update' if number else 'base'}: {took:.2f} s", json.dumps(run.result), flush=True)
        whole, batch = deduplicate(catalog, supervisor, rebuild=True)
        print(f"batch over everything: {batch:.2f} s", json.dumps(whole.result), flush=True)
        with catalog.read() as session:
            state = state_of(session, run.id)
        assert state is not None
        index_bytes = size_bytes(Store.of(settings).read_json(state))
        same = all(
            one.equals(other) for one, other in zip(verdicts(catalog, run), verdicts(catalog, whole), strict=True)
        )
    finally:
        supervisor.stop()
        catalog.close()
    later = statistics.median(seconds[2:])
    return {
        "share_of_batch_time": round(later / batch, 4),
        "same_verdicts": same,
        "index_bytes_per_record": round(index_bytes / (whole.result or {})["records"], 1),
        "records": records,
        "added": max(1, records // 100),
        "batch_seconds": round(batch, 2),
        "update_seconds": [round(one, 2) for one in seconds[1:]],
        "share_of_first_update": round(seconds[1] / batch, 4),
        "old_records_read_again": reread[1:],
    }


def main() -> None:
    """Measure."""
    parser = options_parser(__doc__ or "")
    parser.add_argument(
        "--corpus", type=Path, default=None, help=f"summaries (tab-separated); or ${SUMMARIES_VARIABLE}"
    )
    parser.add_argument("--whole", action="store_true", help="whole docstrings, each many times, with other edits")
    parser.add_argument("--real", action="store_true", help="only as many records as there are real texts: no edits")
    parser.add_argument("--records", type=int, default=1_000_000, help="in the index before anything is added")
    options = parser.parse_args()
    base = docstrings()[1].to_list() if options.whole else short_texts(options.corpus)
    size = sum(len(text.encode()) for text in base) / len(base)
    print(f"{len(base):,} real texts of {size:,.0f} bytes on average")
    records = len(base) * 100 // (100 + UPDATES) if options.real else options.records
    records = 20_000 if options.quick else records
    with tempfile.TemporaryDirectory() as folder:
        found = measure(base, records, Path(folder))
    print(
        f"adding {found['added']:,} to {records:,} takes {found['share_of_batch_time']:.1%} of the batch's time; "
        f"the same verdicts: {found['same_verdicts']}"
    )
    found["bytes_per_text"] = round(size)
    name = "dedup_incremental" + "_whole" * options.whole + "_real" * options.real
    report(name, options, found, ("numba", "polars", "pyarrow", "celery", "sqlalchemy"))


if __name__ == "__main__":
    main()
