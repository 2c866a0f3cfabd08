"""One class a record."""

import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from training.objectives import IGNORED, OBJECTIVES


@OBJECTIVES.register("classification")
def classification(logits_BK: Tensor, labels_B: Tensor) -> Tensor:
    """Mean cross entropy over the records that have a label, in nats.

    Parameters
    ----------
    logits_BK : (records, classes) float.
    labels_B : (records,) int64 in [0, classes), or -100 where unknown.

    Returns
    -------
    Scalar float32, 0 when no record has a label.
    """
    count = (labels_B != IGNORED).sum().clamp(min=1)
    return F.cross_entropy(logits_BK.float(), labels_B, ignore_index=IGNORED, reduction="sum") / count
