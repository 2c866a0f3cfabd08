"""The inclusive range within which a measured value keeps its record."""

import math
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """Inclusive bounds of a measured value; None leaves that side open.

    Parameters
    ----------
    minimum, maximum : in the unit of the rule.
    """

    minimum: float | None = None
    maximum: float | None = None

    def __post_init__(self) -> None:
        """Refuse what no value, or every value, would satisfy by mistake."""
        for name in ("minimum", "maximum"):
            value = getattr(self, name)
            if value is not None and (
                isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value)
            ):
                raise ValueError(f"{name}={value!r} must be a finite number, or null to leave that side open")
        if self.minimum is not None and self.maximum is not None and self.minimum > self.maximum:
            raise ValueError(f"minimum={self.minimum} is above maximum={self.maximum}; swap them")
