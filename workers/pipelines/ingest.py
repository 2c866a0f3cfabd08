"""Ingest: files in, an immutable raw version out.

parse (a file) → quarantine (a shard of rejected rows) → identify (all)
"""

import hashlib
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from catalog.database import Catalog, one_at_a_time
from catalog.errors import ConfigError, ConflictError, DataError
from catalog.settings import Settings
from catalog.store import StoredFile
from catalog.tables.base import new_id
from catalog.tables.datasets import Dataset, Quarantined, Source
from catalog.tables.engine import Run, Unit
from curation.records import content_hash
from curation.sources import SourceRefusedError
from curation.sources.apart import read_guarded
from curation.sources.conversations import STYLES
from curation.sources.folders import parts_of
from curation.sources.mapping import Mapping
from workers import manifests, runs
from workers.engine import UnitResult
from workers.execution import UnitContext
from workers.pipelines import PIPELINES, Pipeline, Stage, single
from workers.pipelines.identify import identify, mapping_of

HASH_BLOCK_BYTES = 2**20


class Asked(NamedTuple):
    """What becomes of the files that an ingest was asked for.

    Parameters
    ----------
    run_id : the run that reads them, or None when nothing is left for one.
    skipped : files left out, by name: why.
    others : files that other runs are reading, by name: the run's id. Their bytes go in when that run ends.
    """

    run_id: str | None
    skipped: dict[str, str]
    others: dict[str, str]


def sha256_of(path: Path, on_block: Callable[[int], None] = lambda _num_bytes: None) -> str:
    """SHA-256 of a file, read in blocks; ``on_block`` is told the size of each."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(HASH_BLOCK_BYTES):
            digest.update(block)
            on_block(len(block))
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
    text_column: str | None = None,
    label_column: str | None = None,
    encoding: str = "utf-8",
    mapping: Mapping | None = None,
    requested_by: str | None = None,
    on_hash: Callable[[int, int], None] = lambda _done, _total: None,
) -> Asked:
    """Ask for files to be ingested into a dataset, made if it does not exist.

    The same bytes go in once: a file that is in the dataset, or is given twice under two names, is skipped. A file that
    a running run reads is left to that run.

    Parameters
    ----------
    paths : files, and folders of datasets as Hugging Face libraries write them.
    text_column, label_column, encoding : a mapping in short, where none is given.
    mapping : which columns are what.
    on_hash : told the bytes hashed so far and the bytes of all files, block by block.

    Raises
    ------
    DataError : a path cannot be read. ConfigError : the columns differ from those the dataset was made with.
    """
    check_name(dataset)
    mapping = mapping or Mapping(text=text_column, label=label_column, encoding=encoding)
    given, skipped = _distinct(paths, on_hash)
    with catalog.write() as session:
        # Of two requests for one file the second must see what the first asked for.
        one_at_a_time(session, f"dataset {dataset}")
        now = catalog.now(session)
        found = _dataset(session, dataset, mapping, now)
        present = _present(session, found)
        skipped |= {one["name"]: f"these bytes are in {dataset!r} already" for one in given if one["sha256"] in present}
        new = [one for one in given if one["sha256"] not in present]
        # Two runs over one file would both publish its records. The run that was asked for exactly this is no other.
        same = session.scalar(select(Run.state).where(Run.idempotency_key == _key(session, found, mapping, new)))
        reading = {} if same == "running" else _being_read(session, found)
        others = {one["name"]: reading[one["sha256"]] for one in new if one["sha256"] in reading}
        new = [one for one in new if one["sha256"] not in reading]
        if not new:
            return Asked(None, skipped, others)
        run, state = runs.submit(
            session,
            now=now,
            kind="ingest",
            dataset_id=found.id,
            version_id=None,
            config={"sources": new, "mapping": asdict(mapping)},
            idempotency_key=_key(session, found, mapping, new),
            requested_by=requested_by,
        )
        if state in ("new", "resumed"):
            _adopt_sources(session, run, new)
        return Asked(run.id, skipped, others)


def _distinct(paths: list[str], on_hash: Callable[[int, int], None]) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """The files by name, of equal ones that with the smallest name; and the names of the others with a reason each."""
    splits = dict(_expanded(paths))
    files = [(os.path.normpath(given), path) for given, path in zip(splits, check_paths(list(splits)), strict=True)]
    total = sum(path.stat().st_size for _, path in files)
    done = 0

    def on_block(num_bytes: int) -> None:
        nonlocal done
        done += num_bytes
        on_hash(done, total)

    hashed: dict[str, dict[str, Path]] = {}
    for name, path in files:
        hashed.setdefault(sha256_of(path, on_block), {})[name] = path
    given: list[dict[str, Any]] = []
    skipped: dict[str, str] = {}
    for sha256, equal in hashed.items():
        name, *rest = sorted(equal)
        path = equal[name]
        one = {"name": name, "sha256": sha256, "path": str(path.absolute()), "size_bytes": path.stat().st_size}
        split = next((split for given, split in splits.items() if os.path.normpath(given) == name), None)
        given.append(one | ({"split": split} if split else {}))
        skipped |= dict.fromkeys(rest, f"the same bytes as {name}")
    return sorted(given, key=lambda one: (one["name"], one["sha256"])), skipped


def _expanded(paths: list[str]) -> Iterator[tuple[str, str | None]]:
    """Files by name, those of a dataset folder with their split.

    Raises
    ------
    DataError : a folder is no dataset folder.
    """
    for given in paths:
        if Path(given).is_dir():
            yield from ((str(path), split) for path, split in parts_of(Path(given)))
        else:
            yield given, None


def _present(session: Session, dataset: Dataset) -> set[str]:
    """SHA-256 of the files that finished runs brought. One of which no row became a record may be tried again."""
    query = select(Source.sha256).join(Run, Run.id == Source.run_id)
    barren = (Source.num_records == 0) & (Source.num_rejected > 0)
    brought = (Source.dataset_id == dataset.id, Source.refused.is_(None), ~barren, Run.state == "done")
    return set(session.scalars(query.where(*brought)))


def _being_read(session: Session, dataset: Dataset) -> dict[str, str]:
    """SHA-256 of the files that running runs read, and the run of each."""
    query = select(Source.sha256, Run.id).join(Run, Run.id == Source.run_id)
    rows = session.execute(query.where(Source.dataset_id == dataset.id, Run.state == "running"))
    return {row.sha256: row.id for row in rows}


def _key(session: Session, dataset: Dataset, mapping: Mapping, sources: list[dict[str, Any]]) -> str:
    files = [(one["name"], one["sha256"]) for one in sources]
    return _unrefused_key(session, runs.digest({"ingest": dataset.id, "mapping": asdict(mapping), "files": files}))


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


def _dataset(session: Session, name: str, mapping: Mapping, now: datetime) -> Dataset:
    text_column, label_column = mapping.text_column, mapping.label
    found = session.scalars(select(Dataset).where(Dataset.name == name)).one_or_none()
    if found is None:
        found = Dataset(id=new_id(), name=name, text_column=text_column, label_column=label_column, created_at=now)
        session.add(found)
        session.flush()
        return found
    if (found.text_column, found.label_column) != (text_column, label_column):
        check_columns(session, found, mapping)
        # The first try brought nothing: its columns were the mistake that this one mends.
        found.text_column, found.label_column = text_column, label_column
    return found


def check_columns(session: Session, dataset: Dataset, mapping: Mapping) -> None:
    """Refuse other columns than those that a dataset was made with, unless nothing has come into it.

    Raises
    ------
    ConfigError : with the columns that it was made with.
    """
    made, given = (dataset.text_column, dataset.label_column), (mapping.text_column, mapping.label)
    if made != given and not _is_empty(session, dataset):
        raise ConfigError(
            f"dataset {dataset.name!r} was made with {_columns(*made)}, not {_columns(*given)}; use those, or another "
            "dataset name"
        )


def _is_empty(session: Session, dataset: Dataset) -> bool:
    """Whether nothing was published into it and nothing is on its way."""
    running = session.scalars(select(Run.id).where(Run.dataset_id == dataset.id, Run.state == "running")).first()
    return running is None and manifests.latest_version(session, dataset.id, "raw") is None


def _columns(text_column: str, label_column: str | None) -> str:
    turns = next((name for name, style in STYLES.items() if style.name == text_column), None)
    text = f"--text {text_column}" if turns is None else f"--turns {turns}"
    return f"{text} {'without --label' if label_column is None else f'--label {label_column}'}"


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
    path = Path(source["path"])
    if not path.exists():
        raise DataError(f"{source['name']} is gone from {path}; put it back and run the same command")
    if sha256_of(path, lambda _num_bytes: unit.check()) != source["sha256"]:
        raise ConflictError(
            f"{source['name']} changed since the ingest was asked for; run the command again "
            "(a schedule does by itself once the file is left alone)"
        )
    try:
        parsed = _read_shards(unit, path, unit.catalog.settings)
    except SourceRefusedError as refused:
        return UnitResult(
            result=source | {"num_records": 0, "refused": f"{refused}"}, apply=_refuse(unit, f"{refused}")
        )
    num_records = sum(file.num_rows for file in parsed.records)
    num_rejected = parsed.reasons.total()

    def apply(session: Session, _now: datetime) -> None:
        row = _source_row(session, unit)
        row.num_records, row.num_rejected = num_records, num_rejected
        session.flush()
        # Another run may have read the file before this one, in another encoding, and never ended.
        session.execute(
            delete(Quarantined).where(Quarantined.source_id == row.id, Quarantined.run_id != unit.claim.run_id)
        )

    return UnitResult(
        result=source
        | {
            "num_records": num_records,
            "num_labelled": parsed.num_labelled,
            "num_rejected": num_rejected,
            "reasons": dict(sorted(parsed.reasons.items())),
        },
        shards=[("parsed", file) for file in parsed.records] + [("rejected", file) for file in parsed.rejected],
        apply=apply,
    )


@dataclass(kw_only=True, slots=True)
class _Parsed:
    """What became of one file's rows: shards of records and of rejected rows, of ``shard_rows`` or so, and counts."""

    records: list[StoredFile] = field(default_factory=list)
    rejected: list[StoredFile] = field(default_factory=list)
    num_labelled: int = 0
    reasons: Counter[str] = field(default_factory=Counter)


def _read_shards(unit: UnitContext, path: Path, settings: Settings) -> _Parsed:
    options = mapping_of(unit.claim.config).options(
        max_line_bytes=settings.max_line_bytes,
        batch_rows=settings.shard_rows,
        batch_bytes=settings.shard_bytes,
    )
    parsed = _Parsed()
    # Rejected rows are kept like records, so that any number of them fits; a shard for every few would be slow.
    waiting: list[pl.DataFrame] = []
    done = 0
    for batch in read_guarded(str(path), options):
        if batch.records.height:
            frame = batch.records.with_columns(content=content_hash(batch.records))
            parsed.records.append(unit.store.write_frame(frame, "parsed"))
            parsed.num_labelled += frame.height - frame["label"].null_count()
        if batch.rejected.height:
            parsed.reasons.update(batch.rejected["reason"].to_list())
            waiting.append(batch.rejected)
        if sum(one.height for one in waiting) >= settings.shard_rows:
            parsed.rejected.append(unit.store.write_frame(pl.concat(waiting), "rejected"))
            waiting.clear()
        done += batch.records.height + batch.rejected.height
        unit.progress(done, done)
    if waiting:
        parsed.rejected.append(unit.store.write_frame(pl.concat(waiting), "rejected"))
    return parsed


def _plan_quarantine(session: Session, run: Run) -> list[dict[str, Any]]:
    """One unit a shard: all rejected rows in one transaction would keep every other writer waiting."""
    parsed = session.scalars(select(Unit).where(Unit.run_id == run.id, Unit.stage == 0).order_by(Unit.position)).all()
    return [
        {"source": {"sha256": one.payload["source"]["sha256"]}, "file": file.to_json()}
        for one in parsed
        for file in manifests.unit_files(session, one.id, "rejected")
    ]


def _quarantine(unit: UnitContext) -> UnitResult:
    """Write one shard of rejected rows to where people look for them."""
    with unit.catalog.read() as session:
        source_id = _source_row(session, unit).id
    rows = unit.store.read_frame(StoredFile.from_json(unit.claim.payload["file"])).select(
        source_id=pl.lit(source_id), line="line", run_id=pl.lit(unit.claim.run_id), reason="reason", detail="detail"
    )
    unit.progress(rows.height, rows.height)
    return UnitResult(rows=[(Quarantined.metadata.tables["quarantine"], rows)])


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


PIPELINES.register("ingest")(
    Pipeline(
        stages=(
            Stage(name="parse", plan=_plan_parse, work=_parse),
            Stage(name="quarantine", plan=_plan_quarantine, work=_quarantine),
            Stage(name="identify", plan=single, work=identify),
        )
    )
)
