"""What every encoder does with its vectors last."""

import numpy as np


def unit_rows(vectors: np.ndarray) -> np.ndarray:
    """Scale rows to length 1, as float32. A zero row (a text the encoder knows nothing of) becomes the first axis.

    Parameters
    ----------
    vectors : (n, d) of any float type.
    """
    rows = np.array(vectors, dtype=np.float64, copy=True)
    lengths = np.linalg.norm(rows, axis=1)
    nothing = lengths < 1e-12
    rows[nothing, 0], lengths[nothing] = 1.0, 1.0
    scaled: np.ndarray = (rows / lengths[:, None]).astype(np.float32)
    return scaled
