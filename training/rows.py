"""Token ids, and what goes with each token, as padded or packed rows."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy.typing as npt
from torch import Tensor

from training.packing import pack
from training.tokenizer import padded

if TYPE_CHECKING:
    from training.objectives import Corpus

TokenRow = Sequence[int] | npt.NDArray[Any]


def inputs(corpus: "Corpus", ids: Sequence[TokenRow], **beside: tuple[Sequence[TokenRow], int]) -> dict[str, Tensor]:
    """Lay records out as rows, one each or packed.

    Parameters
    ----------
    ids : token ids of each record, at least one and at most ``corpus.max_tokens``.
    beside : by name, a number for every token of ``ids``, and the one that stands at padding.

    Returns
    -------
    ``input_ids`` (R, T) int64, ``attention_mask`` (R, T) bool, where rows are packed ``documents`` (R, T) int64, and
    what stands beside, (R, T) int64 each.
    """
    given = {"input_ids": (ids, corpus.tokenizer.pad_id)} | beside
    if not corpus.packed:
        # All have the same lengths, and so the same mask.
        laid = {name: padded(rows, fill) for name, (rows, fill) in given.items()}
        return {name: one.input_ids for name, one in laid.items()} | {
            "attention_mask": laid["input_ids"].attention_mask
        }
    packed = {name: pack(rows, corpus.max_tokens, fill) for name, (rows, fill) in given.items()}
    first = packed["input_ids"]
    return {name: one.input_ids for name, one in packed.items()} | {
        "attention_mask": first.attention_mask,
        "documents": first.documents,
    }
