"""Keys of a recipe that would change nothing, refused where a recipe is asked for.

Not where a stored one is read back: runs of before each was refused stay as they were.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from catalog.errors import ConfigError
from training.pacing import PACING, Online
from training.remembering import TRAINED

if TYPE_CHECKING:
    from training.arm import ArmConfig
    from training.recipe import TrainRecipe

_ANY = "combined"
"""The difficulty that a recipe has without saying so."""


def check_effects(recipe: TrainRecipe) -> None:
    """Refuse what has no effect.

    Raises
    ------
    ConfigError : with the key, why it has none, and the remedy.
    """
    controlled = {one.control_of for one in recipe.plan()}
    for arm in recipe.arms:
        if arm.micro_batch_size > arm.batch_size:
            raise ConfigError(
                f"arm {arm.name!r}: micro_batch_size={arm.micro_batch_size} must be at most batch_size="
                f"{arm.batch_size}, of which it is a part; lower it, or set 0 for the whole batch"
            )
        if arm.init_from and "vocab_size" in arm.backbone_options:
            raise ConfigError(
                f"arm {arm.name!r}: vocab_size={arm.backbone_options['vocab_size']!r} of backbone_options has no "
                f"effect with init_from={arm.init_from!r}, whose vocabulary is taken over; leave it out"
            )
        _check_online(arm, has_control=arm.name in controlled)
    check_compared(recipe)
    if recipe.difficulty != _ANY and not _asks_for_difficulty(recipe):
        raise ConfigError(
            f"difficulty={recipe.difficulty!r} has no effect in recipe {recipe.name!r}: no arm's pacing orders by it, "
            "no masking grows with it, and none records it with losses; leave it out, or give an arm a pacing that "
            "orders by difficulty, such as linear"
        )


def check_compared(recipe: TrainRecipe) -> None:
    """Refuse a comparison in which nothing would be compared.

    Raises
    ------
    ConfigError : every arm is in random order already, or a control would have to read a memory.
    """
    if recipe.compare == "controls" and all(one.control_of is None for one in recipe.plan()):
        raise ConfigError(
            f"compare='controls' has no effect in recipe {recipe.name!r}: every arm has pacing='random', which is what "
            "others are compared with; give one another pacing, such as linear, or do not ask for the comparison"
        )
    for one in recipe.plan():
        if one.control_of is not None and one.config.retrieval in TRAINED:
            raise ConfigError(
                f"compare={recipe.compare!r} of recipe {recipe.name!r}: arm {one.control_of!r} is trained to read a "
                "memory, and no control gets one to be measured with; set compare: none, or pacing: random"
            )


def _check_online(arm: ArmConfig, *, has_control: bool) -> None:
    pacing = PACING[arm.pacing].configured(arm.pacing_options)
    if not isinstance(pacing, Online):
        return
    if pacing.every >= arm.steps:
        raise ConfigError(
            f"arm {arm.name!r}: every={pacing.every} of pacing={arm.pacing!r} must be below steps={arm.steps}: "
            "training would end before the losses are looked at once; lower every in pacing_options, or train longer"
        )
    # Its control takes the setting over, and would keep none without.
    if arm.record_losses != "none" and not has_control:
        raise ConfigError(
            f"arm {arm.name!r}: record_losses={arm.record_losses!r} has no effect with pacing={arm.pacing!r}, which "
            "follows the losses and keeps them anyway; leave it out"
        )


def _asks_for_difficulty(recipe: TrainRecipe) -> bool:
    return any(
        PACING[arm.pacing].member(0.0, PACING[arm.pacing].configured(arm.pacing_options)).first != "any"
        or arm.record_losses != "none"
        or _masks_by_difficulty(arm.objective_options)
        for arm in recipe.arms
    )


def _masks_by_difficulty(options: Any) -> bool:
    """Whether an objective's options, or those of one in a mixture, hide more of what is harder."""
    if not isinstance(options, dict):
        return False
    if options.get("masking") == "by_difficulty":
        grows_with = options.get("masking_options", {}).get("grows_with", "difficulty")
        return bool(grows_with == "difficulty")
    return any(_masks_by_difficulty(one) for one in options.values())
