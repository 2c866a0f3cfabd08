"""What a kind of personal data is: how it is found, compared, and written in another way."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple


class Found(NamedTuple):
    """One value in a text.

    ``start`` and ``end`` count characters (code points), the end excluded. ``confidence`` in (0, 1] is our
    judgement, not a fitted probability: 0.9 and more where a check digit, a prefix or a structure leaves little doubt,
    0.5 to 0.9 for a shape or a word beside it that makes the case, less for a shape alone. ``checksum`` says whether a
    check digit held; None where the kind has none.
    """

    start: int
    end: int
    confidence: float
    checksum: bool | None = None


Check = Callable[[str, int, int], Iterator[Found]]
"""``(text, start, end)`` of a candidate → the values in it or about it."""
Read = Callable[[Sequence[str]], Iterator[Sequence[Found]]]
"""Texts → the values of each, for a kind that no pattern describes."""


def plain(value: str) -> str:
    """Letters and digits of a value, in upper case: equal for every way to write the same number.

    >>> plain("gb82-WEST 1234")
    'GB82WEST1234'
    """
    return "".join(one for one in value if one.isalnum()).upper()


def letters(digest: bytes, number: int = 16) -> str:
    """Some of a digest in the letters a to p, four bits each: no digit that another kind could take for its own."""
    return "".join("abcdefghijklmnop"[one] for byte in digest for one in (byte >> 4, byte & 15))[:number]


@dataclass(frozen=True, kw_only=True, slots=True)
class Kind:
    """One kind of personal data.

    Parameters
    ----------
    tag : what stands for a value, e.g. ``EMAIL`` for ``<EMAIL>``.
    pattern : Rust regex of candidates within a line. Kinds with the same pattern share one pass over the texts. Borders
        are ASCII ones (``(?-u:\\b)``): Korean and Chinese write their words right beside a number.
    num_digits : fewest ASCII digits of a value; a candidate with fewer is not even checked.
    check : tells which candidates are values.
    read : instead of pattern and check.
    require : raises ConfigError where the kind needs a package that is not installed.
    canonical : equal for values that are the same.
    pseudonym : 32 bytes of a keyed hash, and the value → what stands for it; None writes ``<TAG_letters>``. The
        kind must not find it again.
    keep_first, keep_last : letters and digits that masking leaves.
    hides_signs : masking leaves no other signs either, as of passwords.
    default : whether a recipe that names no kinds looks for it.
    """

    tag: str
    pattern: str = ""
    num_digits: int = 0
    check: Check | None = None
    read: Read | None = None
    require: Callable[[], None] | None = None
    canonical: Callable[[str], str] = plain
    pseudonym: Callable[[bytes, str], str] | None = None
    keep_first: int = 0
    keep_last: int = 0
    hides_signs: bool = False
    default: bool = True
