"""A what-if made real: a version under other thresholds, of what a cleaning run measured; texts are not read again.

settle (all) → the stages of ``clean`` behind it

Measured values, token counts and near pairs are those of the run that measured. Keepers are chosen anew by the new
verdicts; scores are kept, and vectors: only a record that stays and did not before is read, and encoded. What is
decided among those that stay (difficulty ranks, semantic duplicates, repeated passages) is decided anew by the same
stages.
"""

from collections.abc import Sequence
from typing import Any

import polars as pl
from sqlalchemy import select

from catalog.database import Catalog
from catalog.errors import ConfigError
from catalog.store import Store
from catalog.tables.datasets import Version
from catalog.tables.engine import Run
from curation.dedup.stages import split
from curation.verdicts import rule_verdicts
from curation.whatif import changed_recipe, decide
from workers import manifests, runs, whatif
from workers.engine import UnitResult
from workers.execution import UnitContext
from workers.pipelines import PIPELINES, Pipeline, Stage, clean, dedup, edit, pii, single, substring
from workers.pipelines.dedup import PAIRS, REMOVED_SCHEMA, recipe_of
from workers.pipelines.embeddings import embed
from workers.pipelines.outputs import INHERITED, outputs, outputs_of


def submit_what_if(
    catalog: Catalog, *, run: str, settings: Sequence[str], requested_by: str | None = None
) -> tuple[str, str]:
    """Ask for a version of what a judging run measured, under other thresholds.

    Parameters
    ----------
    run : its id or the beginning of it, or a dataset: the newest of that.
    settings : as of ``curation.whatif.changed_recipe``.

    Returns
    -------
    the run's id and ``"new"``, ``"running"``, ``"resumed"`` or ``"done"``.

    Raises
    ------
    NotFoundError : no such run. ConfigError : a setting cannot be tried, or not from what was measured.
    """
    store = Store.of(catalog.settings)
    with catalog.write() as session:
        asked = whatif.find_judging(session, run)
        stored = whatif.load(session, store, asked)
        changed = changed_recipe(stored.recipe, settings)
        problem = whatif.unpublishable(stored, changed)
        if problem:
            raise ConfigError(problem)
        config = {
            "recipe": changed.canonical(),
            "recipe_hash": changed.digest(),
            "manifest": asked.config["manifest"],
            "scope": stored.root.config["scope"],
            "of": stored.root.id,
            "after": asked.id,
        }
        key = runs.key_of_newest(session, dataset_id=asked.dataset_id, kind="curated", asked=config, job="what_if")
        made, state = runs.submit(
            session,
            now=catalog.now(session),
            kind="what_if",
            dataset_id=asked.dataset_id,
            version_id=asked.version_id,
            config=config
            | {key: stored.root.config[key] for key in ("layout", "pii_key") if key in stored.root.config},
            idempotency_key=key,
            requested_by=requested_by,
        )
        return made.id, state


def _plan_settle(session: Any, run: Run) -> list[dict[str, Any]]:
    recipe = run.config["recipe"]
    return single(session, run) if recipe["exact"] or recipe["near"] else []


def _settle(unit: UnitContext) -> UnitResult:
    """Who leaves as a duplicate now, in files as ``dedup`` leaves them: one a group, with a part for each shard."""
    with unit.catalog.read() as session:
        stored = whatif.load(session, unit.store, session.get_one(Run, unit.claim.config["of"]))
        measured = whatif.read_measured(session, unit.store, stored, unit.check)
        near = whatif.read_pairs(session, unit.store, stored)
    unit.progress(0, measured.height)
    _, pairs = decide(measured, near, recipe_of(unit), within=stored.within)
    accepted = pairs.filter("accepted")
    shards = measured.select("shard", id="id")
    removed = accepted.select("keeper_id", "kind", id="record_id").join(shards, on="id", maintain_order="left")
    number = len(stored.shards) + len(stored.others)
    parts = split(removed.select(*(one for one in REMOVED_SCHEMA if one != "row")), removed["shard"].to_numpy(), number)
    step = unit.claim.config["layout"]["group_shards"]
    groups = [parts[start : start + step] for start in range(0, number, step)]
    unit.progress(measured.height, measured.height)
    return UnitResult(
        result={"removed": removed.height, "pairs": pairs.height},
        shards=[
            ("pairs", unit.store.write_frame(pairs, "pairs")),
            *(("duplicates", unit.store.write_parts(group, "duplicates")) for group in groups),
        ],
        rows=[(PAIRS, accepted.with_columns(run_id=pl.lit(unit.claim.run_id)))],
    )


def _score(unit: UnitContext) -> UnitResult:
    """Scores and vectors of the run before, and vectors of those alone that stay now and did not then."""
    index, before = unit.claim.payload["index"], unit.claim.config["after"]
    text = pii.text_shard(unit, index)
    if text.sha256 != _published(unit, before)[index]["data"]["sha256"]:
        # Cut differently than before, so that scores and vectors are of other texts.
        return clean.score(unit)
    scored = unit.store.read_frame(outputs_of(unit, before, "score", "scored")[index])
    known = unit.store.read_frame(outputs_of(unit, before, "score", "embedding")[index])
    measured = unit.store.read_frame(outputs(unit, "measure", "measured")[index])
    left = pl.concat([dedup.duplicates_of(unit, index)["id"], substring.emptied_of(unit, index)])
    recipe = recipe_of(unit)
    kept = rule_verdicts(measured, recipe)["kept"] & ~measured["id"].is_in(left.implode())
    chosen = measured.filter(kept).select("id")
    wanting = chosen.filter(~pl.col("id").is_in(known["id"].implode()))
    if wanting.height:
        texts = unit.store.read_frame(text, ["id", "text"])
        added = embed(unit, recipe.encoder, texts.filter(pl.col("id").is_in(wanting["id"].implode())))
        known = added if known.is_empty() else pl.concat([known, added])
    embedded = chosen.join(known, on="id", how="left", maintain_order="left")
    unit.progress(chosen.height, chosen.height)
    return UnitResult(
        result={"records": measured.height, "kept": chosen.height, "encoded": wanting.height},
        shards=[
            ("scored", unit.store.write_frame(scored.with_columns(kept=kept), "scored")),
            ("embedding", unit.store.write_frame(embedded, "embedding")),
        ],
    )


def _published(unit: UnitContext, run_id: str) -> list[dict[str, Any]]:
    """The shards of the version that a run published."""
    with unit.catalog.read() as session:
        version = session.scalars(select(Version).where(Version.run_id == run_id)).one()
        entries: list[dict[str, Any]] = manifests.read(unit.store, version)["shards"]
    return entries


_MEASURING = {*INHERITED, *(stage.name for stage in (*edit.STAGES, *dedup.STAGES))}
_OWN = {"score": _score}

PIPELINES.register("what_if")(
    Pipeline(
        stages=(
            Stage(name="settle", plan=_plan_settle, work=_settle),
            *(
                Stage(name=stage.name, plan=stage.plan, work=_OWN.get(stage.name, stage.work))
                for stage in clean.STAGES
                if stage.name not in _MEASURING
            ),
        )
    )
)
