"""What every measure of agreement returns: a figure, or the reason why there is none."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Agreement:
    """One measure of agreement.

    Parameters
    ----------
    measure : its name, e.g. ``"krippendorff_alpha_nominal"``.
    value : 1 is perfect, 0 what chance gives; below 0 is worse than chance. None where it is undefined.
    reason : why there is no value, or no interval; None otherwise.
    low, high : interval at 95 %, None where there is none.
    num_items : items that could be compared: those with at least two answers.
    num_annotations : answers to them.
    """

    measure: str
    value: float | None
    reason: str | None = None
    low: float | None = None
    high: float | None = None
    num_items: int = 0
    num_annotations: int = 0


NO_PAIRS = "no item was answered by two annotators"
ONE_LABEL = "only the label {label!r} was given: chance alone explains that everybody agrees"
