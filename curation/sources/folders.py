"""Dataset folders as the Hugging Face libraries write them: which files belong to it, in what order, of which split.

Two layouts are known. ``save_to_disk`` leaves Arrow files that ``state.json`` lists, and for several splits a folder
each, which ``dataset_dict.json`` names. A data folder, as a hub repository is, holds files of one format whose names,
or whose folders' names, tell the split (huggingface.co/docs/datasets, "Structure your repository").
"""

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

from catalog.errors import DataError
from curation.sources import READERS
from curation.sources.opening import split_suffixes

SPLITS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
"""Splits and the words that tell them."""
STATE, INFO, DICT = "state.json", "dataset_info.json", "dataset_dict.json"
ABOUT = (STATE, INFO, DICT, "dataset_infos.json")
"""Files that describe a dataset and are no data."""


class Part(NamedTuple):
    """A file of a dataset folder and the split that it belongs to, if the folder tells."""

    path: Path
    split: str | None


def parts_of(folder: Path) -> list[Part]:
    """The data files of a dataset folder, in order.

    Raises
    ------
    DataError : the folder is neither layout, names a file that is not there, or mixes formats.
    """
    if (folder / DICT).is_file():
        splits = _read(folder / DICT).get("splits")
        if not isinstance(splits, list) or not all(isinstance(one, str) for one in splits):
            raise DataError(f"{folder / DICT} names no splits; save the dataset again")
        return [Part(one.path, split) for split in splits for one in _saved(_within(folder, split))]
    if (folder / STATE).is_file():
        return _saved(folder)
    return _laid_out(folder)


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}; save the dataset again") from error
    if not isinstance(found, dict):
        raise DataError(f"{path} is no JSON object; save the dataset again")
    return found


def _within(folder: Path, name: str) -> Path:
    """A path below the folder: what a folder's own files name must not lead out of it."""
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):
        raise DataError(f"{folder} names {name!r}, which lies outside of it; save the dataset again")
    return path


def _saved(folder: Path) -> list[Part]:
    state = _read(folder / STATE)
    if state.get("_indices_data_files"):
        raise DataError(f"{folder} holds a selection of rows; save it again after dataset.flatten_indices()")
    split = state.get("_split")
    files = state.get("_data_files")
    names = [one.get("filename") for one in files if isinstance(one, dict)] if isinstance(files, list) else []
    if not names or not all(isinstance(name, str) for name in names):
        raise DataError(f"{folder / STATE} lists no data files; save the dataset again")
    parts = [Part(_within(folder, str(name)), split if isinstance(split, str) else None) for name in names]
    missing = [one.path for one in parts if not one.path.is_file()]
    if missing:
        raise DataError(f"{missing[0]}, which {folder / STATE} lists, is not there; copy the whole folder")
    return parts


def _laid_out(folder: Path) -> list[Part]:
    """Files of the format that most of them have."""
    known = {suffix for member in READERS.load().values() for suffix in member.config().suffixes}
    files = [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and not any(part.startswith((".", "_")) for part in path.relative_to(folder).parts)
        and path.name not in ABOUT
        and split_suffixes(str(path))[0] in known
    ]
    formats = sorted({split_suffixes(str(path))[0] for path in files})
    if len(formats) > 1:
        raise DataError(f"{folder} mixes {', '.join(formats)}; give the files of one kind, e.g. {folder}/*{formats[0]}")
    if not files:
        raise DataError(
            f"{folder} is no dataset folder: it has neither {STATE} nor {DICT}, nor data files; give files, "
            f"e.g. {folder / '*.jsonl.gz'}"
        )
    splits = [_split_of(path.relative_to(folder)) for path in files]
    order = [*SPLITS, None]
    return sorted(
        (Part(path, split) for path, split in zip(files, splits, strict=True)),
        key=lambda one: (order.index(one.split), str(one.path)),
    )


def _split_of(path: Path) -> str | None:
    """The split that a name tells, of the file before its folders', between what is neither letter nor digit."""
    for part in reversed(path.parts):
        words = re.split(r"[^a-z0-9]+", part.lower())
        for split, known in SPLITS.items():
            if any(word in known for word in words):
                return split
    return None
