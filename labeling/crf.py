"""A linear-chain conditional random field over sequences of tokens, in batches of like lengths.

Legend: N tokens of all sequences, one after the other; B sequences of a batch, longest first; T their places; K tags.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
BATCH_TOKENS = 8_192
"""Places of a batch, padding and all: what is held for them is at most that by the tags."""
LEAST = 1e-30
"""Of a place's likeliest tag: no tag's share is taken for less, so that no allowed sequence vanishes."""


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Sequences that are worked on together.

    Parameters
    ----------
    sequences : (B,) their numbers.
    tokens : (B, T) numbers of their tokens; anything behind their ends.
    active : (T,) how many have a token there: the first so many.
    """

    sequences: Ints
    tokens: Ints
    active: tuple[int, ...]


def batches(lengths: Sequence[int]) -> Iterator[Batch]:
    """Batches of sequences, longest first; sequences without a token are in none.

    Parameters
    ----------
    lengths : of all sequences, whose tokens lie one after the other.
    """
    sizes = np.asarray(lengths, dtype=np.int64)
    starts = np.cumsum(sizes) - sizes
    order = np.argsort(-sizes, kind="stable")
    order = order[sizes[order] > 0]
    at = 0
    while at < len(order):
        longest = int(sizes[order[at]])
        rows = order[at : at + max(1, BATCH_TOKENS // longest)]
        places = np.arange(longest)
        inside = places < sizes[rows][:, None]
        tokens = np.where(inside, starts[rows][:, None] + places, starts[rows][:, None])
        yield Batch(rows, tokens, tuple(inside.sum(axis=0).tolist()))
        at += len(rows)


@dataclass(frozen=True, slots=True, eq=False)
class Chain:
    """Weights between neighbouring tags.

    Parameters
    ----------
    transitions : (K, K) from the first to the second, in nats; -inf where that may not follow.
    start : (K,) of a sequence's first tag.
    """

    transitions: Floats
    start: Floats

    def expectations(self, emissions: Floats, batch: Batch) -> tuple[Floats, Floats, Floats]:
        """What the model expects of a batch, forward and backward.

        Parameters
        ----------
        emissions : (N, K) in nats.

        Returns
        -------
        (B,) logarithms of the sums over all tag sequences; (B, T, K) probabilities of the tags, 0 behind the ends;
        (K, K) expected numbers of transitions.

        References
        ----------
        Lafferty, McCallum and Pereira (2001), Conditional Random Fields; Rabiner (1989), section V.A, for the scaling.
        """
        follows = np.exp(self.transitions)
        scores = emissions[batch.tokens]
        top = scores.max(axis=2, keepdims=True)
        shares = np.maximum(np.exp(scores - top), LEAST)
        forward = np.zeros_like(shares)
        scale = np.ones(shares.shape[:2])
        forward[:, 0] = np.exp(self.start) * shares[:, 0]
        for place, num in enumerate(batch.active):
            if place:
                forward[:num, place] = (forward[:num, place - 1] @ follows) * shares[:num, place]
            scale[:num, place] = forward[:num, place].sum(axis=1)
            forward[:num, place] /= scale[:num, place, None]
        inside = np.arange(len(batch.sequences))[:, None] < np.asarray(batch.active)
        log_sums = (np.log(scale) + np.where(inside, top[:, :, 0], 0.0)).sum(axis=1)
        backward = np.ones_like(shares)
        moves = np.zeros_like(follows)
        for place in range(len(batch.active) - 1, 0, -1):
            num = batch.active[place]
            ahead = backward[:num, place] * shares[:num, place] / scale[:num, place, None]
            backward[:num, place - 1] = ahead @ follows.T
            moves += forward[:num, place - 1].T @ ahead
        return log_sums, forward * backward * inside[:, :, None], moves * follows

    def likeliest(self, emissions: Floats, batch: Batch) -> tuple[Ints, Floats]:
        """The likeliest tags of each sequence (Viterbi).

        Parameters
        ----------
        emissions : (N, K) in nats.

        Returns
        -------
        (B, T) tags, anything behind the ends; (B,) their scores, in nats.
        """
        scores = emissions[batch.tokens]
        num_sequences, num_places, _ = scores.shape
        best = self.start + scores[:, 0]
        came_from = np.zeros(scores.shape, dtype=np.int64)
        for place in range(1, num_places):
            num = batch.active[place]
            ways = best[:num, :, None] + self.transitions
            came_from[:num, place] = ways.argmax(axis=1)
            best[:num] = ways.max(axis=1) + scores[:num, place]
        tags = np.zeros((num_sequences, num_places), dtype=np.int64)
        last = best.argmax(axis=1)
        for place in range(num_places - 1, -1, -1):
            num = batch.active[place]
            ahead = batch.active[place + 1] if place + 1 < num_places else 0
            rows = np.arange(ahead)
            tags[rows, place] = came_from[rows, place + 1, tags[rows, place + 1]] if ahead else 0
            tags[ahead:num, place] = last[ahead:num]
        return tags, best.max(axis=1)
