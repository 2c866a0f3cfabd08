"""Starting from a model that was trained before: its vocabulary and every weight but those of heads."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from catalog.errors import ConfigError
from training.arm import ArmConfig
from training.backbones import BACKBONES
from training.remembering import MEMORY, TRAINED
from training.tokenizer import TextTokenizer
from training.upcycling import check_upcycling

_HEADS = ("head.", "exits.", "vocab_")
"""What belongs to what a model was trained for; taken over where the shapes are the same."""


_FREE = frozenset(
    {
        "vocab_size",
        "dropout",
        "embedding_std",
        "exit_layers",
        "order",
        "attention",
        "attention_options",
        "position_options",
    }
)
"""Options under which the same weights go on meaning what they did. Heads and the vocabulary are dealt with apart, and
who sees whom is what a model may be adapted to."""


@dataclass(frozen=True)
class Initial:
    """A trained network's weights by name, its tokenizer, and as which arm it was trained, where that is known."""

    weights: dict[str, Tensor]
    tokenizer: TextTokenizer
    arm: ArmConfig | None = None


def is_folder(init_from: str) -> bool:
    """Whether an arm's ``init_from`` names a folder, and not a run: it begins with ``/``, ``./`` or ``../``."""
    return init_from.startswith(("/", "./", "../"))


def model_document(arm: ArmConfig, classes: Sequence[str], vocab_size: int) -> str:
    """What makes the network of saved weights again, as JSON."""
    document = {"arm": asdict(arm), "classes": list(classes), "vocab_size": vocab_size}
    return json.dumps(document, indent=1, ensure_ascii=False)


def check_same(arm: ArmConfig, trained: ArmConfig) -> None:
    """Refuse to start from a model whose weights would mean something else here, even where their shapes are the same.

    Experts may start from a dense layer of their width: ``upcycles``.

    Raises
    ------
    ConfigError : backbone or one of its options differs; with both values and the remedy.
    """
    if arm.backbone != trained.backbone:
        raise ConfigError(
            f"init_from={arm.init_from!r}: backbone={arm.backbone!r} of arm {arm.name!r} must be "
            f"{trained.backbone!r}, as that model was trained with; change it"
        )
    registered = BACKBONES[arm.backbone]
    mine, theirs = (asdict(registered.configured(one.backbone_options)) for one in (arm, trained))
    free = _FREE
    if upcycles(arm, trained):
        try:
            check_upcycling(theirs["feedforward_options"], mine["feedforward_options"])
        except ConfigError as error:
            raise ConfigError(f"init_from={arm.init_from!r} of arm {arm.name!r}: {error}") from error
        free |= {"feedforward", "feedforward_options"}
    for name in mine:
        if name not in free and mine[name] != theirs[name]:
            raise ConfigError(
                f"init_from={arm.init_from!r}: {name}={mine[name]!r} of arm {arm.name!r} must be {theirs[name]!r}, as "
                "that model was trained with; set it so in backbone_options"
            )


def upcycles(arm: ArmConfig, trained: ArmConfig | None) -> bool:
    """Whether an arm's experts (``moe_topk``) start as the feed-forward layers of a model without any."""
    if trained is None or arm.backbone != trained.backbone:
        return False
    registered = BACKBONES[arm.backbone]
    mine, theirs = (getattr(registered.configured(one.backbone_options), "feedforward", None) for one in (arm, trained))
    return (mine, theirs) == ("moe_topk", "dense")


def check_as_it_is(arm: ArmConfig, trained: ArmConfig) -> None:
    """Refuse to measure a model as something that it was not trained as.

    Raises
    ------
    ConfigError : objective or length differs, or an option of the backbone; with both values.
    """
    for name in ("objective", "objective_options", "max_tokens"):
        mine, theirs = getattr(arm, name), getattr(trained, name)
        if mine != theirs:
            raise ConfigError(
                f"init_from={arm.init_from!r}: {name}={mine!r} of arm {arm.name!r} must be {theirs!r}, as that model "
                "was trained with and steps=0 leaves it"
            )
    if TRAINED & {arm.retrieval, trained.retrieval}:
        _check_reads_alike(arm, trained)
    registered = BACKBONES[arm.backbone]
    mine, theirs = (asdict(registered.configured(one.backbone_options)) for one in (arm, trained))
    # Its vocabulary comes with the model, and an arm that starts from one cannot say its size.
    for name in mine:
        if name != "vocab_size" and mine[name] != theirs[name]:
            raise ConfigError(
                f"init_from={arm.init_from!r}: {name}={mine[name]!r} of arm {arm.name!r} must be {theirs[name]!r}, as "
                "that model was trained with and steps=0 leaves it; set it so in backbone_options"
            )


def _check_reads_alike(arm: ArmConfig, trained: ArmConfig) -> None:
    """Layers that read are the trained model's own."""
    mine, theirs = (
        {"retrieval": one.retrieval} | {name: of for name, of in one.retrieval_options.items() if name != MEMORY}
        for one in (arm, trained)
    )
    if mine != theirs:
        raise ConfigError(
            f"init_from={arm.init_from!r}: {mine} of arm {arm.name!r} must be {theirs}, as that model was trained "
            "with: what reads passages is a part of it; train one that does, or set it so"
        )


def take_over(model: nn.Module, weights: dict[str, Tensor]) -> None:
    """Put the weights of a trained network in the place of drawn ones.

    Parameters
    ----------
    model : changed in place. Heads of another shape, and such as the trained network lacks, stay as they were drawn.
    weights : by name.

    Raises
    ------
    ConfigError : the two differ in more than heads; with the first weight that does.
    """
    own = model.state_dict()
    with torch.no_grad():
        for name, mine in own.items():
            theirs = weights.get(name)
            if theirs is not None and theirs.shape == mine.shape:
                mine.copy_(theirs)
            elif theirs is not None and name == "tokens.weight" and theirs.shape[1] == mine.shape[1]:
                # The objective may add special tokens, behind those there were.
                mine[: len(theirs)].copy_(theirs)
            elif not name.startswith(_HEADS):
                there = "not there" if theirs is None else f"of shape {tuple(theirs.shape)}"
                raise ConfigError(
                    f"init_from: weight {name} is of shape {tuple(mine.shape)} in this arm and {there} in the trained "
                    "model; give backbone, backbone_options and max_tokens as it was trained with"
                )
    unused = sorted(name for name in weights if name not in own and not name.startswith(_HEADS))
    if unused:
        raise ConfigError(
            f"init_from: weight {unused[0]} (and {len(unused) - 1} more) of the trained model has no place in this "
            "arm; give backbone, backbone_options and max_tokens as it was trained with"
        )
