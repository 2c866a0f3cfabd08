"""Balance: make no group, label, source or language weigh more than it should, after everything else was decided.

Which records leave is decided by a hash of their id alone: the same records leave whatever the order, the shards or the
number of workers, and a larger cap keeps all that a smaller one kept.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import polars as pl
import xxhash

from catalog.errors import ConfigError, DataError, nearest

REASON = "balance"
NONE = "(none)"
SEVERAL = "(several)"
ACTIONS = ("cap", "reweight", "resample")
COLUMNS = ("label", "language", "source")
IDENTITY = "identity/"
EQUAL = "equal"


@dataclass(frozen=True, kw_only=True)
class Balance:
    """How the records that stay are balanced.

    Records without a value (``(none)``), or that mention several groups of the category (``(several)``), are left
    alone unless they are named.

    Parameters
    ----------
    by : ``label``, ``language``, ``source``, or ``identity/CATEGORY`` such as ``identity/gender``.
    action : ``cap``: at most ``cap`` records of each value, the others leave; ``resample``: the most records that can
        stay in the ``target`` mix, the others leave; ``reweight``: all stay, with weights that make the mix, by which
        training draws them.
    cap : a number of records (whole, from 1), or the largest share of all valued records that one value may be, in
        (0, 1).
    target : share of each value among the named ones, any positive numbers; or ``equal``, of all values that occur.
        Values that are not named stay as they are, each with weight 1.
    max_weight : no record weighs more (or less than its inverse), lest a handful be repeated over and over.
    """

    by: str
    action: str
    cap: float | None = None
    target: Mapping[str, float] | str | None = None
    max_weight: float = 10.0

    def __post_init__(self) -> None:
        """Refuse values outside their range and options without effect."""
        if not isinstance(self.by, str) or not (
            self.by in COLUMNS or self.by.removeprefix(IDENTITY) not in ("", self.by)
        ):
            raise ConfigError(f"by={self.by!r}; {nearest(str(self.by), (*COLUMNS, f'{IDENTITY}gender'))}")
        if self.action not in ACTIONS:
            raise ConfigError(f"action={self.action!r}; {nearest(str(self.action), ACTIONS)}")
        needed, other = ("cap", "target") if self.action == "cap" else ("target", "cap")
        if getattr(self, needed) is None:
            raise ConfigError(f"action {self.action!r} needs {needed!r}")
        if getattr(self, other) is not None:
            raise ConfigError(f"action {self.action!r} takes no {other!r}; remove it")
        if self.cap is not None and not _is_cap(self.cap):
            raise ConfigError(f"cap={self.cap!r} must be a whole number from 1, or a share in (0, 1)")
        if self.target is not None and self.target != EQUAL:
            _check_target(self.target)
        if not _is_number(self.max_weight) or self.max_weight < 1:
            raise ConfigError(f"max_weight={self.max_weight!r} must be a number from 1")
        if self.action != "reweight" and self.max_weight != type(self).max_weight:
            raise ConfigError(f"action {self.action!r} gives no weights; remove 'max_weight'")

    @classmethod
    def configured(cls, given: Mapping[str, Any]) -> "Balance":
        """From a recipe's keys.

        Raises
        ------
        ConfigError : an unknown or missing key (with the nearest), or a value out of range.
        """
        known = [one.name for one in fields(cls)]
        for key in given:
            if key not in known:
                raise ConfigError(f"unknown option {key!r}; {nearest(str(key), known)}")
        for key in ("by", "action"):
            if key not in given:
                raise ConfigError(f"the option {key!r} is missing")
        return cls(**given)

    def canonical(self) -> dict[str, Any]:
        """Plain JSON values, equal for steps that decide alike."""
        target = self.target
        if isinstance(target, Mapping):
            target = {name: float(share) for name, share in sorted(target.items())}
        cap = None if self.cap is None else (float(self.cap) if self.cap < 1 else int(self.cap))
        return {**asdict(self), "cap": cap, "target": target, "max_weight": float(self.max_weight)}


def values_of(records: pl.DataFrame, by: str) -> pl.Series:
    """By what each record is balanced: its value of a column, or the one group of a category that it mentions.

    Parameters
    ----------
    records : the column that ``by`` names, or ``identity`` (lists of groups).
    """
    if by in COLUMNS:
        return records[by].cast(pl.String).fill_null(NONE).alias("value")
    own = pl.col("identity").list.eval(
        pl.element().filter(pl.element().str.starts_with(f"{by.removeprefix(IDENTITY)}/"))
    )
    number = own.list.len()
    value = pl.when(number == 0).then(pl.lit(NONE)).when(number > 1).then(pl.lit(SEVERAL)).otherwise(own.list.first())
    return records.select(value=value)["value"]


def balance(ids: pl.Series, values: pl.Series, step: Balance) -> tuple[pl.DataFrame, list[dict[str, Any]]]:
    """Decide who stays and with what weight.

    Parameters
    ----------
    ids : (n,) record ids, each once.
    values : (n,) as ``values_of`` gives them.

    Returns
    -------
    ``kept`` bool and ``weight`` Float64 (1 but for ``reweight``; above 0), in the order of the ids; and of each value,
    largest first: ``value, before, after, weight, share_before, share_after`` (weighted), ``wanted`` (share among all,
    or null where it was left alone).

    Raises
    ------
    DataError : the target names a value that no record has.
    """
    counts = {str(name): int(number) for name, number in values.value_counts().sort(values.name).iter_rows()}
    free = [name for name in counts if name not in (NONE, SEVERAL)]
    quota, weights = dict(counts), dict.fromkeys(counts, 1.0)
    target = _target(step, counts, free)
    among = sum(counts[name] for name in target)
    if step.action == "cap":
        assert step.cap is not None
        most = _cap(step.cap, [counts[name] for name in free])
        quota |= {name: min(counts[name], most) for name in free}
    elif step.action == "resample":
        size = min((counts[name] / share for name, share in target.items()), default=0)
        # A hair more, as 0.3 * 10 / 0.3 may fall short of 10.
        quota |= {name: math.floor(size * share + 1e-9) for name, share in target.items()}
    else:
        wanted = {name: among * share / counts[name] for name, share in target.items()}
        weights |= {name: min(max(one, 1 / step.max_weight), step.max_weight) for name, one in wanted.items()}
    place = _places(ids, values)
    kept = pl.Series("kept", place < values.replace_strict(quota, return_dtype=pl.Int64).to_numpy())
    out = pl.DataFrame({"kept": kept, "weight": values.replace_strict(weights, return_dtype=pl.Float64)})
    of_all, mass = len(ids), sum(quota[name] * weights[name] for name in counts)
    named = sum(quota[name] * weights[name] for name in target)
    table = [
        {
            "value": name,
            "before": counts[name],
            "after": quota[name],
            "weight": weights[name],
            "share_before": counts[name] / of_all,
            "share_after": quota[name] * weights[name] / mass if mass else 0.0,
            "wanted": target[name] * named / mass if name in target and mass else None,
        }
        for name in sorted(counts, key=lambda one: (-counts[one], one))
    ]
    return out, table


def _target(step: Balance, counts: dict[str, int], free: list[str]) -> dict[str, float]:
    """Share of each named value, summing to 1."""
    if step.target is None:
        return {}
    named = dict.fromkeys(free, 1.0) if isinstance(step.target, str) else dict(step.target)
    for name in named:
        if name not in counts:
            raise DataError(
                f"balance: no record that stays has {step.by}={name!r}; {nearest(name, list(counts))}, or leave it out "
                "of the target"
            )
    whole = sum(named.values())
    return {name: share / whole for name, share in sorted(named.items())}


def _cap(cap: float, counts: list[int]) -> int:
    """The most records that a value may keep: the cap itself, or what makes the largest ones a share of what stays.

    With the m largest values cut to t each and s records in the others, t = cap (s + m t).
    """
    if cap >= 1:
        return int(cap)
    counts = sorted(counts, reverse=True)
    for cut in range(len(counts)):
        if cap * cut >= 1:
            break
        most = cap * sum(counts[cut:]) / (1 - cap * cut)
        if counts[cut] <= most:
            # The others fit as they are.
            return max(1, math.floor(most + 1e-9)) if cut else counts[0]
    # So few values that one is always more than its share: equal ones come nearest.
    return counts[-1] if counts else 0


def _places(ids: pl.Series, values: pl.Series) -> np.ndarray[Any, np.dtype[np.int64]]:
    """(n,) the place of each record among those of its value, by the hash of its id."""
    digest = xxhash.xxh3_64_intdigest
    hashed = np.fromiter((digest(f"balance/{one}".encode()) for one in ids), dtype=np.uint64, count=len(ids))
    frame = pl.DataFrame({"value": values, "hash": hashed, "id": ids})
    order = frame.with_row_index("row").sort("value", "hash", "id")
    place = order.select("row", place=pl.int_range(pl.len()).over("value"))
    return place.sort("row")["place"].to_numpy().astype(np.int64)


def _is_number(value: Any) -> bool:
    return not isinstance(value, bool) and isinstance(value, int | float) and math.isfinite(value)


def _is_cap(value: Any) -> bool:
    return _is_number(value) and (0 < value < 1 or (value >= 1 and float(value).is_integer()))


def _check_target(target: Any) -> None:
    if not isinstance(target, Mapping) or not target:
        raise ConfigError(f"target={target!r} must map values to shares, or be {EQUAL!r}")
    for name, share in target.items():
        if not isinstance(name, str) or not _is_number(share) or share <= 0:
            raise ConfigError(f"target: {name!r}: {share!r} must be a value (quoted) and a number above 0")
