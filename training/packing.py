"""Several short texts in one row, each seeing itself alone."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from catalog.errors import DataError


class Packed(NamedTuple):
    """A batch of packed rows.

    ``input_ids`` (R, T) int64; ``attention_mask`` (R, T) bool, True at real tokens; ``documents`` (R, T) int64, the
    number of the text that a token is of, -1 at padding. Tokens of a text stand together, in one row.
    """

    input_ids: Tensor
    attention_mask: Tensor
    documents: Tensor


@runtime_checkable
class SeesDocuments(Protocol):
    """A network that can be given packed rows."""

    def hidden(self, input_ids: Tensor, attention_mask: Tensor, *, documents: Tensor | None = None) -> Tensor:
        """States (R, T, C) of tokens that attend within their own document and count positions from its start."""
        ...


class ClassifiesDocuments(SeesDocuments, Protocol):
    """One with a head for classes as well."""

    head: nn.Module


def pack(rows: Sequence[Sequence[int] | npt.NDArray[np.integer[Any]]], capacity: int, pad_id: int) -> Packed:
    """Put texts into as few rows as first-fit finds, the longest first; equally long ones by their number.

    Parameters
    ----------
    rows : token ids of each text, at least one of each.
    capacity : tokens of a row at most.
    pad_id : fills rows up to the fullest.

    Raises
    ------
    DataError : a text is longer than a row.

    References
    ----------
    Johnson (1973), first-fit decreasing: at most 11/9 of the fewest rows possible, and 1 more.
    """
    lengths = [len(row) for row in rows]
    if max(lengths) > capacity:
        number = lengths.index(max(lengths))
        raise DataError(
            f"text {number} has {lengths[number]} tokens, a row holds {capacity}; cut it, or pack longer rows"
        )
    bins: list[list[int]] = []
    room: list[int] = []
    for number in sorted(range(len(rows)), key=lambda one: (-lengths[one], one)):
        place = next((place for place, free in enumerate(room) if free >= lengths[number]), len(bins))
        if place == len(bins):
            bins.append([])
            room.append(capacity)
        bins[place].append(number)
        room[place] -= lengths[number]
    shape = (len(bins), capacity - min(room))
    input_ids, documents = np.full(shape, pad_id, dtype=np.int64), np.full(shape, -1, dtype=np.int64)
    for place, members in enumerate(bins):
        used = capacity - room[place]
        input_ids[place, :used] = np.concatenate([rows[number] for number in members])
        documents[place, :used] = np.repeat(members, [lengths[number] for number in members])
    return Packed(torch.from_numpy(input_ids), torch.from_numpy(documents >= 0), torch.from_numpy(documents))


def packed_logits(model: ClassifiesDocuments, packed: Packed) -> Tensor:
    """Class logits (D, K) of each text, in the order of their numbers: as if each had had a row of its own."""
    hidden_RTC = model.hidden(packed.input_ids, packed.attention_mask, documents=packed.documents)
    logits: Tensor = model.head(document_means(hidden_RTC, packed.documents))
    return logits


def document_means(x_RTC: Tensor, documents_RT: Tensor) -> Tensor:
    """Mean state of each document, (D, C)."""
    documents_N = documents_RT.flatten()
    numbers_D = torch.arange(int(documents_N.max()) + 1, device=documents_N.device)
    # A product, not an index_add: its sums have the same order on every device.
    member_DN = (documents_N == numbers_D[:, None]).to(x_RTC.dtype)
    return member_DN @ x_RTC.flatten(0, 1) / member_DN.sum(1, keepdim=True)
