"""The inclusive range within which a measured value keeps its record."""

import math
from dataclasses import dataclass, field, make_dataclass


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


def bounded(minimum: float | None = None, maximum: float | None = None) -> type[Bounds]:
    """A config whose defaults are a rule's published bounds.

    Examples
    --------
    >>> bounded(maximum=0.2)()
    Bounds(minimum=None, maximum=0.2)
    """
    defaults = {"minimum": minimum, "maximum": maximum}
    return make_dataclass(
        "Bounds",
        [(name, float | None, field(default=value)) for name, value in defaults.items()],
        bases=(Bounds,),
        frozen=True,
        kw_only=True,
    )
