"""Difficulty that the text alone does not tell: how a head learns each record, and how a reference set foresees it.

label (all) → fit (a fold) → train (a seed) → foresee (all) → rank (all)

The first three only where the dataset has labels, the fourth only where a reference set is named.
"""

from typing import Any

import numpy as np
import polars as pl
from sqlalchemy.orm import Session

from catalog.database import Catalog
from catalog.errors import ConfigError, DataError
from catalog.store import Store, StoredFile
from catalog.tables.datasets import Dataset, Version
from catalog.tables.engine import Run
from curation.difficulty import combine, ranked
from curation.dynamics import DYNAMICS, Trace
from curation.dynamics.head import HeadConfig, train_head
from curation.dynamics.regions import REGIONS, regions
from curation.label_errors.answers import answer_doubt
from curation.ngram import NgramCounts, count_ngrams, surprise
from curation.softmax import FLOOR
from workers import curated, manifests, runs
from workers.engine import UnitResult
from workers.execution import UnitContext
from workers.pipelines import PIPELINES, Pipeline, Stage, labelled, single
from workers.pipelines.labelled import check_choices, judged, label_config, labelled_records, out_of_fold
from workers.pipelines.outputs import outputs

MIN_SEEDS, MAX_SEEDS = 1, 100
REFERENCE = "reference_perplexity"
LEARNED = "learned"
"""Name of the mean of all learned percentiles."""
DOUBT = "label_doubt"
"""How likely a label is wrong: the only measure that ranks the suspected too, as the hardest."""
ANSWER_DOUBT = "answer_doubt"
"""How unlikely a label is to a classifier of people's answers alone; where there are enough of them."""
METHOD = "head/2"


def submit_difficulty(
    catalog: Catalog,
    *,
    dataset: str,
    labels: str = "merged",
    features: str = "embeddings",
    num_seeds: int = 5,
    head: HeadConfig | None = None,
    reference: str | None = None,
    requested_by: str | None = None,
) -> tuple[str, str]:
    """Ask for the difficulty of the newest curated version's records; the same request again is the same run.

    Parameters
    ----------
    labels, features : as of ``submit_label_errors``.
    num_seeds : trainings that are averaged over; EL2N needs five.
    head : how each is trained.
    reference : another dataset, whose newest version the language model of ``reference_perplexity`` is counted on.

    Returns
    -------
    the run's id and ``"new"``, ``"running"``, ``"resumed"`` or ``"done"``.

    Raises
    ------
    NotFoundError : no such dataset, or nothing cleaned yet. DataError : neither labels nor a reference.
    ConfigError : an unknown choice or a number out of range.
    """
    check_choices(labels, features)
    if not MIN_SEEDS <= num_seeds <= MAX_SEEDS:
        raise ConfigError(f"num_seeds={num_seeds} must lie in [{MIN_SEEDS}, {MAX_SEEDS}]; 5 is usual")
    head = head or HeadConfig()
    with catalog.read() as session:
        found = manifests.find_dataset(session, dataset)
        version = manifests.require_version(session, found, "curated")
        config: dict[str, Any] = {"manifest": version.manifest_sha256, "method": METHOD}
        if reference is not None:
            config["reference"] = _reference(session, reference)
        try:
            config |= label_config(session, Store.of(catalog.settings), found, labels, features)
            config |= {"num_seeds": num_seeds, "epochs": head.epochs, "hidden": head.hidden}
        except DataError:
            if reference is None:
                raise
    with catalog.write() as session:
        run, state = runs.submit(
            session,
            now=catalog.now(session),
            kind="difficulty",
            dataset_id=found.id,
            version_id=version.id,
            config=config,
            idempotency_key=runs.digest({"difficulty": found.id} | config),
            requested_by=requested_by,
        )
        return run.id, state


def _reference(session: Session, name: str) -> dict[str, str]:
    """The newest version of a reference set: curated if there is one."""
    dataset: Dataset = manifests.find_dataset(session, name)
    version = manifests.latest_version(session, dataset.id, "curated")
    version = version or manifests.require_version(session, dataset, "raw")
    return {"dataset": name, "version": version.id, "manifest": version.manifest_sha256}


def _is_labelled(run: Run) -> bool:
    return "labels" in run.config


def _plan_label(_session: Session, run: Run) -> list[dict[str, Any]]:
    return [{}] if _is_labelled(run) else []


def _plan_fit(session: Session, run: Run) -> list[dict[str, Any]]:
    return labelled.plan_folds(session, run) if _is_labelled(run) else []


def _plan_train(_session: Session, run: Run) -> list[dict[str, Any]]:
    return [{"seed": seed} for seed in range(run.config["num_seeds"])] if _is_labelled(run) else []


def _plan_foresee(_session: Session, run: Run) -> list[dict[str, Any]]:
    return [{}] if "reference" in run.config else []


def _train(unit: UnitContext) -> UnitResult:
    """Every measure of every labelled record under one seed."""
    config, seed = unit.claim.config, unit.claim.payload["seed"]
    records = labelled_records(unit)
    proba, _ = out_of_fold(unit, records)
    unit.progress(0, len(records.codes))
    loss = -np.log(np.maximum(proba[np.arange(len(records.codes)), records.codes], FLOOR))
    head = HeadConfig(epochs=config["epochs"], hidden=config["hidden"])
    epochs = train_head(records.vectors, records.codes, records.num_classes, head, seed)
    trace = Trace(epochs.confidence, epochs.margin, epochs.error_norm, loss)
    measured = pl.DataFrame({name: DYNAMICS[name].member(trace) for name in DYNAMICS})
    unit.progress(len(records.codes), len(records.codes))
    return UnitResult(
        result={"records": measured.height}, shards=[("measured", unit.store.write_frame(measured, "dynamics"))]
    )


def _foresee(unit: UnitContext) -> UnitResult:
    """Perplexity of every record under the reference set's n-grams."""
    with unit.catalog.read() as session:
        reference = session.get_one(Version, unit.claim.config["reference"]["version"])
        version = session.get_one(Version, unit.claim.version_id)
    model = NgramCounts.empty()
    if reference.kind == "curated":
        model = count_ngrams(curated.read_records(unit.store, reference)["text"])
    else:
        for entry in manifests.read(unit.store, reference)["shards"]:
            unit.check()
            texts = unit.store.read_frame(StoredFile.from_json(entry["data"]), ["text"])["text"]
            model = model.merge(count_ngrams(texts))
    records = curated.read_records(unit.store, version)
    unit.progress(0, records.height)
    values = records.select("id").with_columns(pl.Series(REFERENCE, np.exp(surprise(records["text"], model))))
    unit.progress(records.height, records.height)
    return UnitResult(
        result={"records": values.height}, shards=[("foreseen", unit.store.write_frame(values, "ngrams"))]
    )


def _rank(unit: UnitContext) -> UnitResult:
    """Means over seeds and their percentiles; what is suspected of a wrong label has none but that of its doubt."""
    with unit.catalog.read() as session:
        version = session.get_one(Version, unit.claim.version_id)
    frame = curated.read_records(unit.store, version).select("id")
    result: dict[str, Any] = {"records": frame.height}
    if "labels" in unit.claim.config:
        learned = _learned(unit)
        counts = learned["region"].value_counts()
        found = dict(zip(counts["region"].to_list(), counts["count"].to_list(), strict=True))
        result |= {"labelled": learned.height, "regions": {name: found.get(name, 0) for name in REGIONS}}
        frame = frame.join(learned, on="id", how="left", maintain_order="left")
    for file in outputs(unit, "foresee", "foreseen"):
        foreseen = unit.store.read_frame(file)
        frame = frame.join(foreseen, on="id", how="left", maintain_order="left")
        frame = frame.with_columns(ranked(frame[REFERENCE]).alias(f"{REFERENCE}_rank"))
    result["measures"] = [name.removesuffix("_rank") for name in frame.columns if name.endswith("_rank")]
    return UnitResult(result=result, shards=[("difficulty", unit.store.write_frame(frame, "difficulty"))])


def _learned(unit: UnitContext) -> pl.DataFrame:
    records = labelled_records(unit)
    parts = [unit.store.read_frame(file) for file in outputs(unit, "train", "measured")]
    means = pl.DataFrame({name: np.mean([part[name].to_numpy() for part in parts], axis=0) for name in DYNAMICS})
    proba, _ = out_of_fold(unit, records)
    doubts = judged(unit, records, proba)
    confidence, variability, correctness = (
        means[name].to_numpy() for name in ("confidence", "variability", "correctness")
    )
    region = regions(confidence, variability, correctness, doubts.suspected)
    told = region != "suspected"
    ranks = pl.DataFrame(
        {f"{name}_rank": ranked(_only(told, means[name] * (-1 if _is_low_hard(name) else 1))) for name in DYNAMICS}
    )
    doubtful = {DOUBT: 1.0 - doubts.quality}
    answered = (records.frame["source"] == "annotated").to_numpy()
    by_answers = answer_doubt(records.features, records.codes, answered, records.num_classes)
    if by_answers is not None:
        doubtful[ANSWER_DOUBT] = by_answers
    return pl.concat(
        [
            records.frame.select("id", "label"),
            pl.DataFrame({"region": region, "label_quality": doubts.quality}),
            means,
            ranks,
            pl.DataFrame({f"{LEARNED}_rank": _only(told, combine(ranks))}),
            pl.DataFrame(doubtful),
            pl.DataFrame({f"{name}_rank": ranked(pl.Series(one)) for name, one in doubtful.items()}),
        ],
        how="horizontal",
    )


def _only(told: pl.Series, values: pl.Series) -> pl.Series:
    """Values where ``told``, else null."""
    return values.zip_with(told, pl.Series([None], dtype=pl.Float64))


def _is_low_hard(name: str) -> bool:
    return bool(DYNAMICS[name].config().hard == "low")


PIPELINES.register("difficulty")(
    Pipeline(
        stages=(
            Stage(name="label", plan=_plan_label, work=labelled.STAGES[0].work),
            Stage(name="fit", plan=_plan_fit, work=labelled.STAGES[1].work),
            Stage(name="train", plan=_plan_train, work=_train, needs="train"),
            Stage(name="foresee", plan=_plan_foresee, work=_foresee),
            Stage(name="rank", plan=single, work=_rank),
        )
    )
)
