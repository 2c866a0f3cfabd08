"""The last stage of an ingest: every parsed record gets its id, and the raw version is published."""

from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import polars as pl
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from catalog.store import StoredFile
from catalog.tables.datasets import Source
from catalog.tables.engine import Unit
from curation.records import content_of, hash_words, record_ids
from curation.sources.mapping import Mapping
from curation.sources.nested import json_path
from workers import manifests
from workers.engine import UnitResult
from workers.execution import UnitContext
from workers.numbering import Numbering


def mapping_of(config: dict[str, Any]) -> Mapping:
    """Which columns are what, for a run of ingest."""
    if "mapping" in config:
        return Mapping(**config["mapping"])
    # Runs of before there was the key may still be going on.
    return Mapping(text=config["text_column"], label=config["label_column"], encoding=config["encoding"])


def identify(unit: UnitContext) -> UnitResult:
    """Give every record its id and publish the raw version. One shard and a bounded part of the hashes are held."""
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
    # A run that was cancelled and set going again may find that another has brought one of its files meanwhile.
    present = {entry["sha256"] for entry in before}
    skipped = sorted(source["name"] for source, _ in parts if source["sha256"] in present)
    parts = [(source, files) for source, files in parts if source["sha256"] not in present]
    added = list(_identified(unit, [(source, file) for source, files in parts for file in files], before))
    summary = _summary([source for source, _ in parts], skipped)
    settle = _settle(unit, [source for source, _ in parts])
    if not added:
        return UnitResult(result=summary | {"version": None}, apply=settle)
    entries = sorted(before + added, key=lambda entry: (entry["source"], entry["sha256"], entry["position"]))
    added.sort(key=lambda entry: (entry["source"], entry["sha256"], entry["position"]))
    manifest = manifests.write(unit.store, unit.catalog, unit.claim.dataset_id, "raw", entries)
    publish = manifests.publisher(
        unit.claim, manifest, kind="raw", parent_id=parent_id, entries=entries, summary=summary
    )

    def apply(session: Session, now: datetime) -> None:
        settle(session, now)
        publish(session, now)

    return UnitResult(
        result=summary, shards=[("text", StoredFile.from_json(entry["data"])) for entry in added], apply=apply
    )


def _identified(
    unit: UnitContext, inputs: list[tuple[dict[str, Any], StoredFile]], before: list[dict[str, Any]]
) -> Iterator[dict[str, Any]]:
    """Write the inputs again with ids; yield the manifest's entry of each."""
    old = [StoredFile.from_json(entry["data"]) for entry in before] if inputs else []
    num_old = sum(file.num_rows for file in old)
    num_new = sum(file.num_rows for _, file in inputs)
    with Numbering(unit.catalog.settings.home, num_old=num_old, num_new=num_new) as numbering:
        for file in old:
            unit.check()
            numbering.add(hash_words(content_of(unit.store.read_frame(file, ["id"])["id"])))
        # Units stand in the order of their sources' names, and their shards in that of the lines.
        for _, file in inputs:
            unit.check()
            numbering.add(hash_words(unit.store.read_frame(file, ["content"])["content"]))
        numbering.count(unit.check)
        done = 0
        positions: Counter[str] = Counter()
        for source, file in inputs:
            frame = unit.store.read_frame(file)
            ids = record_ids(frame["content"], numbering.take(frame.height))
            named = frame.select(
                id=ids, text="text", label="label", fields="fields", source=pl.lit(source["name"]), line="line"
            )
            stored = unit.store.write_frame(named, "text")
            entry = {
                "data": stored.to_json(),
                "source": source["name"],
                "sha256": source["sha256"],
                "position": positions[source["sha256"]],
            }
            yield entry | _told(unit, source, frame)
            positions[source["sha256"]] += 1
            done += frame.height
            unit.progress(done, num_new)


def _told(unit: UnitContext, source: dict[str, Any], frame: pl.DataFrame) -> dict[str, Any]:
    """What of the files' schema a shard's readers need: split, style of turns, and a column of origins of its own.

    Left out where there is nothing to tell, so that a manifest has the bytes that it always had.
    """
    mapping = mapping_of(unit.claim.config)
    told: dict[str, Any] = {
        key: value for key, value in (("split", source.get("split")), ("turns", mapping.turns)) if value
    }
    if mapping.source is not None:
        fields = pl.when(pl.col("fields") != "").then("fields")
        origin = frame.select(origin=fields.str.json_path_match(json_path(mapping.source)))
        told["origin"] = unit.store.write_frame(origin, "origin").to_json()
    return told


def _settle(unit: UnitContext, sources: list[dict[str, Any]]) -> Callable[[Session, datetime], None]:
    """Write down that the files came with this run, whoever asked for them meanwhile."""

    def apply(session: Session, _now: datetime) -> None:
        for source in sources:
            session.execute(
                update(Source)
                .where(Source.dataset_id == unit.claim.dataset_id, Source.sha256 == source["sha256"])
                .values(
                    run_id=unit.claim.run_id,
                    name=source["name"],
                    refused=source.get("refused"),
                    num_records=source["num_records"],
                    num_rejected=source.get("num_rejected", 0),
                )
            )

    return apply


def _summary(sources: list[dict[str, Any]], skipped: list[str]) -> dict[str, Any]:
    reasons: Counter[str] = Counter()
    for source in sources:
        reasons.update(source.get("reasons", {}))
    return {
        "records": sum(source["num_records"] for source in sources),
        "labelled": sum(source.get("num_labelled", 0) for source in sources),
        "rejected": sum(source.get("num_rejected", 0) for source in sources),
        "reasons": dict(sorted(reasons.items())),
        "refused": {source["name"]: source["refused"] for source in sources if source.get("refused")},
        "skipped": skipped,
        "files": len(sources),
    }
