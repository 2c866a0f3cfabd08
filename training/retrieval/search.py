"""Exact nearest neighbours, block by block: memory grows with a block and the neighbours, not with what is searched.

Shapes: Q questions, n entries, D numbers of a vector, K neighbours.
"""

from typing import Any, Literal

import numpy.typing as npt
import torch
from torch import Tensor

from catalog.errors import ConfigError, DataError

Precision = Literal["float32", "float16"]
QUESTION_ROWS, ENTRY_ROWS = 1_024, 16_384
"""A block: 64 MiB of distances."""


def nearest_entries(
    questions_QD: Tensor, keys: npt.NDArray[Any], num_neighbours: int, *, entry_rows: int = ENTRY_ROWS
) -> tuple[Tensor, Tensor]:
    """The nearest entries by squared Euclidean distance, nearest first; of equally near ones the first.

    Parameters
    ----------
    questions_QD : (Q, D) float, on the device that is to search.
    keys : (n, D), mapped or not; a block at a time is copied to the device.
    num_neighbours : K; fewer are found where n is less.
    entry_rows : entries of a block. Distances are computed in float32, whose last bits can differ between block sizes
        and devices.

    Returns
    -------
    Squared distances (Q, min(K, n)) float32, and the entries' numbers, int64.

    Raises
    ------
    ConfigError : K is below 1.
    DataError : vectors of another size, or a question that is not finite.
    """
    if num_neighbours < 1:
        raise ConfigError(f"num_neighbours={num_neighbours} must be at least 1")
    if questions_QD.ndim != 2 or questions_QD.shape[1] != keys.shape[1]:
        raise DataError(
            f"questions of shape {tuple(questions_QD.shape)} must have {keys.shape[1]} numbers each, as the memory's "
            "vectors have"
        )
    if not questions_QD.isfinite().all():
        raise DataError("a question is not finite; look for NaN in the network's states")
    parts = [
        _nearest(part.float(), keys, num_neighbours, entry_rows) for part in torch.split(questions_QD, QUESTION_ROWS)
    ]
    return torch.cat([one for one, _ in parts]), torch.cat([one for _, one in parts])


def _nearest(
    questions_QD: Tensor, keys: npt.NDArray[Any], num_neighbours: int, entry_rows: int
) -> tuple[Tensor, Tensor]:
    device = questions_QD.device
    best = questions_QD.new_empty(len(questions_QD), 0)
    place = torch.empty(len(questions_QD), 0, dtype=torch.int64, device=device)
    squared_Q1 = questions_QD.square().sum(1, keepdim=True)
    for start in range(0, len(keys), entry_rows):
        block = torch.from_numpy(keys[start : start + entry_rows].astype("f4")).to(device)
        distance = torch.addmm(block.square().sum(1), questions_QD, block.T, alpha=-2).add_(squared_Q1).clamp_(min=0)
        near, row = _smallest(distance, min(num_neighbours, len(block)))
        near, row = torch.cat([best, near], 1), torch.cat([place, row + start], 1)
        order = near.sort(dim=1, stable=True).indices[:, :num_neighbours]
        best, place = near.gather(1, order), row.gather(1, order)
    return best, place


def _smallest(distance: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The ``count`` smallest of each row, smallest first; of equal ones the first, which ``topk`` does not promise."""
    values, columns = distance.topk(min(count + 1, distance.shape[1]), dim=1, largest=False)
    # Columns in order, then stably by value.
    columns, by_column = columns.sort(dim=1)
    values, by_value = values.gather(1, by_column).sort(dim=1, stable=True)
    columns = columns.gather(1, by_value)
    if values.shape[1] > count:
        # Only where the last one taken equals the next may others have been left out that come before.
        tied = (values[:, count - 1] == values[:, count]).nonzero().squeeze(1)
        if len(tied):
            whole, first = distance[tied].sort(dim=1, stable=True)
            values[tied, :count], columns[tied, :count] = whole[:, :count], first[:, :count]
    return values[:, :count], columns[:, :count]
