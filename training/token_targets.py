"""What objectives over tokens share: laying targets out beside tokens, and what they cost."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import Tensor

from training.masking import MASKING, Hidden, Maskable
from training.model import Transformer
from training.objectives import IGNORED, Batch, Records
from training.rows import TokenRow, inputs
from training.words import word_numbers

MASK, END = "[MASK]", "[END]"


@dataclass(frozen=True, slots=True)
class TargetRow:
    """One record's tokens, what is to be found out at each (-100 for nothing), and which ones all may see.

    Parameters
    ----------
    ids, labels : equally many.
    prefix : tokens at the start that are the prefix; 0 where the order has none.
    """

    ids: TokenRow
    labels: TokenRow
    prefix: int = 0


def batch_of(records: Records, rows: Sequence[TargetRow], *, prefixed: bool = False) -> Batch:
    """A batch of one row a record, whose only term are its labels."""
    beside: dict[str, tuple[Sequence[TokenRow], int]] = {"labels": ([one.labels for one in rows], IGNORED)}
    if prefixed:
        beside["prefix"] = ([np.arange(len(one.ids)) < one.prefix for one in rows], 0)
    tensors = inputs(records.corpus, [one.ids for one in rows], **beside)
    if prefixed:
        tensors["prefix"] = tensors["prefix"].bool()
    return Batch(
        rows=list(records.rows),
        tensors=tensors,
        counts=(int((tensors["labels"] != IGNORED).sum()),),
        num_tokens=tensors["input_ids"].numel(),
    )


def hidden_tokens(records: Records, place: int, policy: str, config: object) -> tuple[Hidden, np.random.Generator]:
    """Which tokens of the record at ``place`` a masking policy hides, (tokens,) bool, never the start token.

    Also the generator that it drew from, for what is drawn next.
    """
    corpus, ids = records.corpus, records.ids[place]
    rng = records.generator(place)
    maskable = Maskable(
        num_tokens=len(ids) - 1,
        words=lambda: word_numbers(corpus.tokenizer, ids[1:]),
        difficulty=corpus.difficulty(records.rows[place]),
        progress=records.step / corpus.total_steps,
    )
    return np.concatenate([[False], MASKING[policy].member(maskable, rng, config)]), rng


def states(model: Transformer, tensors: dict[str, Tensor], input_ids: str = "input_ids") -> Tensor:
    """States (R, T, C) of a batch's tokens."""
    return model.hidden(
        tensors[input_ids],
        tensors["attention_mask"],
        documents=tensors.get("documents"),
        prefix=tensors.get("prefix"),
    )


def token_loss(model: Transformer, hidden_RTC: Tensor, labels_RT: Tensor) -> tuple[Tensor, Tensor]:
    """Summed cross entropy of the tokens that have a label, in nats, and each one's (N,), in the order of the rows.

    Logits are made of these alone: over a whole vocabulary they cost more than the network behind a few percent of
    the tokens.
    """
    at_RT = labels_RT != IGNORED
    return model.token_losses(hidden_RTC[at_RT], labels_RT[at_RT])


def record_means(each_N: Tensor, at_RT: Tensor, tensors: dict[str, Tensor]) -> Tensor:
    """Mean of what stands at some tokens, for every record (B,): NaN where it has none of them.

    Parameters
    ----------
    each_N : (N,) float.
    at_RT : (R, T) bool, N of them True.
    """
    record_RT = tensors.get("documents")
    if record_RT is None:
        record_RT = torch.arange(len(at_RT), device=at_RT.device)[:, None].expand_as(at_RT)
    num_records = int(record_RT.max()) + 1
    record_N = record_RT[at_RT]
    total_B = torch.zeros(num_records, device=at_RT.device).index_add(0, record_N, each_N.detach().float())
    return total_B / torch.bincount(record_N, minlength=num_records)


def transformer(network: torch.nn.Module) -> Transformer:
    """The network, which was checked to have states of tokens."""
    return cast("Transformer", network)
