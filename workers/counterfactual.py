"""What is asked about counterfactual pairs: a rule's value, a quality score, or the probability of a class."""

import numpy as np
import numpy.typing as npt
import polars as pl
from sqlalchemy import select
from sqlalchemy.orm import Session

from catalog.database import Catalog
from catalog.errors import ConfigError, DataError, nearest
from catalog.store import Store, StoredFile
from catalog.tables.datasets import Version
from catalog.tables.engine import Run
from curation.bias.counterfactual import Scorer
from curation.encoders import ENCODERS
from curation.recipe import recipe_from_canonical
from curation.rules import RULES, measure
from labeling.learner import Learner
from workers import curated, manifests
from workers.quality import open_score

LABEL = "label:"
MAX_FITTED = 20_000
"""Labelled records that the model is fitted on, at most: those with the smallest ids, which are hashes."""


def scorer_named(catalog: Catalog, session: Session, run: Run, name: str) -> Scorer:
    """A scorer of texts: a rule or a quality score of the run by its name, or ``label:CLASS``, a class's probability.

    Raises
    ------
    ConfigError : no such rule, or its package is not installed. DataError : no such class, or there are no labels.
    """
    if name.startswith(LABEL):
        return _labeling_model(catalog, session, run, name.removeprefix(LABEL))
    scores = {step.column: step for step in recipe_from_canonical(run.config["recipe"]).quality}
    if name in scores:
        return open_score(catalog, scores[name])
    if name not in RULES.load():
        known = [*scores, *RULES]
        raise ConfigError(
            f"--counterfactual {name!r} is no rule or quality score; {nearest(name, known)}, or {LABEL}CLASS"
        )

    def by_rule(texts: pl.Series) -> npt.NDArray[np.float64]:
        return measure(texts, [name])[name].fill_null(float("nan")).to_numpy()

    return by_rule


def _labeling_model(catalog: Catalog, session: Session, run: Run, wanted: str) -> Scorer:
    """The linear head that labeling uses, fitted on the labels that came with the records."""
    store = Store.of(catalog.settings)
    version = session.scalars(select(Version).where(Version.run_id == run.id)).one()
    records = curated.read_records(store, version)
    vectors = curated.read_embeddings(store, version)
    fitted = records.with_row_index("row").drop_nulls("label").sort("id").head(MAX_FITTED)
    classes = sorted(fitted["label"].unique().to_list())
    if wanted not in classes:
        raise DataError(f"{LABEL}{wanted}: no record that stayed has that label; {nearest(wanted, classes)}")
    if len(classes) == 1:
        raise DataError(f"{LABEL}{wanted}: all records that stayed have that label; there is nothing to tell it from")
    learner = Learner.fit(vectors[fitted["row"].to_numpy()], fitted["label"].to_list(), classes, seed=0)
    encode = ENCODERS[run.config["recipe"]["encoder"]].member
    column = classes.index(wanted)

    def by_label(texts: pl.Series) -> npt.NDArray[np.float64]:
        return learner.proba(encode(texts.to_list(), catalog.settings.home / "models"))[:, column]

    return by_label


def sampled_texts(store: Store, session: Session, run: Run, limit: int) -> pl.DataFrame:
    """``id, text, identity`` of at most so many records: those with the smallest ids, a fair sample.

    Identity is what the run stored; texts are those that came in, whether they stayed or not.
    """
    version = session.get_one(Version, run.version_id)
    shards = manifests.read(store, version)["shards"]
    measured = manifests.run_files(session, run.id, "measured")[: len(shards)]
    chosen = pl.DataFrame(schema={"id": pl.String, "text": pl.String, "identity": pl.List(pl.String)})
    for entry, file in zip(shards, measured, strict=True):
        own = store.read_frame(file, ["id", "identity"])
        text = store.read_frame(StoredFile.from_json(entry["data"]), ["text"])["text"]
        frame = own.with_columns(text=text).select("id", "text", "identity")
        chosen = pl.concat([chosen, frame]).sort("id").head(limit)
    return chosen
