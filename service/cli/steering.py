"""``winnow runs``, ``watch``, ``pause``, ``resume``, ``cancel``, ``steer``, ``logs``: runs that were asked for."""

from typing import Annotated, Any

import typer
from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from catalog.errors import ConfigError, NotFoundError, nearest
from catalog.tables.datasets import Dataset
from catalog.tables.engine import Run, Unit, UnitLog
from service.cli.output import AsJson, emit_json, emit_table, run_to_end, say, show, workspace
from service.cli.teaching import show_training
from workers import engine, runs
from workers.beginnings import AmbiguousIdError
from workers.pipelines import PIPELINES

RunId = Annotated[str, typer.Argument(help="Run id, or its first characters.")]


def add(app: typer.Typer) -> None:
    """Register this module's commands."""
    app.command("runs")(list_runs)
    app.command("watch")(watch)
    app.command("pause")(pause)
    app.command("resume")(resume)
    app.command("cancel")(cancel)
    app.command("steer")(steer)
    app.command("logs")(logs)


def list_runs(
    *,
    dataset: Annotated[str | None, typer.Option(help="Only runs over this dataset.")] = None,
    state: Annotated[str | None, typer.Option(help=f"Only runs that are {', '.join(runs.STATES)}.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Rows shown at most.")] = 20,
    json: AsJson = False,
) -> None:
    """List runs, newest first, with how far they are."""
    catalog = workspace()
    query = select(Run, Dataset.name).join(Dataset, Dataset.id == Run.dataset_id)
    if state is not None:
        query = query.where(*runs.in_state(state))
    rows = []
    with catalog.read() as session:
        if dataset is not None:
            from workers.manifests import find_dataset

            query = query.where(Dataset.id == find_dataset(session, dataset).id)
        now = catalog.now(session)
        found = session.execute(query.order_by(Run.created_at.desc(), Run.id).limit(limit)).all()
        for run, name in found:
            far = _how_far(runs.run_progress(session, run.id, now)) if run.state == "running" else ""
            asked = run.created_at.strftime("%Y-%m-%d %H:%M:%S")
            steered = (run.priority, "no limit" if run.max_units is None else run.max_units)
            recipe, state_shown = runs.recipe_of(run), runs.shown_state(run)
            rows.append((run.id, run.kind, name, recipe, state_shown, far, *steered, asked, run.reason or ""))
    header = ("run", "kind", "dataset", "recipe", "state", "progress", "priority", "units at once", "asked", "reason")
    if json:
        emit_json([dict(zip(header, row, strict=True)) for row in rows])
        return
    emit_table("", header, [(row[0][:8], *row[1:]) for row in rows])
    if not rows:
        say("no run: `winnow ingest`, `winnow clean` and `winnow train` ask for one")


def _how_far(progress: runs.RunProgress) -> str:
    stage = progress.stages[progress.stage]
    told = f"{progress.stage + 1}/{len(progress.stages)} {stage.name}, {stage.num_units_done}/{stage.num_units} units"
    if progress.waiting_for:
        return f"{told}, no worker serves {progress.waiting_for}"
    return told if progress.run_seconds_left is None else f"{told}, {progress.run_seconds_left:,.0f} s left"


def watch(run: RunId, *, json: AsJson = False) -> None:
    """Wait for a run that somebody else asked for; Ctrl-C ends the waiting, not the run."""
    catalog = workspace()
    with catalog.read() as session:
        found = engine.find_run(session, run)
        run_id, kind, recipe = found.id, found.kind, found.config.get("recipe")
        dataset = session.get_one(Dataset, found.dataset_id).name
    result = run_to_end(catalog, run_id, as_json=json).result
    if json:
        emit_json({"run": run_id, "state": "done", "result": result})
        return
    say(f"run {run_id[:8]} is done")
    if kind == "train" and result and isinstance(recipe, dict):
        show_training(result, run_id=run_id, dataset=dataset, asked=recipe.get("compare") == "controls")


def pause(run: RunId, *, json: AsJson = False) -> None:
    """Take up nothing more of a run until it is resumed; units under way end in peace."""
    catalog = workspace()
    with catalog.write() as session:
        found = engine.find_run(session, run)
        runs.pause(found, catalog.now(session))
        run_id = found.id
    _told(run_id, "paused", f"go on with `winnow resume {run_id[:8]}`", as_json=json)


def resume(run: RunId, *, json: AsJson = False) -> None:
    """Set a paused, failed or cancelled run going again; what it has finished stays, failed units are tried anew."""
    catalog = workspace()
    with catalog.write() as session:
        found = engine.find_run(session, run)
        runs.resume(session, found, catalog.now(session))
        run_id = found.id
    working = "" if runs.num_workers_alive(catalog) else "; no worker is running: start them with `winnow up`"
    _told(run_id, "running", f"watch it with `winnow watch {run_id[:8]}`{working}", as_json=json)


def cancel(
    run: Annotated[str, typer.Argument(help="Id of a run or a request, or its first characters.")],
    *,
    json: AsJson = False,
) -> None:
    """Cancel a running run, of which what is finished is kept, or a job that waits for another."""
    from workers.requests import cancel_request, find_request

    catalog = workspace()
    with catalog.write() as session:
        try:
            found = engine.find_run(session, run)
        except AmbiguousIdError:
            raise
        except NotFoundError:
            try:
                request = find_request(session, run)
            except AmbiguousIdError:
                raise
            except NotFoundError as error:
                raise NotFoundError(
                    f"no run and no request begins with {run!r}; see `winnow runs` and `winnow requests`"
                ) from error
            cancel_request(request, catalog.now(session))
            told = {"request": request.id, "state": "cancelled"}
            if json:
                emit_json(told)
            else:
                say(f"request {request.id[:8]} cancelled; it never starts")
            return
        runs.cancel(session, found, catalog.now(session))
        run_id = found.id
    _told(run_id, "cancelled", "asking for the same again, or `winnow resume`, goes on from there", as_json=json)


def steer(
    run: RunId,
    *,
    priority: Annotated[
        int | None, typer.Option(help="-100 to 100; units of the run with the highest are taken up first.")
    ] = None,
    max_units: Annotated[
        int | None, typer.Option(help="Units of it under way at once, at most; 0 for no limit.")
    ] = None,
    json: AsJson = False,
) -> None:
    """Change which run comes first, or how much of one is done at once."""
    if priority is None and max_units is None:
        raise ConfigError("nothing to change; give --priority, --max-units, or both")
    catalog = workspace()
    with catalog.write() as session:
        found = engine.find_run(session, run)
        runs.steer(session, found, catalog.now(session), priority=priority, max_units=max_units)
        told = {"run": found.id, "priority": found.priority, "max_units": found.max_units}
    if json:
        emit_json(told)
        return
    most = told["max_units"]
    limit = "no limit of units" if most is None else f"at most {most} unit{'' if most == 1 else 's'}"
    say(f"run {str(told['run'])[:8]}: priority {told['priority']}, {limit} at once")


def _told(run_id: str, state: str, next_step: str, *, as_json: bool) -> None:
    if as_json:
        emit_json({"run": run_id, "state": state})
        return
    say(f"run {run_id[:8]} {state}; {next_step}")


def logs(
    run: RunId,
    *,
    unit: Annotated[str | None, typer.Option(help="Only this unit, as STAGE or STAGE/NUMBER, e.g. measure/3.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="Lines shown at most, the last ones.")] = 200,
    json: AsJson = False,
) -> None:
    """Show what workers logged while they did a run's units, and why attempts failed."""
    catalog = workspace()
    with catalog.read() as session:
        found = engine.find_run(session, run)
        query = select(UnitLog, Unit.stage_name, Unit.position).join(Unit, Unit.id == UnitLog.unit_id)
        query = query.where(UnitLog.run_id == found.id, *_of_unit(session, found, unit))
        rows = session.execute(query.order_by(UnitLog.id.desc()).limit(limit)).all()
        lines: list[dict[str, Any]] = [
            {
                "at": line.at.isoformat(),
                "unit": f"{stage}/{position}",
                "attempt": line.epoch,
                "level": line.level,
                "message": line.message,
                "worker": line.worker,
            }
            for line, stage, position in reversed(rows)
        ]
    if json:
        emit_json(lines)
        return
    for line in lines:
        show(f"{line['at'][:19]} {line['unit']} #{line['attempt']} {line['level']}: {line['message']}")
    if not lines:
        say(
            f"nothing was logged by run {found.id[:8]}{' in that unit' if unit else ''}; only troubles and warnings are"
        )


def _of_unit(session: Session, run: Run, unit: str | None) -> list[ColumnElement[bool]]:
    """What a query asks for the units that ``--unit`` names.

    Raises
    ------
    ConfigError : it is no STAGE or STAGE/NUMBER. NotFoundError : the run has no such stage, or no such unit there.
    """
    if unit is None:
        return []
    stage, _, number = unit.partition("/")
    if number and not (number.isascii() and number.isdigit()):
        raise ConfigError(f"unit={unit!r} must be STAGE or STAGE/NUMBER, e.g. measure/3")
    stages = [one.name for one in PIPELINES[run.kind].member.stages]
    if stage not in stages:
        raise NotFoundError(f"a run of {run.kind} has no stage {stage!r}; {nearest(stage, stages)}")
    if not number:
        return [Unit.stage_name == stage]
    of_stage = (Unit.run_id == run.id, Unit.stage_name == stage)
    num_units = session.scalar(select(func.count()).select_from(Unit).where(*of_stage)) or 0
    if int(number) >= num_units:
        there = f"0 to {num_units - 1}" if num_units > 1 else "only 0" if num_units else "none"
        raise NotFoundError(f"stage {stage} of run {run.id[:8]} has no unit {int(number)}; there is {there}")
    return [Unit.stage_name == stage, Unit.position == int(number)]
