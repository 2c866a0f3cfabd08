"""The next token."""

from torch import Tensor, nn

from catalog.registry import NoConfig
from training.backbones import Heads
from training.objectives import IGNORED, OBJECTIVES, Batch, Losses, Objective, Records
from training.token_targets import TargetRow, batch_of, record_means, states, token_loss, transformer


@OBJECTIVES.register("clm")
class CausalLanguageModel(Objective):
    """Cross entropy of every token given those before it, in nats a token (Radford et al. 2018, section 3.1)."""

    def __init__(self, config: NoConfig) -> None:
        pass

    def heads(self, num_classes: int) -> Heads:  # noqa: ARG002
        """A head over tokens, in an order that hides what is to be found out."""
        return Heads(tokens=True, orders=frozenset({"causal"}))

    def batch(self, records: Records) -> Batch:
        """Each record's tokens, and at each the next one; the last has none."""
        return batch_of(records, [TargetRow(ids, [*ids[1:], IGNORED]) for ids in records.ids])

    def losses(self, network: nn.Module, tensors: dict[str, Tensor], *, each: bool) -> Losses:
        """One term, over tokens."""
        model, labels_RT = transformer(network), tensors["labels"]
        total, each_N = token_loss(model, states(model, tensors), labels_RT)
        return Losses((total,), record_means(each_N, labels_RT != IGNORED, tensors) if each else None)
