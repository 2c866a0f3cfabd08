"""Trained models as folders of their own, out of the store."""

from __future__ import annotations

import errno
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from uuid import uuid4

from catalog.errors import ConfigError, ConflictError, TransientError
from catalog.store import Store, StoredFile
from workers import pretraining

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from catalog.database import Catalog

Layout = Literal["winnow", "transformers"]
CARD = "README.md"


def stored_model(session: Session, name: str) -> dict[str, StoredFile]:
    """Files of a trained model, by name: card, weights, config, tokenizer and what its objective trained beside it.

    Parameters
    ----------
    name : ``RUN/ARM``, the run by its id or the first characters of it; an arm is there once it is trained, whatever
        became of the rest of its run.

    Raises
    ------
    ConfigError : the name is none. NotFoundError : no such run, or it has no such arm that is trained.
    """
    unit = pretraining.trained_arm(session, name, of=f"model {name!r}")
    return {one: StoredFile.from_json(file) for one, file in (unit.result or {})["files"].items()}


def export_model(catalog: Catalog, name: str, folder: Path, *, layout: Layout = "winnow") -> list[str]:
    """Write a trained model as a folder: aside, flushed, then renamed, so that it is there whole or not at all.

    Parameters
    ----------
    name : as of ``stored_model``.
    folder : made anew; the folder that it is to lie in must be there.
    layout : ``winnow`` is what ``init_from`` and ``training.export.load_model`` read; ``transformers`` what
        ``AutoModelForCausalLM`` and ``AutoTokenizer`` do, with the card.

    Returns
    -------
    Names of the files, sorted.

    Raises
    ------
    ConfigError : the name is none, the folder cannot be written, or transformers has no architecture that computes
        this, with the settings in the way. NotFoundError : there is no such model. ConflictError : something of the
        folder's name is there. TransientError : the disk is full.
    """
    _check_free(folder)
    with catalog.read() as session:
        files = stored_model(session, name)
    store = Store.of(catalog.settings)
    aside = folder.with_name(f".tmp-{folder.name}-{uuid4().hex}")
    try:
        try:
            if layout == "transformers":
                _write_for_transformers(store, files, folder)
            else:
                _write(store, files, aside)
                _publish(aside, folder)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
        return sorted(one.name for one in folder.iterdir())
    except OSError as error:
        # Of the folder alone: the store has errors of its own.
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise TransientError(f"no space left for {folder}; free space, then run the same command") from error
        raise ConfigError(f"{folder} cannot be written: {error.strerror or error}; name another folder") from error


def _check_free(folder: Path) -> None:
    if folder.exists() or folder.is_symlink():
        raise ConflictError(f"{folder} is there already; remove it, or name a new folder")
    if not folder.absolute().parent.is_dir():
        raise ConfigError(f"folder {folder.parent} does not exist; make it, or name a folder elsewhere")


def _write(store: Store, files: dict[str, StoredFile], folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    for name, file in files.items():
        (folder / name).write_bytes(store.read_bytes(file))


def _publish(aside: Path, folder: Path) -> None:
    from training.checkpoint import publish_folder

    publish_folder(aside, folder)
    if aside.exists():
        raise ConflictError(f"{folder} was made by another meanwhile; remove it, or name a new folder")


def _write_for_transformers(store: Store, files: dict[str, StoredFile], folder: Path) -> None:
    from training.export import load_model
    from training.transformers_export import export_to_transformers

    with tempfile.TemporaryDirectory(prefix="winnow-model-") as ours:
        _write(store, files, Path(ours))
        saved = load_model(Path(ours))
        export_to_transformers(saved.model, saved.tokenizer, folder, card=(Path(ours) / CARD).read_text("utf-8"))
