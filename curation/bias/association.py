"""Which words keep company with which group: pointwise mutual information with counts and significance."""

import numpy as np
import polars as pl

from curation.bias.intervals import false_discovery
from curation.scripts import UNSPACED

SMOOTHING = 0.5
"""Added to each cell of a table, as if half a record had been seen of every kind (Haldane 1956, Anscombe 1956)."""
MIN_RECORDS = 5
"""Words in fewer records are left out: their PMI is large by chance."""
_WORD = rf"[\p{{Alphabetic}}\p{{M}}--[{UNSPACED}]]{{2,}}"
_PAIR = rf"[{UNSPACED}]{{2}}"


def words_of(texts: pl.Series) -> pl.DataFrame:
    """The distinct words of each text: ``row`` uint32, ``word``.

    Words are runs of two letters or more in lower case; in scripts without spaces, every two neighbouring characters.
    """
    text = pl.col("text").str.normalize("NFKC").str.to_lowercase()
    later = text.str.replace_all(rf"([{UNSPACED}])([{UNSPACED}]*)", "${2}")
    words = pl.concat_list(text.str.extract_all(_WORD), text.str.extract_all(_PAIR), later.str.extract_all(_PAIR))
    frame = texts.alias("text").to_frame().select(word=words.list.unique())
    return frame.with_row_index("row").explode("word", empty_as_null=False)


def associations(identity: pl.Series, words: pl.DataFrame, *, min_records: int = MIN_RECORDS) -> pl.DataFrame:
    """PMI between groups and words (or labels), each record counted once.

    Parameters
    ----------
    identity : (n,) lists of groups that the records mention.
    words : ``row`` and ``word``, no pair twice; a label is a word that every record has one of.
    min_records : that have the word, and of which at least one mentions the group.

    Returns
    -------
    A row each group and word that occur together, strongest first within a group: ``both`` (records with the two),
    ``of_group``, ``of_word``; ``pmi`` in bits, smoothed by ``SMOOTHING``; ``q``, of a log-likelihood ratio test,
    adjusted for all rows.

    References
    ----------
    Church and Hanks (1990), Word Association Norms. Dunning (1993), Accurate Methods for the Statistics of Surprise.
    """
    number = len(identity)
    groups = identity.alias("group").to_frame().with_row_index("row").explode("group", empty_as_null=False)
    of_group = groups.group_by("group").agg(of_group=pl.len().cast(pl.Int64))
    of_word = words.group_by("word").agg(of_word=pl.len().cast(pl.Int64)).filter(pl.col("of_word") >= min_records)
    table = (
        groups.lazy()
        .join(words.lazy().join(of_word.lazy().select("word"), on="word", how="semi"), on="row")
        .group_by("group", "word")
        .agg(both=pl.len().cast(pl.Int64))
        .collect()
        .join(of_group, on="group")
        .join(of_word, on="word")
        .sort("group", "word")
    )
    both, group, word = (table[name].to_numpy().astype(np.float64) for name in ("both", "of_group", "of_word"))
    cells = np.stack([both, group - both, word - both, number - group - word + both])
    smooth = cells + SMOOTHING
    pmi = np.log2(smooth[0] * smooth.sum(0) / ((smooth[0] + smooth[1]) * (smooth[0] + smooth[2])))
    expected = np.stack(
        [group * word, group * (number - word), (number - group) * word, (number - group) * (number - word)]
    ) / max(number, 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(cells > 0, cells * np.log(cells / expected), 0.0)
    from scipy.special import chdtrc

    p = chdtrc(1, np.maximum(2 * terms.sum(0), 0))
    return table.with_columns(pmi=pl.Series(pmi), q=pl.Series(false_discovery(p))).sort(
        "group", "pmi", "word", descending=[False, True, False]
    )
