"""Quality rules: a member measures one number of a text; its config holds the bounds within which a record is kept.

A member is ``(text: pl.Expr) -> pl.Expr``: the measured Float64 value of each text, or null where the rule does not
apply (which keeps the record). The value of a text depends on that text alone. Beside the text a member may use the
columns of ``curation.rules.columns``, which are counted once for all rules that ask for any. The config of a member is
a subclass of ``Bounds`` with the published thresholds as defaults; both bounds are inclusive. A member whose config has
options beside the bounds is given it: ``(text, config) -> pl.Expr``.

"Word" means the same in every rule (``curation.rules.words``): a run between white space, and in scripts that do not
write spaces a fixed number of characters.
"""

from collections.abc import Callable

import polars as pl

from catalog.registry import Registry
from curation.rules.bounds import Bounds
from curation.rules.judging import judge

Rule = Callable[..., pl.Expr]

RULES: Registry[Rule] = Registry("rule", "curation.rules")

from curation.rules.measuring import measure  # noqa: E402 - needs the registry

__all__ = ["RULES", "Bounds", "Rule", "judge", "measure"]
