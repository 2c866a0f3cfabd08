"""Map: outliers, topics and thin regions of a curated version, from the vectors that it has.

draw (a group of shards) → fit (all samples) → place (a group) → gather (all)

A unit holds the vectors of about ``dedup_rows / VECTOR_ROOM`` records, the net, and one file of the reference; ``fit``
and ``gather`` hold the sample and a few numbers a record. The reference is the labelled part, or another dataset.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import polars as pl
import xxhash
from sqlalchemy import select
from sqlalchemy.orm import Session

from catalog.database import Catalog
from catalog.errors import ConfigError
from catalog.store import Store, StoredFile
from catalog.tables.datasets import Version
from catalog.tables.engine import Run, Unit
from curation.coverage.clusters import centre, choose_num_clusters, fit_clusters, mean_of
from curation.coverage.config import NET_RECORDS, PICTURE_RECORDS, MapConfig
from curation.coverage.layout import lay_out
from curation.coverage.outliers import DIGITS, cosines, neighbour_distances, net_rows, outlier_limit
from curation.coverage.regions import judge_regions, near_limit
from curation.coverage.terms import READ_CHARS, cluster_terms
from curation.dedup.cells import sample_rows
from curation.dedup.grid import has_direction, nearest, snap
from workers import manifests, runs
from workers.engine import UnitResult
from workers.execution import UnitContext
from workers.learnable import annotated_labels
from workers.pipelines import PIPELINES, Pipeline, Stage, single
from workers.pipelines.embeddings import vector_column, vector_rows
from workers.pipelines.outputs import outputs
from workers.pipelines.semantic import VECTOR_ROOM

LISTED = 200
"""Outliers and unreached records that are kept with their texts."""
EXCERPT_CHARS = 500
COMPARISONS = 2 * 10**10
"""Pairs of record and reference that are measured; where there are more, the reference is sampled by its ids."""
LIMIT_RECORDS = 4_096
FEW = 0.1
"""Share of the sample that must be no copies for the distances to mean something."""
SAMPLE_SCHEMA: dict[str, Any] = {"id": pl.String, "text": pl.String, "vector": pl.List(pl.Int16)}
VECTOR_SCHEMA: dict[str, Any] = {"id": pl.String, "vector": pl.List(pl.Int16)}
MAPPED_SCHEMA = {
    "id": pl.String,
    "cluster": pl.Int64,
    "distance": pl.Float64,
    "reach": pl.Float64,
    "labelled": pl.Boolean,
}
LISTED_SCHEMA = MAPPED_SCHEMA | {"text": pl.String, "source": pl.String, "line": pl.Int64}


def submit_map(
    catalog: Catalog, *, dataset: str, config: MapConfig, against: str | None = None, requested_by: str | None = None
) -> tuple[str, str]:
    """Ask for a map of the newest curated version; the same version, labels and options again is the same run.

    Parameters
    ----------
    against : a dataset that was cleaned with the same encoder, whose reach is measured instead of that of the labels:
        the training set of an evaluation set, say.

    Returns
    -------
    the run's id and ``"new"``, ``"running"``, ``"resumed"`` or ``"done"``.

    Raises
    ------
    NotFoundError : no such dataset, or nothing cleaned. ConfigError : the other dataset is the same one, or has vectors
        of another encoder.
    """
    if against == dataset:
        raise ConfigError(f"{dataset!r} is measured against itself anyway; name another dataset")
    with catalog.read() as session:
        found = manifests.find_dataset(session, dataset)
        version = manifests.require_version(session, found, "curated")
        other = None
        if against is not None:
            other = manifests.require_version(session, manifests.find_dataset(session, against), "curated")
            if other.summary["encoder"] != version.summary["encoder"]:
                raise ConfigError(
                    f"{dataset!r} has vectors of encoder {version.summary['encoder']!r}, {against!r} of "
                    f"{other.summary['encoder']!r}; clean both by recipes with one encoder"
                )
        annotated = sorted(annotated_labels(session, found.id))
    config_json: dict[str, Any] = {
        "map": config.canonical(),
        "manifest": version.manifest_sha256,
        "encoder": version.summary["encoder"],
        "labels": runs.digest({"ids": annotated}),
        "against": other and {"dataset": against, "version": other.id, "manifest": other.manifest_sha256},
    }
    # Kept now, as people go on answering.
    snapshot = Store.of(catalog.settings).write_frame(
        pl.DataFrame({"id": annotated}, schema={"id": pl.String}), "labels"
    )
    rows = max(1, catalog.settings.dedup_rows // VECTOR_ROOM)
    layout = {name: _layout(one, rows) for name, one in (("own", version), ("other", other)) if one is not None}
    with catalog.write() as session:
        run, state = runs.submit(
            session,
            now=catalog.now(session),
            kind="map",
            dataset_id=found.id,
            version_id=version.id,
            config=config_json | {"snapshot": snapshot.to_json(), "layout": layout},
            idempotency_key=runs.digest({"map": found.id} | config_json),
            requested_by=requested_by,
        )
        return run.id, state


def _layout(version: Version, rows: int) -> dict[str, int]:
    step = max(1, rows // max(1, version.num_records // max(1, version.num_shards)))
    return {"step": step, "groups": -(-version.num_shards // step)}


def _plan_groups(_session: Session, run: Run) -> list[dict[str, Any]]:
    return [
        {"side": side, "group": group}
        for side, layout in sorted(run.config["layout"].items(), reverse=True)
        for group in range(layout["groups"])
    ]


def _shards(unit: UnitContext) -> Iterator[tuple[pl.DataFrame, np.ndarray]]:
    """``id, text, label, source, line`` and directions of the records of each shard of the unit's group."""
    config, payload = unit.claim.config, unit.claim.payload
    step = config["layout"][payload["side"]]["step"]
    with unit.catalog.read() as session:
        asked = unit.claim.version_id if payload["side"] == "own" else config["against"]["version"]
        shards = manifests.read(unit.store, session.get_one(Version, asked))["shards"]
    first = payload["group"] * step
    for number, entry in enumerate(shards[first : first + step]):
        unit.progress(number, step)
        files = {kind: StoredFile.from_json(entry[kind]) for kind in ("selection", "data", "embedding")}
        selection = unit.store.read_frame(files["selection"], ["id", "row"])
        if not selection.height:
            continue
        texts = unit.store.read_frame(files["data"], ["text", "label", "source", "line"])[selection["row"]]
        embedded = selection.select("id").join(
            unit.store.read_frame(files["embedding"]), on="id", how="left", maintain_order="left"
        )
        yield pl.concat([selection.select("id"), texts], how="horizontal"), snap(vector_rows(embedded["vector"]))


def _map_config(unit: UnitContext) -> MapConfig:
    return MapConfig.configured(unit.claim.config["map"])


def _draw(unit: UnitContext) -> UnitResult:
    """A group's share of the sample, and its vectors where they are of the reference."""
    config, own = _map_config(unit), unit.claim.payload["side"] == "own"
    labels = unit.store.read_frame(StoredFile.from_json(unit.claim.config["snapshot"]))["id"].implode()
    sample, referenced = pl.DataFrame(schema=SAMPLE_SCHEMA), [pl.DataFrame(schema=VECTOR_SCHEMA)]
    counts = {"records": 0, "unknown": 0, "reference": 0}
    for frame, grid in _shards(unit):
        known = np.flatnonzero(has_direction(grid))
        counts["records"] += len(grid)
        counts["unknown"] += len(grid) - len(known)
        ids = frame["id"]
        if own:
            chosen = known[sample_rows(ids.gather(known), NET_RECORDS, config.seed)]
            text = frame["text"].gather(chosen).str.slice(0, READ_CHARS)
            part = {"id": ids.gather(chosen), "text": text, "vector": vector_column(grid[chosen])}
            sample = _smallest(pl.concat([sample, pl.DataFrame(part, schema=SAMPLE_SCHEMA)]), NET_RECORDS, config.seed)
        if own == (unit.claim.config["against"] is None):
            stands = _labelled(frame, labels).to_numpy() if own else np.ones(len(grid), dtype=bool)
            counts["reference"] += int(stands.sum())
            rows = known[stands[known]]
            column = vector_column(grid[rows])
            referenced.append(pl.DataFrame({"id": ids.gather(rows), "vector": column}, schema=VECTOR_SCHEMA))
    return UnitResult(
        result=counts,
        shards=[
            ("sample", unit.store.write_frame(sample, "sample")),
            ("reference", unit.store.write_frame(pl.concat(referenced), "reference")),
        ],
    )


def _labelled(frame: pl.DataFrame, labels: pl.Series) -> pl.Series:
    return frame.select(one=(pl.col("label").fill_null("") != "") | pl.col("id").is_in(labels))["one"]


def _smallest(sample: pl.DataFrame, size: int, seed: int) -> pl.DataFrame:
    """The rows that are in the sample of everything, in its order."""
    return sample[sample_rows(sample["id"], size, seed)]


def _drawn(unit: UnitContext) -> dict[str, dict[str, int]]:
    """What ``draw`` counted, added up by side."""
    with unit.catalog.read() as session:
        rows = session.execute(
            select(Unit.payload, Unit.result).where(Unit.run_id == unit.claim.run_id, Unit.stage_name == "draw")
        ).all()
    total = {side: {"records": 0, "unknown": 0, "reference": 0} for side in ("own", "other")}
    for payload, result in rows:
        for name, number in result.items():
            total[payload["side"]][name] += number
    return total


def _fit(unit: UnitContext) -> UnitResult:
    """Net, topics, their names, the picture, and how far a reference reaches."""
    config = _map_config(unit)
    sample = pl.DataFrame(schema=SAMPLE_SCHEMA)
    for file in outputs(unit, "draw", "sample"):
        sample = _smallest(pl.concat([sample, unit.store.read_frame(file)]), NET_RECORDS, config.seed)
        unit.check()
    grid = vector_rows(sample["vector"])
    rows = net_rows(grid, config.same)
    net, mean = grid[rows], mean_of(grid[rows])
    unit.check()
    seen = centre(net, mean)
    centroids = fit_clusters(seen, config.clusters or choose_num_clusters(len(net)), config.seed)
    home = nearest(seen, centroids, 1, "cpu")[:, 0] if len(centroids) else np.empty(0, np.int32)
    unit.check()
    texts = sample["text"].gather(rows)
    terms = cluster_terms(texts, home, len(centroids))
    examples = _examples(texts, seen, home, centroids)
    drawn, share, limit = _drawn(unit), 0.0, None
    num_reference = drawn["own"]["reference"] + drawn["other"]["reference"]
    if _has_reference(unit, drawn):
        share = min(1.0, COMPARISONS / max(drawn["own"]["records"] * num_reference, 1))
        limit = near_limit(net[:LIMIT_RECORDS], _reference_sample(unit, config), config)
    drawn_rows = np.arange(min(PICTURE_RECORDS, len(grid)))
    picture = centre(grid[drawn_rows], mean)
    unit.check()
    flat, trusted = lay_out(picture, config.seed)
    of_picture = nearest(picture, centroids, 1, "cpu")[:, 0] if len(centroids) else np.empty(0, np.int32)
    points = pl.DataFrame(
        {
            "id": sample["id"].gather(drawn_rows),
            "x": flat[:, 0],
            "y": flat[:, 1],
            "cluster": of_picture.astype(np.int64),
        }
    )
    frames = {
        "net": pl.DataFrame({"id": sample["id"].gather(rows), "vector": vector_column(net)}, schema=VECTOR_SCHEMA),
        "centroids": pl.DataFrame({"vector": vector_column(centroids)}, schema={"vector": pl.List(pl.Int16)}),
        "mean": pl.DataFrame({"mean": mean}),
        "points": points,
    }
    return UnitResult(
        result={
            "sampled": sample.height,
            "net": len(net),
            "terms": terms,
            "examples": examples,
            "share": share,
            "near_limit": limit,
            "trustworthiness": trusted,
        },
        shards=[(kind, unit.store.write_frame(frame, kind)) for kind, frame in frames.items()],
    )


def _has_reference(unit: UnitContext, drawn: dict[str, dict[str, int]]) -> bool:
    """Whether there is anything to tell: a part with labels and one without, or another dataset."""
    if unit.claim.config["against"] is not None:
        return drawn["other"]["reference"] > 0
    return 0 < drawn["own"]["reference"] < drawn["own"]["records"]


def _examples(texts: pl.Series, seen: np.ndarray, home: np.ndarray, centroids: np.ndarray) -> list[str]:
    """Of each topic the text in its middle."""
    found = []
    for number, centroid in enumerate(centroids):
        members = np.flatnonzero(home == number)
        middle = (seen[members].astype(np.float64) @ centroid).argmax() if len(members) else 0
        found.append(texts[int(members[middle])][:EXCERPT_CHARS] if len(members) else "")
    return found


def _reference_sample(unit: UnitContext, config: MapConfig) -> np.ndarray:
    sample = pl.DataFrame(schema=VECTOR_SCHEMA)
    for file in outputs(unit, "draw", "reference"):
        sample = _smallest(pl.concat([sample, unit.store.read_frame(file)]), LIMIT_RECORDS, config.seed)
    return vector_rows(sample["vector"])


def _fitted(unit: UnitContext) -> dict[str, Any]:
    with unit.catalog.read() as session:
        found: dict[str, Any] = session.scalars(
            select(Unit.result).where(Unit.run_id == unit.claim.run_id, Unit.stage_name == "fit")
        ).one()
    return found


def _one(unit: UnitContext, kind: str) -> pl.DataFrame:
    (file,) = outputs(unit, "fit", kind)
    return unit.store.read_frame(file)


def _place(unit: UnitContext) -> UnitResult:
    """Topic, distance and reach of every record of a group; of the other dataset's, only how many are in each topic."""
    config, fit = _map_config(unit), _fitted(unit)
    centroids, mean = vector_rows(_one(unit, "centroids")["vector"]), _one(unit, "mean")["mean"].to_numpy()
    sizes = np.zeros(len(centroids), dtype=np.int64)
    parts, grids = [], []
    own = unit.claim.payload["side"] == "own"
    labels = unit.store.read_frame(StoredFile.from_json(unit.claim.config["snapshot"]))["id"].implode()
    for frame, grid in _shards(unit):
        seen = centre(grid, mean)
        cluster = np.full(len(grid), -1, dtype=np.int64)
        inside = np.flatnonzero(has_direction(seen))
        if len(centroids):
            cluster[inside] = nearest(seen[inside], centroids, 1, "cpu")[:, 0]
        sizes += np.bincount(cluster[cluster >= 0], minlength=len(centroids))
        if own:
            parts.append(
                frame.drop("label").with_columns(
                    pl.Series("cluster", cluster), _labelled(frame, labels).alias("labelled")
                )
            )
            grids.append(grid)
    if not own:
        return UnitResult(result={"sizes": sizes.tolist()})
    grid = np.concatenate(grids) if grids else np.zeros((0, len(mean)), np.int16)
    known = np.flatnonzero(has_direction(grid))
    distance, reach = np.full(len(grid), np.nan), np.full(len(grid), np.nan)
    distance[known] = neighbour_distances(grid[known], vector_rows(_one(unit, "net")["vector"]), config)
    unit.check()
    if fit["near_limit"] is not None:
        reach[known] = _reach(unit, grid[known], fit["share"], config.seed)
    frame = pl.concat(
        [pl.DataFrame(schema={**LISTED_SCHEMA}).drop("distance", "reach"), *parts], how="diagonal_relaxed"
    )
    frame = frame.with_columns(
        pl.Series("distance", distance).fill_nan(None),
        pl.Series("reach", reach).fill_nan(None),
        pl.col("text").str.slice(0, EXCERPT_CHARS),
        cluster=pl.when(pl.col("cluster") >= 0).then("cluster"),
    )
    return UnitResult(
        result={"records": frame.height, "sizes": sizes.tolist()},
        shards=[
            ("mapped", unit.store.write_frame(frame.select(list(MAPPED_SCHEMA)), "mapped")),
            ("far", unit.store.write_frame(_farthest(frame, "distance"), "far")),
            ("beyond", unit.store.write_frame(_farthest(frame.filter(_asked(unit)), "reach"), "beyond")),
        ],
    )


def _asked(unit: UnitContext) -> pl.Expr:
    """Whose reach is told: all, or those without a label."""
    return pl.lit(value=True) if unit.claim.config["against"] is not None else ~pl.col("labelled")


def _farthest(frame: pl.DataFrame, column: str) -> pl.DataFrame:
    ordered = frame.filter(pl.col(column).is_not_null()).sort(column, "id", descending=[True, False])
    return ordered.head(LISTED).select(list(LISTED_SCHEMA)).cast(LISTED_SCHEMA)  # type: ignore[arg-type]


def _reach(unit: UnitContext, grid: np.ndarray, share: float, seed: int) -> np.ndarray:
    """(n,) cosine distance to the nearest of the reference, a file of it at a time."""
    best = np.full(len(grid), -1.0)
    files = outputs(unit, "draw", "reference")
    for number, file in enumerate(files):
        unit.progress(number, len(files))
        frame = unit.store.read_frame(file)
        if share < 1:
            limit = int(share * 2**64)
            drawn = [xxhash.xxh3_64_intdigest(one.encode(), seed) < limit for one in frame["id"].to_list()]
            frame = frame.filter(pl.Series(drawn, dtype=pl.Boolean))
        if frame.height and len(grid):
            best = np.maximum(best, cosines(grid, vector_rows(frame["vector"]), 1)[:, 0])
    return np.round(1 - best, DIGITS)


def _gather(unit: UnitContext) -> UnitResult:
    """The limit of outliers, and what is told of each topic."""
    config, fit, drawn = _map_config(unit), _fitted(unit), _drawn(unit)
    mapped = pl.concat([unit.store.read_frame(file) for file in outputs(unit, "place", "mapped")])
    limit = outlier_limit(mapped["distance"].drop_nulls().to_numpy(), config.deviations)
    number = len(fit["terms"])
    pool = np.bincount(mapped["cluster"].drop_nulls().to_numpy(), minlength=number)
    against, near = unit.claim.config["against"], fit["near_limit"]
    if against is None:
        reference = np.bincount(mapped.filter("labelled")["cluster"].drop_nulls().to_numpy(), minlength=number)
    else:
        reference = _other_sizes(unit, number)
    asked = mapped.filter(_asked(unit))
    beyond = asked.filter(pl.col("reach") > near) if near is not None else asked.clear()
    out_of_reach = np.bincount(beyond["cluster"].drop_nulls().to_numpy(), minlength=number)
    judged = judge_regions(pool, reference) if near is not None else [{} for _ in range(number)]
    topics = [
        {"cluster": at, "terms": fit["terms"][at], "records": int(pool[at]), "example": fit["examples"][at]}
        | ({"beyond": int(out_of_reach[at])} | judged[at] if near is not None else {})
        for at in range(number)
    ]
    lists = {
        "outliers": _merged(unit, "far", "distance", limit),
        "unreached": _merged(unit, "beyond", "reach", near if near is not None else float("inf")),
    }
    summary = {
        "encoder": unit.claim.config["encoder"],
        "records": mapped.height,
        "unknown": drawn["own"]["unknown"],
        "net": fit["net"],
        "sampled": fit["sampled"],
        "limit": limit,
        "outliers": int((mapped["distance"] > limit).sum()),
        "topics": topics,
        "trustworthiness": fit["trustworthiness"],
        "reference": None
        if near is None
        else {
            "what": "labels" if against is None else against["dataset"],
            "records": int(drawn["own"]["reference"] + drawn["other"]["reference"]),
            "share_measured": round(fit["share"], 4),
            "limit": near,
            "asked": asked.height,
            "beyond": beyond.height,
        },
        "warning": _warning(fit, unit.claim.config["encoder"]),
    }
    return UnitResult(
        result=summary, shards=[(kind, unit.store.write_frame(frame, kind)) for kind, frame in lists.items()]
    )


def _other_sizes(unit: UnitContext, number: int) -> np.ndarray:
    with unit.catalog.read() as session:
        rows = session.execute(
            select(Unit.payload, Unit.result).where(Unit.run_id == unit.claim.run_id, Unit.stage_name == "place")
        ).all()
    return sum((np.array(result["sizes"]) for payload, result in rows if payload["side"] == "other"), np.zeros(number))


def _merged(unit: UnitContext, kind: str, column: str, limit: float) -> pl.DataFrame:
    frames = [unit.store.read_frame(file) for file in outputs(unit, "place", kind)]
    return _farthest(pl.concat([pl.DataFrame(schema=LISTED_SCHEMA), *frames]).filter(pl.col(column) > limit), column)


def _warning(fit: dict[str, Any], encoder: str) -> str | None:
    if fit["net"] >= FEW * fit["sampled"]:
        return None
    return (
        f"{fit['sampled'] - fit['net']:,} of {fit['sampled']:,} sampled records are copies of others by encoder "
        f"{encoder!r}, which does not tell these texts apart; clean with another encoder before you trust this"
    )


PIPELINES.register("map")(
    Pipeline(
        stages=(
            Stage(name="draw", plan=_plan_groups, work=_draw),
            Stage(name="fit", plan=single, work=_fit),
            Stage(name="place", plan=_plan_groups, work=_place),
            Stage(name="gather", plan=single, work=_gather),
        )
    )
)
