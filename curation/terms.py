"""Many words at once: which groups of terms each text mentions, found in one pass by an Aho-Corasick automaton.

A term counts as a whole word. What a word is depends on the script of the term:

- spaced scripts: between anything that is no letter, mark or digit ("men" is not in "women" or "mention");
- Korean: the same, but a particle may be attached, with or without the plural 들 before it ("여성들에게도"); what is
  no particle makes another word ("여성복" is no mention of 여성);
- scripts without spaces (Chinese, Japanese, Thai, …): wherever it stands. Choose terms that are part of no other word.

Case, width and composition (NFKC) do not count.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import polars as pl
import pyarrow as pa

from curation.dedup.rows import utf8
from curation.scripts import UNSPACED

_EDGE = "\x1f"
_EDGED = np.array([ord(chr(one).lower()) if chr(one).isalnum() else ord(_EDGE) for one in range(128)], dtype=np.uint8)
"""What stands for each ASCII character in an edged text."""
_HANGUL_END = re.compile(r"[가-힣]$")
_SUBJECT = "아 은 는 이 가 을 를 의 도 만 만이 만을 만은 이나 나 이든 든 마저 조차 마다 뿐 밖에 이야 야 이여 여"
_PLACE = (
    "에 에는 에도 에서 에서는 에서도 에게 에게는 에게도 에게만 에게서 한테 한테는 한테도 한테서 께 께서 께서는 께도"
)
_WITH = "와 과 와의 과의 와는 과는 와도 과도 랑 이랑 하고 하고는 처럼 같은 같이 보다 보다는 보다도 부터 까지 까지도"
_AS = (
    "로 으로 로는 으로는 로도 으로도 로서 으로서 로써 으로써 "
    "라 이라 라고 이라고 라는 이라는 란 이란 라면 이라면 라도 이라도"
)
_COPULA = (
    "다 이다 며 이며 고 이고 지만 이지만 인 인데 인가 인지 일 임 였다 이었다 였던 이었던 예요 이에요 입니다 입니까 "
    "네 이네 죠 이죠 지 이지 니 이니 니까 이니까 거나 이거나 든지 이든지 님 님은 님이 분 분은 분이"
)
PARTICLES = tuple(dict.fromkeys(" ".join((_SUBJECT, _PLACE, _WITH, _AS, _COPULA)).split()))
"""What may stand behind a Korean noun in the same word: particles, forms of the copula, and address."""
_KOREAN_ENDS = tuple(f"{plural}{end}" for plural in ("", "들") for end in ("", *PARTICLES))


def edged(text: pl.Expr) -> pl.Expr:
    """Text in which every word has an edge mark on both sides; case, width and composition made alike."""
    plain = text.str.normalize("NFKC").str.to_lowercase().str.replace_all(r"[\W_]+", _EDGE)
    apart = plain.str.replace_all(rf"([{UNSPACED}]+)", f"{_EDGE}${{1}}{_EDGE}")
    # A Korean particle behind a Latin word: "LGBT는".
    apart = apart.str.replace_all(r"([a-z0-9])(\p{Hangul})", f"${{1}}{_EDGE}${{2}}")
    return pl.concat_str(pl.lit(_EDGE), apart, pl.lit(_EDGE)).str.replace_all(f"{_EDGE}{{2,}}", _EDGE)


def edged_ascii(texts: pl.Series) -> pl.Series:
    """What ``edged`` makes of texts that are all ASCII, byte by byte.

    Parameters
    ----------
    texts : n strings of ASCII alone, none null.
    """
    whole = utf8(texts)
    data, offsets = whole.data, whole.offsets
    mapped = _EDGED[data]
    is_edge = mapped == ord(_EDGE)
    again = np.zeros_like(is_edge)
    again[1:] = is_edge[1:] & is_edge[:-1]
    # The first of a row never repeats what the row before it ends with.
    again[offsets[:-1][offsets[:-1] < len(data)]] = False
    lengths = np.concatenate([[0], np.cumsum(~again)])[offsets]
    starts, kept = pa.py_buffer(lengths.astype(np.int64)), pa.py_buffer(mapped[~again])
    inner = pl.Series("text", pa.LargeStringArray.from_buffers(len(texts), starts, kept))
    return inner.to_frame().select(pl.concat_str(pl.lit(_EDGE), "text", pl.lit(_EDGE))).to_series()


def patterns_of(terms: Sequence[str]) -> list[tuple[str, str]]:
    """Each term with what to look for in an edged text to find it; nothing for a term without a letter or digit."""
    column = pl.col("term")
    whole = pl.DataFrame({"term": terms}, schema={"term": pl.String}).select("term", inner=edged(column))
    inner = pl.col("inner")
    found = whole.with_columns(inner.str.strip_chars(_EDGE)).filter(inner.str.len_chars() > 0)
    found = found.with_columns(
        left=pl.when(inner.str.contains(rf"^[{UNSPACED}]")).then(pl.lit("")).otherwise(pl.lit(_EDGE)),
        right=pl.when(inner.str.contains(rf"[{UNSPACED}]$")).then(pl.lit("")).otherwise(pl.lit(_EDGE)),
    )
    return [
        (term, f"{left}{word}{end}{right}")
        for term, word, left, right in found.iter_rows()
        for end in (_KOREAN_ENDS if _HANGUL_END.search(word) else ("",))
    ]


@lru_cache(maxsize=8)
def _patterns(groups: tuple[tuple[str, tuple[str, ...]], ...]) -> pl.DataFrame:
    """Every unit of a run asks for those of the same groups; making them takes a tenth of a second."""
    rows = sorted({(found, group) for group, terms in groups for _, found in patterns_of(terms)})
    return pl.DataFrame(rows, schema={"pattern": pl.String, "group": pl.String}, orient="row")


@dataclass(frozen=True)
class TermIndex:
    """Terms by the group that they belong to.

    Parameters
    ----------
    groups : group name to its terms; a term may belong to several groups.
    """

    groups: Mapping[str, Sequence[str]]

    @cached_property
    def patterns(self) -> pl.DataFrame:
        """``pattern`` and ``group``, one row each pair, no pair twice."""
        return _patterns(tuple((group, tuple(terms)) for group, terms in self.groups.items()))

    def counts(self, texts: pl.Series) -> pl.DataFrame:
        """How often each text mentions each group.

        Parameters
        ----------
        texts : n strings, none null.

        Returns
        -------
        ``row`` uint32, ``group``, ``count`` uint32, a row each pair that occurs, sorted. Where a term is part of a
        longer one of the same group ("gay" in "gay men"), both count.
        """
        schema = {"row": pl.UInt32, "group": pl.String, "count": pl.UInt32}
        names = self.patterns["pattern"].unique(maintain_order=True)
        frame = texts.alias("text").to_frame().with_row_index("row")
        plain = pl.col("text").str.len_bytes() == pl.col("text").str.len_chars()
        # Texts that are all ASCII need no Unicode, nor the terms of other scripts: five times as fast.
        ascii_rows, others = frame.filter(plain), frame.filter(~plain)
        ascii_names = names.filter(names.str.len_bytes() == names.str.len_chars())
        parts = (
            (ascii_rows.with_columns(text=edged_ascii(ascii_rows["text"])), ascii_names),
            (others.with_columns(text=edged(pl.col("text"))), names),
        )
        found = [
            rows.select("row", pattern=pl.col("text").str.extract_many(wanted.implode(), overlapping=True))
            for rows, wanted in parts
            if rows.height and len(wanted)
        ]
        if not found:
            return pl.DataFrame(schema=schema)
        return (
            pl.concat(found)
            .filter(pl.col("pattern").list.len() > 0)
            .explode("pattern", empty_as_null=False)
            .join(self.patterns, on="pattern")
            .group_by("row", "group")
            .agg(count=pl.len())
            .cast(pl.Schema(schema))
            .sort("row", "group")
        )

    def mentioned(self, texts: pl.Series) -> pl.Series:
        """The groups that each text mentions: n lists of names, sorted, each once; a text's depends on it alone."""
        lists = self.counts(texts).group_by("row").agg(pl.col("group").sort())
        rows = pl.DataFrame({"row": pl.Series(range(len(texts)), dtype=pl.UInt32)})
        joined = rows.join(lists, on="row", how="left", maintain_order="left")
        return joined["group"].fill_null(pl.Series([[]], dtype=pl.List(pl.String))).alias("identity")
