"""Quality models: trained from examples or a reference, found by name, applied to the texts of a shard."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import xxhash
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from catalog.database import Catalog, one_at_a_time
from catalog.errors import ConfigError, DataError, NotFoundError, nearest
from catalog.store import Store, StoredFile
from catalog.tables.quality import QualityModel
from curation.encoders import ENCODERS
from curation.quality import SCORERS, Model, Score
from curation.quality.classifier import Classifier, examples_of, fit_classifier
from curation.quality.model import check_folder
from curation.quality.perplexity import ReferenceConfig, count_reference
from curation.quality.step import QualityStep, check_name
from curation.recipe import Recipe
from curation.sources import ReadOptions, read_batches
from workers import manifests
from workers.execution import UnitContext
from workers.pipelines.embeddings import EMBED_BATCH, require_encoder

MAX_EXAMPLES = 50_000
"""Of a class; of more, a sample by the hashes of the texts is taken."""
MAX_REFERENCE_BYTES = 32 * 2**20
"""UTF-8 bytes of a reference; of more, a sample."""
_BLOCK = 2**20


def texts_of_file(path: str, text_column: str) -> pl.Series:
    """The texts of a file of any format that ingest reads; rows that it would set aside are left out.

    Raises
    ------
    DataError : there is none.
    """
    parts = [batch.records["text"] for batch in read_batches(path, ReadOptions(text_column=text_column))]
    texts = pl.concat(parts) if parts else pl.Series("text", [], dtype=pl.String)
    if not len(texts):
        raise DataError(f"{path} holds no text in column {text_column!r}")
    return texts


def texts_of_dataset(catalog: Catalog, dataset: str, *, raw: bool = False) -> Iterator[pl.DataFrame]:
    """``text`` and ``label`` of a dataset, by shard.

    Parameters
    ----------
    raw : everything that was ingested; otherwise the newest curated version, where something was cleaned.
    """
    store = Store.of(catalog.settings)
    with catalog.read() as session:
        found = manifests.find_dataset(session, dataset)
        curated = None if raw else manifests.latest_version(session, found.id, "curated")
        version = curated or manifests.require_version(session, found, "raw")
        shards = manifests.read(store, version)["shards"]
    for entry in shards:
        frame = store.read_frame(StoredFile.from_json(entry["data"]), ["text", "label"])
        if "selection" in entry:
            frame = frame[store.read_frame(StoredFile.from_json(entry["selection"]), ["row"])["row"]]
        yield frame


def labelled_texts(catalog: Catalog, dataset: str, good: str, bad: str | None) -> tuple[pl.Series, pl.Series]:
    """Ingested texts of a dataset with the one label and with the other, which is every other one where it is None.

    Raises
    ------
    DataError : no record has such a label, with those that there are.
    """
    frame = pl.concat(list(texts_of_dataset(catalog, dataset, raw=True)))
    labels = frame["label"].drop_nulls().unique().sort().to_list()
    for name in (good, *([bad] if bad is not None else [])):
        if name not in labels:
            raise DataError(f"no record of {dataset!r} has the label {name!r}; {nearest(name, labels)}")
    other = pl.col("label") != good if bad is None else pl.col("label") == bad
    return frame.filter(pl.col("label") == good)["text"], frame.filter(other)["text"]


def train_classifier(
    catalog: Catalog, name: str, *, good: pl.Series, bad: pl.Series, encoder: str, origin: dict[str, Any]
) -> dict[str, Any]:
    """Train a classifier on examples and keep it as the newest version of a name.

    Parameters
    ----------
    origin : where the examples came from, for the record.

    Returns
    -------
    ``name, version, scorer`` and the summary: how well it did on examples that it had not seen.

    Raises
    ------
    DataError : too few examples. ConfigError : the encoder is not known or not installed, or the name is another
        scorer's.
    """
    check_name(name)
    require_encoder(encoder)
    examples = examples_of(_sample(good, MAX_EXAMPLES), _sample(bad, MAX_EXAMPLES))
    vectors = _encode(catalog, encoder, examples.texts.to_list())
    found, measured = fit_classifier(examples, vectors, encoder=encoder, encoder_version=ENCODERS[encoder].version)
    summary = {"encoder": encoder, **asdict(measured), "origin": origin}
    return _keep(catalog, name, "classifier", found.to_bytes(), "json", summary)


def train_perplexity(
    catalog: Catalog, name: str, *, reference: pl.Series, config: ReferenceConfig, origin: dict[str, Any]
) -> dict[str, Any]:
    """Count a reference's n-grams and keep the model as the newest version of a name.

    A twentieth of the texts, chosen by their hashes, is left out of the counting and measured instead.

    Returns
    -------
    ``name, version, scorer`` and the summary with the ``quantiles`` of the left-out texts' perplexity, from which a
    maximum can be chosen.
    """
    check_name(name)
    texts = _sample(reference.unique(), None)
    kept = texts.filter(texts.str.len_bytes().cum_sum() <= MAX_REFERENCE_BYTES)
    held_out, counted = kept[: len(kept) // 20], kept[len(kept) // 20 :]
    raw = count_reference(counted, config)
    seen = SCORERS["perplexity"].member(Model(raw=raw))(held_out)
    seen = seen[np.isfinite(seen)]
    levels = (0.05, 0.5, 0.95, 0.99)
    quantiles = {f"{level:g}": round(float(np.quantile(seen, level)), 2) for level in levels} if len(seen) else {}
    summary = {
        **asdict(config),
        "num_texts": len(counted),
        "num_left_out": len(texts) - len(kept),
        "num_bytes": int(counted.str.len_bytes().sum()),
        "quantiles": quantiles,
        "origin": origin,
    }
    return _keep(catalog, name, "perplexity", raw, "arrow", summary)


def _sample(texts: pl.Series, size: int | None) -> pl.Series:
    """Texts in the order of their hashes, at most ``size``: whatever order they came in."""
    hashes = pl.Series("hash", [xxhash.xxh3_64_intdigest(one.encode()) for one in texts.to_list()], dtype=pl.UInt64)
    ordered = pl.DataFrame({"text": texts, "hash": hashes}).sort("hash", "text")["text"]
    return ordered if size is None else ordered.head(size)


def _keep(catalog: Catalog, name: str, scorer: str, raw: bytes, suffix: str, summary: dict[str, Any]) -> dict[str, Any]:
    store = Store.of(catalog.settings)
    store.check()
    file = store.write_bytes(raw, "quality", suffix)
    with catalog.write() as session:
        one_at_a_time(session, f"quality model {name}")
        newest = session.scalars(
            select(QualityModel).where(QualityModel.name == name).order_by(QualityModel.version.desc()).limit(1)
        ).one_or_none()
        if newest is not None and newest.scorer != scorer:
            raise ConfigError(f"{name!r} is a {newest.scorer} already; choose another name for a {scorer}")
        if newest is not None and newest.file == file.to_json():
            # The same examples again: the same model.
            return {"name": name, "version": newest.version, "scorer": scorer} | newest.summary
        version = 1 if newest is None else newest.version + 1
        session.add(
            QualityModel(
                name=name,
                version=version,
                scorer=scorer,
                file=file.to_json(),
                summary=summary,
                created_at=catalog.now(session),
            )
        )
    return {"name": name, "version": version, "scorer": scorer} | summary


def list_models(session: Session) -> list[QualityModel]:
    """Every trained model, by name, the newest version first."""
    return list(session.scalars(select(QualityModel).order_by(QualityModel.name, QualityModel.version.desc())))


def pinned(session: Session, recipe: Recipe) -> Recipe:
    """The recipe with the file behind every quality model, so that a later training does not change the run.

    Raises
    ------
    NotFoundError : no such trained model, or version. ConfigError : another scorer's name, a folder that is no model,
        an encoder that is not installed.
    """
    if not recipe.quality:
        return recipe
    return replace(recipe, quality=tuple(_pinned(session, step) for step in recipe.quality))


def _pinned(session: Session, step: QualityStep) -> QualityStep:
    if not step.is_trained:
        folder = Path(step.model).expanduser().absolute()
        check_folder(folder, step.label)
        return replace(step, model=str(folder), pin={"sha256": folder_digest(folder)})
    query = select(QualityModel).where(QualityModel.name == step.model)
    if step.version is not None:
        query = query.where(QualityModel.version == step.version)
    found = session.scalars(query.order_by(QualityModel.version.desc()).limit(1)).one_or_none()
    if found is None:
        known = session.scalars(select(QualityModel.name).distinct()).all()
        newest = session.scalar(select(func.max(QualityModel.version)).where(QualityModel.name == step.model))
        if newest is not None:
            raise NotFoundError(f"{step.scorer} {step.model!r} has versions 1 to {newest}, not {step.version}")
        raise NotFoundError(
            f"there is no trained {step.scorer} {step.model!r}; {nearest(step.model, known)}; "
            "train one with `winnow quality`"
        )
    if found.scorer != step.scorer:
        raise ConfigError(f"{step.model!r} is a {found.scorer}; write `{found.scorer}: {step.model}`")
    pin: dict[str, Any] = {"file": found.file}
    if found.scorer == "classifier":
        require_encoder(found.summary["encoder"])
        pin["encoder"] = found.summary["encoder"]
    return replace(step, version=found.version, pin=pin)


def folder_digest(folder: Path) -> str:
    """SHA-256 over the names and contents of the files of a model's folder."""
    digest = hashlib.sha256()
    for path in sorted(one for one in folder.iterdir() if one.is_file()):
        digest.update(f"{path.name}\0{path.stat().st_size}\0".encode())
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
    return digest.hexdigest()


def score_texts(unit: UnitContext, recipe: Recipe, texts: pl.Series) -> tuple[pl.DataFrame, np.ndarray | None]:
    """Every quality score of a shard's texts, and their vectors by the recipe's encoder if a score needed them.

    Returns
    -------
    n rows with a Float64 column a score, null where it does not apply; and (n, d) float32, or None.
    """
    vectors: dict[str, np.ndarray] = {}

    def encode(encoder: str, given: Sequence[str]) -> np.ndarray:
        if encoder not in vectors:
            vectors[encoder] = _encode(unit.catalog, encoder, given, unit)
        return vectors[encoder]

    columns = {}
    for step in recipe.quality:
        unit.check()
        values = _opened(unit.store, step, encode)(texts)
        columns[step.column] = pl.Series(values, dtype=pl.Float64).fill_nan(None)
    return pl.DataFrame(columns), vectors.get(recipe.encoder)


def open_score(catalog: Catalog, step: QualityStep) -> Score:
    """The score of a run's pinned step, to apply to other texts.

    Raises
    ------
    ConfigError : the model or its encoder is not what it was.
    """
    return _opened(Store.of(catalog.settings), step, lambda encoder, texts: _encode(catalog, encoder, texts))


def _opened(store: Store, step: QualityStep, encode: Any) -> Score:
    assert step.pin is not None, "a run's recipe is pinned when it is asked for"
    if step.scorer == "classifier":
        # Small, and what it encodes with is the unit's own.
        raw = store.read_bytes(StoredFile.from_json(step.pin["file"]))
        known = Classifier.from_bytes(raw)
        if ENCODERS[known.encoder].version != known.encoder_version:
            raise ConfigError(
                f"classifier {step.model!r} was trained on encoder {known.encoder!r} version {known.encoder_version}, "
                f"this release has {ENCODERS[known.encoder].version}; train it again"
            )
        return SCORERS["classifier"].member(Model(raw=raw, encode=encode))
    if step.is_trained:
        file = StoredFile.from_json(step.pin["file"])
        return _open_stored(store.url, step.scorer, file)
    return _open_folder(step.scorer, step.model, step.label, step.pin["sha256"])


@lru_cache(maxsize=4)
def _open_stored(store_url: str, scorer: str, file: StoredFile) -> Score:
    return SCORERS[scorer].member(Model(raw=Store(store_url).map_bytes(file)))


@lru_cache(maxsize=2)
def _open_folder(scorer: str, folder: str, label: str | None, sha256: str) -> Score:
    if not Path(folder).is_dir() or folder_digest(Path(folder)) != sha256:
        raise ConfigError(f"model {folder!r} is not there, or is not what it was when the run was asked for; ask again")
    return SCORERS[scorer].member(Model(folder=Path(folder), label=label))


def _encode(catalog: Catalog, encoder: str, texts: Sequence[str], unit: UnitContext | None = None) -> np.ndarray:
    member, cache = ENCODERS[encoder].member, catalog.settings.home / "models"
    parts = []
    for start in range(0, len(texts), EMBED_BATCH):
        parts.append(member(texts[start : start + EMBED_BATCH], cache))
        if unit is not None:
            unit.progress(min(start + EMBED_BATCH, len(texts)), len(texts))
    return np.concatenate(parts) if parts else np.zeros((0, 1), np.float32)
