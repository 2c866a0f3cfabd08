"""The next token."""

from dataclasses import dataclass

from torch import Tensor, nn

from catalog.errors import DataError
from training.backbones import Heads
from training.data import TrainingData
from training.objectives import IGNORED, OBJECTIVES, Batch, Losses, Objective, Records
from training.segments import states_in_segments
from training.token_targets import TargetRow, batch_of, record_means, states, token_loss, transformer


@dataclass(frozen=True, kw_only=True, slots=True)
class CausalLanguage:
    """How far a token sees.

    Parameters
    ----------
    segment_tokens : texts are read in segments of so many tokens; 0 reads each as a whole.
    memory_tokens : tokens before a segment that it still sees, without a gradient into them (Dai et al. 2019,
        Transformer-XL, section 3.2); 0 reads every segment as a text of its own.
    """

    segment_tokens: int = 0
    memory_tokens: int = 0

    def __post_init__(self) -> None:
        for name in ("segment_tokens", "memory_tokens"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise ValueError(f"{name}={value!r} must be a whole number, 0 or more")
        if self.memory_tokens and not self.segment_tokens:
            raise ValueError(
                f"memory_tokens={self.memory_tokens} has no effect without segment_tokens; set both, or neither"
            )


@OBJECTIVES.register("clm", CausalLanguage)
class CausalLanguageModel(Objective):
    """Cross entropy of every token given those before it, in nats a token (Radford et al. 2018, section 3.1)."""

    def __init__(self, config: CausalLanguage) -> None:
        self.config = config

    def heads(self, num_classes: int) -> Heads:  # noqa: ARG002
        """A head over tokens, in an order that hides what is to be found out."""
        return Heads(
            tokens=True,
            orders=frozenset({"causal"}),
            segment_tokens=self.config.segment_tokens,
            memory_tokens=self.config.memory_tokens,
        )

    def check(self, data: TrainingData) -> None:
        """Segments need a text that is longer than one."""
        size = self.config.segment_tokens
        if not size:
            return
        # A byte and the start make a token each at most.
        longest = 1 + max(len(one.encode()) for one in data.texts)
        if longest <= size:
            raise DataError(
                f"segment_tokens={size} has no effect: the longest text has at most {longest} tokens; lower it, or "
                "leave it out"
            )

    def batch(self, records: Records) -> Batch:
        """Each record's tokens, and at each the next one; the last has none."""
        return batch_of(records, [TargetRow(ids, [*ids[1:], IGNORED]) for ids in records.ids])

    def losses(self, network: nn.Module, tensors: dict[str, Tensor], *, each: bool) -> Losses:
        """One term, over tokens."""
        model, labels_RT = transformer(network), tensors["labels"]
        if self.config.segment_tokens:
            hidden_RTC = states_in_segments(
                model,
                tensors["input_ids"],
                tensors["attention_mask"],
                segment_tokens=self.config.segment_tokens,
                memory_tokens=self.config.memory_tokens,
            )
        else:
            hidden_RTC = states(model, tensors)
        total, each_N = token_loss(model, hidden_RTC, labels_RT)
        return Losses((total,), record_means(each_N, labels_RT != IGNORED, tensors) if each else None)
