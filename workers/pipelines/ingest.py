"""Ingest: files in, an immutable raw version out. One unit parses one file; the last gives every record its id."""

import hashlib
import os
import re
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from catalog.database import Catalog
from catalog.errors import ConfigError, ConflictError, DataError
from catalog.settings import Settings
from catalog.store import StoredFile
from catalog.tables.base import new_id
from catalog.tables.datasets import Dataset, Quarantined, Source
from catalog.tables.engine import Run, Unit
from curation.records import assign_ids, content_hash
from curation.sources import ReadOptions, SourceRefusedError, read_batches
from workers import manifests, runs
from workers.engine import UnitResult
from workers.execution import UnitContext
from workers.pipelines import PIPELINES, Pipeline, Stage, single

HASH_BLOCK_BYTES = 2**20


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, read in blocks."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(HASH_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def check_paths(paths: list[str]) -> list[Path]:
    """Refuse what cannot be read before a run exists.

    Raises
    ------
    DataError : a path is missing, a folder, or unreadable, with what to give instead.
    """
    checked = []
    for given in paths:
        path = Path(given)
        if path.is_dir():
            raise DataError(f"{given} is a folder; give its files, e.g. {path / '*.jsonl.gz'}")
        if not path.exists():
            raise DataError(f"{given} does not exist; check the path (a shell leaves an unmatched * as it is)")
        if not os.access(path, os.R_OK):
            raise DataError(f"{given} cannot be read; check its permissions")
        checked.append(path)
    return checked


def submit_ingest(
    catalog: Catalog,
    *,
    dataset: str,
    paths: list[str],
    text_column: str,
    label_column: str | None,
    encoding: str = "utf-8",
    requested_by: str | None = None,
    on_hash: Callable[[int, int], None] = lambda _done, _total: None,
) -> tuple[str | None, list[str]]:
    """Ask for files to be ingested into a dataset, made if it does not exist.

    Returns
    -------
    the run's id, or None when every file was ingested before, and the names of the files skipped for that reason.

    Raises
    ------
    DataError : a path cannot be read. ConfigError : the columns differ from those the dataset was made with.
    """
    check_name(dataset)
    try:
        ReadOptions(text_column=text_column, label_column=label_column, encoding=encoding)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    files = check_paths(paths)
    hashed: dict[str, tuple[str, Path]] = {}
    for index, path in enumerate(files):
        on_hash(index, len(files))
        hashed.setdefault(sha256_of(path), (os.path.normpath(paths[index]), path))
    with catalog.write() as session:
        now = catalog.now(session)
        found = _dataset(session, dataset, text_column, label_column, now)
        done = set(
            session.scalars(
                select(Source.sha256)
                .join(Run, Run.id == Source.run_id)
                .where(Source.dataset_id == found.id, Source.refused.is_(None), Run.state == "done")
            )
        )
        new = {sha256: where for sha256, where in hashed.items() if sha256 not in done}
        skipped = sorted(where[0] for sha256, where in hashed.items() if sha256 in done)
        if not new:
            return None, skipped
        sources = [
            {"name": name, "sha256": sha256, "path": str(path.absolute()), "size_bytes": path.stat().st_size}
            for sha256, (name, path) in sorted(new.items(), key=lambda item: (item[1][0], item[0]))
        ]
        contents = sorted((one["name"], one["sha256"]) for one in sources)
        key = runs.digest({"ingest": found.id, "encoding": encoding, "files": contents})
        run, state = runs.submit(
            session,
            now=now,
            kind="ingest",
            dataset_id=found.id,
            version_id=None,
            config={
                "sources": sources,
                "text_column": text_column,
                "label_column": label_column,
                "encoding": encoding,
            },
            idempotency_key=_unrefused_key(session, key),
            requested_by=requested_by,
        )
        if state == "new":
            _adopt_sources(session, run, sources)
        return run.id, skipped


def _unrefused_key(session: Session, key: str) -> str:
    """A run that ended with refused files must not answer for their second try."""
    attempt = key
    while (run := session.scalars(select(Run).where(Run.idempotency_key == attempt)).one_or_none()) is not None:
        if run.state != "done":
            break
        attempt = runs.digest({"after": attempt})
    return attempt


def check_name(name: str) -> str:
    """Refuse a dataset name that a URL or a shell would trip over.

    Raises
    ------
    ConfigError : not 1 to 100 letters, digits, dots, dashes and underscores beginning with a letter or digit.
    """
    if not re.fullmatch(r"\w[\w.-]{0,99}", name):
        raise ConfigError(
            f"dataset name {name!r} must be 1 to 100 letters, digits, '.', '-' or '_', beginning with a letter or digit"
        )
    return name


def _dataset(session: Session, name: str, text_column: str, label_column: str | None, now: datetime) -> Dataset:
    found = session.scalars(select(Dataset).where(Dataset.name == name)).one_or_none()
    if found is None:
        found = Dataset(id=new_id(), name=name, text_column=text_column, label_column=label_column, created_at=now)
        session.add(found)
        session.flush()
        return found
    if (found.text_column, found.label_column) != (text_column, label_column):
        raise ConfigError(
            f"dataset {name!r} was made with --text {found.text_column} --label {found.label_column}, "
            f"not --text {text_column} --label {label_column}; use those, or another dataset name"
        )
    return found


def _adopt_sources(session: Session, run: Run, sources: list[dict[str, Any]]) -> None:
    for one in sources:
        known = session.scalars(
            select(Source).where(Source.dataset_id == run.dataset_id, Source.sha256 == one["sha256"])
        ).one_or_none()
        if known is not None:
            known.run_id, known.name, known.refused = run.id, one["name"], None
        else:
            session.add(
                Source(
                    dataset_id=run.dataset_id,
                    run_id=run.id,
                    name=one["name"],
                    sha256=one["sha256"],
                    size_bytes=one["size_bytes"],
                )
            )
    session.flush()


def _plan_parse(_session: Session, run: Run) -> list[dict[str, Any]]:
    return [{"source": source} for source in run.config["sources"]]


def _parse(unit: UnitContext) -> UnitResult:
    """Read one file into shards without ids; a file that is refused whole leaves its reason instead."""
    source = unit.claim.payload["source"]
    settings = unit.catalog.settings
    path = Path(source["path"])
    if not path.exists():
        raise DataError(f"{source['name']} is gone from {path}; put it back and run the same command")
    if sha256_of(path) != source["sha256"]:
        raise ConflictError(f"{source['name']} changed since the ingest was asked for; run the command again")
    try:
        shards, rejected, num_labelled = _read_shards(unit, path, settings)
    except SourceRefusedError as refused:
        return UnitResult(
            result=source | {"num_records": 0, "refused": f"{refused}"}, apply=_refuse(unit, f"{refused}")
        )
    num_records = sum(file.num_rows for file in shards)
    lines = pl.concat(rejected) if rejected else pl.DataFrame(schema=REJECTED_SCHEMA)
    reasons = Counter(lines["reason"].to_list())

    def apply(session: Session, _now: datetime) -> None:
        from catalog.bulk import upsert_frame

        row = _source_row(session, unit)
        row.num_records, row.num_rejected = num_records, lines.height
        frame = lines.unique("line", keep="first", maintain_order=True).select(
            source_id=pl.lit(row.id), line="line", run_id=pl.lit(unit.claim.run_id), reason="reason", detail="detail"
        )
        session.flush()
        upsert_frame(session, Quarantined.metadata.tables["quarantine"], frame)

    return UnitResult(
        result=source
        | {
            "num_records": num_records,
            "num_labelled": num_labelled,
            "num_rejected": lines.height,
            "reasons": dict(sorted(reasons.items())),
        },
        shards=[("parsed", file) for file in shards],
        apply=apply,
    )


REJECTED_SCHEMA = {"line": pl.Int64, "reason": pl.String, "detail": pl.String}


def _read_shards(unit: UnitContext, path: Path, settings: Settings) -> tuple[list[StoredFile], list[pl.DataFrame], int]:
    options = ReadOptions(
        text_column=unit.claim.config["text_column"],
        label_column=unit.claim.config["label_column"],
        encoding=unit.claim.config["encoding"],
        max_line_bytes=settings.max_line_bytes,
        batch_rows=settings.shard_rows,
        batch_bytes=settings.shard_bytes,
    )
    shards: list[StoredFile] = []
    rejected: list[pl.DataFrame] = []
    done = num_labelled = 0
    for batch in read_batches(str(path), options):
        if batch.records.height:
            frame = batch.records.with_columns(content=content_hash(batch.records))
            shards.append(unit.store.write_frame(frame, "parsed"))
            num_labelled += frame.height - frame["label"].null_count()
        if batch.rejected.height:
            rejected.append(batch.rejected)
        done += batch.records.height + batch.rejected.height
        unit.progress(done, done)
    return shards, rejected, num_labelled


def _source_row(session: Session, unit: UnitContext) -> Source:
    return session.scalars(
        select(Source).where(
            Source.dataset_id == unit.claim.dataset_id, Source.sha256 == unit.claim.payload["source"]["sha256"]
        )
    ).one()


def _refuse(unit: UnitContext, reason: str) -> Callable[[Session, datetime], None]:
    def apply(session: Session, _now: datetime) -> None:
        session.execute(update(Source).where(Source.id == _source_row(session, unit).id).values(refused=reason))

    return apply


def _identify(unit: UnitContext) -> UnitResult:
    """Give every record its id and publish the raw version. Only hashes and lines are held for all records at once."""
    with unit.catalog.read() as session:
        parts = [
            (part.result or {}, manifests.unit_files(session, part.id, "parsed"))
            for part in session.scalars(
                select(Unit).where(Unit.run_id == unit.claim.run_id, Unit.stage == 0).order_by(Unit.position)
            )
        ]
        parent = manifests.latest_version(session, unit.claim.dataset_id, kind="raw")
        before = manifests.read(unit.store, parent)["shards"] if parent is not None else []
        parent_id = parent.id if parent is not None else None
    inputs = [(source, file) for source, files in parts for file in files]
    ids = _all_ids(unit, inputs, before)
    entries, offset = list(before), 0
    for index, (source, file) in enumerate(inputs):
        frame = unit.store.read_frame(file)
        mine = ids.slice(offset, frame.height)
        offset += frame.height
        named = frame.select(
            id=mine, text="text", label="label", fields="fields", source=pl.lit(source["name"]), line="line"
        )
        stored = unit.store.write_frame(named, "text")
        position = sum(1 for other, _ in inputs[:index] if other["sha256"] == source["sha256"])
        entries.append(
            {"data": stored.to_json(), "source": source["name"], "sha256": source["sha256"], "position": position}
        )
        unit.progress(offset, ids.len())
    entries.sort(key=lambda entry: (entry["source"], entry["sha256"], entry["position"]))
    written = [StoredFile.from_json(entry["data"]) for entry in entries if entry not in before]
    manifest = manifests.write(unit.store, unit.catalog, unit.claim.dataset_id, "raw", entries)
    summary = _summary([source for source, _ in parts])
    if not inputs:
        return UnitResult(result=summary | {"version": None})
    return UnitResult(
        result=summary,
        shards=[("text", file) for file in written],
        apply=manifests.publisher(
            unit.claim, manifest, kind="raw", parent_id=parent_id, entries=entries, summary=summary
        ),
    )


def _all_ids(
    unit: UnitContext, inputs: list[tuple[dict[str, Any], StoredFile]], before: list[dict[str, Any]]
) -> pl.Series:
    frames = [
        unit.store.read_frame(file, ["content", "line"]).with_columns(source=pl.lit(source["name"]))
        for source, file in inputs
    ]
    if not frames:
        return pl.Series("id", [], pl.String)
    taken = None
    if before:
        old = [unit.store.read_frame(StoredFile.from_json(entry["data"]), ["id"]) for entry in before]
        taken = (
            pl.concat(old)
            .select(content=pl.col("id").str.slice(0, 32))
            .group_by("content", maintain_order=True)
            .agg(count=pl.len().cast(pl.Int64))
        )
    return assign_ids(pl.concat(frames), taken)


def _summary(sources: list[dict[str, Any]]) -> dict[str, Any]:
    reasons: Counter[str] = Counter()
    for source in sources:
        reasons.update(source.get("reasons", {}))
    return {
        "records": sum(source["num_records"] for source in sources),
        "labelled": sum(source.get("num_labelled", 0) for source in sources),
        "rejected": sum(source.get("num_rejected", 0) for source in sources),
        "reasons": dict(sorted(reasons.items())),
        "refused": {source["name"]: source["refused"] for source in sources if source.get("refused")},
        "files": len(sources),
    }


PIPELINES.register("ingest")(
    Pipeline(
        stages=(
            Stage(name="parse", plan=_plan_parse, work=_parse),
            Stage(name="identify", plan=single, work=_identify),
        )
    )
)
