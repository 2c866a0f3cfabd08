"""How near-duplicates are found: threshold, banding, shingles; and the banding chosen from what a user wants."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from catalog.errors import ConfigError, nearest
from curation.dedup.curve import candidate_probability, choose_banding
from curation.dedup.shingles import ShingleConfig

MAX_PERM = 1024
PRESETS: Mapping[str, tuple[int, int]] = {"fineweb": (14, 8), "high-recall": (32, 8), "strict": (20, 13)}
"""Bands and rows by name. FineWeb's own; one that hardly misses; one that hardly measures in vain (NeMo Curator's)."""


@dataclass(frozen=True, kw_only=True)
class NearConfig(ShingleConfig):
    """How near-duplicates are found.

    Parameters
    ----------
    threshold : exact Jaccard similarity of the shingle sets from which a record leaves, in (0, 1].
    bands, rows : shape of the banding; a pair of similarity s becomes a candidate with probability
        ``1 - (1 - s**rows)**bands``. 14 by 8 finds 92 % of pairs at 0.8 and 99.9 % at 0.9 (FineWeb's choice).
    word_ngram, char_ngram, fold_digits : as of ``ShingleConfig``.
    min_words : texts with fewer words are compared by characters. One changed word breaks five word 5-grams, so a
        text of fewer than 50 words could never stay above 0.8.
    max_bucket : records in a bucket up to which all pairs are measured; above it, each against the best only.
    seed : of the permutations.
    """

    threshold: float = 0.8
    bands: int = 14
    rows: int = 8
    max_bucket: int = 200
    seed: int = 1

    def __post_init__(self) -> None:
        """Refuse values outside their range."""
        if (
            isinstance(self.threshold, bool)
            or not isinstance(self.threshold, int | float)
            or not 0 < self.threshold <= 1
        ):
            raise ConfigError(f"threshold={self.threshold!r} must lie in (0, 1]; 0.8 is usual")
        limits = {"bands": 256, "rows": 256, "word_ngram": 100, "char_ngram": 100, "min_words": 10**6}
        for name, highest in {**limits, "max_bucket": 10**6}.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= highest:
                raise ConfigError(f"{name}={value!r} must be a whole number from 1 to {highest}")
        if self.bands * self.rows > MAX_PERM:
            raise ConfigError(
                f"bands={self.bands} times rows={self.rows} need {self.bands * self.rows} permutations, at most "
                f"{MAX_PERM} are drawn; with {self.rows} rows, bands={MAX_PERM // self.rows} works"
            )
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or not 0 <= self.seed < 2**32:
            raise ConfigError(f"seed={self.seed!r} must be a whole number from 0 to {2**32 - 1}")
        if not isinstance(self.fold_digits, bool):
            raise ConfigError(f"fold_digits={self.fold_digits!r} must be true or false")

    @property
    def num_perm(self) -> int:
        """Number of permutations."""
        return self.bands * self.rows

    def recall(self, similarity: float) -> float:
        """Share of the pairs of one similarity that become candidates, by theory."""
        return candidate_probability(similarity, self.bands, self.rows)

    @classmethod
    def configured(cls, given: Mapping[str, Any]) -> "NearConfig":
        """From a recipe's keys: those of the class, or ``preset``, or ``recall`` wanted at the threshold.

        Raises
        ------
        ConfigError : an unknown key or preset (with the nearest), a value out of range, a recall that the given bands
            cannot reach (with the nearest that can).
        """
        values = dict(given)
        preset, recall = values.pop("preset", None), values.pop("recall", None)
        known = [*(one.name for one in fields(cls)), "preset", "recall"]
        for key in values:
            if key not in known:
                raise ConfigError(f"unknown option {key!r}; {nearest(str(key), known)}")
        if preset is not None:
            if preset not in PRESETS:
                raise ConfigError(f"preset={preset!r}; {nearest(str(preset), PRESETS)}")
            if "bands" in values or "rows" in values:
                raise ConfigError(f"preset={preset!r} sets bands and rows; leave those out, or the preset")
            values["bands"], values["rows"] = PRESETS[preset]
        if recall is None:
            return cls(**values)
        if isinstance(recall, bool) or not isinstance(recall, int | float) or not 0 < recall < 1:
            raise ConfigError(f"recall={recall!r} must lie between 0 and 1; 0.95 is usual")
        if "bands" in values and "rows" in values:
            return _reaching(cls(**values), recall)
        config = cls(**{key: value for key, value in values.items() if key not in ("bands", "rows")})
        fixed = values.get("bands"), values.get("rows")
        chosen = choose_banding(config.threshold, recall, bands=fixed[0], rows=fixed[1])
        if chosen is None:
            given_side = " and ".join(
                f"{key}={values[key]}" for key in ("bands", "rows") if values.get(key) is not None
            )
            raise ConfigError(
                f"recall={recall} at threshold={config.threshold} is out of reach with {given_side} and at most 256 "
                "permutations; leave the banding to be chosen, or want less"
            )
        return cls(**{**values, "bands": chosen[0], "rows": chosen[1]})


def _reaching(config: NearConfig, recall: float) -> NearConfig:
    reached = config.recall(config.threshold)
    if reached < recall:
        bands, rows = choose_banding(config.threshold, recall, max_perm=MAX_PERM) or (MAX_PERM, 1)
        raise ConfigError(
            f"recall={recall} cannot be reached: bands={config.bands}, rows={config.rows} find {reached:.3f} of pairs "
            f"at threshold={config.threshold}; bands={bands}, rows={rows} find enough, "
            f"or set recall={math.floor(reached * 1000) / 1000}"
        )
    return config
