"""Language identification, of records and of their lines, with a model that ships inside a package."""

import threading
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import polars as pl

from curation.dedup.rows import over_slices, utf8

MAX_CHARS = 4_096
"""Characters looked at: more do not change the answer but cost time."""
MAX_LINE_CHARS = 256
"""Characters of a line that are looked at."""
MIN_LINE_LETTERS = 20
"""Letters from which a line has a language of its own; one of Chinese, Japanese or Korean counts as two."""
MIN_LINE_CONFIDENCE = 0.9
"""Probability from which a line is taken to be in another language than its record."""
UNIT = 2.0**-9
"""Weights are 16-bit floats between -16 and -2: whole numbers of this."""

_LOADING = threading.Lock()


@dataclass(frozen=True)
class _Model:
    """py3langid's tables as arrays.

    Parameters
    ----------
    moves, bases, features : of the automaton over bytes: next state by ``bases[state] + byte``, feature of a state.
    weights, priors : (features, classes) int16, in ``UNIT``, and (classes,) float32.
    aliases : (k, 2) classes that share a name.
    names : language of each class.
    """

    moves: np.ndarray
    bases: np.ndarray
    features: np.ndarray
    weights: np.ndarray
    priors: np.ndarray
    aliases: np.ndarray
    names: pl.Series


@lru_cache(maxsize=1)
def _load() -> _Model:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    loaded = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    return _Model(
        moves=np.frombuffer(loaded.tk_nextmove, dtype=np.uint32),
        bases=np.asarray(loaded.tk_row, dtype=np.int64) << 8,
        features=np.asarray(loaded.tk_output, dtype=np.int32),
        weights=(np.asarray(loaded.nb_ptc, dtype=np.float32) / UNIT).astype(np.int16),
        priors=np.asarray(loaded.nb_pc, dtype=np.float32),
        aliases=np.asarray(loaded._alias_pairs, dtype=np.int64).reshape(-1, 2),
        names=pl.Series(list(loaded.nb_classes), dtype=pl.String),
    )


def _model() -> _Model:
    with _LOADING:
        return _load()


def identify(texts: pl.Series, *, threads: int = 1) -> pl.DataFrame:
    """Name the most probable language of each text, and how much of it is in another.

    Parameters
    ----------
    texts : n texts, none null; for the language, the first 4,096 characters of each are looked at.
    threads : at most so many cores are used; the result does not depend on it.

    Returns
    -------
    n rows: ``language`` str (ISO 639-1 code) and ``confidence`` f64 in [0, 1], rounded to six digits so that it does
    not depend on the machine; both null for a text without letters. Short and mixed texts get a low confidence.
    ``other_language_ratio`` f64: share of the characters of its lines that stand in lines of another language, and
    ``other_language``, the one of which there is most; null for a text without language, and without such lines.

    References
    ----------
    Lui and Baldwin (2012), langid.py: An Off-the-shelf Language Identification Tool; model and scores are py3langid's,
    summed in 64 bits where it has 32, so that probabilities agree to about four digits.
    """
    found = classify(texts, threads=threads).with_row_index("row")
    # The language of a text of one line is that of its line.
    several = texts.str.strip_chars().str.contains("\n", literal=True)
    rows = found.select("row").filter(several)["row"]
    lines = identify_lines(texts.filter(several), threads=threads)
    lines = lines.with_columns(rows.gather(lines["row"])).join(
        found.select("row", of_record="language"), on="row", maintain_order="left"
    )
    confident = (pl.col("language") != pl.col("of_record")) & (pl.col("confidence") >= MIN_LINE_CONFIDENCE)
    lines = lines.with_columns(other=pl.col("num_chars") * confident.fill_null(value=False))
    by_language = lines.filter(pl.col("other") > 0).group_by("row", "language").agg(pl.col("other").sum())
    most = by_language.sort("row", -pl.col("other").cast(pl.Int64), "language").unique("row", keep="first")
    shares = lines.group_by("row").agg(share=pl.col("other").sum() / pl.col("num_chars").sum())
    return (
        found.join(shares, on="row", how="left", maintain_order="left")
        .join(most.select("row", other_language="language"), on="row", how="left", maintain_order="left")
        .select(
            "language",
            "confidence",
            other_language_ratio=pl.when(pl.col("language").is_not_null()).then(pl.col("share").fill_null(0.0)),
            other_language=pl.when(pl.col("language").is_not_null()).then("other_language"),
        )
    )


def identify_lines(texts: pl.Series, *, threads: int = 1) -> pl.DataFrame:
    """Name the language of each line that holds more than white space.

    Parameters
    ----------
    texts : n texts, none null.

    Returns
    -------
    A row a line, in order: ``row`` u32 of its text, ``line`` u32 from 0 (blank ones counted), ``num_chars`` u32,
    trimmed, ``language`` and ``confidence`` by its first 256 characters; these are null where the line has fewer than
    20 letters, too few to tell (a letter of Chinese, Japanese or Korean counts as two).
    """
    lines = (
        pl.DataFrame({"row": pl.int_range(len(texts), dtype=pl.UInt32, eager=True), "text": texts.str.split("\n")})
        .explode("text")
        .with_columns(pl.col("text").str.strip_chars(), line=pl.int_range(pl.len(), dtype=pl.UInt32).over("row"))
        .filter(pl.col("text") != "")
    )
    letters = pl.col("text").str.count_matches(r"\p{L}") + pl.col("text").str.count_matches(r"[\p{Han}\p{Hangul}]")
    long_enough = lines.select(letters >= MIN_LINE_LETTERS).to_series()
    named = classify(lines["text"].filter(long_enough).str.head(MAX_LINE_CHARS), threads=threads)
    places = pl.DataFrame({"at": long_enough.arg_true()}).hstack(named)
    return (
        lines.with_row_index("at")
        .join(places, on="at", how="left", maintain_order="left")
        .select("row", "line", pl.col("text").str.len_chars().alias("num_chars"), "language", "confidence")
    )


def classify(texts: pl.Series, *, threads: int = 1) -> pl.DataFrame:
    """``language`` and ``confidence`` of each text, by its beginning, as ``identify`` has them."""
    from curation.language_kernels import score_rows  # compiles: numba takes half a second

    model = _model()
    rows = utf8(_as_trained(texts))
    best, shares = np.zeros(len(texts), np.int32), np.zeros(len(texts), np.float64)

    def work(first: int, last: int) -> None:
        score_rows(
            rows.data, rows.offsets, first, last, model.moves, model.bases, model.features, model.weights,
            UNIT, model.priors, model.aliases, best, shares,
        )  # fmt: skip

    if len(texts):
        over_slices(rows, work, threads)
    return pl.DataFrame({"language": model.names.gather(best), "confidence": pl.Series(shares).round(6)}).with_columns(
        pl.when(texts.str.head(MAX_CHARS).str.contains(r"\p{L}")).then(pl.all())
    )


def _as_trained(texts: pl.Series) -> pl.Series:
    """The beginnings of texts as the model saw text: composed, and in lower case where a text is all upper case."""
    starts = texts.str.head(MAX_CHARS)
    shouting = starts.str.contains(r"\p{Uppercase}") & ~starts.str.contains(r"[\p{Lowercase}\p{Lt}]")
    if shouting.any():
        starts = pl.select(pl.when(shouting).then(starts.str.to_lowercase()).otherwise(starts)).to_series()
    # Below U+0300 there is nothing to compose.
    composing = starts.str.contains(r"[\x{0300}-\x{10FFFF}]")
    if composing.any():
        composed = starts.filter(composing).str.normalize("NFC")
        starts = starts.scatter(composing.arg_true(), composed)
    return starts
