"""Text encoders: a member turns texts into vectors whose dot product is their cosine similarity.

A member is ``(texts: Sequence[str], cache: Path) -> np.ndarray``: (n, d) float32 with rows of length 1, each depending
on its own text only (up to rounding, 1e-5). ``cache`` is a folder for what an encoder must compute once; it may be
shared by processes and deleted at any time. The config of a member is a subclass of ``Requires``.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from catalog.registry import Registry

Encoder = Callable[[Sequence[str], Path], np.ndarray]

ENCODERS: Registry[Encoder] = Registry("encoder", "curation.encoders")

from curation.encoders.installed import (  # noqa: E402 - needs the registry
    Requires,
    advised_encoders,
    encoders_of_meaning,
    installed_encoders,
)

__all__ = ["ENCODERS", "Encoder", "Requires", "advised_encoders", "encoders_of_meaning", "installed_encoders"]
