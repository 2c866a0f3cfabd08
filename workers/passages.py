"""Reading back which passages repeat: the most repeated, those of a record, all with their texts."""

from collections.abc import Iterator
from typing import Any

import polars as pl
from sqlalchemy import select
from sqlalchemy.orm import Session

from catalog.errors import NotFoundError
from catalog.store import Store
from catalog.tables.datasets import Dataset
from catalog.tables.engine import Run
from curation.dedup.substring import SPAN_SCHEMA
from workers import manifests
from workers.clusters import EXPORT_ROWS, KINDS, texts_of
from workers.index import rolled_back

EXPORT_SCHEMA = {
    **SPAN_SCHEMA,
    "passage": pl.String,
    "record_source": pl.String,
    "record_line": pl.Int64,
    "keeper_source": pl.String,
    "keeper_line": pl.Int64,
}


def newest_run(session: Session, dataset: Dataset) -> Run | None:
    """The newest finished run over a dataset that looked for repeated passages and was not taken back."""
    query = (
        select(Run)
        .where(Run.dataset_id == dataset.id, Run.kind.in_(KINDS), Run.state == "done")
        .order_by(Run.finished_at.desc(), Run.id)
    )
    back = rolled_back(session, dataset.id)
    return next((run for run in session.scalars(query) if looked(run) and run.id not in back), None)


def require_run(session: Session, dataset: Dataset) -> Run:
    """The same.

    Raises
    ------
    NotFoundError : there is none, with the command that makes one.
    """
    run = newest_run(session, dataset)
    if run is None:
        raise NotFoundError(
            f"nobody has looked for repeated passages in {dataset.name!r} yet; "
            f"run `winnow dedup substring {dataset.name}`"
        )
    return run


def looked(run: Run) -> bool:
    """Whether a run looked for repeated passages."""
    return run.config["recipe"].get("substring") is not None


def spans_of(session: Session, store: Store, run: Run, only: pl.Expr | None = None) -> pl.DataFrame:
    """The spans that a run found, or those of a condition, by record and start; columns of ``SPAN_SCHEMA``."""
    frames = [pl.DataFrame(schema=SPAN_SCHEMA)]
    for file in manifests.run_files(session, run.id, "spans"):
        frame = store.read_frame(file)
        frames.append(frame if only is None else frame.filter(only))
    return pl.concat(frames).sort("record_id", "start")


def most_repeated(session: Session, store: Store, run: Run, limit: int) -> list[dict[str, Any]]:
    """The passages that the most records repeat, then the longest.

    Two are one passage here where they overlap, in the record that keeps both, by at least half of the shorter; the
    extent shown is that of most copies. Passages of fewer than half of ``min_tokens`` tokens, which stand beside others
    in their record, are passed over.

    Returns
    -------
    ``records`` (that repeat it), ``num_tokens``, ``keeper``, ``start``, ``end`` (characters of its text), ``text`` of
    the passage, ``source`` and ``line`` of the keeper.
    """
    long_enough = pl.col("num_tokens") >= run.config["recipe"]["substring"]["min_tokens"] / 2
    place = ["keeper_id", "keeper_start", "keeper_end"]
    files = manifests.run_files(session, run.id, "spans")
    schema = {name: SPAN_SCHEMA[name] for name in (*place, "num_tokens")} | {"copies": pl.Int64}
    counted = [pl.DataFrame(schema=schema)]
    for file in files:
        spans = store.read_frame(file, [*place, "num_tokens"]).filter(long_enough)
        counted.append(spans.group_by(place).agg(pl.col("num_tokens").max(), copies=pl.len().cast(pl.Int64)))
    order = ["copies", "num_tokens", *place]
    extents = (
        pl.concat(counted)
        .group_by(place)
        .agg(pl.col("num_tokens").max(), pl.col("copies").sum())
        .sort(order, descending=[True, True, False, False, False])
    )
    leaders: list[dict[str, Any]] = []
    # More than are shown: one with fewer copies of its own may have more with those that overlap it.
    while len(leaders) < 4 * limit and extents.height:
        leaders.append(extents.row(0, named=True) | {"records": 0})
        extents = extents.filter(~_is_one_with(leaders[-1]))
    for file in files:
        spans = store.read_frame(file).filter(long_enough)
        for leader in leaders:
            # Each unit cut records of its own, so none is counted twice.
            leader["records"] += spans.filter(_is_one_with(leader))["record_id"].n_unique()
    leaders.sort(key=lambda one: (-one["records"], -one["num_tokens"], one["keeper_id"], one["keeper_start"]))
    del leaders[limit:]
    texts = texts_of(session, store, run, {leader["keeper_id"] for leader in leaders})
    return [
        {
            "records": leader["records"],
            "num_tokens": leader["num_tokens"],
            "keeper": leader["keeper_id"],
            "start": leader["keeper_start"],
            "end": leader["keeper_end"],
            "text": texts[leader["keeper_id"]]["text"][leader["keeper_start"] : leader["keeper_end"]],
            "source": texts[leader["keeper_id"]]["source"],
            "line": texts[leader["keeper_id"]]["line"],
        }
        for leader in leaders
    ]


def _is_one_with(leader: dict[str, Any]) -> pl.Expr:
    """Whether an extent overlaps another in the same keeper by at least half of the shorter of the two."""
    begin, end = leader["keeper_start"], leader["keeper_end"]
    shared = pl.min_horizontal("keeper_end", pl.lit(end)) - pl.max_horizontal("keeper_start", pl.lit(begin))
    shorter = pl.min_horizontal(pl.col("keeper_end") - pl.col("keeper_start"), pl.lit(end - begin))
    is_one: pl.Expr = (pl.col("keeper_id") == leader["keeper_id"]) & (2 * shared >= shorter)
    return is_one


def passages_of(session: Session, store: Store, run: Run, record_id: str, text: str) -> dict[str, Any]:
    """What of a record stands elsewhere.

    Parameters
    ----------
    text : the record's text as it was ingested.

    Returns
    -------
    ``run``, ``action``; ``repeats``: its passages that stand in a better record, or earlier in it, with their ``text``;
    ``repeated_by``: passages of it that others repeat, the longest first.
    """
    of_record = (pl.col("record_id") == record_id) | (pl.col("keeper_id") == record_id)
    spans = spans_of(session, store, run, of_record).to_dicts()
    return {
        "run": run.id,
        "action": run.config["recipe"]["substring"]["action"],
        "repeats": [one | {"text": text[one["start"] : one["end"]]} for one in spans if one["record_id"] == record_id],
        "repeated_by": [
            one | {"text": text[one["keeper_start"] : one["keeper_end"]]}
            for one in sorted(spans, key=lambda one: -one["num_tokens"])
            if one["keeper_id"] == record_id != one["record_id"]
        ],
    }


def span_rows(session: Session, store: Store, run: Run) -> Iterator[pl.DataFrame]:
    """Every span with the text of its passage, file and line of both records, as ``EXPORT_SCHEMA``, many at a time."""
    for spans in spans_of(session, store, run).iter_slices(EXPORT_ROWS):
        texts = texts_of(session, store, run, {*spans["record_id"], *spans["keeper_id"]})
        yield pl.DataFrame(
            [
                one
                | {"passage": texts[one["record_id"]]["text"][one["start"] : one["end"]]}
                | {
                    f"{role}_{name}": texts[one[f"{role}_id"]][name]
                    for role in ("record", "keeper")
                    for name in ("source", "line")
                }
                for one in spans.to_dicts()
            ],
            schema=EXPORT_SCHEMA,
        )
