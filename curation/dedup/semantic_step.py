"""The recipe's step about semantic duplicates: how they are found, what is done with them, and when that is refused."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import polars as pl

from catalog.errors import ConfigError, nearest
from curation.dedup.semantic import SemanticConfig

ACTIONS = ("report", "remove")
RANDOM_RATIO_LIMIT = 1e-3
"""Share of pairs of random records that may be as near as duplicates where records leave by it.

A tenth of it is usual where an encoder knows the language (``measure_background``).
"""


@dataclass(frozen=True, kw_only=True)
class SemanticStep(SemanticConfig):
    """How semantic duplicates are found, and what becomes of them.

    Parameters
    ----------
    action : ``remove``: a record leaves by the pair that says so; ``report``: pairs are measured and stored, all stay.
    """

    action: str = "remove"

    def __post_init__(self) -> None:
        """Refuse values outside their range."""
        super().__post_init__()
        if self.action not in ACTIONS:
            raise ConfigError(f"action={self.action!r}; {nearest(str(self.action), ACTIONS)}")

    @classmethod
    def configured(cls, given: Mapping[str, Any]) -> "SemanticStep":
        """From a recipe's keys, where ``sweep`` is a list.

        Raises
        ------
        ConfigError : an unknown key (with the nearest), or a value out of range.
        """
        known = [one.name for one in fields(cls)]
        for key in given:
            if key not in known:
                raise ConfigError(f"unknown option {key!r}; {nearest(str(key), known)}")
        values = dict(given)
        if "sweep" in values:
            if not isinstance(values["sweep"], list | tuple):
                raise ConfigError(f"sweep={values['sweep']!r} must be a list such as [0.01, 0.05]; write [] for none")
            values["sweep"] = tuple(values["sweep"])
        return cls(**values)

    def canonical(self) -> dict[str, Any]:
        """Plain JSON values, equal for steps that decide alike."""
        sweep = sorted({float(one) for one in self.sweep})
        return {**asdict(self), "epsilon": float(self.epsilon), "sweep": sweep}


def random_ratio_limit(num_sampled: int) -> float:
    """The share of near pairs among random records up to which records may leave.

    In few records true duplicates weigh more: were half of n records each the only duplicate of one of the others, that
    would be 1 / (n - 1) of all pairs. Of 1,000 records and more ``RANDOM_RATIO_LIMIT`` holds.

    >>> random_ratio_limit(1000) < 0.0011, random_ratio_limit(51)
    (True, 0.02)
    """
    return max(RANDOM_RATIO_LIMIT, 1 / max(num_sampled - 1, 1))


def background_problem(
    step: SemanticStep, background: pl.DataFrame, *, num_sampled: int, encoder: str, encoders: Sequence[str]
) -> str | None:
    """Why nothing should be removed by these vectors, with the remedies; None where nothing speaks against it.

    Parameters
    ----------
    background : as of ``measure_background``.
    num_sampled : records that it was measured on.
    encoder : whose vectors they are.
    encoders : that could be taken instead.
    """
    ratios: dict[float, float | None] = dict(background.rows())
    found, limit = ratios[step.epsilon], random_ratio_limit(num_sampled)
    if found is None or found <= limit:
        return None
    fine = [one for one, ratio in ratios.items() if one < step.epsilon and ratio is not None and ratio <= limit]
    others = " or ".join(one for one in encoders if one != encoder) or "none is installed"
    smaller = (
        f"take epsilon={max(fine):g}, which is within it, or" if fine else "no smaller one tried is within it; take"
    )
    look = ", or look first with action report" if step.action == "remove" else " before you remove them"
    return (
        f"{100 * found:.3g} % of pairs of random records are as near as epsilon={step.epsilon:g}, at most "
        f"{100 * limit:.3g} % may be where records leave by it: encoder {encoder!r} does not tell these texts apart; "
        f"{smaller} another encoder ({others}){look}"
    )
