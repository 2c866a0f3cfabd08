"""Personal data and secrets in texts: what is found, by which kind, and what is written in its place.

A kind is one file of ``curation.pii.kinds`` that registers a ``Kind``: a candidate pattern, which is looked for in all
texts of a shard at once, and a check that sees candidates alone. ``find_spans`` finds, ``redact`` replaces, ``PiiStep``
is the step of a recipe.
"""

from catalog.registry import Registry
from curation.pii.kind import Kind

KINDS: Registry[Kind] = Registry("PII kind", "curation.pii.kinds")

__all__ = ["KINDS", "Kind"]
