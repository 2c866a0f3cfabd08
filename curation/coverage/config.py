"""How a version is mapped."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from catalog.errors import ConfigError, nearest

NET_RECORDS = 16_384
"""Records that everything is measured against; up to so many, that is all of them."""
PICTURE_RECORDS = 1_500
"""Records that are drawn: what a page can show and t-SNE lays out in seconds."""
MAX_CLUSTERS = 64


@dataclass(frozen=True, kw_only=True)
class MapConfig:
    """How outliers, clusters and thin regions are found.

    Parameters
    ----------
    neighbours : k of the mean distance to the k nearest, 1 to 100.
    same : cosine distance below which a neighbour is a copy, which does not count, in [0, 1).
    deviations : robust standard deviations above the median from which a distance is an outlier's, above 0. 3.5 is the
        advice of Iglewicz and Hoaglin (1993), How to Detect and Handle Outliers, section 3.
    clusters : topics, 1 to 64; None chooses by the number of records.
    seed : of samples, clusters and layout.
    """

    neighbours: int = 10
    same: float = 0.05
    deviations: float = 3.5
    clusters: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse values outside their range."""
        for name, low, high in (("neighbours", 1, 100), ("clusters", 1, MAX_CLUSTERS), ("seed", 0, 2**31 - 1)):
            value = getattr(self, name)
            if name == "clusters" and value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
                raise ConfigError(f"{name}={value!r} must be a whole number from {low} to {high}")
        for name, fits, legal in (
            ("same", 0 <= self.same < 1, "lie in [0, 1)"),
            ("deviations", 0 < self.deviations < 1_000, "lie above 0, below 1,000"),
        ):
            if not fits:
                raise ConfigError(f"{name}={getattr(self, name)!r} must {legal}")

    @classmethod
    def configured(cls, given: Mapping[str, Any]) -> "MapConfig":
        """From plain values.

        Raises
        ------
        ConfigError : an unknown key (with the nearest), or a value out of range.
        """
        known = [one.name for one in fields(cls)]
        for key in given:
            if key not in known:
                raise ConfigError(f"unknown option {key!r}; {nearest(str(key), known)}")
        return cls(**given)

    def canonical(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self) | {"same": float(self.same), "deviations": float(self.deviations)}
