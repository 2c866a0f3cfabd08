"""What the classifier behind label errors looks at where no encoder fits: character n-grams, any script."""

from typing import Any

import numpy as np
import polars as pl

from catalog.errors import DataError

MAX_FEATURES = 50_000


def tfidf(texts: pl.Series) -> Any:
    """TF-IDF of character 2- to 4-grams within words, of at least two texts each.

    Labels play no part, so that weights learned over all folds tell no fold about another's labels.

    Returns
    -------
    (n, d) CSR float32, rows of length 1 (0 where a text has nothing in common with others).

    Raises
    ------
    DataError : no two texts have anything in common.

    References
    ----------
    Manning, Raghavan and Schütze (2008), Introduction to Information Retrieval, section 6.4.1 (sublinear counts).
    """
    from scipy.sparse import csr_array
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(
        analyzer="char_wb", ngram_range=(2, 4), sublinear_tf=True, min_df=2, max_features=MAX_FEATURES, dtype=np.float32
    )
    try:
        return csr_array(vectorizer.fit_transform(texts.to_list()))
    except ValueError as error:
        raise DataError(
            f"no two of {len(texts):,} texts have two characters in a row in common, so TF-IDF tells nothing of them; "
            "take features=embeddings"
        ) from error
