"""Hidden spans, told one after the other behind the text that lacks them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor, nn

from training.backbones import Heads
from training.objectives import IGNORED, OBJECTIVES, Batch, Losses, Objective, Records
from training.token_targets import END, TargetRow, batch_of, record_means, states, token_loss, transformer


@dataclass(frozen=True, kw_only=True, slots=True)
class SpanDenoising:
    """What is hidden.

    Parameters
    ----------
    rate : share of tokens that are hidden, in (0, 1).
    mean_tokens : average length of a span, at least 1.
    num_sentinels : most spans of a text, and special tokens that stand for them.
    """

    rate: float = 0.15
    mean_tokens: float = 3.0
    num_sentinels: int = 32

    def __post_init__(self) -> None:
        if not 0 < self.rate < 1:
            raise ValueError(f"rate={self.rate} must lie in (0, 1): the share of tokens that are hidden")
        if self.mean_tokens < 1:
            raise ValueError(f"mean_tokens={self.mean_tokens} must be at least 1")
        if self.num_sentinels < 1:
            raise ValueError(f"num_sentinels={self.num_sentinels} must be at least 1")

    def counts(self, num_tokens: int) -> tuple[int, int]:
        """Tokens to hide and spans to hide them in, of a text with so many; (0, 0) where it has fewer than 2."""
        if num_tokens < 2:
            return 0, 0
        hidden = min(num_tokens - 1, max(1, round(self.rate * num_tokens)))
        spans = min(hidden, num_tokens - hidden, self.num_sentinels, max(1, round(hidden / self.mean_tokens)))
        return hidden, spans


@OBJECTIVES.register("span_denoising", SpanDenoising)
class SpanDenoisingObjective(Objective):
    """Cross entropy of hidden spans, each behind its sentinel, in nats a token (Raffel et al. 2020, section 3.1.4).

    One row holds the text with a sentinel for each span as the prefix, which all tokens see, and behind it the spans in
    causal order: the prefix model that the paper compares with (section 3.2.1), not its encoder and decoder. Spans
    never touch and never begin a text. A text is cut so that both fit ``max_tokens``.
    """

    def __init__(self, config: SpanDenoising) -> None:
        self.config = config

    def heads(self, num_classes: int) -> Heads:  # noqa: ARG002
        """A head over tokens, behind a prefix."""
        return Heads(tokens=True, orders=frozenset({"prefix"}))

    def special_tokens(self) -> tuple[str, ...]:
        """The sentinels, and the end of the spans."""
        return (*(f"[SPAN {number}]" for number in range(self.config.num_sentinels)), END)

    def batch(self, records: Records) -> Batch:
        """Prefix and spans in a row, and labels at the spans."""
        return batch_of(records, [self._row(records, place) for place in range(len(records.rows))], prefixed=True)

    def _row(self, records: Records, place: int) -> TargetRow:
        corpus, ids = records.corpus, list(records.ids[place])
        # A sentinel twice for each span is what a row is longer than its text.
        while len(ids) + 2 * self.config.counts(len(ids) - 1)[1] > corpus.max_tokens:
            ids.pop()
        sentinels = [corpus.tokenizer.token_id(one) for one in self.special_tokens()[:-1]]
        cuts = span_cuts(*self.config.counts(len(ids) - 1), len(ids) - 1, records.generator(place))
        prefix, target = denoising_pair(ids[1:], cuts, sentinels)
        prefix = [ids[0], *prefix]
        labels = [*target[1:], corpus.tokenizer.token_id(END)] if target else []
        return TargetRow([*prefix, *target], [IGNORED] * len(prefix) + labels, len(prefix))

    def losses(self, network: nn.Module, tensors: dict[str, Tensor], *, each: bool) -> Losses:
        """One term, over hidden tokens, the sentinels between them and the end."""
        model, labels_RT = transformer(network), tensors["labels"]
        total, each_N = token_loss(model, states(model, tensors), labels_RT)
        return Losses((total,), record_means(each_N, labels_RT != IGNORED, tensors) if each else None)


def span_cuts(num_hidden: int, num_spans: int, num_tokens: int, rng: np.random.Generator) -> list[tuple[int, int]]:
    """Begin and end of every hidden span, in order: shown and hidden tokens are cut at random into as many parts."""
    if not num_spans:
        return []
    shown, hidden = (_parts(total, num_spans, rng) for total in (num_tokens - num_hidden, num_hidden))
    ends = np.cumsum(shown + hidden)
    return [(int(end - size), int(end)) for end, size in zip(ends, hidden, strict=True)]


def _parts(total: int, num_parts: int, rng: np.random.Generator) -> np.ndarray:
    """Lengths of parts, at least 1 each, every cut as likely as any other."""
    cuts = np.sort(rng.permutation(total - 1)[: num_parts - 1]) + 1
    return np.diff(np.concatenate([[0], cuts, [total]]))


def denoising_pair(
    ids: Sequence[int], cuts: Sequence[tuple[int, int]], sentinels: Sequence[int]
) -> tuple[list[int], list[int]]:
    """The text with a sentinel for every span, and every sentinel with its span."""
    shown: list[int] = []
    told: list[int] = []
    done = 0
    for (start, end), sentinel in zip(cuts, sentinels, strict=False):
        shown += [*ids[done:start], sentinel]
        told += [sentinel, *ids[start:end]]
        done = end
    return [*shown, *ids[done:]], told


def restored(shown: Sequence[int], told: Sequence[int], sentinels: Sequence[int]) -> list[int]:
    """The text of what ``denoising_pair`` made, or a model told: sentinels without a span are left out."""
    known = set(sentinels)
    spans: dict[int, list[int]] = {}
    current: list[int] = []
    for one in told:
        if one in known:
            current = spans.setdefault(one, [])
        else:
            current.append(one)
    return [token for one in shown for token in (spans.get(one, []) if one in known else [one])]
