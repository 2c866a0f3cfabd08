"""``winnow label``: open queues, rehearse them, see how far they are."""

from pathlib import Path
from typing import Annotated, Any

import httpx
import typer
from rich.progress import Progress
from sqlalchemy import select

from catalog.database import Catalog
from catalog.errors import ConfigError, NotFoundError, nearest
from catalog.tables.labeling import LabelQueue
from labeling import queue as queues
from labeling.schema import parse_schema
from labeling.strategies import STRATEGIES
from service import simulate as rehearsal
from service.cli.output import AsJson, emit_json, emit_table, err, run_to_end, say, send, show, workspace
from workers import manifests
from workers.labeling import label_counts, open_queue

STRATEGY_HELP = "How the next item is chosen: entropy, kmeans, least_confidence, margin or random."
MAX_SEED = 2**31 - 1
EXAMPLE_SCHEMA = "question: Which label fits?\\nlabels: [positive, negative]"

app = typer.Typer(help="Ask people: open labeling queues, rehearse them, watch them.", no_args_is_help=True)


@app.command("create")
def create(
    dataset: Annotated[str, typer.Argument(help="Name of a dataset that was cleaned.")],
    *,
    schema: Annotated[Path, typer.Option(help="YAML: question, guidelines, labels.")],
    strategy: Annotated[str, typer.Option(help=STRATEGY_HELP)] = "margin",
    overlap: Annotated[int, typer.Option(min=1, max=100, help="Annotators who answer each item.")] = 1,
    name: Annotated[str, typer.Option(help="Name of the queue, unique in the dataset.")] = "labels",
    seed: Annotated[int, typer.Option(min=0, max=MAX_SEED)] = 0,
    refresh_every: Annotated[
        int, typer.Option(min=1, max=1_000_000, help="Finished items between two fits of the model.")
    ] = 20,
    json: AsJson = False,
) -> None:
    """Open a queue over the curated records and print the page where annotators answer."""
    catalog = workspace()
    STRATEGIES[strategy]
    document = _read_schema(schema)
    queue_id, run_id = open_queue(
        catalog,
        dataset=dataset,
        name=name,
        schema=parse_schema(document),
        strategy=strategy,
        overlap=overlap,
        seed=seed,
        refresh_every=refresh_every,
        requested_by="command line",
    )
    result = run_to_end(catalog, run_id, as_json=json).result or {}
    page = f"{catalog.settings.service_url}/label/{queue_id}"
    if json:
        emit_json({"queue": queue_id, "page": page} | result)
        return
    say(f"queue {name!r}: {result['num_entries']:,} items chosen out of {result['pool']:,} by {strategy}")
    say("annotators log in with a token (`winnow user NAME --role annotator`) while `winnow up` runs, at:")
    show(page)


def _read_schema(path: Path) -> str:
    if not path.is_file():
        raise ConfigError(f"--schema {path} is no file; make one: printf '{EXAMPLE_SCHEMA}\\n' > labels.yaml")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"--schema {path} is not UTF-8 ({error}); write it again in UTF-8") from error


@app.command("list")
def list_queues(dataset: Annotated[str, typer.Argument(help="Name of a dataset.")], *, json: AsJson = False) -> None:
    """List a dataset's queues and how far they are."""
    catalog = workspace()
    with catalog.read() as session:
        found = manifests.find_dataset(session, dataset)
        now = catalog.now(session)
        rows = []
        for one in session.scalars(
            select(LabelQueue).where(LabelQueue.dataset_id == found.id).order_by(LabelQueue.created_at)
        ):
            progress = queues.progress(session, now=now, queue_id=one.id)
            rows.append((one.name, one.id, one.strategy, one.state, progress.num_done, progress.num_tasks))
    header = ("queue", "id", "strategy", "state", "done", "offered")
    if json:
        emit_json([dict(zip(header, row, strict=True)) for row in rows])
        return
    emit_table("", header, rows)


@app.command("simulate")
def simulate(
    dataset: Annotated[str, typer.Argument(help="Name of a dataset that was cleaned.")],
    *,
    oracle: Annotated[str, typer.Option(help="Column whose held-back values answer; the dataset's label column.")],
    rounds: Annotated[int, typer.Option(min=1, max=1000)] = 5,
    per_round: Annotated[int, typer.Option(min=1, max=10_000, help="Labels spent a round.")] = 50,
    strategy: Annotated[str, typer.Option(help=f"Compared with random at the same spend. {STRATEGY_HELP}")] = "margin",
    seed: Annotated[int, typer.Option(min=0, max=MAX_SEED)] = 0,
    repeats: Annotated[int, typer.Option(min=1, max=20, help="Seeds to average over; one says little.")] = 1,
    json: AsJson = False,
) -> None:
    """Rehearse labeling over HTTP with held-back gold labels, against random selection with the same budget."""
    catalog = workspace()
    STRATEGIES[strategy]
    _check_oracle(catalog, dataset, oracle)
    counts = label_counts(catalog, dataset)
    schema = rehearsal.oracle_schema(sorted(counts))
    strategies = list(dict.fromkeys([strategy, rehearsal.CONTROL]))
    arms = rehearsal.open_arms(
        catalog,
        dataset=dataset,
        strategies=strategies,
        schema=schema,
        seeds=[seed + number for number in range(repeats)],
        num_entries=per_round,
    )
    found = _rehearse(catalog, dataset, arms, rounds, per_round, as_json=json)
    rows = rehearsal.compare(found)
    if json:
        points = {
            name: [(one.num_labels, one.accuracy, one.low, one.high) for one in curve.points]
            for name, curve in found.items()
        }
        emit_json(
            {
                "arms": rows,
                "verdicts": rehearsal.verdicts(found, rows),
                "curves": points,
                "repeats": repeats,
                "queues": [arm.queue_id for arm in arms],
            }
        )
        return
    _print(found, rows, repeats)


def _check_oracle(catalog: Catalog, dataset: str, oracle: str) -> None:
    with catalog.read() as session:
        column = manifests.find_dataset(session, dataset).label_column
    if column is None:
        label_counts(catalog, dataset)
    if oracle not in (column, "label"):
        raise NotFoundError(f"--oracle {oracle!r} is no label column of {dataset!r}; {nearest(oracle, [str(column)])}")


def _rehearse(
    catalog: Catalog, dataset: str, arms: list[rehearsal.Arm], rounds: int, per_round: int, *, as_json: bool
) -> dict[str, Any]:
    from service.processes import service_for, workers_for

    gold = rehearsal.gold_labels(catalog, dataset)
    token = rehearsal.oracle_token(catalog)
    send(catalog)
    with (
        workers_for(catalog),
        service_for(catalog.settings, token) as url,
        httpx.Client(base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=30.0) as client,
        Progress(console=err, disable=as_json or not err.is_terminal, transient=True) as bar,
    ):
        try:
            for arm in arms:
                run_to_end(catalog, arm.run_id, as_json=True)
            task = bar.add_task("answering", total=rounds * per_round * len(arms))
            spent = dict.fromkeys((arm.queue_id for arm in arms), 0)
            for _ in range(rounds):
                for arm in arms:
                    answered = rehearsal.answer_round(client, arm, gold, per_round, lambda: bar.advance(task))
                    spent[arm.queue_id] += answered
                    if answered:
                        run_id = rehearsal.next_generation(catalog, arm, spent[arm.queue_id], per_round)
                        run_to_end(catalog, run_id, as_json=True)
        finally:
            rehearsal.close(catalog, arms)
        with catalog.read() as session:
            return rehearsal.curves(session, [(arm.strategy, arm.queue_id) for arm in arms])


def _print(found: dict[str, Any], rows: list[dict[str, Any]], repeats: int) -> None:
    header = ["labels", *found]
    by_labels: dict[int, dict[str, float]] = {}
    for name, curve in found.items():
        for point in curve.points:
            by_labels.setdefault(point.num_labels, {})[name] = point.accuracy
    emit_table(
        "accuracy on the held-out slice" + (f", mean of {repeats} seeds" if repeats > 1 else ""),
        header,
        [(labels, *[points.get(name) for name in found]) for labels, points in sorted(by_labels.items())],
    )
    for line in rehearsal.verdicts(found, rows):
        say(line)
