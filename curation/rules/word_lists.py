"""Whole words of a list in texts of any language.

What a whole word is depends on the script of the word's ends. Letters of an alphabet and digits need something else
beside them. Chinese, Japanese and Thai write no spaces: there a word is found wherever it stands (one of a single
character only where it stands alone among other scripts). Korean puts particles and endings behind a word: the word
has to begin where a written word begins, and nothing but such endings may follow it.
"""

import functools
import re
import unicodedata
from collections.abc import Iterable, Sequence
from importlib import resources
from importlib.resources.abc import Traversable

import polars as pl

from catalog.errors import ConfigError, nearest

MANY_WORDS = 200
"""Of more than so many, those that occur at all are found first."""

_FOLDER = "lists"
_ENDINGS = "korean-endings"


def list_names() -> list[str]:
    """Names of the word lists that come with the package, sorted."""
    return sorted(path.name.removesuffix(".txt") for path in _folder().iterdir() if path.name != f"{_ENDINGS}.txt")


def _folder() -> Traversable:
    return resources.files("curation.rules") / _FOLDER


def read_words(text: str) -> list[str]:
    """The words of a list: one a line, blank lines and lines that begin with ``#`` left out, each once, in order."""
    lines = (line.strip() for line in text.splitlines())
    return list(dict.fromkeys(line for line in lines if line and not line.startswith("#")))


def built_in(name: str) -> list[str]:
    """The words of a list that comes with the package.

    Raises
    ------
    ConfigError : there is no such list.
    """
    if name not in list_names():
        raise ConfigError(f"no word list {name!r}; {nearest(name, list_names())}, or `files` with the path of your own")
    return read_words((_folder() / f"{name}.txt").read_text("utf-8"))


def normal(words: Iterable[str]) -> tuple[str, ...]:
    """Words as they are looked for: composed, lower case, runs of white space as one space; sorted, each once."""
    folded = (" ".join(unicodedata.normalize("NFC", word).lower().split()) for word in words)
    return tuple(sorted({word for word in folded if word}))


def count_words(texts: pl.Expr, words: Sequence[str]) -> pl.Expr:
    """How many times words of a list stand in each text, as whole words, case ignored, none overlapping.

    Parameters
    ----------
    words : as ``normal`` returns them, at least one.
    """
    return texts.map_batches(functools.partial(_count, words=tuple(words)), return_dtype=pl.Float64)


def _count(texts: pl.Series, words: tuple[str, ...]) -> pl.Series:
    folded = pl.select(
        pl.lit(texts).str.to_lowercase().str.normalize("NFC").str.replace_all(r"\s+", " ").alias("text")
    ).to_series()
    # Nearly all texts have none of most lists.
    some = folded.str.contains_any(list(words))
    rows = folded.filter(some)
    if len(words) > MANY_WORDS:
        found = rows.str.extract_many(list(words), overlapping=True).explode(empty_as_null=False)
        words = tuple(found.unique().sort())
    # A text without such characters has no word with any.
    alphabetic = ~rows.str.contains(_OTHER.pattern)
    plain = [word for word in words if not _OTHER.search(word)]
    counts = pl.zeros(len(rows), pl.Float64, eager=True)
    if plain:
        number = rows.filter(alphabetic).str.count_matches(_bounded(plain)).cast(pl.Float64)
        counts = counts.scatter(alphabetic.arg_true(), number)
    others = [float(len(_pattern(words).findall(text))) for text in rows.filter(~alphabetic).to_list()]
    counts = counts.scatter((~alphabetic).arg_true(), others)
    return pl.zeros(len(texts), pl.Float64, eager=True).scatter(some.arg_true(), counts)


def _bounded(words: Sequence[str]) -> str:
    """What ``_pattern`` says, for texts and words of alphabets alone: nothing is looked around for, so Rust can."""
    each = (
        r"\b" * _in_word(word[0]) + re.escape(word) + r"\b" * _in_word(word[-1])
        for word in sorted(words, key=lambda one: (-len(one), one))
    )
    return "|".join(each)


@functools.lru_cache(maxsize=1024)
def _pattern(words: tuple[str, ...]) -> re.Pattern[str]:
    """Longer words first, so that of those that begin alike the longest counts."""
    return re.compile("|".join(_whole(word) for word in sorted(words, key=lambda one: (-len(one), one))))


_NO_SPACES = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
_SYLLABLES = "가-힣ㄱ-ㆎ"
_UNSPACED, _HANGUL = re.compile(f"[{_NO_SPACES}]"), re.compile(f"[{_SYLLABLES}]")
_OTHER = re.compile(f"[{_NO_SPACES}{_SYLLABLES}]")
_MARKS = "\u0e31\u0e34-\u0e3a\u0e47-\u0e4e\u0eb1\u0eb4-\u0ebc\u0ec8-\u0ece"
"""Vowels and tones that belong to the Thai or Lao letter before them."""


def _in_word(char: str) -> bool:
    return re.match(r"\w", char) is not None


def _whole(word: str) -> str:
    """A pattern of one word with what may stand beside it."""
    return _before(word) + re.escape(word) + _after(word)


@functools.cache
def _korean_tail() -> str:
    """Up to three particles or endings, long ones first."""
    endings = read_words((_folder() / f"{_ENDINGS}.txt").read_text("utf-8"))
    return rf"(?:{'|'.join(sorted(endings, key=lambda one: (-len(one), one)))}){{0,3}}"


def _before(word: str) -> str:
    first = word[0]
    if _UNSPACED.match(first):
        return rf"(?<![{_NO_SPACES}])" if len(word) == 1 else ""
    if _HANGUL.match(first):
        return rf"(?<![{_SYLLABLES}])"
    return rf"(?:(?<!\w)|(?<=[{_NO_SPACES}{_SYLLABLES}]))" if _in_word(first) else ""


def _after(word: str) -> str:
    last = word[-1]
    if _UNSPACED.match(last):
        return rf"(?![{_NO_SPACES}])" if len(word) == 1 else f"(?![{_MARKS}])"
    if _HANGUL.match(last):
        return rf"(?={_korean_tail()}(?![{_SYLLABLES}]))"
    return rf"(?:(?!\w)|(?=[{_NO_SPACES}{_SYLLABLES}]))" if _in_word(last) else ""
