"""A damaged text, and behind it the whole one."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor, nn

from training.backbones import Heads
from training.objectives import IGNORED, OBJECTIVES, Batch, Losses, Objective, Records
from training.rows import TokenRow
from training.token_targets import END, MASK, TargetRow, batch_of, record_means, states, token_loss, transformer
from training.tokenizer import TextTokenizer
from training.words import sentence_numbers, word_numbers


@dataclass(frozen=True, kw_only=True, slots=True)
class SequenceReconstruction:
    """How a text is damaged.

    Parameters
    ----------
    rate : share of tokens that are left out, in [0, 1); a mask stands for each span of them.
    mean_tokens : average length of a span, above 0: lengths are Poisson, and one of 0 puts a mask between two tokens.
    permute : share of texts whose sentences are put into another order, in [0, 1].
    """

    rate: float = 0.3
    mean_tokens: float = 3.0
    permute: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.rate < 1:
            raise ValueError(f"rate={self.rate} must lie in [0, 1): the share of tokens that are left out")
        if not self.mean_tokens > 0:
            raise ValueError(f"mean_tokens={self.mean_tokens} must be above 0")
        if not 0 <= self.permute <= 1:
            raise ValueError(f"permute={self.permute} must lie in [0, 1]: the share of texts")
        if self.rate == 0 and self.permute == 0:
            raise ValueError("rate=0 and permute=0 leave the text whole; raise either")


@OBJECTIVES.register("sequence_reconstruction", SequenceReconstruction)
class SequenceReconstructionObjective(Objective):
    """Cross entropy of the whole text behind a damaged one, in nats a token (Lewis et al. 2020, BART, section 2.2).

    Sentences are put into another order, then spans left out. One row holds the damaged text as the prefix, which all
    tokens see, and behind it the text in causal order, where the paper has an encoder and a decoder. A text of one
    sentence is halved at a word instead. Texts are cut so that both fit ``max_tokens``: to a little less than half.
    """

    def __init__(self, config: SequenceReconstruction) -> None:
        self.config = config

    def heads(self, num_classes: int) -> Heads:  # noqa: ARG002
        """A head over tokens, behind a prefix."""
        return Heads(tokens=True, orders=frozenset({"prefix"}))

    def special_tokens(self) -> tuple[str, ...]:
        """The mask, and the end of the text."""
        return (MASK, END)

    def batch(self, records: Records) -> Batch:
        """Damaged and whole text in a row, and labels at the whole one."""
        return batch_of(records, [self._row(records, place) for place in range(len(records.rows))], prefixed=True)

    def _row(self, records: Records, place: int) -> TargetRow:
        tokenizer, rng = records.corpus.tokenizer, records.generator(place)
        # A start token before each of the two.
        room = (records.corpus.max_tokens - 2) // 2
        start, *whole = list(records.ids[place])[: room + 1]
        if not whole:
            return TargetRow([start], [IGNORED], 1)
        damaged = whole
        if rng.random() < self.config.permute:
            damaged = permuted(whole, pieces(tokenizer, whole), rng)
        damaged = infilled(damaged, self.config, tokenizer.token_id(MASK), rng)[:room]
        labels = [*whole, tokenizer.token_id(END)]
        return TargetRow([start, *damaged, start, *whole], [IGNORED] * (len(damaged) + 1) + labels, len(damaged) + 1)

    def losses(self, network: nn.Module, tensors: dict[str, Tensor], *, each: bool) -> Losses:
        """One term, over the tokens of the whole text and its end."""
        model, labels_RT = transformer(network), tensors["labels"]
        total, each_N = token_loss(model, states(model, tensors), labels_RT)
        return Losses((total,), record_means(each_N, labels_RT != IGNORED, tensors) if each else None)


def pieces(tokenizer: TextTokenizer, ids: TokenRow) -> list[int]:
    """Where the text may be taken apart: begins of its sentences, or of the word at its middle where it has but one."""
    begins = np.flatnonzero(np.diff(sentence_numbers(tokenizer, ids))) + 1
    if not len(begins):
        words = np.flatnonzero(np.diff(word_numbers(tokenizer, ids))) + 1
        begins = words[len(words) // 2 :][:1]
    return [int(one) for one in begins]


def permuted(ids: Sequence[int], begins: Sequence[int], rng: np.random.Generator) -> list[int]:
    """The parts between these places in an order that is drawn."""
    parts = [list(ids[start:end]) for start, end in zip([0, *begins], [*begins, len(ids)], strict=True)]
    return [token for number in rng.permutation(len(parts)).tolist() for token in parts[number]]


def infilled(ids: Sequence[int], config: SequenceReconstruction, mask: int, rng: np.random.Generator) -> list[int]:
    """The text with a mask for each span, until the share of tokens is left out; spans do not overlap."""
    left = round(config.rate * len(ids))
    gone = np.zeros(len(ids), dtype=bool)
    before = np.zeros(len(ids) + 1, dtype=bool)
    # Empty spans use up nothing, so attempts are bounded too.
    for _ in range(2 * len(ids)):
        if left <= 0:
            break
        size = min(int(rng.poisson(config.mean_tokens)), left)
        start = int(rng.integers(0, len(ids) - size + 1))
        if gone[max(start - 1, 0) : start + size + 1].any() or before[start : start + size + 1].any():
            continue
        gone[start : start + size], before[start] = True, True
        left -= size
    return [
        token
        for place in range(len(ids) + 1)
        for token in ([mask] if before[place] else []) + ([ids[place]] if place < len(ids) and not gone[place] else [])
    ]
