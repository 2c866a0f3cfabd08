"""The whole story of one record, from what every stage stored about it."""

from dataclasses import asdict
from typing import Any

import polars as pl
from sqlalchemy import select
from sqlalchemy.orm import Session

from catalog.errors import NotFoundError
from catalog.store import Store, StoredFile
from catalog.tables.access import User
from catalog.tables.curation import DuplicatePair, Verdict
from catalog.tables.datasets import Dataset, Quarantined, Source, Version
from catalog.tables.engine import Run
from curation.recipe import advised_presets
from labeling import queue as queues
from workers import edits, learned, manifests, passages, pii, suspects
from workers.mapping import place_of

MIN_PREFIX = 6
PAIR_SCHEMA = {"jaccard": pl.Float64, "cosine": pl.Float64, "bands_shared": pl.Int64}
"""What not every kind of pair has."""


def biography(session: Session, store: Store, dataset: Dataset, record: str, *, clear: bool = False) -> dict[str, Any]:
    """Origin, edits, values against thresholds, personal data, duplicates, passages, scores and labels of one record.

    Also what it cost the models that learned from it.
    Passages are those that the judging run found, else those of the newest run that looked for any, else None.

    Parameters
    ----------
    clear : whether personal data that the judging run found is shown as it is, not masked, in the text and beside it.
    record : a record id, a beginning of one of at least six characters that no other record shares, or ``FILE:LINE``.

    Raises
    ------
    NotFoundError : no such record, or several begin so, or the row was set aside, with the reason.
    """
    raw = manifests.require_version(session, dataset, "raw")
    _refuse_set_aside(session, dataset, record)
    found = _find(store, raw, record)
    story: dict[str, Any] = {
        "record": found["id"],
        "dataset": dataset.name,
        "origin": {"file": found["source"], "line": found["line"]},
        "text": found["text"],
        "label": found["label"],
        "fields": found["fields"],
    }
    curated = manifests.latest_version(session, dataset.id, "curated")
    run = session.get(Run, curated.run_id) if curated is not None else None
    text = edits.text_as_judged(session, store, run, found["id"], found["text"]) if run is not None else found["text"]
    if run is not None and pii.looked(run):
        spans = pii.spans_of(session, store, run, {found["id"]}).get(found["id"], [])
        story["pii"] = pii.told(run, text, spans, clear=clear)
        story["text"] = text = text if clear else pii.hide(text, spans)
    finder = run if run is not None and passages.looked(run) else passages.newest_run(session, dataset)
    story["edits"] = edits.changes_of(session, store, run, found["id"]) if run is not None else []
    hides = run is not None and pii.looked(run) and not clear
    if finder is not None and (run is None or finder.id != run.id):
        # Another run judged another text, where it had other edits.
        text = edits.text_as_judged(session, store, finder, found["id"], found["text"])
        text = (pii.hide_anew(run, [text])[0] or "") if run is not None and hides else text
    if run is not None and hides:
        for side in ("before", "after"):
            shown = pii.hide_anew(run, [one[side] for one in story["edits"]])
            story["edits"] = [one | {side: text} for one, text in zip(story["edits"], shown, strict=True)]
    story["passages"] = finder and passages.passages_of(session, store, finder, found["id"], text)
    story["map"] = place_of(session, store, dataset, found["id"])
    if curated is None or run is None:
        return story | {"verdict": None, "hint": f"not judged yet: {advised_presets(dataset.name)}"}
    story |= _judgement(session, store, run, found["id"])
    return story | {
        "labels": _labels(session, dataset, found["id"]),
        "label_error": suspects.of_record(session, store, dataset.id, found["id"]),
        "learned": learned.of_record(session, store, curated.id, found["id"]),
        "losses": learned.losses_of_record(session, store, dataset.id, found["id"]),
    }


def _find(store: Store, version: Version, record: str) -> dict[str, Any]:
    exact = pl.col("id") == record
    matching = _matching(record)
    matches: list[dict[str, Any]] = []
    for entry in manifests.read(store, version)["shards"]:
        frame = store.read_frame(StoredFile.from_json(entry["data"]))
        full = frame.filter(exact)
        if full.height:
            return full.row(0, named=True)
        matches += frame.filter(matching).head(2).rows(named=True)
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise NotFoundError(
            f"several records match {record!r}: {matches[0]['id']}, {matches[1]['id']}; give more of it"
        )
    raise NotFoundError(
        f"there is no record {record!r} among {version.num_records:,}; "
        f"ids are 32 hex digits, a dash and a counter, and {MIN_PREFIX} characters are enough where they are unique; "
        "FILE:LINE finds a record by its origin"
    )


def _origin(record: str) -> tuple[str, int] | None:
    """File and line where ``FILE:LINE`` was given."""
    source, _, line = record.rpartition(":")
    return (source, int(line)) if source and line.isdecimal() and len(line) < 19 else None


def _refuse_set_aside(session: Session, dataset: Dataset, record: str) -> None:
    origin = _origin(record)
    if origin is None:
        return
    source, line = origin
    named = (Source.name == source) | Source.name.endswith(f"/{source}", autoescape=True)
    row = session.execute(
        select(Source.name, Quarantined.reason, Quarantined.detail)
        .join(Source, Source.id == Quarantined.source_id)
        .where(Source.dataset_id == dataset.id, named, Quarantined.line == line)
        .limit(1)
    ).one_or_none()
    if row is not None:
        raise NotFoundError(
            f"{row.name}, line {line} was set aside by ingest and is no record: {row.reason} ({row.detail}); "
            f"all of them: `winnow rejected {dataset.name}`"
        )


def _matching(record: str) -> pl.Expr:
    """Who may be meant: by origin, the file with or without its folders, or by the beginning of the id."""
    origin = _origin(record)
    if origin is not None:
        source, line = origin
        named = (pl.col("source") == source) | pl.col("source").str.ends_with(f"/{source}")
        return named & (pl.col("line") == line)
    return pl.col("id").str.starts_with(record) & pl.lit(value=len(record) >= MIN_PREFIX)


def _judgement(session: Session, store: Store, run: Run, record_id: str) -> dict[str, Any]:
    verdict = session.get(Verdict, (run.id, record_id))
    if verdict is None:
        return {"verdict": None, "hint": f"ingested after run {run.id[:8]}; clean again to judge it"}
    recipe = run.config["recipe"]
    rules = [
        {
            "rule": name,
            "version": bounds.get("version", 1),
            "measured": verdict.measured.get(name),
            "minimum": bounds.get("minimum"),
            "maximum": bounds.get("maximum"),
            "passed": name not in verdict.failed,
        }
        for name, bounds in sorted(recipe["rules"].items(), key=lambda item: int(item[1]["position"]))
    ]
    pairs = measured_pairs(session, store, run.id, record_id)
    reported = [one for one in pairs if one["accepted"] and not _removes(recipe, one["kind"])]
    left = [one for one in pairs if one["accepted"] and _removes(recipe, one["kind"])]
    keeper = next((one for one in left if one["record_id"] == record_id), None)
    return {
        "run": run.id,
        "recipe": recipe["name"],
        "verdict": "kept" if verdict.kept else "dropped",
        "reason": verdict.reason,
        "failed": verdict.failed,
        "rules": rules,
        "language": {
            "code": verdict.measured.get("language"),
            "confidence": verdict.measured.get("confidence"),
            "other": verdict.measured.get("other_language"),
            "other_ratio": verdict.measured.get("other_language_ratio"),
        },
        "identity": verdict.measured.get("identity", []),
        "duplicate_of": keeper and _pair(keeper),
        "keeper_left_for": keeper and _left_for(session, run.id, keeper["keeper_id"]),
        "duplicates": [_pair(one) for one in left if one["keeper_id"] == record_id],
        "reported": [_pair(one) for one in reported],
        "compared_and_different": [_pair(one) for one in pairs if not one["accepted"]],
        "scores": verdict.scores,
    }


def _removes(recipe: dict[str, Any], kind: str) -> bool:
    """Whether records leave by an accepted pair of this kind, or are only reported."""
    return kind != "semantic" or recipe["semantic"]["action"] == "remove"


def _left_for(session: Session, run_id: str, keeper_id: str) -> str | None:
    """For whom a keeper left in its turn, which one of exact or near duplicates can do as a semantic one."""
    query = select(DuplicatePair.keeper_id).where(
        DuplicatePair.run_id == run_id, DuplicatePair.record_id == keeper_id, DuplicatePair.accepted
    )
    return session.scalars(query).one_or_none()


def measured_pairs(session: Session, store: Store, run_id: str, record_id: str) -> list[dict[str, Any]]:
    """Every pair of a record that a run measured, accepted or not, the accepted first, then by falling similarity."""
    of_record = (pl.col("record_id") == record_id) | (pl.col("keeper_id") == record_id)
    found = [
        store.read_frame(file).filter(of_record)
        for kind in ("pairs", "semantic_pairs")
        for file in manifests.run_files(session, run_id, kind)
    ]
    if not found:
        return []
    order = ["accepted", "similarity", "record_id", "keeper_id"]
    pairs = pl.concat([*found, pl.DataFrame(schema=PAIR_SCHEMA)], how="diagonal")
    return (
        pairs.with_columns(similarity=pl.coalesce("jaccard", "cosine"))
        .sort(order, descending=[True, True, False, False])
        .drop("similarity")
        .to_dicts()
    )


def _pair(pair: dict[str, Any]) -> dict[str, Any]:
    return {
        "record": pair["record_id"],
        "kept": pair["keeper_id"],
        "kind": pair["kind"],
        "jaccard": pair["jaccard"],
        "cosine": pair["cosine"],
        "bands_shared": pair["bands_shared"],
        "rule": pair["rule"],
    }


def _labels(session: Session, dataset: Dataset, record_id: str) -> list[dict[str, Any]]:
    """Every answer as plain JSON, with the annotator's name where there is an account of that id."""
    history = queues.labels_of_record(session, dataset_id=dataset.id, record_id=record_id)
    ids = {one.annotator_id for one in history}
    names = {row[0]: row[1] for row in session.execute(select(User.id, User.name).where(User.id.in_(ids)))}
    return [
        asdict(one)
        | {"annotator": names.get(one.annotator_id, one.annotator_id), "created_at": one.created_at.isoformat()}
        for one in history
    ]
