"""Controls: the growth of another pacing with its order of records taken away or turned round."""

from dataclasses import dataclass, field, replace
from typing import Any

from catalog.errors import ConfigError
from training.pacing import PACING, Pool
from training.pacing.linear import Linear

_LINEAR = "linear"


@dataclass(frozen=True, kw_only=True, slots=True)
class Control:
    """Whose growth is taken.

    Parameters
    ----------
    start, full_at : as of ``linear``, where nothing else is named.
    of : the pacing whose growth is taken.
    options : its options; of ``linear`` they may be given as ``start`` and ``full_at`` instead.
    """

    start: float = Linear().start
    full_at: float = Linear().full_at
    of: str = _LINEAR
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        Linear(start=self.start, full_at=self.full_at)
        plain = (self.start, self.full_at) == (Linear().start, Linear().full_at)
        if not plain and (self.of != _LINEAR or self.options):
            raise ValueError("start and full_at have no effect beside of and options; give them among the options")
        if self.of in _NAMES:
            raise ValueError(f"of={self.of!r} is a control itself; name the pacing that it is to be compared with")
        try:
            PACING[self.of].configured(self.options)
        except ConfigError as error:
            raise ValueError(f"of {error}") from error

    def pool(self, progress: float) -> Pool:
        """The pool of the pacing that this is a control of."""
        options = self.options or ({"start": self.start, "full_at": self.full_at} if self.of == _LINEAR else {})
        pacing = PACING[self.of]
        return pacing.member(progress, pacing.configured(options))


_NAMES = ("anti", "same_pacing_random")


@PACING.register("anti", Control)
def anti(progress: float, config: Control) -> Pool:
    """Control: the same growth, hardest first. A curriculum that does not beat it orders by noise."""
    return replace(config.pool(progress), first="hardest")


@PACING.register("same_pacing_random", Control)
def same_pacing_random(progress: float, config: Control) -> Pool:
    """Control: the same growth of the pool, in an order that ignores difficulty (Wu et al. 2021, section 3)."""
    return replace(config.pool(progress), first="any")
