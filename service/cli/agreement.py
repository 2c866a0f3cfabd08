"""``winnow label agreement``: how far annotators agree, how good each is, and what the consensus is."""

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from sqlalchemy import select
from sqlalchemy.orm import Session

from catalog.tables.access import User
from catalog.tables.datasets import Version
from labeling import queue as queues
from service.cli.label_errors import check_output, write_table
from service.cli.output import AsJson, emit_json, emit_table, say, show, workspace
from workers import manifests

if TYPE_CHECKING:
    from labeling.quality import AnnotatorQuality, QueueQuality

MAX_PAIRS = 20
MAX_SEED = 2**31 - 1
METHOD_HELP = (
    "How the consensus is found: classifier_dawid_skene, crowdlab, dawid_skene, majority or pooled_dawid_skene; "
    "default pooled_dawid_skene, or majority while annotators have too few answers."
)


def agreement(
    dataset: Annotated[str, typer.Argument(help="Name of a dataset.")],
    name: Annotated[str, typer.Argument(metavar="[QUEUE]", help="Name of the queue.")] = "labels",
    *,
    method: Annotated[str | None, typer.Option(help=METHOD_HELP)] = None,
    seed: Annotated[int, typer.Option(min=0, max=MAX_SEED, help="Seed of the intervals.")] = 0,
    output: Annotated[
        Path | None, typer.Option(help="Write every record's consensus to this .csv, .jsonl or .parquet file.")
    ] = None,
    json: AsJson = False,
) -> None:
    """Measure agreement with intervals, every annotator's quality, and the consensus."""
    import numpy as np
    import polars as pl

    from catalog.store import Store
    from labeling.quality import consensus_labels, key_of, queue_quality
    from workers.held_out import held_out_proba

    if output is not None:
        check_output(output)
    catalog = workspace()
    with catalog.read() as session:
        found = queues.find_queue(session, dataset_id=manifests.find_dataset(session, dataset).id, name=name)
        how: dict[str, Any] = {
            "method": method,
            "classifier": partial(
                held_out_proba, Store.of(catalog.settings), session.get_one(Version, found.version_id)
            ),
        }
        measured = queue_quality(session, queue_id=found.id, rng=np.random.default_rng(seed), **how)
        names = _names(session, measured)
        consensus = consensus_labels(session, queue_id=found.id, **how) if output is not None else []
    if output is not None:
        rows = [(one.record_id, key_of(one.value), one.agreement, one.num_votes) for one in consensus]
        schema = {"record_id": pl.String, "label": pl.String, "confidence": pl.Float64, "answers": pl.Int64}
        write_table(pl.DataFrame(rows, schema=schema, orient="row"), output)
    if json:
        document = asdict(measured)
        for one in document["annotators"]:
            one["annotator"] = names[one["annotator_id"]]
        emit_json({"queue": found.id} | document | ({"output": str(output)} if output is not None else {}))
        return
    _print(measured, names)
    if output is not None:
        say(f"the consensus of {len(consensus):,} records:")
        show(str(output))


def _names(session: Session, measured: "QueueQuality") -> dict[str, str]:
    """What to call each annotator; an id where the account is gone."""
    ids = [one.annotator_id for one in measured.annotators]
    known = {row[0]: row[1] for row in session.execute(select(User.id, User.name).where(User.id.in_(ids)))}
    return {one: known.get(one, one) for one in ids}


def _print(measured: "QueueQuality", names: dict[str, str]) -> None:
    emit_table(
        "agreement",
        ("measure", "value", "95 % interval", "items", "why not"),
        [
            (
                one.measure,
                _two(one.value),
                "" if one.low is None or one.high is None else f"{one.low:.2f} to {one.high:.2f}",
                one.num_items,
                one.reason or "",
            )
            for one in measured.agreement
        ],
    )
    emit_table(
        "annotators",
        ("annotator", "answers", "agrees", "right", "quality", "seconds", "change", "confuses"),
        [_row(one, names) for one in measured.annotators],
    )
    pairs = sorted((one for one in measured.pairs if one.kappa is not None), key=lambda one: one.kappa or 0.0)
    if pairs:
        emit_table(
            "pairs that agree least (Cohen's kappa)",
            ("annotator", "other", "kappa", "items"),
            [
                (names[one.annotator_id], names[one.other_id], _two(one.kappa), one.num_items)
                for one in pairs[:MAX_PAIRS]
            ],
        )
    if measured.method is not None and measured.mean_confidence is not None:
        say(f"consensus by {measured.method}: right with a probability of {measured.mean_confidence:.1%} on average")
    say("agrees: with the others' answers; right: as the consensus has it, with what others answered too")


def _row(one: "AnnotatorQuality", names: dict[str, str]) -> tuple[Any, ...]:
    wrong = [cell for cell in one.confusion if cell[0] != cell[1]]
    worst = max(wrong, key=lambda cell: cell[2], default=None)
    right = "" if one.accuracy is None else f"{one.accuracy:.0%} ({one.low:.0%} to {one.high:.0%})"
    return (
        names[one.annotator_id],
        one.num_answers,
        _two(one.agreement_with_others),
        right,
        _two(one.quality),
        "" if one.median_seconds is None else f"{one.median_seconds:.1f}",
        "" if one.change is None else f"{one.change:+.0%}" + (" drifts" if one.drifts else ""),
        "" if worst is None else f"{worst[0]} as {worst[1]}: {worst[2]}",
    )


def _two(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
