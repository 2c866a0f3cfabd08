"""One class a record."""

from typing import cast

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from catalog.errors import DataError
from catalog.registry import NoConfig
from training.backbones import Heads
from training.data import TrainingData
from training.model import Transformer
from training.objectives import IGNORED, OBJECTIVES, Batch, Losses, Objective, Records
from training.packing import ClassifiesDocuments, Packed, packed_logits
from training.rows import inputs


@OBJECTIVES.register("classification")
class Classification(Objective):
    """Cross entropy over the records that have a label, in nats."""

    reads = "classes"

    def __init__(self, config: NoConfig) -> None:
        pass

    def heads(self, num_classes: int) -> Heads:
        """A logit a class, behind earlier layers too; records to classify have no prefix."""
        return Heads(num_classes=num_classes, exits=True, orders=frozenset({"encoder", "causal"}))

    def check(self, data: TrainingData) -> None:
        """Labels are needed."""
        if not data.classes:
            raise DataError(
                "objective 'classification' learns from labels, and these records have none; label some, or train "
                "objective mlm, rtd or clm on texts alone"
            )

    def batch(self, records: Records) -> Batch:
        """Rows as they are, and a label (B,) int64 each."""
        tensors = inputs(records.corpus, records.ids)
        labels = torch.tensor([records.corpus.data.labels[row] for row in records.rows])
        return Batch(
            rows=list(records.rows),
            tensors=tensors | {"labels": labels},
            counts=(int((labels != IGNORED).sum()),),
            num_tokens=tensors["input_ids"].numel(),
        )

    def losses(self, network: nn.Module, tensors: dict[str, Tensor], *, each: bool) -> Losses:
        """The sum over labels, 0 where there is none: the mean of every head's. A record's own is the last head's."""
        labels_B, documents = tensors["labels"], tensors.get("documents")
        if isinstance(network, Transformer) and network.config.exit_layers:
            heads = list(network.exit_logits(tensors["input_ids"], tensors["attention_mask"], documents=documents))
        elif documents is not None:
            packed = Packed(tensors["input_ids"], tensors["attention_mask"], documents)
            heads = [packed_logits(cast("ClassifiesDocuments", network), packed)]
        else:
            heads = [network(tensors["input_ids"], tensors["attention_mask"])]
        # The mean and not the sum: a rate that suits a model without them still does.
        total = torch.stack([class_loss(one_BK, labels_B) for one_BK in heads]).mean()
        return Losses((total,), class_losses(heads[-1], labels_B) if each else None)


def class_loss(logits_BK: Tensor, labels_B: Tensor) -> Tensor:
    """Summed cross entropy of logits (B, K) and labels (B,) int64, -100 where unknown, in nats: a float32 scalar."""
    return F.cross_entropy(logits_BK.float(), labels_B, ignore_index=IGNORED, reduction="sum")


def class_losses(logits_BK: Tensor, labels_B: Tensor) -> Tensor:
    """Each record's own cross entropy (B,), NaN where its label is unknown."""
    each_B = F.cross_entropy(logits_BK.detach().float(), labels_B, ignore_index=IGNORED, reduction="none")
    return each_B.masked_fill(labels_B == IGNORED, torch.nan)
