"""Clean: a raw version and a recipe in, a verdict for every record and a curated version out.

edit (a shard) → measure (a shard) → count (all) → the stages of ``dedup`` → those of ``substring`` →
redact (a shard, where personal data is replaced) → score (a shard) → those of ``semantic`` → rank (all) →
judge (a shard) → publish (all)

Everything is measured, by rules and by quality models, whether or not a rule has failed already; thresholds only decide
the verdict.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from catalog.database import Catalog
from catalog.store import StoredFile
from catalog.tables.curation import DuplicatePair, Verdict
from catalog.tables.datasets import Version
from catalog.tables.engine import Run
from curation.balance import REASON as BALANCE
from curation.dedup.exact import exact_hash
from curation.difficulty import DIFFICULTY, Corpus, TokenCounts, combine, count_tokens, ranked, reads_ngrams
from curation.language import identify
from curation.ngram import NgramCounts, count_ngrams
from curation.pii.step import column
from curation.recipe import Recipe
from curation.rules import measure
from curation.verdicts import EMPTIED, LANGUAGE, rule_verdicts
from workers import manifests, quality, runs
from workers.engine import UnitResult
from workers.execution import UnitContext
from workers.pipelines import PIPELINES, Pipeline, Stage, bias, dedup, edit, pii, reuse, semantic, single, substring
from workers.pipelines.dedup import all_shards, duplicates_of, recipe_of
from workers.pipelines.embeddings import check_encoder, embed, vector_column
from workers.pipelines.outputs import entries, outputs
from workers.pipelines.semantic import all_duplicates_of, semantic_duplicates_of, semantic_summary

EXACT = "exact_duplicate"
NEAR = "near_duplicate"
SEMANTIC = "semantic_duplicate"
VECTORS = "quality_vectors"
"""Vectors of every record of a shard, where a quality score needed them."""


def submit_clean(
    catalog: Catalog,
    *,
    dataset: str,
    recipe: Recipe,
    against: Sequence[str] = (),
    requested_by: str | None = None,
) -> tuple[str, str]:
    """Ask for the newest raw version to be cleaned; the same version and recipe again is the same run.

    Unless another curated version was published since: then it is a new one, which makes the result the newest again.

    Parameters
    ----------
    against : names of other datasets, e.g. evaluation sets; records that stand there too leave as duplicates of theirs.

    Returns
    -------
    the run's id and ``"new"``, ``"running"``, ``"resumed"`` or ``"done"``.

    Raises
    ------
    NotFoundError : no such dataset, nothing ingested, or no such quality model. ConfigError : the recipe's encoder is
        not installed, or a dataset is to be compared with itself; or the recipe writes pseudonyms and there is no key.
    """
    check_encoder(recipe)
    key = pii.check(catalog.settings, recipe)
    with catalog.read() as session:
        recipe = quality.pinned(session, recipe)
    with catalog.write() as session:
        found = manifests.find_dataset(session, dataset)
        version = manifests.require_version(session, found, "raw")
        scope, others = dedup.asked_scope(session, dataset, against=against)
        versions = [version, *others]
        rows = dedup.unit_rows(session, versions, catalog.settings.dedup_rows)
        config = {
            "recipe": recipe.canonical(),
            "recipe_hash": recipe.digest(),
            "manifest": version.manifest_sha256,
            "scope": scope,
        } | key
        base = reuse.base_of(session, found.id, "clean", {"recipe_hash": recipe.digest()} | key)
        run, state = runs.submit(
            session,
            now=catalog.now(session),
            kind="clean",
            dataset_id=found.id,
            version_id=version.id,
            config=config | {"layout": dedup.layout(versions, recipe, rows)} | base,
            idempotency_key=runs.key_of_newest(session, dataset_id=found.id, kind="curated", asked=config, job="clean"),
            requested_by=requested_by,
        )
        return run.id, state


def _text_plan(session: Session, run: Run) -> list[dict[str, Any]]:
    """One unit a text shard, by its place in the manifest."""
    version = session.get_one(Version, run.version_id)
    return [{"index": index} for index in range(version.num_shards)]


def _measure(unit: UnitContext) -> UnitResult:
    """Every rule's value, language, exact hash and token counts of one shard."""
    if (done := reuse.taken_over(unit)) is not None:
        return done
    recipe = recipe_of(unit)
    entry = all_shards(unit)[unit.claim.payload["index"]]
    frame = unit.store.read_frame(StoredFile.from_json(entry["data"]), ["id", "text"])
    unit.progress(0, frame.height)
    language = identify(frame["text"])
    unit.check()
    scores, vectors = quality.score_texts(unit, recipe, frame["text"])
    unit.check()
    unit.progress(frame.height // 2, frame.height)
    values = measure(frame["text"], recipe.rules, languages=language)
    unit.check()
    personal = pii.measure(unit, frame, recipe, own="of" not in entry)
    out = pl.concat(
        [
            frame.select("id", num_chars=pl.col("text").str.len_chars().cast(pl.Int64)),
            language.drop(values.columns, strict=False),
            pl.DataFrame({"exact_hash": exact_hash(frame["text"])}),
            values,
            personal.counts,
            scores,
            *([] if recipe.identity is None else [recipe.identity.index.mentioned(frame["text"]).to_frame()]),
        ],
        how="horizontal",
    )
    shards = [
        ("measured", unit.store.write_frame(out, "measured")),
        ("tokens", unit.store.write_frame(count_tokens(frame["text"]).to_frame(), "tokens")),
        *personal.shards,
    ]
    if vectors is not None:
        embedded = frame.select("id", vector=vector_column(vectors))
        shards.append((VECTORS, unit.store.write_frame(embedded, VECTORS)))
    if reads_ngrams(recipe.difficulty):
        shards.append(("ngrams", unit.store.write_frame(count_ngrams(frame["text"]).to_frame(), "ngrams")))
    unit.progress(frame.height, frame.height)
    return UnitResult(result={"records": frame.height} | personal.result, shards=shards)


def _count(unit: UnitContext) -> UnitResult:
    """Counts over the whole version, by which a text's rarity and perplexity are told."""
    tokens = TokenCounts.empty()
    files = outputs(unit, "measure", "tokens")[: len(entries(unit))]
    for index, file in enumerate(files):
        unit.progress(index, len(files))
        tokens = tokens.merge(TokenCounts.from_frame(unit.store.read_frame(file)))
    shards = [("corpus", unit.store.write_frame(tokens.to_frame(), "tokens"))]
    if reads_ngrams(recipe_of(unit).difficulty):
        ngrams = NgramCounts.empty()
        for file in outputs(unit, "measure", "ngrams")[: len(files)]:
            unit.check()
            ngrams = ngrams.merge(NgramCounts.from_frame(unit.store.read_frame(file)))
        shards.append(("ngrams", unit.store.write_frame(ngrams.to_frame(), "ngrams")))
    return UnitResult(result={"tokens": tokens.total}, shards=shards)


def _corpus(unit: UnitContext) -> Corpus:
    """What ``count`` left."""
    (tokens,) = outputs(unit, "count", "corpus")
    ngrams = [NgramCounts.from_frame(unit.store.read_frame(file)) for file in outputs(unit, "count", "ngrams")]
    return Corpus(TokenCounts.from_frame(unit.store.read_frame(tokens)), ngrams[0] if ngrams else None)


def score(unit: UnitContext) -> UnitResult:
    """Raw difficulty of every record of one shard, and embeddings of those that stay."""
    recipe = recipe_of(unit)
    index = unit.claim.payload["index"]
    frame = unit.store.read_frame(pii.text_shard(unit, index), ["id", "text"])
    measured = unit.store.read_frame(outputs(unit, "measure", "measured")[index])
    corpus = _corpus(unit)
    duplicates = duplicates_of(unit, index)
    scores = frame.select("id").with_columns(
        **{name: DIFFICULTY[name].member(frame["text"], corpus) for name in recipe.difficulty}
    )
    left = pl.concat([duplicates["id"], substring.emptied_of(unit, index)])
    kept = rule_verdicts(measured, recipe)["kept"] & ~frame["id"].is_in(left.implode())
    scores = scores.with_columns(kept=kept)
    chosen = frame.filter(kept)
    unit.progress(0, chosen.height)
    embedded = _known_vectors(unit, index, chosen["id"])
    if embedded is None:
        embedded = _embedded(unit, recipe, chosen)
    return UnitResult(
        result={"records": frame.height, "kept": chosen.height},
        shards=[
            ("scored", unit.store.write_frame(scores, "scored")),
            ("embedding", unit.store.write_frame(embedded, "embedding")),
        ],
    )


def _embedded(unit: UnitContext, recipe: Recipe, chosen: pl.DataFrame) -> pl.DataFrame:
    """``id, vector`` of records, of which those are not encoded again that the run before has."""
    known = reuse.known_vectors(unit, recipe)
    if known is None:
        return embed(unit, recipe.encoder, chosen)
    new = embed(unit, recipe.encoder, chosen.filter(~pl.col("id").is_in(known["id"].implode())))
    vectors = pl.concat([frame for frame in (known, new) if frame.height] or [new])
    return chosen.select("id").join(vectors, on="id", how="left", maintain_order="left")


def _known_vectors(unit: UnitContext, index: int, ids: pl.Series) -> pl.DataFrame | None:
    """``id, vector`` of records of a shard where a quality score has embedded them and no text changed since."""
    files = outputs(unit, "measure", VECTORS)
    measured = StoredFile.from_json(all_shards(unit)[index]["data"])
    if not files or pii.text_shard(unit, index) != measured:
        return None
    return ids.to_frame().join(unit.store.read_frame(files[index]), on="id", how="left", maintain_order="left")


def _rank(unit: UnitContext) -> UnitResult:
    """Difficulty percentiles among the records that stay, one selection shard a text shard."""
    recipe = recipe_of(unit)
    files = outputs(unit, "score", "scored")
    frames = []
    for index, file in enumerate(files):
        gone = semantic_duplicates_of(unit, index)["id"]
        frames.append(unit.store.read_frame(file).with_columns(pl.col("kept") & ~pl.col("id").is_in(gone.implode())))
    frames, balanced = bias.balanced(unit, recipe, frames)
    kept = pl.concat([frame.filter("kept").drop("kept") for frame in frames])
    ranks = kept.select("id").with_columns(**{name: ranked(kept[name]) for name in recipe.difficulty})
    ranks = ranks.with_columns(difficulty=pl.Series(combine(ranks.select(list(recipe.difficulty)))))
    shards = []
    for frame in frames:
        rows = (
            frame.select("id", "kept", "weight")
            .with_row_index("row")
            .filter("kept")
            .select("id", "weight", row=pl.col("row").cast(pl.Int64))
            .join(ranks, on="id", how="left", maintain_order="left")
        )
        shards.append(("selection", unit.store.write_frame(rows, "selection")))
    return UnitResult(result={"kept": kept.height, **balanced.result}, shards=[*shards, *balanced.shards])


def _judge(unit: UnitContext) -> UnitResult:
    """One verdict a record of one shard, with everything measured, into SQL."""
    recipe = recipe_of(unit)
    index = unit.claim.payload["index"]
    measured = unit.store.read_frame(outputs(unit, "measure", "measured")[index])
    duplicates = all_duplicates_of(unit, index)
    scored = unit.store.read_frame(outputs(unit, "score", "scored")[index]).drop("kept")
    ranks = unit.store.read_frame(outputs(unit, "rank", "selection")[index]).select("id", "difficulty")
    kinds = measured.select("id").join(duplicates, on="id", how="left", maintain_order="left")["kind"]
    by_rules = rule_verdicts(measured, recipe)
    duplicate = pl.col("kind").replace_strict({"exact": EXACT, "near": NEAR, "semantic": SEMANTIC}, default=None)
    emptied = measured["id"].is_in(substring.emptied_of(unit, index).implode())
    frame = by_rules.with_columns(kind=kinds, emptied=emptied).with_columns(
        repeated=pl.coalesce(duplicate, pl.when("emptied").then(pl.lit(substring.REPEATED)))
    )
    frame = frame.with_columns(
        kept=pl.col("kept") & pl.col("repeated").is_null(),
        reason=pl.coalesce("reason", "repeated"),
        failed=pl.concat_list("failed", "repeated").list.drop_nulls(),
    )
    frame = bias.without_surplus(unit, index, measured["id"], frame)
    values = pii.without_empty(measured.drop("id", "exact_hash"))
    scores = scored.join(ranks, on="id", how="left", maintain_order="left").drop("id")
    failed = pl.struct("failed").struct.json_encode().str.slice(len('{"failed":')).str.head(-1)
    verdicts = frame.select(
        run_id=pl.lit(unit.claim.run_id),
        record_id=measured["id"],
        kept="kept",
        reason="reason",
        failed=failed,
        measured=values.select(pl.struct(pl.all()).struct.json_encode()).to_series(),
        scores=scores.select(pl.struct(pl.all()).struct.json_encode()).to_series(),
    )
    unit.progress(verdicts.height, verdicts.height)
    return UnitResult(
        result={"records": verdicts.height, "reasons": _counts(verdicts["reason"])},
        rows=[(Verdict.metadata.tables["verdicts"], verdicts)],
        shards=bias.counted(unit, index, measured, frame),
    )


def _counts(reasons: pl.Series) -> dict[str, int]:
    frame = reasons.drop_nulls().value_counts().sort(reasons.name)
    return dict(zip(frame[reasons.name].to_list(), frame["count"].to_list(), strict=True))


def ordered_rules(recipe: Mapping[str, Any]) -> list[str]:
    """Rule names of a canonical recipe in recipe order: PostgreSQL does not keep the order of JSON keys."""
    return sorted(recipe["rules"], key=lambda name: int(recipe["rules"][name]["position"]))


def funnel(session: Session, run_id: str, recipe: Mapping[str, Any]) -> list[dict[str, Any]]:
    """How many records each rule dropped first, in recipe order, and how many it would have dropped alone.

    Parameters
    ----------
    recipe : its canonical form.
    """
    counted = select(Verdict.reason, func.count()).where(Verdict.run_id == run_id).group_by(Verdict.reason)
    first: dict[str | None, int] = {row[0]: row[1] for row in session.execute(counted)}
    others = [EMPTIED] * bool(recipe.get("edit")) + [LANGUAGE] * bool(recipe["languages"])
    personal = [column(name) for name, one in (recipe.get("pii") or {"kinds": {}})["kinds"].items() if pii.bounded(one)]
    names = [*ordered_rules(recipe), *others, *sorted(personal), EXACT, NEAR, substring.REPEATED, SEMANTIC, BALANCE]
    return [{"rule": name, "dropped": first.get(name, 0)} for name in names]


def _publish(unit: UnitContext) -> UnitResult:
    """The curated version: text shards as they are by now, beside each the ids that stay, difficulty and vectors."""
    recipe = unit.claim.config["recipe"]
    shards = entries(unit)
    selections, embeddings = outputs(unit, "rank", "selection"), outputs(unit, "score", "embedding")
    curated = [
        entry
        | {
            "data": pii.text_shard(unit, index).to_json(),
            "selection": selection.to_json(),
            "embedding": embedding.to_json(),
        }
        for index, (entry, selection, embedding) in enumerate(zip(shards, selections, embeddings, strict=True))
    ]
    with unit.catalog.read() as session:
        dropped = funnel(session, unit.claim.run_id, recipe)
        accepted = select(func.count()).where(DuplicatePair.run_id == unit.claim.run_id, DuplicatePair.accepted)
        num_clusters = session.scalar(
            select(func.count(DuplicatePair.keeper_id.distinct())).where(
                DuplicatePair.run_id == unit.claim.run_id, DuplicatePair.accepted
            )
        )
        num_duplicates = session.scalar(accepted)
        by_meaning = semantic_summary(session, unit.claim.run_id, unit.claim.config)
    kept = sum(file.num_rows for file in selections)
    summary = {
        "recipe": recipe["name"],
        "recipe_hash": unit.claim.config["recipe_hash"],
        "encoder": recipe["encoder"],
        "records": sum(entry["data"]["num_rows"] for entry in shards),
        "kept": kept,
        "dropped": {one["rule"]: one["dropped"] for one in dropped if one["dropped"]},
        "clusters": num_clusters,
        "duplicates": num_duplicates,
        "semantic": by_meaning,
    }
    summary |= substring.summary(unit) | edit.summary(unit) | pii.summary(unit, selections) | bias.summary(unit)
    manifest = manifests.write(unit.store, unit.catalog, unit.claim.dataset_id, "curated", curated)
    return UnitResult(
        result=summary,
        apply=manifests.publisher(
            unit.claim, manifest, kind="curated", parent_id=unit.claim.version_id, entries=curated, summary=summary
        ),
    )


STAGES = (
    *edit.STAGES,
    Stage(name="measure", plan=dedup.plan_measure, work=_measure),
    Stage(name="count", plan=single, work=_count),
    *dedup.STAGES,
    *substring.STAGES,
    *pii.STAGES,
    Stage(name="score", plan=_text_plan, work=score, needs="embed"),
    *semantic.STAGES,
    Stage(name="rank", plan=single, work=_rank),
    Stage(name="judge", plan=_text_plan, work=_judge),
    Stage(name="publish", plan=single, work=_publish),
)

PIPELINES.register("clean")(Pipeline(stages=STAGES))
