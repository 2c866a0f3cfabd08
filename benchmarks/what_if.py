"""Seconds for ``winnow what-if`` on a million records, and whether it answers as a new run does.

The docstrings of installed packages are cleaned for real. What that run measured is repeated, with new ids and hashes
for each repetition, into the same tables and shards, so that a run over a million records lies there as the pipeline
would have left it; its text shards repeat the texts. Then the question is asked cold, from a process that has read none
of it. On the real part, verdicts of the what-if's version are compared with those of a new run.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from sqlalchemy import select

from benchmarks import corpora
from benchmarks.reporting import options_parser, report
from catalog import migrate
from catalog.bulk import upsert_frame
from catalog.database import Catalog
from catalog.settings import Settings
from catalog.store import Store, StoredFile
from catalog.tables.base import new_id
from catalog.tables.curation import Verdict
from catalog.tables.datasets import Shard, Version
from catalog.tables.engine import Run, Unit
from curation.recipe import Recipe, load_recipe
from curation.whatif import changed_recipe
from tests.servers import postgres_server
from tests.workers.building import drain
from workers import manifests
from workers.pipelines.clean import submit_clean
from workers.pipelines.ingest import submit_ingest
from workers.pipelines.what_if import submit_what_if

SETTINGS = ["word_count.minimum=30", "near.threshold=0.85"]
VERDICT = Verdict.metadata.tables["verdicts"]
ASK = """
import json, sys, time
began = time.perf_counter()
from catalog.database import Catalog
from catalog.settings import Settings
from catalog.store import Store
from workers.whatif import find_judging, what_if
loaded, used = time.perf_counter(), time.process_time()
catalog = Catalog(Settings(home=sys.argv[1], database_url=sys.argv[2]))
with catalog.read() as session:
    run = find_judging(session, sys.argv[3])
    found = what_if(session, Store.of(catalog.settings), run, sys.argv[4:])
seconds, used = time.perf_counter() - loaded, time.process_time() - used
(peak,) = (int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(json.dumps({"seconds": seconds, "cpu": used, "imports": loaded - began, "peak_mib": peak >> 10, "found": found}))
"""


def recipe() -> Recipe:
    """The preset, with an encoder that needs no model to be made first: what-if reads no vectors."""
    return replace(load_recipe("web-text"), encoder="hashing")


def real_run(catalog: Catalog, folder: Path, records: int, seed: int) -> str:
    """Clean real texts; the id of the run."""
    rng = np.random.default_rng(seed)
    _, texts = corpora.docstrings()
    rows = pl.Series(np.sort(rng.permutation(len(texts))[:records]))
    path = folder / "docstrings.jsonl"
    pl.DataFrame({"text": texts.gather(rows)}).write_ndjson(path)
    submit_ingest(catalog, dataset="real", paths=[str(path)], text_column="text", label_column=None)
    drain(catalog)
    run_id, _ = submit_clean(catalog, dataset="real", recipe=recipe())
    drain(catalog)
    return run_id


def verdicts_of(catalog: Catalog, run_id: str) -> dict[str, tuple[bool, str | None, list[str]]]:
    """Verdict, reason and all failures of each record."""
    query = select(Verdict.record_id, Verdict.kept, Verdict.reason, Verdict.failed).where(Verdict.run_id == run_id)
    with catalog.read() as session:
        return {row[0]: (row[1], row[2], row[3]) for row in session.execute(query)}


def differences(catalog: Catalog, run_id: str) -> int:
    """Records about which the what-if's version and a new run differ."""
    made, _ = submit_what_if(catalog, run=run_id, settings=SETTINGS)
    drain(catalog)
    anew, _ = submit_clean(catalog, dataset="real", recipe=changed_recipe(recipe(), SETTINGS))
    drain(catalog)
    one, other = verdicts_of(catalog, made), verdicts_of(catalog, anew)
    assert one.keys() == other.keys()
    return sum(one[record] != other[record] for record in one)


class Repeated:
    """A run as one unit of every stage would have left it, made of another's shards, many times."""

    def __init__(self, catalog: Catalog, run_id: str, times: int) -> None:
        self.catalog, self.times = catalog, times
        self.store = Store.of(catalog.settings)
        with catalog.read() as session:
            self.run = session.get_one(Run, run_id)
            self.version = session.scalars(select(Version).where(Version.run_id == run_id)).one()
            self.entries = manifests.read(self.store, self.version)["shards"]
            self.measured = manifests.run_files(session, run_id, "measured")
            self.pairs = manifests.run_files(session, run_id, "pairs")
            rows = session.execute(
                select(Verdict.record_id, Verdict.kept, Verdict.reason, Verdict.failed, Verdict.measured,
                       Verdict.scores).where(Verdict.run_id == run_id)
            )  # fmt: skip
            self.verdicts = pl.DataFrame(
                [(*row[:3], *(json.dumps(one) for one in row[3:])) for row in rows],
                schema=["record_id", "kept", "reason", "failed", "measured", "scores"],
                orient="row",
                infer_schema_length=None,
            )

    def write(self, *, verdicts: bool) -> str:
        """Write everything, the table of verdicts if wanted; the id of the run."""
        run_id, unit_id = new_id(), new_id()
        files: list[tuple[str, StoredFile]] = []
        shards: list[dict[str, Any]] = []
        for turn in range(self.times):
            for entry, file in zip(self.entries, self.measured, strict=True):
                frame = self.store.read_frame(file)
                frame = frame.with_columns(_again("id", turn), _again("exact_hash", turn))
                files.append(("measured", self.store.write_frame(frame, "measured")))
                text = self.store.read_frame(StoredFile.from_json(entry["data"])).with_columns(_again("id", turn))
                shards.append(entry | {"data": self.store.write_frame(text, "text").to_json()})
            for file in self.pairs:
                pairs = self.store.read_frame(file).with_columns(_again("record_id", turn), _again("keeper_id", turn))
                files.append(("pairs", self.store.write_frame(pairs, "pairs")))
            if not verdicts:
                continue
            with self.catalog.write() as session:
                rows = self.verdicts.with_columns(_again("record_id", turn), run_id=pl.lit(run_id))
                upsert_frame(session, VERDICT, rows)
        manifest = manifests.write(self.store, self.catalog, self.run.dataset_id, "curated", shards)
        result = _times(self.run.result or {}, self.times)
        with self.catalog.write() as session:
            config = self.run.config
            common = {"dataset_id": self.run.dataset_id, "created_at": self.run.created_at}
            session.add(
                Run(id=run_id, kind="clean", version_id=self.run.version_id, idempotency_key=run_id, config=config,
                    config_hash=self.run.config_hash, state="done", result=result,
                    finished_at=self.run.finished_at, **common)
            )  # fmt: skip
            session.flush()
            session.add(
                Unit(id=unit_id, run_id=run_id, stage=0, stage_name="measure", position=0, payload={}, state="done",
                     ready_at=self.run.created_at)
            )  # fmt: skip
            session.flush()
            for position, (kind, file) in enumerate(files):
                session.add(
                    Shard(dataset_id=self.run.dataset_id, run_id=run_id, unit_id=unit_id, position=position, kind=kind,
                          **file.to_json())
                )  # fmt: skip
            session.add(
                Version(number=1_000, kind="curated", run_id=run_id, parent_id=None, manifest_name=manifest.name,
                        manifest_sha256=manifest.sha256, num_records=result["kept"], num_shards=len(shards),
                        summary=result, **common)
            )  # fmt: skip
        return run_id


def _again(column: str, turn: int) -> pl.Expr:
    """Hexadecimal names made others in every turn: the last eight digits of the hash count the turns up."""
    text = pl.col(column)
    return pl.concat_str(text.str.slice(0, 24), pl.lit(f"{turn:08x}"), text.str.slice(24, 8), text.str.slice(32)).alias(
        column
    )


def _times(result: dict[str, Any], times: int) -> dict[str, Any]:
    dropped = {rule: count * times for rule, count in result["dropped"].items()}
    return result | {"records": result["records"] * times, "kept": result["kept"] * times, "dropped": dropped}


def ask(catalog: Catalog, run_id: str) -> dict[str, Any]:
    """What a process answers that has just been started, and its seconds and memory."""
    arguments = [str(catalog.settings.home), catalog.settings.database_url, run_id, *SETTINGS]
    done = subprocess.run([sys.executable, "-c", ASK, *arguments], capture_output=True, check=True)
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def measure(folder: Path, url: str, records: int, target: int, options: argparse.Namespace) -> dict[str, Any]:
    """Everything on one database."""
    catalog = Catalog(Settings(home=folder, database_url=url))
    migrate.upgrade(catalog)
    Store.of(catalog.settings).create()
    run_id = real_run(catalog, folder, records, options.seed)
    differing = differences(catalog, run_id)
    small = ask(catalog, run_id)
    began = time.perf_counter()
    big = Repeated(catalog, run_id, max(1, target // small["found"]["records"])).write(verdicts=not options.quick)
    written = time.perf_counter() - began
    tries = [ask(catalog, big) for _ in range(3)]
    found = tries[0]["found"]
    times = found["records"] // small["found"]["records"]
    assert all(found[key] == times * small["found"][key] for key in ("records", "kept_before", "kept_after"))
    catalog.close()
    best = min(tries, key=lambda one: float(one["seconds"]))
    return {
        "records": found["records"],
        "seconds": round(best["seconds"], 2),
        "seconds_per_million": round(best["seconds"] * 1e6 / found["records"], 2),
        "core_seconds": round(best["cpu"], 2),
        "imports": round(best["imports"], 2),
        "peak_mib": best["peak_mib"],
        "kept_before": found["kept_before"],
        "kept_after": found["kept_after"],
        "differing_from_a_new_run": differing,
        "compared_with_a_new_run": small["found"]["records"],
        "written_seconds": round(written, 1),
    }


def main() -> None:
    """Measure SQLite; where it is not to be quick, with the table of verdicts, and PostgreSQL too."""
    parser = options_parser(__doc__ or "")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    records, target = (2_000, 500_000) if options.quick else (20_000, 1_000_000)
    figures: dict[str, Any] = {"seed": options.seed, "settings": SETTINGS}
    with tempfile.TemporaryDirectory() as home:
        found = measure(Path(home), "", records, target, options)
    print(f"sqlite: {found}")
    figures |= found
    if not options.quick:
        with tempfile.TemporaryDirectory() as home, postgres_server() as url:
            other = measure(Path(home), url, records, target, options)
        print(f"postgresql: {other}")
        figures["seconds_per_million_postgresql"] = other["seconds_per_million"]
        figures["differing_from_a_new_run_postgresql"] = other["differing_from_a_new_run"]
    report("what_if", options, figures, ("polars", "pyarrow", "sqlalchemy"))


if __name__ == "__main__":
    main()
