"""datatrove's rules written out again, with a switch for each thing in which Winnow's differ on purpose.

With all switches off a rule decides what datatrove's filter decides; a difference is explained by the switch that turns
one decision into the other. This runs in datatrove's environment and takes its constants.
"""

import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

import regex
from datatrove.data import Document  # type: ignore[import-not-found]
from datatrove.utils.text import PUNCTUATION_SET, TERMINAL_PUNCTUATION  # type: ignore[import-not-found]

SYMBOLS = "words of punctuation alone are words"
SCRIPTS = "scripts without spaces, or of syllables"
SEPARATORS = "only a line feed ends a line"
BLANK = "blank lines are no lines"
TRIMMED = "lines are trimmed"
OF_LINES = "share of the lines' characters, not of the text's"
BULLETS = "more bullet signs"
CASE = "stop words in any case, punctuation beside them or not"
PARAGRAPHS = "white space on it does not fill a line between paragraphs"
SIGNS = "signs that end a sentence in Unicode"
JOINED = "words are not joined before they are compared"
EARLIER = "every line is looked at, not only those left so far"
LETTERS = "letters of any script, marks among them"

CJK = r"[\p{Han}\p{Hiragana}\p{Katakana}ー]"
SOUTHEAST = r"[\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]"
EAST_PUNCTUATION = r"\u3000-\u3004\u3008-\u3020\uFF01-\uFF0F\uFF1A-\uFF20\uFF3B-\uFF40\uFF5B-\uFF65"
WORD = regex.compile(
    rf"(?V1)[^\s\p{{Han}}\p{{Hiragana}}\p{{Katakana}}ー\p{{Thai}}\p{{Lao}}\p{{Khmer}}\p{{Myanmar}}{EAST_PUNCTUATION}]+"
)
OUR_TERMINAL = regex.compile(r"[\p{Sentence_Terminal}\u17D6\u17D9\u17DA]$")
STOP_WORDS = ("the", "be", "to", "of", "and", "that", "have", "with")

On = Collection[str]
Tokenize = Callable[[str], list[str]]


def _unspaced(text: str) -> float:
    return len(regex.findall(CJK, text)) / 2 + len(regex.findall(SOUTHEAST, text)) / 4


def _syllabic(text: str) -> bool:
    syllables = len(regex.findall(rf"{CJK}|{SOUTHEAST}|\p{{Hangul}}", text))
    return 2 * syllables >= len("".join(text.split()))


def _number(text: str, words: list[str], on: On) -> float:
    if SCRIPTS in on:
        return len(WORD.findall(text)) + _unspaced(text)
    return len(words)


def _no_symbols(words: list[str], on: On) -> list[str]:
    return words if SYMBOLS in on else [one for one in words if any(char not in PUNCTUATION_SET for char in one)]


def _repeats(parts: list[str]) -> tuple[int, int]:
    seen: set[str] = set()
    number = characters = 0
    for part in parts:
        if part in seen:
            number += 1
            characters += len(part)
        seen.add(part)
    return number, characters


def _lines(text: str, on: On, plain: Callable[[str], list[str]]) -> list[str]:
    lines = text.split("\n") if SEPARATORS in on else plain(text)
    if TRIMMED in on:
        lines = [line.strip() for line in lines]
    return [line for line in lines if line.strip()] if BLANK in on else lines


def _share(text: str, number: float, parts: list[str], on: On) -> float:
    whole = sum(map(len, parts)) if OF_LINES in on else len(text)
    return number / whole if whole else 0.0


def word_count(text: str, words: list[str], on: On) -> bool:
    """Whether it drops the text; so all that follow."""
    number = _number(text, _no_symbols(words, on), on)
    return not 50 <= number <= 100_000


def mean_word_length(text: str, words: list[str], on: On) -> bool:
    """Fewer than 3 or more than 10 characters a word on average; no text of syllables, with ``SCRIPTS``."""
    if SCRIPTS in on:
        if _syllabic(text):
            return False
        words = WORD.findall(text)
    counted = _no_symbols(words, on)
    return bool(counted) and not 3 <= sum(map(len, counted)) / len(counted) <= 10


def symbols(pattern: str) -> Callable[[str, list[str], On], bool]:
    """A rule that drops texts with more than 0.1 of a symbol a word.

    Parameters
    ----------
    pattern : regular expression of the symbol.
    """

    def rule(text: str, words: list[str], on: On) -> bool:
        number = _number(text, words, on)
        return number > 0 and len(re.findall(pattern, text)) / number > 0.1

    return rule


def bullet_line_ratio(text: str, _words: list[str], on: On) -> bool:
    """More than 0.9 of the lines begin with a bullet sign."""
    lines = _lines(text, on, str.splitlines)
    signs = tuple("•‣◦▪●・*-") if BULLETS in on else ("•", "-")
    return sum(line.lstrip().startswith(signs) for line in lines) > 0.9 * len(lines)


def ellipsis_line_ratio(text: str, _words: list[str], on: On) -> bool:
    """More than 0.3 of the lines end with an ellipsis."""
    lines = _lines(text, on, str.splitlines)
    return bool(lines) and sum(line.rstrip().endswith(("...", "…")) for line in lines) / len(lines) > 0.3


def alpha_word_ratio(text: str, words: list[str], on: On) -> bool:
    """Fewer than 0.8 of the words have a letter."""
    number, unspaced = _number(text, words, on), 0.0
    if SCRIPTS in on:
        words, unspaced = WORD.findall(text), _unspaced(text)
    letter = regex.compile(r"\p{Alphabetic}" if LETTERS in on else r"\p{L}")
    return number > 0 and (sum(bool(letter.search(word)) for word in words) + unspaced) / number < 0.8


def stop_word_count(text: str, words: list[str], on: On) -> bool:
    """Fewer than 2 different ``STOP_WORDS``; no text mostly of another script than Latin, with ``SCRIPTS``."""
    if SCRIPTS in on and 2 * len(regex.findall(r"\p{Latin}", text)) <= len(regex.findall(r"\p{Alphabetic}", text)):
        return False
    found = set(re.findall(r"\w+", text.lower())) if CASE in on else set(words)
    return len(found.intersection(STOP_WORDS)) < 2


def _paragraphs(text: str, on: On) -> list[str]:
    if PARAGRAPHS not in on:
        return re.split(r"\n{2,}", text.strip())
    return [
        "".join(line.strip() for line in part.split("\n")) if OF_LINES in on else part
        for part in re.split(r"\n(?:[^\S\n]*\n)+", text.strip())
    ]


def _gopher_lines(text: str, on: On) -> list[str]:
    return _lines(text, on, lambda one: re.split("\n+", one))


def duplicates(parts: Callable[[str, On], list[str]], *, characters: bool, most: float) -> Callable[..., bool]:
    """A rule that drops texts with too many parts that were there before.

    Parameters
    ----------
    parts : cuts a text into lines or paragraphs.
    characters : whether their share of the characters counts, not of the parts.
    most : the highest share that stays, in [0, 1].
    """

    def rule(text: str, _words: list[str], on: On) -> bool:
        found = parts(text, on)
        if not found:
            return False
        number, size = _repeats(found)
        return (_share(text, size, found, on) if characters else number / len(found)) > most

    return rule


def _tokens(text: str, words: list[str], on: On) -> tuple[list[str], int, str]:
    if SCRIPTS not in on:
        return words, 1, " "
    tokens = regex.findall(rf"{CJK}|{SOUTHEAST}|{WORD.pattern.removeprefix('(?V1)')}", text, flags=regex.V1)
    cjk, southeast = len(regex.findall(CJK, text)), len(regex.findall(SOUTHEAST, text))
    if 2 * (cjk + southeast) < len("".join(text.split())):
        return tokens, 1, " "
    return tokens, 2 if cjk >= southeast else 4, ""


def top(size: int, most: float) -> Callable[[str, list[str], On], bool]:
    """A rule that drops texts whose most frequent n-gram covers too much of them.

    Parameters
    ----------
    size : words of an n-gram.
    most : the highest share of the text's characters that stays, in [0, 1].
    """

    def rule(text: str, words: list[str], on: On) -> bool:
        tokens, unit, gap = _tokens(text, words, on)
        counts: dict[str, int] = {}
        for at in range(len(tokens) - size * unit + 1):
            gram = gap.join(tokens[at : at + size * unit])
            counts[gram] = counts.get(gram, 0) + 1
        best = max(counts, key=counts.__getitem__, default="")
        return bool(counts) and len(best) * counts[best] / len(text) > most

    return rule


def duplicate(size: int, most: float) -> Callable[[str, list[str], On], bool]:
    """A rule that drops texts too much of which is in n-grams that were there before.

    Parameters
    ----------
    size, most : as of ``top``.
    """

    def rule(text: str, words: list[str], on: On) -> bool:
        tokens, unit, _ = _tokens(text, words, on)
        seen: set[str] = set()
        characters = at = 0
        while at < len(tokens) - size * unit + 1:
            part = tokens[at : at + size * unit]
            gram = ("\0" if JOINED in on else "").join(part)
            if gram in seen:
                characters += sum(map(len, part))
                at += size * unit
            else:
                seen.add(gram)
                at += 1
        return characters / len(text) > most

    return rule


def curly_bracket_count(text: str, _words: list[str], on: On) -> bool | None:
    """Any opening curly bracket, if ``EARLIER``; None, undecided, without."""
    return "{" in text if EARLIER in on else None


def lorem_ipsum_count(text: str, _words: list[str], on: On) -> bool | None:
    """The words lorem ipsum in any case, if ``EARLIER``; None, undecided, without."""
    return "lorem ipsum" in text.lower() if EARLIER in on else None


def _fineweb_lines(text: str, on: On) -> list[str]:
    lines = [line for line in text.split("\n") if line.strip()]
    return [line.strip() for line in lines] if TRIMMED in on else lines


def terminal_line_ratio(text: str, _words: list[str], on: On) -> bool:
    """Fewer than 0.12 of the lines end with a sign that ends sentences."""
    lines = _fineweb_lines(text, on)
    if not lines:
        return BLANK not in on
    if SCRIPTS in on and 2 * len(regex.findall(SOUTHEAST, text)) >= len("".join(text.split())):
        return False
    ends = tuple(TERMINAL_PUNCTUATION)
    return (
        sum(bool(OUR_TERMINAL.search(one)) if SIGNS in on else one.endswith(ends) for one in lines) / len(lines) < 0.12
    )


def short_line_ratio(text: str, _words: list[str], on: On) -> bool:
    """More than 0.67 of the lines have at most 30 characters, those of a wide script counted twice with ``SCRIPTS``."""
    lines = _fineweb_lines(text, on)
    wide = rf"{CJK}|\p{{Hangul}}|[{EAST_PUNCTUATION}]"
    sizes = [len(one) + (len(regex.findall(wide, one)) if SCRIPTS in on else 0) for one in lines]
    return bool(lines) and sum(size <= 30 for size in sizes) / len(lines) > 0.67


def fineweb_duplicates(most: float) -> Callable[[str, list[str], On], bool]:
    """A rule that drops texts too many of whose characters are in lines that were there before.

    Parameters
    ----------
    most : the highest share that stays, in [0, 1].
    """

    def rule(text: str, _words: list[str], on: On) -> bool:
        lines = _fineweb_lines(text, on)
        if not lines:
            return False
        whole = sum(map(len, lines)) if OF_LINES in on else len(text.replace("\n", ""))
        return _repeats(lines)[1] / whole > most

    return rule


def newline_word_ratio(text: str, words: list[str], on: On) -> bool:
    """More than 0.3 line feeds a word."""
    number = _number(text, words, on)
    return number > 0 and text.count("\n") / number > 0.3


Rule = Callable[[str, list[str], On], bool | None]
_LINE = (SEPARATORS, BLANK, TRIMMED)
RULES: Mapping[str, tuple[Rule, tuple[str, ...]]] = {
    "word_count": (word_count, (SYMBOLS, SCRIPTS)),
    "mean_word_length": (mean_word_length, (SYMBOLS, SCRIPTS)),
    "symbol_hash_ratio": (symbols("[#＃]"), (SCRIPTS,)),
    "symbol_ellipsis_ratio": (symbols(r"\.\.\.|…"), (SCRIPTS,)),
    "bullet_line_ratio": (bullet_line_ratio, (*_LINE, BULLETS)),
    "ellipsis_line_ratio": (ellipsis_line_ratio, _LINE),
    "alpha_word_ratio": (alpha_word_ratio, (LETTERS, SCRIPTS)),
    "stop_word_count": (stop_word_count, (CASE, SCRIPTS)),
    "duplicate_line_ratio": (duplicates(_gopher_lines, characters=False, most=0.3), (BLANK, TRIMMED)),
    "duplicate_line_char_ratio": (duplicates(_gopher_lines, characters=True, most=0.2), (BLANK, TRIMMED, OF_LINES)),
    "duplicate_paragraph_ratio": (duplicates(_paragraphs, characters=False, most=0.3), (PARAGRAPHS, OF_LINES)),
    "duplicate_paragraph_char_ratio": (duplicates(_paragraphs, characters=True, most=0.2), (PARAGRAPHS, OF_LINES)),
    **{f"top_{n}gram_char_ratio": (top(n, most), (SCRIPTS,)) for n, most in ((2, 0.2), (3, 0.18), (4, 0.16))},
    **{f"duplicate_{n}gram_char_ratio": (duplicate(n, (20 - n) / 100), (JOINED, SCRIPTS)) for n in range(5, 11)},
    "curly_bracket_count": (curly_bracket_count, (EARLIER,)),
    "lorem_ipsum_count": (lorem_ipsum_count, (EARLIER,)),
    "terminal_line_ratio": (terminal_line_ratio, (TRIMMED, SIGNS, SCRIPTS, BLANK)),
    "short_line_ratio": (short_line_ratio, (TRIMMED, SCRIPTS)),
    "fineweb_duplicate_char_ratio": (fineweb_duplicates(0.1), (TRIMMED, OF_LINES)),
    "fineweb_duplicate_char_ratio_shipped": (fineweb_duplicates(0.01), (TRIMMED, OF_LINES)),
    "newline_word_ratio": (newline_word_ratio, (SCRIPTS,)),
}


def with_switches(name: str, one: Any, text: str, tokenize: Tokenize) -> dict[str, bool | None]:
    """Whether a rule drops a text: as datatrove has it (``""``), with each switch alone, and with all of them.

    Parameters
    ----------
    one : datatrove's filter that decides by the rule, asked again about an altered text where the rule has no switches.
    """
    if name not in RULES:
        line_feeds = re.sub(r"\r\n|[\r\v\f\x1c-\x1e\x85\u2028\u2029]", " ", text)
        kept = one.filter(Document(text=line_feeds, id=""))
        return {SEPARATORS: not (kept[0] if isinstance(kept, tuple) else kept)}
    rule, causes = RULES[name]
    words = tokenize(text)
    turned = {"": (), **{cause: (cause,) for cause in causes}, "; ".join(causes): causes}
    return {cause: rule(text, words, on) for cause, on in turned.items()}
