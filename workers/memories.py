"""Memories: of a curated version's labelled records, and of what an arm of a training was trained on."""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import polars as pl
from sqlalchemy.orm import Session

from catalog.errors import ConfigError, DataError
from catalog.store import Store, StoredFile
from catalog.tables.datasets import Version
from workers import curated, pretraining
from workers.execution import UnitContext
from workers.reading import check_passages, kept_files, remember_passages_of

if TYPE_CHECKING:
    from training.arm import ArmConfig
    from training.export import SavedModel
    from training.recipe import TrainRecipe
    from training.retrieval.memory import Memory

log = logging.getLogger(__name__)
_WEIGHTS = "model.safetensors"
STATES = "the model's own states"


def remember_version(store: Store, version: Version, classes: Sequence[str], folder: Path) -> Memory:
    """Write the vectors of a version's labelled records, with their labels, as a memory for ``knn_classifier``.

    Parameters
    ----------
    version : curated; its vectors were made by the encoder of its recipe.
    classes : the classifier's, in its order; records of other labels, or of none, are left out.
    folder : where the memory will lie; it must not exist.

    Raises
    ------
    DataError : no record has a label of these classes.
    ConflictError : the folder exists.
    """
    from training.retrieval.knn_classifier import remember_records

    labels = curated.read_records(store, version)["label"]
    vectors = curated.read_embeddings(store, version)
    codes = labels.replace_strict(list(classes), range(len(classes)), default=None, return_dtype=pl.Int64)
    rows = np.flatnonzero(codes.is_not_null().to_numpy())
    if not len(rows):
        raise DataError(
            f"none of {len(labels)} records is labelled {', '.join(classes)}; label some, or name other classes"
        )
    entries = [(vectors[rows], codes.drop_nulls().to_numpy()[:, None])]
    return remember_records(folder, entries, encoder=version.summary["encoder"], dim=vectors.shape[1])


def encoder_of(store: Store, version: Version, arm: ArmConfig) -> str:
    """Whose vectors an arm's memory has: the version's encoder where its vectors are stored, else empty, for the model.

    Raises
    ------
    ConfigError : vectors are asked for that the version lacks, or the model shows no states.
    """
    from training.remembering import check_states

    if arm.retrieval != "knn_classifier":
        return ""
    stored = version.summary.get("encoder", "") if curated.has_embeddings(store, version) else ""
    wanted = arm.retrieval_options.get("encoder", stored)
    if wanted != stored and wanted:
        have = f"those of encoder {stored!r}" if stored else "none"
        raise ConfigError(
            f"arm {arm.name!r}: retrieval_options encoder={wanted!r}: of this version's records there are no such "
            f"vectors, but {have}; clean it with encoder: {wanted}, or leave the option out"
        )
    if not wanted:
        check_states(arm)
    return str(wanted)


def check_memories(
    session: Session, store: Store, version: Version, recipe: TrainRecipe, kept: dict[str, dict[str, Any]]
) -> None:
    """Refuse memories that arms could not read, before anything is trained.

    Parameters
    ----------
    kept : as of ``pretraining.kept_folders``.

    Raises
    ------
    ConfigError : no such vectors, or the memory named was made by something else, or for another kind of retrieval.
    NotFoundError : no such training or arm.
    """
    from training.remembering import TRAINED

    for arm in recipe.arms:
        if arm.retrieval == "none":
            continue
        encoder = encoder_of(store, version, arm)
        facts = named(session, arm)
        if facts is None:
            continue
        where = f"arm {arm.name!r}: memory={arm.retrieval_options['memory']!r}"
        if facts["retrieval"] != arm.retrieval:
            raise ConfigError(f"{where} was written for retrieval {facts['retrieval']!r}, not {arm.retrieval!r}")
        if arm.retrieval in TRAINED:
            check_passages(store, arm, facts, _initial_files(session, arm, kept))
            continue
        if facts["encoder"] != encoder:
            made, asked = (f"encoder {one!r}" if one else STATES for one in (facts["encoder"], encoder))
            raise ConfigError(
                f"{where} has vectors by {made}, and those of this arm's records are by {asked}; take a memory by the "
                "same, or leave memory out to have one made"
            )
        if not encoder:
            _check_same_model(session, arm, facts, kept, where)


def _check_same_model(
    session: Session, arm: ArmConfig, facts: dict[str, Any], kept: dict[str, dict[str, Any]], where: str
) -> None:
    if arm.steps:
        raise ConfigError(
            f"{where} has states of another model than this arm would train; set steps: 0 and init_from to read it "
            "with that model, or leave memory out to have one made"
        )
    if _initial_files(session, arm, kept)[_WEIGHTS].sha256 != facts["weights"]:
        raise ConfigError(
            f"{where} has states of a model with other weights than that of init_from={arm.init_from!r}; take a "
            "memory of that model, or leave memory out to have one made"
        )


def _initial_files(session: Session, arm: ArmConfig, kept: dict[str, dict[str, Any]]) -> dict[str, StoredFile]:
    init_from = arm.init_from
    return pretraining.files_of(kept[init_from]) if init_from in kept else pretraining.fitted_files(session, init_from)


def named(session: Session, arm: ArmConfig) -> dict[str, Any] | None:
    """What is kept of the memory that an arm names; None where it names none.

    Raises
    ------
    ConfigError : that arm kept no memory. NotFoundError : no such training or arm.
    """
    name = arm.retrieval_options.get("memory")
    if name is None:
        return None
    unit = pretraining.trained_arm(session, name, of=f"arm {arm.name!r}: memory={name!r}")
    facts: dict[str, Any] | None = (unit.result or {}).get("recall")
    if facts is None:
        raise ConfigError(
            f"arm {arm.name!r}: memory={name!r}: that arm kept no memory; train it with retrieval: {arm.retrieval}"
        )
    return facts


def check_classes(unit: UnitContext, recipe: TrainRecipe, classes: Sequence[str]) -> None:
    """Refuse memories and models of other classes than the records have.

    Raises
    ------
    ConfigError : with both lists.
    """
    for arm in recipe.arms:
        if arm.retrieval != "knn_classifier":
            continue
        found = {}
        with unit.catalog.read() as session:
            facts = named(session, arm)
        if facts is not None:
            found[f"memory={arm.retrieval_options['memory']!r}"] = facts["classes"]
        if not arm.steps:
            config = pretraining.initial_files(unit, arm.init_from)["config.json"]
            found[f"init_from={arm.init_from!r}"] = json.loads(unit.store.read_bytes(config))["classes"]
        for what, theirs in found.items():
            if theirs != list(classes):
                raise ConfigError(
                    f"arm {arm.name!r}: {what} knows the classes {', '.join(theirs)}, and these records have "
                    f"{', '.join(classes)}; they must be the same"
                )


def remember_arm(
    unit: UnitContext, arm: ArmConfig, files: dict[str, StoredFile], train: pl.DataFrame, classes: Sequence[str]
) -> dict[str, Any]:
    """Make the memory that an arm's model is measured with, or take the one that it names, and see how far to trust it.

    Parameters
    ----------
    files : of the model.
    train : the arm's training records, those that are kept back for the choice among them.

    Returns
    -------
    As JSON: ``retrieval``, ``encoder`` (empty for the model's own states), ``source``, ``weights`` (SHA-256 of the
    model's file), ``classes``, ``num_entries``, ``dim``, ``files``, ``memory_of``, and what ``Believed`` has; of
    passages, which nothing weighs, what ``workers.reading`` says instead.
    """
    from training.remembering import MOST_TUNED, TRAINED, believe, kept_back, reader_of

    with unit.catalog.read() as session:
        version = session.get_one(Version, unit.claim.version_id)
        facts = named(session, arm)
    encoder = encoder_of(unit.store, version, arm)
    saved = pretraining.loaded(unit, files)
    if arm.retrieval in TRAINED:
        made = facts or remember_passages_of(unit, arm, saved, files, train["text"].to_list())
        return made | {"weights": files[_WEIGHTS].sha256, "memory_of": arm.retrieval_options.get("memory")}
    rows = kept_back(arm, train["id"])
    if facts is None:
        rest = asking(unit, version, encoder, train.filter(~rows), classes)
        facts = _made(unit, arm, saved, encoder, rest, classes) | {"weights": files[_WEIGHTS].sha256}
    reader = reader_of(saved, arm, None, encoder)
    reader.use(stored_memory(unit.store, facts))
    tuned = asking(unit, version, encoder, train.filter(rows).head(MOST_TUNED), classes)
    believed = believe(reader, saved, arm, tuned.texts, tuned.labels, tuned.vectors)
    return facts | asdict(believed) | {"memory_of": arm.retrieval_options.get("memory")}


@dataclass(frozen=True, kw_only=True, slots=True)
class Asking:
    """Records as a reader takes them: labels where there are classes, vectors where they are an encoder's."""

    texts: list[str]
    labels: list[int]
    vectors: np.ndarray[Any, np.dtype[np.float32]] | None


def asking(unit: UnitContext, version: Version, encoder: str, records: pl.DataFrame, classes: Sequence[str]) -> Asking:
    """Records of a version as a reader takes them that asks with the vectors of ``encoder``, or with its own states."""
    number = {name: place for place, name in enumerate(classes)}
    labels = [number[one] for one in records["label"]] if classes else []
    vectors = curated.embeddings_of(unit.store, version, records["id"]) if encoder and records.height else None
    return Asking(texts=records["text"].to_list(), labels=labels, vectors=vectors)


def _made(
    unit: UnitContext,
    arm: ArmConfig,
    saved: SavedModel,
    encoder: str,
    records: Asking,
    classes: Sequence[str],
) -> dict[str, Any]:
    """Write the memory of some records into the store."""
    from training.model import Transformer
    from training.remembering import fitting
    from training.retrieval.knn_classifier import remember_means, remember_records
    from training.retrieval.knn_lm import remember_contexts

    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / "memory"
        model = cast("Transformer", saved.model)
        if records.vectors is not None:
            dim = records.vectors.shape[1]
            most = fitting(dim)
            if len(records.texts) > most:
                _say_full(most, records)
            entries = [(records.vectors[:most], np.array(records.labels[:most])[:, None])]
            memory = remember_records(folder, entries, encoder=encoder, dim=dim)
        elif arm.retrieval == "knn_classifier":
            memory = remember_means(model, _batches(unit, saved, records, fitting(model.config.dim)), folder)
        else:
            tokens = ((ids, real) for ids, real, _ in _batches(unit, saved, records, fitting(model.config.dim)))
            memory = remember_contexts(model, tokens, folder)
        if not len(memory):
            raise DataError(
                f"arm {arm.name!r}: its {len(records.texts)} training records give retrieval={arm.retrieval!r} nothing "
                "to remember; train on longer texts, or leave it out"
            )
        files = kept_files(unit.store, folder)
    return {
        "retrieval": arm.retrieval,
        "encoder": encoder,
        "source": memory.source,
        "classes": list(classes),
        "num_entries": len(memory),
        "dim": int(memory.keys.shape[1]),
        "files": files,
    }


def _say_full(num_records: int, records: Asking) -> None:
    log.warning("the memory is full: it holds %d of %d records", num_records, len(records.texts))


def _batches(unit: UnitContext, saved: SavedModel, records: Asking, most: int) -> Iterator[tuple[Any, Any, Any]]:
    """Tokens, their mask and labels, until a memory has ``most`` entries for them."""
    import torch

    from training.remembering import BATCH_SIZE

    entries = 0
    for start in range(0, len(records.texts), BATCH_SIZE):
        unit.check()
        rows = range(start, min(start + BATCH_SIZE, len(records.texts)))
        ids, real = saved.encode([records.texts[row] for row in rows])
        entries += len(rows) if records.labels else int(real.sum())
        if entries > most:
            _say_full(rows[0], records)
            return
        yield ids, real, torch.tensor([records.labels[row] for row in rows]) if records.labels else None


def stored_memory(store: Store, facts: dict[str, Any]) -> Memory:
    """The memory that an arm kept, mapped from the store.

    Raises
    ------
    NotFoundError, CorruptionError : a file is missing or damaged.
    """
    from training.retrieval.memory import Memory

    keys, values = (
        np.frombuffer(store.map_bytes(StoredFile.from_json(facts["files"][name])), dtype)
        for name, dtype in (("keys", "<f4"), ("values", "<i4"))
    )
    return Memory(
        source=facts["source"],
        keys=keys.reshape(facts["num_entries"], facts["dim"]),
        values=values.reshape(facts["num_entries"], -1),
    )
