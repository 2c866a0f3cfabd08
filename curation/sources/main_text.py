"""The main text of a web page, by trafilatura (Barbaresi 2021), which comes with the extra ``web``."""

import logging
from typing import Any

from curation.sources.refusal import SourceRefusedError


def require(package: str, path: str) -> Any:
    """A package of the extra.

    Raises
    ------
    SourceRefusedError : it is not installed, with the command that installs it.
    """
    import importlib

    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise SourceRefusedError(
            "missing_package", f"{path} needs {package} ({error}): pip install 'winnow[web]', then run the same command"
        ) from error


def main_text(page: bytes, path: str, *, encoding: str | None = None, url: str | None = None) -> dict[str, Any] | None:
    """The ``text`` of a page, with ``title``, ``author``, ``date`` and ``language`` where it states them, or None.

    Parameters
    ----------
    page : HTML as it came.
    path : of the file, to be named in messages.
    encoding : that the server stated, or None; tried first.
    url : of the page, by which its date may be told.

    Raises
    ------
    SourceRefusedError : trafilatura is not installed.
    """
    trafilatura = require("trafilatura", path)
    logging.getLogger("trafilatura").setLevel(logging.CRITICAL)
    given: Any = page
    if encoding is not None:
        try:
            given = page.decode(encoding)
        except (LookupError, UnicodeDecodeError):
            given = page
    try:
        found = trafilatura.bare_extraction(given, url=url, with_metadata=True, include_comments=False)
    except Exception:  # noqa: BLE001 - whatever a parser makes of one page of anybody's, the others are still to be read
        return None
    if found is None or not (found.text or "").strip():
        return None
    stated = {name: getattr(found, name, None) for name in ("title", "author", "date", "language")}
    return {"text": found.text} | {name: value for name, value in stated.items() if value}
