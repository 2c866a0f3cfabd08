"""A tag for each token: parts of texts, as marked by people."""

from collections.abc import Sequence

import numpy as np
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from catalog.errors import DataError
from catalog.registry import NoConfig
from training.backbones import Heads
from training.data import Span, TrainingData
from training.objectives import IGNORED, OBJECTIVES, Batch, Losses, Objective, Records
from training.rows import TokenRow
from training.token_targets import TargetRow, batch_of, record_means, states, transformer
from training.tokenizer import TextTokenizer
from training.words import Numbers, byte_offsets, token_starts


@OBJECTIVES.register("tagging")
class Tagging(Objective):
    """Cross entropy of the tag of every token, in nats a token: outside, or first or later token of a labelled part.

    Tags are the model's class head on the states of single tokens: 0 outside, 2k + 1 begins label k, 2k + 2 goes on
    with it (Ramshaw and Marcus 1995). A token has the tag of the part that it shares a byte with, the spaces at its
    start left out; of overlapping parts the later one's.
    """

    reads = "spans"

    def __init__(self, config: NoConfig) -> None:
        pass

    def heads(self, num_classes: int) -> Heads:
        """Two tags a label and one for none."""
        return Heads(num_classes=1 + 2 * num_classes, states=True, orders=frozenset({"encoder", "causal"}))

    def check(self, data: TrainingData) -> None:
        """Marked parts are needed."""
        if data.spans is None or all(one is None for one in data.spans):
            raise DataError(
                "objective 'tagging' learns from parts of texts that were marked, and these records have none; label "
                "them with a queue of task spans"
            )
        if not any(data.spans):
            raise DataError(
                f"objective 'tagging': none of {len(data.spans):,} records to learn from has a marked part; label more"
            )

    def batch(self, records: Records) -> Batch:
        """Each record's tokens and their tags; a record that nobody marked has none."""
        data, tokenizer = records.corpus.data, records.corpus.tokenizer
        assert data.spans is not None
        rows = []
        for row, ids in zip(records.rows, records.ids, strict=True):
            spans = data.spans[row]
            if spans is None:
                tags = np.full(len(ids) - 1, IGNORED)
            else:
                tags = tags_of(data.texts[row], spans, token_bounds(tokenizer, ids[1:]))
            rows.append(TargetRow(ids, np.concatenate([[IGNORED], tags])))
        return batch_of(records, rows)

    def losses(self, network: nn.Module, tensors: dict[str, Tensor], *, each: bool) -> Losses:
        """One term, over tokens of marked records."""
        model, labels_RT = transformer(network), tensors["labels"]
        at_RT = labels_RT != IGNORED
        logits_NK = model.head(states(model, tensors)[at_RT]).float()
        each_N = F.cross_entropy(logits_NK, labels_RT[at_RT], reduction="none")
        return Losses((each_N.sum(),), record_means(each_N, at_RT, tensors) if each else None)


def token_bounds(tokenizer: TextTokenizer, ids: TokenRow) -> Numbers:
    """Bytes of the text at which each token begins and ends, (n, 2) int64, spaces at its start left out."""
    starts = token_starts(tokenizer, ids)
    spelled = [tokenizer.token_bytes[one] for one in ids]
    # A token of nothing but spaces keeps them.
    spaces = np.array([len(one) - len(one.lstrip()) if one.strip() else 0 for one in spelled], dtype=np.int64)
    return np.stack([starts[:-1] + spaces, starts[1:]], axis=1)


def tags_of(text: str, spans: Sequence[Span], bounds_N2: Numbers) -> Numbers:
    """The tag of each token (n,), of spans in code points."""
    byte_at = byte_offsets(text)
    tags = np.zeros(len(bounds_N2), dtype=np.int64)
    for start, end, label in spans:
        inside = (bounds_N2[:, 0] < byte_at[end]) & (bounds_N2[:, 1] > byte_at[start])
        tags[inside] = 2 * label + 2
        tags[np.flatnonzero(inside)[:1]] = 2 * label + 1
    return tags


def spans_of(text: str, tags: Sequence[int], bounds_N2: Numbers) -> list[Span]:
    """Spans in code points of the tags that a model gave; one that goes on with nothing begins a span.

    Ends that cut a code point are moved outwards.
    """
    byte_at = byte_offsets(text)
    found: list[Span] = []
    before = 0
    for tag, (start, end) in zip(tags, bounds_N2.tolist(), strict=True):
        label = (tag - 1) // 2
        first = int(np.searchsorted(byte_at, start, side="right")) - 1
        last = int(np.searchsorted(byte_at, end, side="left"))
        if tag and tag % 2 == 0 and before and (before - 1) // 2 == label:
            found[-1] = (found[-1][0], last, label)
        elif tag:
            found.append((first, last, label))
        before = tag
    return found
