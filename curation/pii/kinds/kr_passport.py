"""Korean passport numbers."""

from collections.abc import Iterator

from curation.pii import KINDS
from curation.pii.kind import Found, Kind
from curation.pii.surroundings import Words

_WORDS = Words("passport 여권 여권번호 旅券 护照 パスポート", against="")


def _check(text: str, start: int, end: int) -> Iterator[Found]:
    """A letter and eight digits, or since 2021 one with a letter among them; nothing to check: a word must say it."""
    yield Found(start, end, 0.85 if _WORDS.before(text, start) > 0 else 0.2)


KINDS.register("kr_passport")(
    Kind(tag="KR_PASSPORT", pattern=r"(?-u:\b[MSRODG][0-9]{3}(?:[0-9]{5}|[A-Z][0-9]{4})\b)", check=_check)
)
