# ruff: noqa: ARG002 - every task type is asked in the same words
"""A point on a scale."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any, ClassVar

from catalog.errors import ConfigError, DataError
from labeling.tasks import TASKS, TaskType, shown

MAX_POINTS = 1001
MAX_CLASSES = 20
"""A scale of more points is no classification any more."""


@dataclass(frozen=True, kw_only=True)
class Rating(TaskType):
    """A point on a scale: a number, whole where it is whole.

    Parameters
    ----------
    min, max : ends of the scale, both of which may be answered.
    step : distance of two points, above 0; ``max`` must be a point.
    low, high : what the ends mean, shown at them.
    """

    question: ClassVar[str] = "How do you rate it?"

    min: float = 1.0
    max: float = 5.0
    step: float = 1.0
    low: str = ""
    high: str = ""

    def check(self, names: Sequence[str]) -> None:
        """The scale must have ends that its steps reach."""
        numbers = {"min": self.min, "max": self.max, "step": self.step}
        for name, number in numbers.items():
            if not math.isfinite(number):
                raise ConfigError(f"label schema: {name}={number} must be a finite number")
        if self.step <= 0:
            raise ConfigError(f"label schema: step={self.step:g} must be above 0")
        if self.min >= self.max:
            raise ConfigError(f"label schema: min={self.min:g} must be below max={self.max:g}")
        if (self.max - self.min) / self.step > MAX_POINTS:
            raise ConfigError(f"label schema: a scale has at most {MAX_POINTS} points; raise step={self.step:g}")
        if (_exact(self.max) - _exact(self.min)) % _exact(self.step):
            raise ConfigError(
                f"label schema: steps of {self.step:g} from min={self.min:g} do not reach max={self.max:g}; "
                "change one of the three"
            )

    @property
    def points(self) -> tuple[int | float, ...]:
        """What may be answered, in order."""
        first, last, step = _exact(self.min), _exact(self.max), _exact(self.step)
        return tuple(_number(first + step * place) for place in range(int((last - first) / step) + 1))

    def validate(self, names: Sequence[str], value: object, text: str) -> int | float:
        """The number; 3.0 is 3."""
        if isinstance(value, bool) or not isinstance(value, int | float) or value not in self.points:
            kind = "" if self.step == 1 and self.min == int(self.min) else f" in steps of {self.step:g}"
            raise DataError(
                f"answer {shown(value)} is no point of the scale; give a number from {self.min:g} to {self.max:g}{kind}"
            )
        return _number(_exact(value))

    def from_words(self, answer: object, text: str) -> object:
        """Numbers may be written as text."""
        try:
            return _number(Decimal(answer)) if isinstance(answer, str) else answer
        except (InvalidOperation, ValueError, OverflowError):
            return answer

    def counted(self, value: Any) -> tuple[str, ...]:
        """The number."""
        return (str(value),)

    def classes(self, names: Sequence[str]) -> tuple[str, ...]:
        """The points, as text, of a scale with few of them."""
        points = self.points
        return tuple(str(one) for one in points) if len(points) <= MAX_CLASSES else ()

    def class_of(self, value: Any) -> str | None:
        """The number, as text."""
        return str(value) if len(self.points) <= MAX_CLASSES else None


def _exact(number: float) -> Decimal:
    # By its shortest decimal form: 0.1 is a tenth here, as its writer meant.
    return Decimal(repr(number))


def _number(exact: Decimal) -> int | float:
    return int(exact) if exact == exact.to_integral_value() else float(exact)


TASKS.register("rating", Rating)(Rating)
