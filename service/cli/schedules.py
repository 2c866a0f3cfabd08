"""``winnow schedule`` and ``requests``: jobs that start by themselves, and those that wait for others."""

from typing import Annotated, Any

import typer
from sqlalchemy import select

from catalog.database import Catalog
from catalog.errors import ConfigError
from catalog.tables.schedules import MISSED, Firing, Request, Schedule
from service.cli.output import AsJson, emit_json, emit_table, say, show, workspace

app = typer.Typer(help="Start jobs by the clock, on new data, or from a folder.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="Name of a schedule.")]
Priority = Annotated[int | None, typer.Option(help="-100 to 100; units of runs with the highest come first.")]
MaxUnits = Annotated[int | None, typer.Option(help="Units of a run under way at once, at most; 0 for no limit.")]
Cron = Annotated[str | None, typer.Option(help="By the clock: minute hour day month weekday, e.g. '0 3 * * *'.")]
Timezone = Annotated[str | None, typer.Option(help="Of --cron, e.g. Asia/Seoul; default UTC.")]
Missed = Annotated[
    str | None,
    typer.Option(help=f"Times at which no worker ran: {' or '.join(MISSED)} (one run for all, or none); default once."),
]


@app.command("add")
def add_schedule(
    dataset: Annotated[str, typer.Argument(help="Name of a dataset; --watch makes it if need be.")],
    *,
    recipe: Annotated[
        str | None, typer.Option(help="Preset or YAML file of the job; a file is read now, not when it is due.")
    ] = None,
    job: Annotated[
        str | None,
        typer.Option(help="clean, train, dedup, label_errors or difficulty; default clean where there is a recipe."),
    ] = None,
    cron: Cron = None,
    timezone: Timezone = None,
    on_ingest: Annotated[bool, typer.Option("--on-ingest", help="Whenever new data has come in.")] = False,
    on_clean: Annotated[bool, typer.Option("--on-clean", help="Whenever the dataset was cleaned anew.")] = False,
    watch: Annotated[
        str | None, typer.Option(help="Take in files that appear in this folder, then do the job.")
    ] = None,
    text: Annotated[str | None, typer.Option(help="With --watch: column of the text.")] = None,
    label: Annotated[str | None, typer.Option(help="With --watch: column of the label.")] = None,
    mapping: Annotated[str | None, typer.Option(help="With --watch: YAML file as of `winnow ingest`.")] = None,
    missed: Missed = None,
    priority: Priority = None,
    max_units: MaxUnits = None,
    name: Annotated[str | None, typer.Option(help="Name of the schedule; default of dataset, job and trigger.")] = None,
    json: AsJson = False,
) -> None:
    """Let a job start by itself: by the clock, whenever new data is in, or when files appear in a folder."""
    from workers import jobs, schedules

    catalog = workspace()
    kind = job or ("clean" if recipe is not None else schedules.INGEST)
    on = _event(on_ingest=on_ingest, on_clean=on_clean)
    suffix = "" if cron is not None else f"-on-{on}" if on is not None else "-watch"
    wanted = schedules.Wanted(
        name=name or f"{dataset}-{kind}{suffix}",
        dataset=dataset,
        kind=kind,
        config=_config(kind, recipe),
        cron=cron,
        on=on,
        folder=watch,
        timezone=timezone or "UTC",
        missed=missed or "once",
        mapping=_mapping(text, label, mapping),
        priority=priority or 0,
        max_units=max_units or None,
    )
    if kind != schedules.INGEST and "document" not in wanted.config:
        jobs.check_job(kind, wanted.config)
    with catalog.write() as session:
        made = schedules.add_schedule(
            session, catalog.settings, wanted, now=catalog.now(session), created_by="command line"
        )
        told = _row(made)
    if json:
        emit_json(told)
        return
    say(f"schedule {told['name']!r}: {kind} {dataset!r}, {told['when']}")
    if told["next"]:
        say(f"next at {told['next']}, while a worker runs (`winnow up`)")
    say(f"what came of it: `winnow schedule history {told['name']}`")


def _config(kind: str, recipe: str | None) -> dict[str, Any]:
    from workers import jobs

    if kind in ("clean", "train"):
        if recipe is None:
            raise ConfigError(f"{kind} goes by a recipe; give --recipe")
        return jobs.recipe_config(kind, recipe)
    if recipe is not None:
        raise ConfigError(f"{kind} goes by no recipe; leave --recipe out")
    return {}


def _event(*, on_ingest: bool, on_clean: bool) -> str | None:
    if on_ingest and on_clean:
        raise ConfigError("say when, once: --on-ingest or --on-clean")
    return "ingest" if on_ingest else "clean" if on_clean else None


def _mapping(text: str | None, label: str | None, path: str | None) -> dict[str, Any] | None:
    from dataclasses import asdict

    from curation.sources.mapping import Mapping, load_mapping

    if path is not None:
        if text or label:
            raise ConfigError(f"--mapping says all of it; put text and label into {path}, or leave it out")
        return asdict(load_mapping(path))
    return asdict(Mapping(text=text, label=label)) if text or label else None


def _row(one: Schedule) -> dict[str, Any]:
    from workers.schedules import when

    return {
        "name": one.name,
        "dataset": one.dataset,
        "job": one.kind,
        "when": when(one),
        "enabled": one.enabled,
        "next": one.next_at.strftime("%Y-%m-%d %H:%M UTC") if one.next_at and one.enabled and one.cron else "",
        "problem": one.problem or "",
    }


@app.command("list")
def list_schedules(*, json: AsJson = False) -> None:
    """List schedules, when they are due, and what keeps them."""
    catalog = workspace()
    with catalog.read() as session:
        rows = [_row(one) for one in session.scalars(select(Schedule).order_by(Schedule.name))]
    if json:
        emit_json(rows)
        return
    header = ("name", "dataset", "job", "when", "enabled", "next", "problem")
    emit_table("", header, [tuple(row[key] for key in header) for row in rows])
    if not rows:
        say("no schedule: `winnow schedule add DATASET --recipe NAME --cron '0 3 * * *'` makes one")


@app.command("history")
def history(
    name: Name,
    *,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="Rows shown at most.")] = 20,
    json: AsJson = False,
) -> None:
    """List the times that a schedule was due, newest first, and what came of each."""
    from workers.outcomes import came_of
    from workers.schedules import find_schedule

    catalog = workspace()
    with catalog.read() as session:
        found = find_schedule(session, name)
        query = select(Firing).where(Firing.schedule_id == found.id).order_by(Firing.due_at.desc()).limit(limit)
        rows = []
        for one in session.scalars(query):
            came = came_of(session, one)
            due = one.due_at.strftime("%Y-%m-%d %H:%M:%S")
            rows.append((due, one.outcome, came.run_id or "", came.then_run_id or "", came.reason))
    if json:
        emit_json([dict(zip(("due", "outcome", "run", "then", "reason"), row, strict=True)) for row in rows])
        return
    header = ("due (UTC)", "outcome", "run", "then", "reason")
    emit_table("", header, [(*row[:2], row[2][:8], row[3][:8], row[4]) for row in rows])
    if not rows:
        say(f"schedule {name!r} was not due yet")


@app.command("change")
def change(
    name: Name,
    *,
    on: Annotated[bool, typer.Option("--on", help="Let it start jobs again; nothing is made up for.")] = False,
    off: Annotated[bool, typer.Option("--off", help="Let it rest.")] = False,
    recipe: Annotated[str | None, typer.Option(help="Preset or YAML file instead of the present one.")] = None,
    cron: Cron = None,
    timezone: Timezone = None,
    missed: Missed = None,
    priority: Priority = None,
    max_units: MaxUnits = None,
    json: AsJson = False,
) -> None:
    """Change some of a schedule, or switch it off and on."""
    from workers.schedules import change_schedule, find_schedule

    if on and off:
        raise ConfigError("--on and --off contradict each other; give one of them")
    if not (on or off) and all(one is None for one in (recipe, cron, timezone, missed, priority, max_units)):
        raise ConfigError(
            "nothing to change; give --on, --off, --recipe, --cron, --timezone, --missed, --priority or --max-units"
        )
    catalog = workspace()
    with catalog.write() as session:
        found = find_schedule(session, name)
        change_schedule(
            session,
            found,
            catalog.now(session),
            enabled=True if on else False if off else None,
            cron=cron,
            timezone=timezone,
            missed=missed,
            priority=priority,
            max_units=max_units,
            config=None if recipe is None else _config(found.kind, recipe),
        )
        told = _row(found)
    if json:
        emit_json(told)
        return
    say(f"schedule {name!r}: {told['when']}{'' if told['enabled'] else ', switched off'}")


@app.command("remove")
def remove(name: Name, *, json: AsJson = False) -> None:
    """Remove a schedule and its history; runs that it started stay."""
    from workers.schedules import find_schedule, remove_schedule

    catalog = workspace()
    with catalog.write() as session:
        remove_schedule(session, find_schedule(session, name), catalog.now(session))
    if json:
        emit_json({"removed": name})
        return
    say(f"schedule {name!r} removed; what it has started goes on")


@app.command("run")
def run_now(name: Name, *, json: AsJson = False) -> None:
    """Let a schedule be due at once, besides its own times."""
    from workers.runs import num_workers_alive
    from workers.schedules import find_schedule, fire_now

    catalog = workspace()
    with catalog.write() as session:
        fire_now(session, find_schedule(session, name), catalog.now(session))
    if json:
        emit_json({"due": name})
        return
    working = "" if num_workers_alive(catalog) else "; no worker is running: start them with `winnow up`"
    say(f"schedule {name!r} is due now{working}; what came of it: `winnow schedule history {name}`")


def list_requests(
    *,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Rows shown at most.")] = 20,
    json: AsJson = False,
) -> None:
    """List jobs that wait for something else to end, newest first."""
    from workers.requests import waits_for

    catalog = workspace()
    rows = []
    with catalog.read() as session:
        for one in session.scalars(select(Request).order_by(Request.created_at.desc(), Request.id).limit(limit)):
            waits = waits_for(session, one) if one.state == "waiting" else ""
            asked = one.created_at.strftime("%Y-%m-%d %H:%M:%S")
            rows.append((one.id, one.kind, one.dataset, one.state, one.run_id or "", asked, waits, one.reason or ""))
    header = ("request", "job", "dataset", "state", "run", "asked", "waits for", "reason")
    if json:
        emit_json([dict(zip(header, row, strict=True)) for row in rows])
        return
    emit_table("", header, [(row[0][:8], *row[1:4], row[4][:8], *row[5:]) for row in rows])
    if not rows:
        say("nothing waits: `winnow train DATASET --recipe NAME --after RUN` asks for a job after another")


def ask_after(
    catalog: Catalog,
    *,
    after: str,
    kind: str,
    dataset: str,
    as_json: bool,
    recipe: str | None = None,
    config: dict[str, Any] | None = None,
) -> None:
    """What a command's ``--after`` does: write the job down instead of asking for it now.

    Parameters
    ----------
    recipe, config : of the job, one of the two.
    """
    from workers.jobs import recipe_config
    from workers.requests import ask_after, waits_for

    options = recipe_config(kind, recipe) if recipe is not None else config or {}

    with catalog.write() as session:
        request = ask_after(
            session,
            now=catalog.now(session),
            after=after,
            kind=kind,
            dataset=dataset,
            config=options,
            requested_by="command line",
        )
        told, request_id = waits_for(session, request), request.id
    if as_json:
        emit_json({"request": request_id, "waits_for": told})
        return
    show(request_id)
    say(f"{kind} of {dataset!r} waits for {told}; see `winnow requests`, end it with `winnow cancel {request_id[:8]}`")


def add(root: typer.Typer) -> None:
    """Register this module's commands."""
    root.add_typer(app, name="schedule")
    root.command("requests")(list_requests)
