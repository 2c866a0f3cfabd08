"""Check digits that several kinds share."""

from collections.abc import Sequence
from datetime import date

_DOUBLED = (0, 2, 4, 6, 8, 1, 3, 5, 7, 9)


def digits_of(value: str) -> str:
    """The ASCII digits of a value."""
    return "".join(one for one in value if "0" <= one <= "9")


def luhn(digits: str) -> bool:
    """Whether the last digit is right by ISO/IEC 7812-1, annex B.

    >>> luhn("4111111111111111"), luhn("4111111111111112")
    (True, False)
    """
    numbers = [int(one) for one in reversed(digits)]
    return (sum(numbers[::2]) + sum(_DOUBLED[one] for one in numbers[1::2])) % 10 == 0


def mod97(text: str) -> int:
    """A text of digits and letters (A is 10) modulo 97, as ISO 7064 and ISO 13616 have it."""
    return int("".join(str(int(one, 36)) for one in text)) % 97


def weighted(digits: str, weights: Sequence[int]) -> int:
    """Sum of digits times weights, as far as there are weights."""
    return sum(int(one) * weight for one, weight in zip(digits, weights, strict=False))


def is_date(year: int, month: int, day: int) -> bool:
    """Whether the calendar has the day.

    >>> is_date(2024, 2, 29), is_date(2023, 2, 29)
    (True, False)
    """
    try:
        date(year, month, day)
    except ValueError:
        return False
    return True
