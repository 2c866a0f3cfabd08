"""A span model that is refitted in seconds: which parts of a text are what, and how sure it is of that."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from catalog.errors import DataError
from labeling.crf import Chain, batches
from labeling.determinism import one_thread
from labeling.span_tokens import NEAR, Look, Token, names, pair_name, tokens

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Span = dict[str, Any]
Cache = dict[tuple[Look | None, int], list[int]]

OUTSIDE = 0
"""The tag of what is in no span; 1 + 2 * label begins one, 2 + 2 * label goes on with it."""
PENALTY = 0.3
"""Half of it times the squared weights is added to the loss, in nats."""
MAX_ITERATIONS = 60
MAX_TRAIN_TOKENS = 60_000
"""Of more labelled text a sample by chance is learned from, so that a fit stays a matter of seconds."""
MAX_WEIGHTS = 3_000_000
MAX_TOKENS = 256
"""Longer texts are tagged in pieces of so many."""
CHUNK_TOKENS = 100_000


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """Labels whose spans do not overlap each other, and what tells them.

    Parameters
    ----------
    chain : weights between the tags of these labels.
    weights : (columns, K) of the attributes.
    """

    labels: tuple[str, ...]
    chain: Chain
    weights: Floats


@dataclass(frozen=True, slots=True, eq=False)
class SpanModel:
    """A conditional random field over the tags of tokens. Made by ``SpanModel.fit``.

    All labels are one group where spans do not overlap. Where they may, each label is a group of its own: what is said
    of one does not depend on the others, and spans of one label never overlap each other.
    """

    groups: tuple[Group, ...]
    columns: dict[str, int]

    @classmethod
    def fit(
        cls,
        texts: Sequence[str],
        answers: Sequence[Sequence[Span]],
        labels: Sequence[str],
        seed: int,
        *,
        overlapping: bool = False,
        max_tokens: int = MAX_TRAIN_TOKENS,
    ) -> "SpanModel":
        """Fit on labelled texts by L-BFGS. The same input gives the same bits.

        Parameters
        ----------
        answers : of each text its spans, as ``labeling.tasks.spans`` stores them. A span that ends within a token is
            learned as the whole token; of spans of a group that overlap, the first one and what is left of the others.
        seed : draws what is learned from where the texts have more tokens than ``max_tokens``.
        overlapping : whether spans may share characters.

        Raises
        ------
        DataError : there is no text with a token, or as many answers as texts there are not.

        References
        ----------
        Lafferty, McCallum and Pereira (2001), Conditional Random Fields. Tags: Ramshaw and Marcus (1995), BIO.
        """
        if len(texts) != len(answers):
            raise DataError(f"{len(texts)} texts and {len(answers)} answers; there must be one a text")
        given: list[tuple[list[Token], Sequence[Span]]] = []
        num_tokens = 0
        for row in np.random.default_rng(seed).permutation(len(texts)):
            found = tokens(texts[row])
            if num_tokens and num_tokens + len(found) > max_tokens:
                break
            num_tokens += len(found)
            given.append((found, answers[row]))
        if not num_tokens:
            raise DataError("no labelled text has a word or a mark to learn from; label other texts first")
        pieces = [looks for found, _ in given for looks in _in_pieces(found)]
        named = [(label,) for label in labels] if overlapping else [tuple(labels)]
        columns = _vocabulary(pieces, MAX_WEIGHTS // (1 + 2 * len(named[0])))
        groups = []
        with one_thread():
            design = _design(pieces, columns, {})
            for group in named:
                tags = np.concatenate([_tags(found, spans, group) for found, spans in given])
                groups.append(Group(group, *_fit(design, [len(one) for one in pieces], tags, 1 + 2 * len(group))))
        return cls(tuple(groups), columns)

    def mean_log_proba(self, texts: Sequence[str]) -> Floats:
        """Log-probability of each text's likeliest tags, divided by its tokens; of several groups their sum.

        Returns
        -------
        (n,) float64 in nats a token, at most 0; 0 where a text has no token.

        References
        ----------
        Shen et al. (2018), Deep Active Learning for Named Entity Recognition, section 4 (MNLP).
        """
        return np.array([mean for _, mean in self.tagged(texts)])

    def predict(self, texts: Sequence[str]) -> list[list[Span]]:
        """The likeliest spans of each text, as the queue stores answers."""
        return [spans for spans, _ in self.tagged(texts)]

    def tagged(self, texts: Sequence[str]) -> Iterator[tuple[list[Span], float]]:
        """Of each text what ``predict`` and ``mean_log_proba`` give."""
        cache: Cache = {}
        chunk: list[list[Token]] = []
        size = 0
        for text in texts:
            chunk.append(tokens(text))
            size += len(chunk[-1])
            if size >= CHUNK_TOKENS:
                yield from self._of_chunk(chunk, cache)
                chunk, size = [], 0
                cache.clear()
        yield from self._of_chunk(chunk, cache)

    def _of_chunk(self, chunk: list[list[Token]], cache: Cache) -> Iterator[tuple[list[Span], float]]:
        pieces = [looks for found in chunk for looks in _in_pieces(found)]
        lengths = [len(one) for one in pieces]
        with one_thread():
            design = _design(pieces, self.columns, cache)
            told = [_decoded(group, design, lengths) for group in self.groups]
        log_proba = np.sum([values for _, values in told], axis=0)
        at = first = 0
        for found in chunk:
            stop, last = at + len(found), first - (-len(found) // MAX_TOKENS)
            spans = [
                span
                for group, (tags, _) in zip(self.groups, told, strict=True)
                for span in _spans(found, tags[at:stop], group.labels)
            ]
            spans.sort(key=lambda one: (one["start"], one["end"], one["label"]))
            yield spans, float(log_proba[first:last].sum()) / max(len(found), 1)
            at, first = stop, last


def _decoded(group: Group, design: Any, lengths: list[int]) -> tuple[Ints, Floats]:
    """The likeliest tags of all tokens, and of each piece how likely they are, in nats."""
    tags, log_proba = np.zeros(sum(lengths), dtype=np.int64), np.zeros(len(lengths))
    starts = np.cumsum(lengths) - lengths
    emissions = np.asarray(design @ group.weights)
    for batch in batches(lengths):
        log_sums, _, _ = group.chain.expectations(emissions, batch)
        best, scores = group.chain.likeliest(emissions, batch)
        # Rounding may leave what is certain a hair above.
        log_proba[batch.sequences] = np.minimum(scores - log_sums, 0.0)
        for row, piece in enumerate(batch.sequences):
            tags[starts[piece] : starts[piece] + lengths[piece]] = best[row, : lengths[piece]]
    return tags, log_proba


def _tags(found: list[Token], spans: Sequence[Span], labels: tuple[str, ...]) -> Ints:
    tags = np.zeros(len(found), dtype=np.int64)
    starts = np.array([one.start for one in found], dtype=np.int64)
    ends = np.array([one.end for one in found], dtype=np.int64)
    # Longer spans first where several begin together.
    for one in sorted(spans, key=lambda span: (span["start"], -span["end"])):
        if one["label"] not in labels:
            continue
        inside = np.flatnonzero((ends > one["start"]) & (starts < one["end"]))
        begun = False
        for token in inside:
            if tags[token] == OUTSIDE:
                tags[token] = 1 + 2 * labels.index(one["label"]) + begun
                begun = True
    return tags


def _spans(found: list[Token], tags: Ints, labels: tuple[str, ...]) -> list[Span]:
    spans: list[Span] = []
    for token, tag in zip(found, tags.tolist(), strict=True):
        if tag == OUTSIDE:
            continue
        label = labels[(tag - 1) // 2]
        if tag % 2 == 0 and spans and spans[-1]["label"] == label and spans[-1]["end"] <= token.start:
            spans[-1]["end"] = token.end
        else:
            spans.append({"start": token.start, "end": token.end, "label": label})
    return spans


def _in_pieces(found: list[Token]) -> list[list[Look]]:
    looks = [one.look for one in found]
    return [looks[at : at + MAX_TOKENS] for at in range(0, len(looks), MAX_TOKENS)]


def _named(looks: list[Look]) -> Iterator[tuple[list[tuple[Look | None, int]], list[str]]]:
    """Of each token whom it is judged by, and its pairs."""
    for at, look in enumerate(looks):
        beside = {place: looks[at + place] if 0 <= at + place < len(looks) else None for place in NEAR}
        pairs = [pair_name(other, look, place) for place in (-1, 1) if (other := beside[place]) is not None]
        yield [(look, 0), *((other, place) for place, other in beside.items())], pairs


def _vocabulary(pieces: Iterable[list[Look]], most: int) -> dict[str, int]:
    """Columns of what occurs, at most so many: the most frequent, ties by name."""
    counts: Counter[str] = Counter()
    for looks in pieces:
        for around, pairs in _named(looks):
            for look, place in around:
                counts.update(names(look, place))
            counts.update(pairs)
    kept = sorted(counts, key=lambda name: (-counts[name], name))[:most]
    return {name: column for column, name in enumerate(kept)}


def _design(pieces: Iterable[list[Look]], columns: dict[str, int], cache: Cache) -> Any:
    """(tokens, columns) sparse, 1 where the token has it."""
    from scipy.sparse import csr_matrix

    indices: list[int] = []
    ends = [0]
    for looks in pieces:
        for around, pairs in _named(looks):
            for key in around:
                known = cache.get(key)
                if known is None:
                    known = cache[key] = [columns[name] for name in names(*key) if name in columns]
                indices += known
            indices += [columns[name] for name in pairs if name in columns]
            ends.append(len(indices))
    shape = (len(ends) - 1, len(columns))
    return csr_matrix((np.ones(len(indices)), np.array(indices, dtype=np.int32), np.array(ends)), shape=shape)


def _fit(design: Any, lengths: list[int], tags: Ints, num_tags: int) -> tuple[Chain, Floats]:
    from scipy.optimize import minimize

    across = design.T.tocsr()
    num_columns = design.shape[1]
    work = list(batches(lengths))
    may_follow, may_start = _allowed(num_tags)
    begins = np.cumsum(lengths) - lengths
    inner = np.setdiff1d(np.arange(len(tags)), begins)
    seen_moves, seen_starts = np.zeros((num_tags, num_tags)), np.bincount(tags[begins], minlength=num_tags)
    np.add.at(seen_moves, (tags[inner - 1], tags[inner]), 1)
    seen = np.zeros((len(tags), num_tags))
    seen[np.arange(len(tags)), tags] = 1.0
    sizes = (num_columns * num_tags, num_tags * num_tags, num_tags)

    def parts(flat: Floats) -> tuple[Floats, Chain]:
        weights, transitions, start = np.split(flat, np.cumsum(sizes)[:2])
        square = np.where(may_follow, transitions.reshape(num_tags, num_tags), -np.inf)
        return weights.reshape(num_columns, num_tags), Chain(square, np.where(may_start, start, -np.inf))

    def loss(flat: Floats) -> tuple[float, Floats]:
        weights, chain = parts(flat)
        emissions = np.asarray(design @ weights)
        expected, moves, starts = np.zeros_like(emissions), np.zeros_like(seen_moves), np.zeros(num_tags)
        total = 0.0
        for batch in work:
            log_sums, proba, expected_moves = chain.expectations(emissions, batch)
            total += float(log_sums.sum())
            inside = np.arange(proba.shape[1]) < np.array([lengths[one] for one in batch.sequences])[:, None]
            expected[batch.tokens[inside]] = proba[inside]
            moves += expected_moves
            starts += proba[:, 0].sum(axis=0)
        total -= float((emissions * seen).sum())
        total -= float((seen_moves * np.where(may_follow, chain.transitions, 0.0)).sum())
        total -= float((seen_starts * np.where(may_start, chain.start, 0.0)).sum())
        gradient = np.concatenate(
            [
                np.asarray(across @ (expected - seen)).ravel(),
                np.where(may_follow, moves - seen_moves, 0.0).ravel(),
                np.where(may_start, starts - seen_starts, 0.0),
            ]
        )
        return total + PENALTY / 2 * float(flat @ flat), gradient + PENALTY * flat

    found = minimize(loss, np.zeros(sum(sizes)), jac=True, method="L-BFGS-B", options={"maxiter": MAX_ITERATIONS})
    weights, chain = parts(found.x)
    return chain, weights


def _allowed(num_tags: int) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Which tag may follow which, and which may come first: what goes on with a span follows a token of it."""
    tag = np.arange(num_tags)
    goes_on = (tag > 0) & (tag % 2 == 0)
    same = (tag[:, None] + 1) // 2 == (tag + 1) // 2
    return ~goes_on[None, :] | (same & (tag[:, None] > 0)), ~goes_on
