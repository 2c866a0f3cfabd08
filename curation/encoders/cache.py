"""A folder that is made once, whole, however many processes want it."""

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path


def made_once(folder: Path, make: Callable[[Path], None]) -> Path:
    """Return a folder, made first if it is not there.

    It is made aside and renamed, so a reader never sees half of it. Of processes that make it at once the first wins
    and the others drop theirs; all end with the same folder.

    Parameters
    ----------
    folder : where it is wanted; its parents are made.
    make : fills an empty folder that it is given, with at least one file.
    """
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=folder.parent))
    try:
        make(aside)
        try:
            aside.rename(folder)
        except OSError:
            # Rename never replaces a folder that has content: another process was first.
            if not folder.is_dir():
                raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return folder
