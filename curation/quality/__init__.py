"""Quality scores by a model: a member turns a stored model into a function that scores texts.

A member is ``(model: Model) -> Score``, where ``Score`` is ``(texts: pl.Series) -> np.ndarray``: n strings, none null,
to (n,) float64, NaN where it does not apply (which keeps the record). A score depends on its own text only, up to the
digits that it is rounded to. The config of a member is a subclass of ``Scored``.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from catalog.registry import Registry

Score = Callable[[pl.Series], np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Model:
    """What a scorer is opened with.

    Parameters
    ----------
    raw : the stored model's bytes, or None where it is a folder.
    folder : of the model, or None.
    label : whose probability is wanted, of models that know several.
    encode : vectors of texts by a named encoder.
    """

    raw: Any = None
    folder: Path | None = None
    label: str | None = None
    encode: Callable[[str, Sequence[str]], np.ndarray] | None = None


@dataclass(frozen=True, kw_only=True)
class Scored:
    """What is said of a scorer.

    Parameters
    ----------
    is_trained : it is trained here and stored under a name; otherwise it is a folder that is given by its path.
    """

    is_trained: bool = True


Scorer = Callable[[Model], Score]

SCORERS: Registry[Scorer] = Registry("quality scorer", "curation.quality")

__all__ = ["SCORERS", "Model", "Score", "Scored", "Scorer"]
