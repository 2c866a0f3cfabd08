"""Consensus methods: which label is behind the answers of several people, and how sure that is.

A method is a function ``(evidence, config) -> Consensus``. It is deterministic, changes nothing it is given, and never
holds a table of items by annotators.
"""

from collections.abc import Callable
from typing import Any

from catalog.registry import Registry
from labeling.consensus import Consensus, Evidence

Method = Callable[[Evidence, Any], Consensus]

TRUTH: Registry[Method] = Registry("consensus method", "labeling.truth")
