"""``winnow label``: open queues, rehearse them, see how far they are."""

import time
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer
from sqlalchemy import select

from catalog.database import Catalog
from catalog.errors import ConfigError, NotFoundError, nearest
from catalog.tables.labeling import LabelQueue
from labeling import queue as queues
from labeling.fitness import check_fit
from labeling.model_choice import LINEAR, check_model
from labeling.schema import parse_schema
from labeling.strategies import STRATEGIES
from labeling.strategies.label_errors import SECOND_OPINION
from service import curves
from service import simulate as rehearsal
from service.address import service_url
from service.cli.agreement import agreement
from service.cli.output import AsJson, emit_json, emit_table, progress_bar, run_to_end, say, show, workspace
from service.cli.schedules import ask_after
from workers import manifests, suspects
from workers.labeling import DEFAULT_STRATEGY, label_counts, open_queue

SEED_HELP = "Seed of everything random: the same seed gives the same choices."
STRATEGY_HELP = (
    "How the next item is chosen: active_lab, auto, badge, bald, cal, class_balanced, consensus_entropy, cvirs, "
    "density, entropy, expected_error, kcenter, kmeans, label_errors, lci, least_confidence, margin, mnlp, probcover, "
    "random, ranked_batch, typiclust or vote_entropy."
)
MAX_SEED = 2**31 - 1
EXAMPLE_SCHEMA = "question: Which label fits?\\nlabels: [positive, negative]"

app = typer.Typer(help="Ask people: open labeling queues, rehearse them, watch them.", no_args_is_help=True)
app.command("agreement")(agreement)


@app.command("create")
def create(
    dataset: Annotated[str, typer.Argument(help="Name of a dataset that was cleaned.")],
    *,
    schema: Annotated[Path, typer.Option(help="YAML: question, guidelines, labels.")],
    strategy: Annotated[str | None, typer.Option(help=f"{STRATEGY_HELP} Default {DEFAULT_STRATEGY}.")] = None,
    overlap: Annotated[
        int | None, typer.Option(min=1, max=100, help="Annotators who answer each item; default 1.")
    ] = None,
    name: Annotated[str, typer.Option(help="Name of the queue, unique in the dataset.")] = "labels",
    seed: Annotated[int | None, typer.Option(min=0, max=MAX_SEED, help=f"{SEED_HELP} Default 0.")] = None,
    refresh_every: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=1_000_000,
            help="Finished items between two fits of the model, default 20; it is refitted sooner when none is left.",
        ),
    ] = None,
    random_share: Annotated[
        float | None,
        typer.Option(
            min=0, max=1, help="Share of the tasks that chance draws, default 0.1: it shows what the labels are worth."
        ),
    ] = None,
    hidden_share: Annotated[
        float | None,
        typer.Option(
            min=0, max=1, help="Share of the tasks with a suggestion that are served without it; default none."
        ),
    ] = None,
    budget: Annotated[
        int | None,
        typer.Option(min=1, max=10**9, help="Answers that may be spent: advice and a webhook, never an end."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="Whose doubt decides: linear, the default, setfit, the newest `winnow train` (checkpoint), or one "
            "(checkpoint:RUN)."
        ),
    ] = None,
    after: Annotated[
        str | None, typer.Option(help="Only once this run, request or queue has ended; returns at once.")
    ] = None,
    json: AsJson = False,
) -> None:
    """Open a queue over the curated records and print the page where annotators answer.

    For a queue that exists only what is given must be as it was made.
    """
    catalog = workspace()
    document = read_schema(schema)
    check_fit(strategy or DEFAULT_STRATEGY, parse_schema(document))
    check_model(model or LINEAR, parse_schema(document))
    if after is not None:
        config = {"schema": document, "name": name, "strategy": strategy, "overlap": overlap, "model": model}
        config = {option: value for option, value in config.items() if value is not None}
        ask_after(catalog, after=after, kind="label", dataset=dataset, config=config, as_json=json)
        return
    made = open_queue(
        catalog,
        dataset=dataset,
        name=name,
        schema=parse_schema(document),
        strategy=strategy,
        overlap=overlap,
        seed=seed,
        refresh_every=refresh_every,
        random_share=random_share,
        hidden_share=hidden_share,
        budget=budget,
        model=model,
        requested_by="command line",
    )
    told = _first_choice(catalog, made, as_json=json)
    if json:
        emit_json(told)
        return
    with catalog.read() as session:
        strategy = session.get_one(LabelQueue, told["queue"]).strategy
    say(f"queue {name!r}: {told['num_entries']:,} items chosen out of {told['pool']:,} by {strategy}")
    say("annotators log in with a token (`winnow user NAME --role annotator`) while `winnow up` runs, at:")
    show(told["page"])


def _first_choice(catalog: Catalog, made: tuple[str, str, str], *, as_json: bool) -> dict[str, Any]:
    """Wait for the first choice of a queue as ``open_queue`` gives it; its id, its page, and what was chosen."""
    queue_id, run_id, state = made
    if state == "done":
        say("this queue was opened before; the same one:", as_json=as_json)
    elif state != "new":
        say("this queue was opened before; going on from where the last try ended", as_json=as_json)
    result = run_to_end(catalog, run_id, as_json=as_json).result or {}
    return {"queue": queue_id, "page": f"{service_url(catalog.settings)}/label/{queue_id}"} | result


@app.command("review")
def review(
    dataset: Annotated[str, typer.Argument(help="Name of a dataset whose label errors were looked for.")],
    *,
    schema: Annotated[
        Path | None, typer.Option(help="YAML: question, guidelines, labels; default the labels that occur.")
    ] = None,
    overlap: Annotated[int, typer.Option(min=1, max=100, help="Annotators who answer each item.")] = 1,
    name: Annotated[str, typer.Option(help="Name of the queue, unique in the dataset.")] = "second-opinion",
    json: AsJson = False,
) -> None:
    """Open a queue of suspected labels only: second opinions by people who see neither the label nor the suspicion."""
    catalog = workspace()
    if schema is None:
        with catalog.read() as session:
            run = suspects.require_run(session, manifests.find_dataset(session, dataset))
            labels = suspects.labels_judged(run)
        asked = rehearsal.oracle_schema(labels)
    else:
        asked = parse_schema(read_schema(schema))
    made = open_queue(
        catalog,
        dataset=dataset,
        name=name,
        schema=asked,
        strategy=SECOND_OPINION,
        overlap=overlap,
        requested_by="command line",
    )
    told = _first_choice(catalog, made, as_json=json)
    if json:
        emit_json(told)
        return
    say(f"queue {name!r}: {told['pool']:,} suspected labels, the likeliest errors first")
    say(f"what people answer is trained on, and shown by `winnow label-errors {dataset}`; they answer at:")
    show(told["page"])


@app.command("close")
def close(
    dataset: Annotated[str, typer.Argument(help="Name of a dataset.")],
    name: Annotated[str, typer.Argument(help="Name of the queue.")] = "labels",
    *,
    json: AsJson = False,
) -> None:
    """Close a queue: nothing more is asked, what was answered stays, and what waited for its end starts."""
    catalog = workspace()
    with catalog.write() as session:
        found = queues.find_queue(session, dataset_id=manifests.find_dataset(session, dataset).id, name=name)
        queues.close_queue(session, now=catalog.now(session), queue_id=found.id)
        queue_id = found.id
    if json:
        emit_json({"queue": queue_id, "state": "closed"})
        return
    say(f"queue {name!r} of {dataset!r} is closed")


def read_schema(path: Path) -> str:
    """The text of a schema file.

    Raises
    ------
    ConfigError : there is none, or it is not UTF-8.
    """
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
            rows.append((one.name, one.id, one.strategy, one.model, one.state, progress.num_done, progress.num_tasks))
    header = ("queue", "id", "strategy", "model", "state", "done", "offered")
    if json:
        emit_json([dict(zip(header, row, strict=True)) for row in rows])
        return
    emit_table("", header, rows)


@app.command("simulate")
def simulate(
    dataset: Annotated[str, typer.Argument(help="Name of a dataset that was cleaned.")],
    *,
    oracle: Annotated[str, typer.Option(help="Column whose held-back values answer; the dataset's label column.")],
    rounds: Annotated[int, typer.Option(min=1, max=1000, help="Rounds of labeling, each ended by a fit.")] = 5,
    per_round: Annotated[int, typer.Option(min=1, max=10_000, help="Labels that every arm spends a round.")] = 50,
    strategy: Annotated[str, typer.Option(help=f"Compared with random at the same spend. {STRATEGY_HELP}")] = "margin",
    seed: Annotated[int, typer.Option(min=0, max=MAX_SEED, help=f"{SEED_HELP} With --repeats the first of them.")] = 0,
    repeats: Annotated[int, typer.Option(min=1, max=20, help="Seeds to average over; one says little.")] = 1,
    anew: Annotated[
        bool, typer.Option("--anew", help="Rehearse again even if the same was rehearsed to its end before.")
    ] = False,
    json: AsJson = False,
) -> None:
    """Rehearse labeling over HTTP with held-back gold labels, against random selection with the same budget."""
    catalog = workspace()
    STRATEGIES[strategy]
    _check_oracle(catalog, dataset, oracle)
    schema = rehearsal.oracle_schema(sorted(label_counts(catalog, dataset)))
    plan = rehearsal.Plan(
        dataset=dataset,
        strategy=strategy,
        oracle=oracle,
        rounds=rounds,
        per_round=per_round,
        seed=seed,
        repeats=repeats,
    )
    gold = rehearsal.gold_labels(catalog, dataset)
    spent = rehearsal.spends(plan, gold)
    if spent[-1] < rounds * per_round:
        say(f"only {spent[-1]:,} labelled records can be asked about: the rehearsal ends there", as_json=json)
    with rehearsal.alone(catalog, plan):
        name, arms = rehearsal.find_rehearsal(catalog, plan, spent, anew=anew)
        if arms is None:
            arms = rehearsal.open_arms(catalog, plan, name, schema)
            try:
                _rehearse(catalog, arms, gold, spent, as_json=json)
            finally:
                rehearsal.close(catalog, arms)
        else:
            say("this was rehearsed before (--anew rehearses it again); the same result:", as_json=json)
    with catalog.read() as session:
        found = curves.curves(session, [(arm.strategy, arm.queue_id) for arm in arms])
    rows = curves.compare(found)
    if json:
        points = {
            name: [(one.num_labels, one.accuracy, one.low, one.high) for one in curve.points]
            for name, curve in found.items()
        }
        emit_json(
            {
                "arms": rows,
                "verdicts": curves.verdicts(found, rows),
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
    catalog: Catalog, arms: list[rehearsal.Arm], gold: dict[str, str], spent: list[int], *, as_json: bool
) -> None:
    from service.processes import service_for, workers_for

    token = rehearsal.oracle_token(catalog)
    before = sum(rehearsal.num_labels(catalog, arm) for arm in arms)
    if before:
        say(f"going on from where the last try ended, at {before:,} labels", as_json=as_json)
    with (
        workers_for(catalog, lambda told: say(told, as_json=as_json)) as workers,
        service_for(catalog.settings, token) as url,
        httpx.Client(base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=30.0) as client,
        _Meter(len(spent), before, spent[-1] * len(arms), as_json=as_json) as meter,
    ):
        rehearsal.rehearse(
            catalog,
            client,
            arms,
            gold,
            spent,
            finish=lambda run_id: run_to_end(catalog, run_id, as_json=True, workers=workers, meanwhile=meter.show),
            tell=meter.enter,
            on_answer=meter.count,
        )


class _Meter:
    """How far a rehearsal is: round, arm, labels spent in all arms together, their rate, the time left."""

    def __init__(self, num_rounds: int, num_before: int, num_total: int, *, as_json: bool) -> None:
        self._num_rounds, self._num_before, self._num_total = num_rounds, num_before, num_total
        self._num_spent = num_before
        self._told_round = 0
        self._stage = ""
        self._as_json = as_json

    def __enter__(self) -> "_Meter":
        self._began = time.monotonic()
        self._bar = progress_bar(as_json=self._as_json)
        self._task = self._bar.add_task("starting", total=self._num_total, rate="", left="")
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def enter(self, stage: rehearsal.Stage) -> None:
        """Another arm, or another thing to do in it."""
        self._stage = f"round {stage.round}/{self._num_rounds} {stage.strategy} {stage.seed}: {stage.doing}"
        if self._bar.disable and stage.round != self._told_round:
            say(f"round {stage.round}/{self._num_rounds}: {self._num_spent:,} labels", as_json=self._as_json)
        self._told_round = stage.round
        self.show()

    def count(self) -> None:
        """One more label."""
        self._num_spent += 1
        self.show()

    def show(self) -> None:
        """Bring the line up to date: time passes during a fit too."""
        seconds = time.monotonic() - self._began
        rate = (self._num_spent - self._num_before) / seconds if seconds > 0 else 0.0
        self._bar.update(
            self._task,
            description=self._stage,
            completed=self._num_spent,
            rate=f"{rate:,.1f} labels/s" if rate else "",
            left=f"{(self._num_total - self._num_spent) / rate:,.0f} s left" if rate else "",
        )


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
    for line in curves.verdicts(found, rows):
        say(line)
