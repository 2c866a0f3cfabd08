"""Reading back what personal data a run found: spans, texts with their values hidden, rows for export."""

from collections.abc import Iterator
from typing import Any

import polars as pl
from sqlalchemy import select
from sqlalchemy.orm import Session

from catalog.errors import NotFoundError
from catalog.store import Store, StoredFile
from catalog.tables.datasets import Dataset, Version
from catalog.tables.engine import Run
from curation.pii import KINDS
from curation.pii.finding import find_spans
from curation.pii.replacing import hidden, masked
from workers import manifests
from workers.edits import edited_files, measuring_run
from workers.pipelines.pii import SPANS, STORED_SCHEMA

EXPORT_SCHEMA = {
    "record_id": pl.String,
    "source": pl.String,
    "line": pl.Int64,
    **{name: kind for name, kind in STORED_SCHEMA.items() if name != "id"},
    "masked": pl.String,
    "action": pl.String,
}


def looked(run: Run) -> bool:
    """Whether a run looked for personal data."""
    return run.config.get("recipe", {}).get("pii") is not None


def require_run(session: Session, dataset: Dataset) -> Run:
    """The newest finished run over a dataset that looked for personal data.

    Raises
    ------
    NotFoundError : there is none, with what makes one.
    """
    query = select(Run).where(Run.dataset_id == dataset.id, Run.kind == "clean", Run.state == "done")
    found = next((run for run in session.scalars(query.order_by(Run.finished_at.desc(), Run.id)) if looked(run)), None)
    if found is None:
        raise NotFoundError(
            f"no recipe with the key 'pii' has cleaned {dataset.name!r} yet; write `pii: {{action: report}}` into one "
            f"and run `winnow clean {dataset.name} --recipe FILE`, or look without a run: `winnow pii {dataset.name}`"
        )
    return found


def spans_of(session: Session, store: Store, run: Run, ids: set[str]) -> dict[str, list[dict[str, Any]]]:
    """What a run found in some of its records, by id, in the order of the texts; nothing where it did not look."""
    found: dict[str, list[dict[str, Any]]] = {}
    if not looked(run):
        return found
    for file in manifests.run_files(session, measuring_run(session, run.id), SPANS):
        for one in store.read_frame(file).filter(pl.col("id").is_in(list(ids))).to_dicts():
            found.setdefault(one.pop("id"), []).append(one)
    return found


def hide(text: str, spans: list[dict[str, Any]]) -> str:
    """A record's text, as the run judged it, with what was found in it masked: same length, same places."""
    return hidden(text, [(one["kind"], one["start"], one["end"]) for one in spans])


def hide_anew(run: Run, texts: list[str | None]) -> list[str | None]:
    """Texts that the run did not judge as they are, with what its kinds find in them masked."""
    spans = find_spans(pl.Series([one or "" for one in texts], dtype=pl.String), run.config["recipe"]["pii"]["kinds"])
    of_row = spans.partition_by("row", as_dict=True)
    return [
        text and hide(text, of_row[row,].to_dicts()) if (row,) in of_row else text for row, text in enumerate(texts)
    ]


def told(run: Run, text: str, spans: list[dict[str, Any]], *, clear: bool) -> list[dict[str, Any]]:
    """What was found in one record, each with its action and its value, masked unless asked for in clear."""
    kinds = run.config["recipe"]["pii"]["kinds"]
    return [
        one
        | {"action": kinds[one["kind"]]["action"]}
        | {"value": _shown(one["kind"], text[one["start"] : one["end"]], clear=clear)}
        for one in spans
    ]


def _shown(kind: str, value: str, *, clear: bool) -> str:
    return value if clear else masked(KINDS[kind].member, value)


def export_rows(session: Session, store: Store, run: Run) -> Iterator[pl.DataFrame]:
    """Every value that a run found, masked, with its record's file and line, as ``EXPORT_SCHEMA``, shard by shard."""
    kinds = run.config["recipe"]["pii"]["kinds"]
    shards = manifests.read(store, session.get_one(Version, run.version_id))["shards"]
    edited = edited_files(session, run.id)
    files = manifests.run_files(session, measuring_run(session, run.id), SPANS)
    for place, (entry, file) in enumerate(zip(shards, files, strict=True)):
        spans = store.read_frame(file)
        judged = edited.get(place, StoredFile.from_json(entry["data"]))
        texts = store.read_frame(judged, ["id", "text", "source", "line"])
        rows = spans.join(texts, on="id", how="left", maintain_order="left")
        shown = [
            _shown(kind, text[start:end], clear=False)
            for kind, start, end, text in rows.select("kind", "start", "end", "text").iter_rows()
        ]
        actions = [kinds[kind]["action"] for kind in rows["kind"]]
        columns = [pl.Series("masked", shown, dtype=pl.String), pl.Series("action", actions, dtype=pl.String)]
        yield rows.rename({"id": "record_id"}).with_columns(columns).select(list(EXPORT_SCHEMA))
