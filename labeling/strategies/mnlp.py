"""MNLP: span tasks, records whose labels of tokens are least likely, whatever their length."""

import numpy as np
import numpy.typing as npt

from labeling.candidates import Candidates, Selection
from labeling.strategies import STRATEGIES, SpansOnly
from labeling.uncertainty import best_first


@STRATEGIES.register("mnlp", SpansOnly)
def mnlp(candidates: Candidates, batch_size: int, rng: np.random.Generator) -> Selection:
    """Smallest mean log-probability of the likeliest sequence of labels first (maximum normalised log-probability).

    Returns
    -------
    Selection : utility in nats a token, at least 0.

    Raises
    ------
    ColdStartError : there is no model yet.
    DataError : the model gives no ``sequence_log_proba``: it judges records as a whole.

    References
    ----------
    Shen et al. (2018), Deep Active Learning for Named Entity Recognition, section 4.
    """
    mean = candidates.sequence_log_proba
    if mean is None:
        candidates.require("sequence_log_proba", "use mnlp for span tasks only, or margin")
    assert mean is not None
    indices = best_first(-mean, batch_size, rng)
    return Selection(indices=indices, utility=-mean[indices], why=unsure_of_spans(mean, indices))


def unsure_of_spans(mean: npt.NDArray[np.float64], rows: npt.NDArray[np.int64]) -> list[str]:
    """How sure the model is, one line a row: ``unsure of its spans: 0.50 a token``.

    Parameters
    ----------
    mean : (n,) nats a token.
    """
    return [f"unsure of its spans: {np.exp(mean[row]):.2f} a token" for row in rows]
