"""datatrove's own Gopher, C4 and FineWeb filters over a file of texts: seconds, and what each rule alone decides.

``shipped`` with its English tokenizer (spaCy), ``plain`` with words between white space through its own tokenizer
class. Timed twice: every filter on every text, and as a pipeline, in which a text that one filter drops goes no
further. What one rule decides is found, untimed, by its filter with all other thresholds off.
"""

import argparse
import json
import sys
import warnings
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import regex
from datatrove.data import Document  # type: ignore[import-not-found]
from datatrove.pipeline.filters import (  # type: ignore[import-not-found]
    C4ParagraphFilter,
    C4QualityFilter,
    FineWebQualityFilter,
    GopherQualityFilter,
    GopherRepetitionFilter,
)
from datatrove.utils.text import split_into_parts, split_into_words  # type: ignore[import-not-found]
from datatrove.utils.word_tokenizers import WordTokenizer  # type: ignore[import-not-found]

from benchmarks.peers.measuring import clock, read
from benchmarks.peers.rules_causes import with_switches

_END = r"\p{Sentence_Terminal}\u17D6\u17D9\u17DA"
_WIDE, _CLOSER = "。！？｡．", r"\p{Pe}\p{Pf}\"'"
SENTENCE = regex.compile(
    rf"(?V1)(?:[^{_END}]|[{_END}--[{_WIDE}]]++[{_CLOSER}]*+(?=[^\s{_WIDE}]))*+(?:[{_END}]++[{_CLOSER}]*+|$)"
)

_REASONS = {"symbol_hash_ratio": "gopher_too_many_hashes", "symbol_ellipsis_ratio": "gopher_too_many_ellipsis"}


class PlainTokenizer(WordTokenizer):  # type: ignore[misc]
    """Words between white space, sentences up to an end mark with white space behind it."""

    def word_tokenize(self, text: str) -> list[str]:
        """The words of a text."""
        return text.split()

    def sent_tokenize(self, text: str) -> list[str]:
        """The sentences of a text."""
        return [text[first:last] for first, last in self.span_tokenize(text)]

    def span_tokenize(self, text: str) -> list[tuple[int, int]]:
        """Where the sentences of a text stand."""
        return [found.span() for found in SENTENCE.finditer(text) if found[0].strip()]


def whole_set(language: Any) -> list[Any]:
    """The set in FineWeb's order and with its options."""
    return [
        GopherRepetitionFilter(language=language),
        GopherQualityFilter(language=language),
        C4QualityFilter(language=language, filter_no_terminal_punct=False),
        FineWebQualityFilter(language=language),
    ]


def single_rules(language: Any) -> Iterator[tuple[str, Any]]:
    """Our name of a rule, and the filter that decides by it alone."""
    open_quality: dict[str, Any] = dict.fromkeys(
        ("min_doc_words", "max_doc_words", "min_avg_word_length", "max_avg_word_length", "max_symbol_word_ratio",
         "max_bullet_lines_ratio", "max_ellipsis_lines_ratio", "max_non_alpha_words_ratio", "min_stop_words")
    )  # fmt: skip
    quality: dict[str, dict[str, Any]] = {
        "word_count": {"min_doc_words": 50, "max_doc_words": 100_000},
        "mean_word_length": {"min_avg_word_length": 3, "max_avg_word_length": 10},
        "symbol_hash_ratio": {"max_symbol_word_ratio": 0.1},
        "symbol_ellipsis_ratio": {"max_symbol_word_ratio": 0.1},
        "bullet_line_ratio": {"max_bullet_lines_ratio": 0.9},
        "ellipsis_line_ratio": {"max_ellipsis_lines_ratio": 0.3},
        "alpha_word_ratio": {"max_non_alpha_words_ratio": 0.8},
        "stop_word_count": {"min_stop_words": 2},
    }
    for name, on in quality.items():
        yield name, GopherQualityFilter(**(open_quality | on), language=language)
    open_repetition: dict[str, Any] = dict.fromkeys(
        ("dup_line_frac", "dup_para_frac", "dup_line_char_frac", "dup_para_char_frac")
    ) | {"top_n_grams": (), "dup_n_grams": ()}
    repetition: dict[str, dict[str, Any]] = {
        "duplicate_line_ratio": {"dup_line_frac": 0.3},
        "duplicate_paragraph_ratio": {"dup_para_frac": 0.3},
        "duplicate_line_char_ratio": {"dup_line_char_frac": 0.2},
        "duplicate_paragraph_char_ratio": {"dup_para_char_frac": 0.2},
        **{f"top_{n}gram_char_ratio": {"top_n_grams": ((n, x),)} for n, x in ((2, 0.2), (3, 0.18), (4, 0.16))},
        **{f"duplicate_{n}gram_char_ratio": {"dup_n_grams": ((n, (20 - n) / 100),)} for n in range(5, 11)},
    }
    for name, on in repetition.items():
        yield name, GopherRepetitionFilter(**(open_repetition | on), language=language)
    pages: dict[str, Any] = {"filter_lorem_ipsum": False, "filter_curly_bracket": False, "language": language}
    yield "c4_sentence_count_datatrove", C4QualityFilter(**pages)
    yield "c4_sentence_count_fineweb", C4QualityFilter(**pages, filter_no_terminal_punct=False)
    yield "curly_bracket_count", C4QualityFilter(min_num_sentences=-1, filter_lorem_ipsum=False, language=language)
    yield "lorem_ipsum_count", C4QualityFilter(min_num_sentences=-1, filter_curly_bracket=False, language=language)
    yield "c4_paragraph_count", C4ParagraphFilter()
    lines: dict[str, Any] = {
        "line_punct_thr": -1, "short_line_thr": 2, "char_duplicates_ratio": 2, "new_line_ratio": 1e9,
        "language": language,
    }  # fmt: skip
    for name, on in {
        "terminal_line_ratio": {"line_punct_thr": 0.12},
        "short_line_ratio": {"short_line_thr": 0.67},
        "fineweb_duplicate_char_ratio": {"char_duplicates_ratio": 0.1},
        "fineweb_duplicate_char_ratio_shipped": {"char_duplicates_ratio": 0.01},
        "newline_word_ratio": {"new_line_ratio": 0.3},
    }.items():
        yield name, FineWebQualityFilter(**(lines | on))


def decide(one: Any, text: str) -> tuple[bool, str]:
    """Whether a filter keeps a text, and why not; a text on which it fails is told by the failure."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = one.filter(Document(text=text, id=""))
    except (ZeroDivisionError, ValueError) as error:
        return False, f"raises {type(error).__name__}"
    return found if isinstance(found, tuple) else (found, "")


def timed(texts: list[str], steps: list[Any], *, stop: bool) -> tuple[float, float]:
    """Wall and CPU seconds of all filters."""
    split_into_parts.cache_clear()
    began = clock()
    for text in texts:
        for step in steps:
            kept, _ = decide(step, text)
            if stop and not kept:
                break
    done = clock()
    return done[0] - began[0], done[1] - began[1]


def main() -> None:
    """One variant on one file; one line of JSON, decisions in a file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("input", type=Path)
    parser.add_argument("ours", type=Path, help="whether ours keeps each text, by rule")
    parser.add_argument("decisions", type=Path)
    parser.add_argument("--only-time", action="store_true", help="decide nothing")
    parser.add_argument("--variant", choices=("plain", "shipped"), default="plain")
    options = parser.parse_args()
    language = PlainTokenizer() if options.variant == "plain" else "en"
    _, texts = read(options.input)
    timed(texts[:20], whole_set(language), stop=False)
    every = timed(texts, whole_set(language), stop=False)
    pipeline = timed(texts, whole_set(language), stop=True)
    judged = json.loads(options.ours.read_text(encoding="utf-8"))
    dropped: dict[str, list[bool]] = {}
    causes: dict[str, dict[int, Any]] = {}
    for name, one in () if options.only_time else single_rules(language):
        found = [decide(one, text) for text in texts]
        # Both kinds of symbols have one threshold: a text that has both too often is told by the first.
        dropped[name] = [not kept and why == _REASONS.get(name, why) for kept, why in found]
        causes[name] = {
            row: with_switches(name, one, texts[row], lambda text: split_into_words(text, language))
            for row, (stays, drops) in enumerate(zip(judged[name], dropped[name], strict=True))
            if stays is drops
        }
    if not options.only_time:
        told = {"dropped": dropped, "causes": causes}
        options.decisions.write_text(json.dumps(told), encoding="utf-8")
    figures = {
        "seconds": every[0], "cpu_seconds": every[1], "pipeline_seconds": pipeline[0],
        "pipeline_cpu_seconds": pipeline[1], "bytes": sum(len(text.encode()) for text in texts),
        "version": version("datatrove"),
    }  # fmt: skip
    sys.stdout.write(json.dumps(figures) + "\n")


if __name__ == "__main__":
    main()
