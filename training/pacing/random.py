"""No curriculum: every record from the first step."""

from catalog.registry import NoConfig
from training.pacing import PACING, Pool


@PACING.register("random")
def random(progress: float, config: NoConfig) -> Pool:  # noqa: ARG001
    """Draw from all records at every step: the order every curriculum has to beat."""
    return Pool(fraction=1.0, first="any")
