"""``winnow map``: outliers, topics and thin regions of a curated version."""

from itertools import chain
from pathlib import Path
from typing import Annotated, Any

import typer
from sqlalchemy.orm import Session

from catalog.errors import ConfigError
from catalog.store import Store
from catalog.tables.engine import Run
from curation.coverage.config import MapConfig
from service.cli.output import COMMAND_LINE, AsJson, detached, emit_json, emit_table, run_to_end, say, show, workspace
from service.cli.passages import excerpt, short

DEFAULT = MapConfig()


def add(app: typer.Typer) -> None:
    """Register this module's command."""
    app.command("map")(map_)


def map_(
    dataset: Annotated[str, typer.Argument(help="Name of a dataset that was cleaned.")],
    *,
    against: Annotated[
        str | None, typer.Option(help="Dataset whose reach is measured, e.g. the training set; default the labels.")
    ] = None,
    neighbours: Annotated[
        int, typer.Option(help="Neighbours of an outlier's distance, 1 to 100.")
    ] = DEFAULT.neighbours,
    deviations: Annotated[
        float, typer.Option(help="Robust standard deviations above the median that make an outlier.")
    ] = DEFAULT.deviations,
    clusters: Annotated[int | None, typer.Option(help="Topics, 1 to 64; default by the number of records.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=200, help="Outliers shown at most.")] = 10,
    output: Annotated[Path | None, typer.Option(help="Parquet file to write every record to.")] = None,
    detach: Annotated[bool, typer.Option("--detach", help="Return at once; the workers go on.")] = False,
    json: AsJson = False,
) -> None:
    """Find the records far from all others, the topics, and what labels or another dataset do not reach."""
    from workers.mapping import listed
    from workers.pipelines.map import submit_map

    if output is not None and detach:
        raise ConfigError("--output waits for the result; leave out --detach")
    config = MapConfig(neighbours=neighbours, deviations=deviations, clusters=clusters)
    catalog = workspace()
    run_id, state = submit_map(catalog, dataset=dataset, config=config, against=against, requested_by=COMMAND_LINE)
    if detach:
        detached(catalog, run_id, as_json=json)
        return
    if state == "done":
        say("this version was mapped so before; the same result:", as_json=json)
    elif state == "resumed":
        say("going on from where the last try ended", as_json=json)
    result = run_to_end(catalog, run_id, as_json=json).result or {}
    with catalog.read() as session:
        store, run = Store.of(catalog.settings), session.get_one(Run, run_id)
        shown = {kind: listed(session, store, run, kind).head(limit).to_dicts() for kind in ("outliers", "unreached")}
        if output is not None:
            _write(output, session, store, run)
    if json:
        emit_json({"run": run_id} | result | {"farthest": shown["outliers"], "unreached": shown["unreached"]})
        return
    _tell(dataset, result, shown)


def explain_place(found: dict[str, Any] | None) -> None:
    """What ``winnow explain`` tells of where a record lies on the map."""
    if found is None:
        return
    if found["distance"] is None:
        show("map      nothing in it is known to the encoder")
        return
    what = "an outlier: " if found["outlier"] else ""
    show(
        f"map      topic {', '.join(found['topic'])}; {what}distance {found['distance']:.3f} to its neighbours, "
        f"outliers are above {found['limit']:g}"
    )


def _tell(dataset: str, result: dict[str, Any], shown: dict[str, list[dict[str, Any]]]) -> None:
    reference = result["reference"]
    header: tuple[str, ...] = ("topic", "terms", "records")
    rows: list[tuple[Any, ...]] = [
        (one["cluster"] + 1, ", ".join(one["terms"]), one["records"]) for one in result["topics"]
    ]
    if reference is not None:
        header += ("in reference", "expected", "out of reach", "")
        rows = [
            (*row, one["reference"], one["expected"], one["beyond"], "" if one["state"] == "covered" else one["state"])
            for row, one in zip(rows, result["topics"], strict=True)
        ]
    emit_table("topics", header, rows)
    _emit_far("outliers, the farthest first", shown["outliers"], "distance")
    say(
        f"{result['outliers']:,} of {result['records']:,} records are outliers: mean distance to their neighbours "
        f"above {result['limit']:g}"
    )
    if reference is not None:
        named = "labels" if reference["what"] == "labels" else f"{reference['what']!r}"
        _emit_far(f"out of reach of {named}, the farthest first", shown["unreached"], "reach")
        say(
            f"{reference['beyond']:,} of {reference['asked']:,} records are farther than {reference['limit']:g} from "
            f"the nearest of {reference['records']:,} in {named}"
        )
    if result["unknown"]:
        say(f"{result['unknown']:,} records hold nothing that encoder {result['encoder']!r} knows; they are on no map")
    if result["warning"]:
        say(f"warning: {result['warning']}")
    say(f"drawn: `winnow report {dataset}`; every record: `winnow map {dataset} --output FILE`")


def _emit_far(title: str, records: list[dict[str, Any]], column: str) -> None:
    if records:
        rows = [(f"{one[column]:.3f}", short(one["id"]), excerpt(one["text"])) for one in records]
        emit_table(title, ("distance", "record", "text"), rows)


def _write(path: Path, session: Session, store: Store, run: Run) -> None:
    """Aside first, so that nobody reads half of it."""
    import pyarrow.parquet as pq

    from workers.mapping import map_rows

    if path.is_dir():
        raise ConfigError(f"--output {path} is a folder; give a file name, e.g. {path / 'map.parquet'}")
    aside = path.with_name(f".{path.name}.tmp")
    try:
        tables = (frame.to_arrow() for frame in map_rows(session, store, run))
        first = next(tables)
        with pq.ParquetWriter(aside, first.schema, compression="zstd") as writer:
            for table in chain([first], tables):
                writer.write_table(table)
        aside.replace(path)
    except OSError as error:
        raise ConfigError(f"--output {path} cannot be written: {error.strerror or error}") from error
    finally:
        aside.unlink(missing_ok=True)
