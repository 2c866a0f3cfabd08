"""Words of the user's own lists, or of those that come with the package, in any language."""

from dataclasses import dataclass

import polars as pl

from curation.rules import RULES
from curation.rules.bounds import Bounds
from curation.rules.columns import column
from curation.rules.word_lists import built_in, count_words, normal
from curation.rules.words import ratio, words


@dataclass(frozen=True, kw_only=True)
class ListedWords(Bounds):
    """Which words count, and bounds of their number.

    Parameters
    ----------
    words : words and phrases; case is ignored.
    lists : names of lists that come with the package, whose words are added to ``words``. In a recipe also ``files``:
        paths, seen from the recipe's folder, of lists with one word a line.
    """

    maximum: float | None = 0.0
    words: tuple[str, ...] = ()
    lists: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Put all words into one sorted list, as they are looked for."""
        super().__post_init__()
        for name in ("words", "lists"):
            given = getattr(self, name)
            if not isinstance(given, list | tuple) or not all(isinstance(one, str) for one in given):
                raise ValueError(f"{name}={given!r} must be a list of words; quote what YAML takes for something else")
        found = normal([*self.words, *(word for name in self.lists for word in built_in(name))])
        object.__setattr__(self, "words", found)
        object.__setattr__(self, "lists", ())


@dataclass(frozen=True, kw_only=True)
class ListedShare(ListedWords):
    """Which words count, and bounds of their share."""

    maximum: float | None = 0.045


@RULES.register("listed_word_count", ListedWords)
def listed_word_count(text: pl.Expr, config: ListedWords) -> pl.Expr:
    """Number of words of a list in a text, as whole words of any script (``curation.rules.word_lists``); null without.

    References
    ----------
    Raffel et al. (2020), section 2.2: a page with any word of a list of bad ones leaves. The list is the user's.
    """
    return count_words(text, config.words) if config.words else pl.when(text.is_null()).then(0.0)


@RULES.register("listed_word_ratio", ListedShare)
def listed_word_ratio(text: pl.Expr, config: ListedShare) -> pl.Expr:
    """Words of a list per word of a text, at most 1; null without a list and for a text without words.

    References
    ----------
    data-juicer, ``flagged_words_filter``: at most 0.045. The list is the user's.
    """
    if not config.words:
        return pl.when(text.is_null()).then(0.0)
    counted = ratio(count_words(text, config.words), words())
    return pl.when(column("chars") > 0).then(counted.clip(upper_bound=1.0))
