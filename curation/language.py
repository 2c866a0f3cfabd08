"""Language identification with a model that ships inside a package."""

import threading
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import polars as pl

MAX_CHARS = 4_096
"""Characters looked at: more do not change the answer but cost time."""

_LOADING = threading.Lock()


@lru_cache(maxsize=1)
def _load() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


def _identifier() -> Any:
    with _LOADING:
        return _load()


def identify(texts: Sequence[str]) -> pl.DataFrame:
    """Name the most probable language of each text.

    Parameters
    ----------
    texts : n texts; the first 4,096 characters of each are looked at.

    Returns
    -------
    n rows: ``language`` str (ISO 639-1 code, 97 languages) and ``confidence`` f64 in [0, 1], rounded to six digits so
    that it does not depend on the machine; both null for a text without letters. Short and mixed texts get a low
    confidence.

    References
    ----------
    Lui and Baldwin (2012), langid.py: An Off-the-shelf Language Identification Tool; the model is py3langid's.
    """
    identifier = _identifier()
    languages: list[str | None] = []
    confidences: list[float | None] = []
    for text in texts:
        start = text[:MAX_CHARS]
        if any(char.isalpha() for char in start):
            language, confidence = identifier.classify(start)
            languages.append(str(language))
            confidences.append(round(float(confidence), 6))
        else:
            languages.append(None)
            confidences.append(None)
    schema = {"language": pl.String, "confidence": pl.Float64}
    return pl.DataFrame({"language": languages, "confidence": confidences}, schema=schema)
