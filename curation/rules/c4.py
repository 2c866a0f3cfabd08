"""C4: what its line filters leave of a text, and what makes it leave out a page.

C4 takes lines out and judges what is left. These rules measure what would be left without taking anything out; the edit
``c4_lines`` takes it out, and judged after it the rules measure what is there. Three variants: the TFDS reference
(lines of at least 5 words, pages of at least 3 sentences), datatrove's (3 words, 5 sentences; suffix ``_datatrove``),
and datatrove's as FineWeb ran it, without the need for an end mark (suffix ``_fineweb``). What they find in a line, and
what differs for Chinese, Japanese, Korean and Thai: ``curation.rules.c4_kernels``.

References
----------
Raffel et al. (2020), section 2.2; TFDS ``c4_utils.clean_page``; datatrove 0.10 ``C4QualityFilter``; Penedo et al.
(2024).
"""

from collections.abc import Callable

import polars as pl

from curation.rules import RULES
from curation.rules.bounds import Bounds, bounded
from curation.rules.columns import column
from curation.rules.words import ratio

SENTENCES = {"tfds": 3.0, "datatrove": 5.0, "fineweb": 5.0}
"""Sentences that a page needs, by variant."""
_SUFFIX = {"tfds": "", "datatrove": "_datatrove", "fineweb": "_fineweb"}


def _sentences(variant: str) -> Callable[[pl.Expr], pl.Expr]:
    def sentences(_text: pl.Expr) -> pl.Expr:
        return column(f"{variant}_sentences")

    sentences.__doc__ = f"""Sentences in the lines that C4's line filters leave ({variant}).

    A sentence is a stretch up to an end mark of any script with white space, a closing quotation mark or nothing behind
    it; both references ask a trained or listed tokenizer of English instead. At least {SENTENCES[variant]:.0f}.
    """
    return sentences


def _line_ratio(variant: str) -> Callable[[pl.Expr], pl.Expr]:
    def line_ratio(_text: pl.Expr) -> pl.Expr:
        return ratio(column(f"{variant}_lines"), column("lines"))

    line_ratio.__doc__ = (
        f"""Share of the lines that C4's line filters leave ({variant}). Measured; no bound is published."""
    )
    return line_ratio


def _line_count(variant: str) -> Callable[[pl.Expr], pl.Expr]:
    def line_count(_text: pl.Expr) -> pl.Expr:
        return column(f"{variant}_lines")

    line_count.__doc__ = (
        f"""Number of lines that C4's line filters leave ({variant}): a page of none has no sentence."""
    )
    return line_count


for _variant, _minimum in SENTENCES.items():
    _end = _SUFFIX[_variant]
    RULES.register(f"c4_sentence_count{_end}", bounded(minimum=_minimum))(_sentences(_variant))
    RULES.register(f"c4_line_ratio{_end}", Bounds)(_line_ratio(_variant))
    RULES.register(f"c4_line_count{_end}", bounded(minimum=1.0))(_line_count(_variant))


@RULES.register("curly_bracket_count", bounded(maximum=0.0))
def curly_bracket_count(_text: pl.Expr) -> pl.Expr:
    """Number of ``{``. A recipe for code leaves this rule out.

    References
    ----------
    Raffel et al. (2020), section 2.2: any page that contains a curly bracket leaves. Both implementations look only at
    lines that their filters have left so far; this is every line, unless the edit ``c4_lines`` went before.
    """
    return column("brackets")


@RULES.register("lorem_ipsum_count", bounded(maximum=0.0))
def lorem_ipsum_count(_text: pl.Expr) -> pl.Expr:
    """Number of lines with "lorem ipsum".

    References
    ----------
    Raffel et al. (2020), section 2.2: any page where it appears leaves.
    """
    return column("lorem_lines")


@RULES.register("javascript_line_ratio", Bounds)
def javascript_line_ratio(_text: pl.Expr) -> pl.Expr:
    """Share of the lines with the word "javascript", which C4 takes out. Measured; no bound is published."""
    return ratio(column("javascript_lines"), column("lines"))


@RULES.register("policy_line_ratio", Bounds)
def policy_line_ratio(_text: pl.Expr) -> pl.Expr:
    """Share of the lines with one of C4's phrases on cookies and terms of use, which it takes out. Measured."""
    return ratio(column("policy_lines"), column("lines"))


@RULES.register("boilerplate_line_ratio", bounded(maximum=0.4))
def boilerplate_line_ratio(_text: pl.Expr) -> pl.Expr:
    """Share of the lines with a phrase from around texts ("all rights reserved", 무단전재, 版权所有, 続きを読む, …).

    References
    ----------
    NeMo Curator, ``BoilerPlateStringFilter``: at most 0.4 of the paragraphs, with C4's phrases only. The list is ours
    (``curation.rules.c4_marks.PHRASES``), for English, Korean, Chinese, Japanese and Thai.
    """
    return ratio(column("boilerplate_lines"), column("lines"))
