"""The network of an arm and its tokenizer, as the objective and the backbone make them."""

from torch import nn

from catalog.errors import ConfigError
from training.arm import ArmConfig
from training.backbones import BACKBONES
from training.data import TrainingData
from training.initial import Initial, check_same, take_over, upcycles
from training.objectives import Objective
from training.packing import SeesDocuments
from training.tokenizer import TextTokenizer
from training.upcycling import upcycled_weights


def build_network(
    arm: ArmConfig, data: TrainingData, document: str | None, objective: Objective, initial: Initial | None
) -> tuple[TextTokenizer, nn.Module]:
    """The tokenizer, and the network adapted for training, its weights drawn from torch's current generator.

    Parameters
    ----------
    document : the tokenizer's, where an earlier attempt has trained it already.
    initial : what the arm's ``init_from`` names.

    Raises
    ------
    ConfigError, DataError : arm, objective, backbone and data do not go together.
    """
    if bool(arm.init_from) != (initial is not None):
        raise ConfigError(f"init_from={arm.init_from!r} of arm {arm.name!r} and the weights given do not go together")
    registered = BACKBONES[arm.backbone]
    backbone, config = registered.member, registered.configured(arm.backbone_options)
    objective.check(data)
    if initial and initial.arm:
        check_same(arm, initial.arm)
    heads = objective.heads(len(data.classes))
    backbone.check(arm, heads, config)
    if document:
        tokenizer = TextTokenizer(document)
    else:
        known = initial.tokenizer if initial else backbone.tokenizer(data.texts, config)
        tokenizer = known.with_special(objective.special_tokens())
    model = backbone.build(vocab_size=tokenizer.vocab_size, heads=heads, max_tokens=arm.max_tokens, config=config)
    if arm.packing == "rows":
        seeing_documents(arm, model)
    if initial:
        experts = upcycles(arm, initial.arm)
        take_over(model, upcycled_weights(initial.weights, model) if experts else initial.weights)
    return tokenizer, backbone.adapt(model, config)


def seeing_documents(arm: ArmConfig, model: nn.Module) -> SeesDocuments:
    """The model, if it can be given packed rows.

    Raises
    ------
    ConfigError : it takes one text a row.
    """
    if not isinstance(model, SeesDocuments):
        raise ConfigError(
            f"packing='rows' of arm {arm.name!r}: backbone {arm.backbone!r} takes one text a row; set packing to none"
        )
    return model
