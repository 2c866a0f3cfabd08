"""Seeded duplicates of every kind planted into real texts, and look-alikes that must stay.

What counts as a duplicate is not decided here but by exact Jaccard similarity (``benchmarks.truth``): a tenth of the
words changed is far below 0.8. The kinds say where a method fails.
"""

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import polars as pl

Edit = Callable[[str, str, np.random.Generator], str]
"""``(text, another text, rng) -> edited``."""
Family = Callable[[Sequence[str], str, np.random.Generator], list[str]]
"""``(three texts, licence header, rng) -> records that look alike``."""

WORDS = (60, 400)
"""Fewest and most words of a text that is edited."""
CJK_CHARACTERS = (40, 4_000)

_SPACES = np.array([" ", "  ", "\n", "\t", "\u00a0", "\u3000", " \n "])
_SENTENCE_END = re.compile(r"(?<=[.!?。！？])\s+")
_NUMBER = re.compile(r"\d+")
_UNSPACED = r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Hangul}]"
_BANNER = "Home Products Documentation Community Blog About us Log in Sign up Search this site Skip to main content"
_FOOTER = (
    "Copyright All rights reserved Terms of use Privacy policy Cookie settings Contact us Back to the top of the page"
)


def repeat(text: str, _other: str, _rng: np.random.Generator) -> str:
    """The same again."""
    return text


def respell(text: str, _other: str, rng: np.random.Generator) -> str:
    """Other white space, ASCII letters in the other case or in full width, accents and syllables decomposed.

    >>> unicodedata.normalize("NFKC", respell("ab", "", np.random.default_rng(1))).lower()
    'ab'
    """
    spelled = []
    for character, luck in zip(text, rng.random(len(text)), strict=True):
        if character == " ":
            spelled.append(str(rng.choice(_SPACES)))
        elif character.isascii() and character.isalpha() and luck < 0.3:
            spelled.append(character.swapcase() if luck < 0.2 else chr(ord(character) + 0xFEE0))
        else:
            spelled.append(character)
    return unicodedata.normalize("NFD", "".join(spelled))


def words_edited(share: float) -> Edit:
    """Replace, drop or insert a share of the words, at least one; new words come from the other text."""

    def edit(text: str, other: str, rng: np.random.Generator) -> str:
        words, donors = text.split(), other.split() or ["word"]
        for at in rng.permutation(len(words))[: max(1, round(share * len(words)))]:
            donor = donors[int(rng.integers(len(donors)))]
            words[at] = (donor, "", f"{words[at]} {donor}")[int(rng.integers(3))]
        return " ".join(word for word in words if word)

    return edit


def characters_edited(share: float) -> Edit:
    """Replace a share of the characters, at least one, by characters of the other text: typing errors in any script."""

    def edit(text: str, other: str, rng: np.random.Generator) -> str:
        characters, donors = list(text), other or "x"
        for at in rng.permutation(len(characters))[: max(1, round(share * len(characters)))]:
            characters[at] = donors[int(rng.integers(len(donors)))]
        return "".join(characters)

    return edit


def truncate(text: str, _other: str, rng: np.random.Generator) -> str:
    """The first half of the text or more, cut between words, or anywhere in a text without."""
    share = rng.uniform(0.5, 0.98)
    words = text.split()
    if len(words) < 10:
        return text[: max(1, int(share * len(text)))]
    return " ".join(words[: max(1, int(share * len(words)))])


def wrap(text: str, _other: str, _rng: np.random.Generator) -> str:
    """Between the banner and footer of a site."""
    return f"{_BANNER}\n{text}\n{_FOOTER}"


def concatenate(text: str, other: str, _rng: np.random.Generator) -> str:
    """Another text appended."""
    return f"{text}\n\n{other}"


def renumber(text: str, _other: str, rng: np.random.Generator) -> str:
    """One number changed; appended where there is none."""
    number = str(int(rng.integers(1_000, 1_000_000)))
    found = list(_NUMBER.finditer(text))
    if not found:
        return f"{text} {number}"
    chosen = found[int(rng.integers(len(found)))]
    return text[: chosen.start()] + number + text[chosen.end() :]


def shuffle_sentences(text: str, _other: str, rng: np.random.Generator) -> str:
    """The same sentences in another order."""
    sentences = _SENTENCE_END.split(text)
    return " ".join(sentences[at] for at in rng.permutation(len(sentences)))


EDITS: Mapping[str, Edit] = {
    "exact": repeat,
    "respelled": respell,
    "words 1 %": words_edited(0.01),
    "words 2 %": words_edited(0.02),
    "words 5 %": words_edited(0.05),
    "words 10 %": words_edited(0.10),
    "words 20 %": words_edited(0.20),
    "words 30 %": words_edited(0.30),
    "truncated": truncate,
    "wrapped": wrap,
    "concatenated": concatenate,
    "one number": renumber,
    "sentences shuffled": shuffle_sentences,
}
CJK_EDITS: Mapping[str, Edit] = {
    "CJK respelled": respell,
    "CJK characters 1 %": characters_edited(0.01),
    "CJK characters 3 %": characters_edited(0.03),
    "CJK truncated": truncate,
}


def same_boilerplate(texts: Sequence[str], _licence: str, rng: np.random.Generator) -> list[str]:
    """Different short texts within one banner and footer."""
    return [wrap(" ".join(text.split()[:15]), "", rng) for text in texts]


def same_licence(texts: Sequence[str], licence: str, _rng: np.random.Generator) -> list[str]:
    """Different bodies, each under the same licence header and a third of its length."""
    length = max(5, len(licence.split()) // 3)
    return [licence + "\n" + " ".join(text.split()[:length]) for text in texts]


def same_template(texts: Sequence[str], _licence: str, rng: np.random.Generator) -> list[str]:
    """One short sentence that differs in one number."""
    start, end = texts[0].split()[:6], texts[0].split()[6:12]
    return [" ".join([*start, str(number), *end]) for number in rng.permutation(10_000)[: len(texts)]]


def chain(texts: Sequence[str], _licence: str, _rng: np.random.Generator) -> list[str]:
    """A, B and C, overlapping windows of one text: J(A, B) and J(B, C) are about 0.85, J(A, C) about 0.72.

    A window of m shingles that is moved by d shares m - d of the m + d in the union; d is 8 % of m.
    """
    words = " ".join(texts).split()
    length = 10 * (len(words) // 12)
    step = round(0.08 * (length - 4))
    return [" ".join(words[at * step : at * step + length]) for at in range(3)]


LOOK_ALIKES: Mapping[str, Family] = {
    "same boilerplate": same_boilerplate,
    "same licence": same_licence,
    "same template": same_template,
    "chain": chain,
}


def plant(texts: pl.Series, licences: pl.Series, rng: np.random.Generator, *, per_kind: int) -> pl.DataFrame:
    """Edit real texts in every way.

    Parameters
    ----------
    texts : real texts to draw from; those of 60 to 400 words are edited, and those written in CJK.
    licences : licence headers.
    per_kind : families of each kind; fewer where the texts are too few.

    Returns
    -------
    ``id``, ``text``, ``kind`` and ``family`` of each planted record. Each text that was edited is in it too, as kind
    ``original`` of its family; a family has one kind besides.
    """
    plain, unspaced = _drawn(texts, rng)
    rows: list[tuple[str, str, int]] = []
    family = 0
    for edits, pool in ((EDITS, plain), (CJK_EDITS, unspaced)):
        place = 0
        for kind, edit in edits.items():
            for _ in range(min(per_kind, (len(pool) - 1) // len(edits))):
                base, other = pool[place], pool[(place + 1) % len(pool)]
                rows += [(base, "original", family), (edit(base, other, rng), kind, family)]
                place, family = place + 1, family + 1
    headers = licences.to_list() or [_BANNER + " " + _FOOTER]
    spare = plain[len(plain) // 2 :]
    for kind, look_alike in LOOK_ALIKES.items():
        for _ in range(min(per_kind, len(plain) // 2 // (3 * len(LOOK_ALIKES)))):
            three, spare = spare[:3], spare[3:]
            licence = headers[int(rng.integers(len(headers)))]
            rows += [(text, kind, family) for text in look_alike(three, licence, rng)]
            family += 1
    frame = pl.DataFrame(rows, schema={"text": pl.String, "kind": pl.String, "family": pl.Int64}, orient="row")
    number = pl.int_range(pl.len()).cast(pl.String).str.zfill(6)
    return frame.select(pl.format("planted-{}", number).alias("id"), "text", "kind", "family")


def _drawn(texts: pl.Series, rng: np.random.Generator) -> tuple[list[str], list[str]]:
    """Distinct texts in random order: long enough ones with spaces, and those mostly in CJK."""
    frame = texts.alias("text").unique(maintain_order=True).to_frame()
    text = pl.col("text")
    words, unspaced = text.str.count_matches(r"\S+"), text.str.count_matches(_UNSPACED)
    is_cjk = unspaced * 2 > text.str.replace_all(r"\s", "").str.len_chars()
    plain = frame.filter(words.is_between(*WORDS) & ~is_cjk)["text"]
    cjk = frame.filter(unspaced.is_between(*CJK_CHARACTERS) & is_cjk)["text"]
    return (plain.gather(rng.permutation(len(plain))).to_list(), cjk.gather(rng.permutation(len(cjk))).to_list())
