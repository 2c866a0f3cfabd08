"""Several objectives at once."""

from dataclasses import dataclass, field
from functools import reduce
from typing import Any, Literal, cast, get_args

import numpy as np
import torch
from torch import Tensor, nn

from catalog.errors import ConfigError
from training.backbones import Heads
from training.data import TrainingData
from training.objectives import OBJECTIVES, Batch, Corpus, Losses, Objective, Records

Combine = Literal["sum", "draw"]
_PART = 2**32
"""Which part of the generator's numbers a draw of objectives is of; records have others."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Mixture:
    """Which, and how much each counts.

    Parameters
    ----------
    weights : by the name of an objective, above 0; at least two.
    options : by the name of an objective, its options.
    combine : ``sum`` learns all of them from every batch, their losses weighted; ``draw`` one a step, as often as its
        weight says.
    """

    weights: dict[str, float] = field(default_factory=lambda: {"mlm": 1.0, "classification": 1.0})
    options: dict[str, dict[str, Any]] = field(default_factory=dict)
    combine: Combine = "sum"

    def __post_init__(self) -> None:
        if len(self.weights) < 2 or "mixture" in self.weights:
            raise ValueError(f"weights={self.weights} must name at least two objectives, none of them a mixture")
        for name, weight in self.weights.items():
            if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight < float("inf"):
                raise ValueError(f"weights[{name}]={weight!r} must be a number above 0")
        unused = sorted(set(self.options) - set(self.weights))
        if unused:
            raise ValueError(f"options of {', '.join(unused)} have no effect: weights do not name it")
        if self.combine not in get_args(Combine):
            raise ValueError(f"combine={self.combine!r} must be one of {', '.join(get_args(Combine))}")
        for name in self.weights:
            OBJECTIVES[name].configured(self.options.get(name))


class Mixed(nn.Module):
    """The model, and what each objective trains with it."""

    def __init__(self, model: nn.Module, parts: list[nn.Module]) -> None:
        super().__init__()
        self.model = model
        self.parts = nn.ModuleList(parts)


@OBJECTIVES.register("mixture", Mixture)
class MixtureObjective(Objective):
    """Several objectives on one network: the weighted sum of their losses, or one of them a step (Caruana 1997).

    What is drawn follows from the seed and the step, so that all ranks and a resumed run draw the same.
    """

    def __init__(self, config: Mixture) -> None:
        self.config = config
        self.parts = {
            name: OBJECTIVES[name].member(OBJECTIVES[name].configured(config.options.get(name)))
            for name in sorted(config.weights)
        }
        kinds = sorted({one.reads for one in self.parts.values() if one.reads != "texts"})
        if len(kinds) > 1:
            raise ConfigError(f"weights={config.weights} learn from {' and '.join(kinds)}; records have one of them")
        self.reads = kinds[0] if kinds else "texts"

    def heads(self, num_classes: int) -> Heads:
        """What any of them needs.

        Raises
        ------
        ConfigError : no order suits all.
        """
        needed = {name: one.heads(num_classes) for name, one in self.parts.items()}
        orders = reduce(frozenset.intersection, (one.orders for one in needed.values()))
        if not orders:
            known = ", ".join(f"{name} {'/'.join(sorted(one.orders))}" for name, one in needed.items())
            raise ConfigError(f"no order of attention suits all of these objectives: {known}; mix others")
        return Heads(
            # One of them reads labels at most, and so needs a class head.
            num_classes=max(one.num_classes for one in needed.values()),
            tokens=any(one.tokens for one in needed.values()),
            states=any(one.states for one in needed.values()),
            exits=any(one.exits for one in needed.values()),
            orders=orders,
            segment_tokens=max(one.segment_tokens for one in needed.values()),
            memory_tokens=max(one.memory_tokens for one in needed.values()),
        )

    def special_tokens(self) -> tuple[str, ...]:
        """Those of all."""
        return tuple(dict.fromkeys(token for one in self.parts.values() for token in one.special_tokens()))

    def check(self, data: TrainingData) -> None:
        """What each refuses."""
        for one in self.parts.values():
            one.check(data)

    def network(self, model: nn.Module) -> nn.Module:
        """The model, with the modules of each."""
        return Mixed(model, [one.network(model) for one in self.parts.values()])

    def begin(self, network: nn.Module, corpus: Corpus) -> None:
        """What each needs."""
        for one, own in zip(self.parts.values(), cast("Mixed", network).parts, strict=True):
            one.begin(own, corpus)

    def batch(self, records: Records) -> Batch:
        """The batches of all, or of the one drawn, their tensors under the objective's name."""
        made = {name: self.parts[name].batch(records) for name in self._learned(records)}
        return Batch(
            rows=list(records.rows),
            tensors={f"{name}/{key}": one for name, batch in made.items() for key, one in batch.tensors.items()},
            counts=tuple(count for batch in made.values() for count in batch.counts),
            num_tokens=sum(batch.num_tokens for batch in made.values()),
        )

    def _learned(self, records: Records) -> list[str]:
        names = list(self.parts)
        if self.config.combine == "sum":
            return names
        weights = np.array([self.config.weights[name] for name in names], dtype=np.float64)
        rng = records.corpus.generator(records.step, 0, _PART)
        return [names[int(rng.choice(len(names), p=weights / weights.sum()))]]

    def losses(self, network: nn.Module, tensors: dict[str, Tensor], *, each: bool) -> Losses:
        """The terms of all, or of the one drawn, which then counts as it is."""
        own = dict(zip(self.parts, cast("Mixed", network).parts, strict=True))
        sums: list[Tensor] = []
        costs: list[Tensor] = []
        for name in dict.fromkeys(key.split("/", 1)[0] for key in tensors):
            given = {key.split("/", 1)[1]: one for key, one in tensors.items() if key.startswith(f"{name}/")}
            found = self.parts[name].losses(own[name], given, each=each)
            weight = self.config.weights[name] if self.config.combine == "sum" else 1.0
            sums += [weight * one for one in found.sums]
            if found.each is not None:
                costs.append(weight * found.each)
        if not each:
            return Losses(tuple(sums))
        stacked = torch.stack(costs)
        # A record without a target for one of them costs what the others say.
        return Losses(tuple(sums), stacked.nansum(0).masked_fill(stacked.isnan().all(0), torch.nan))
