"""How many of the parts that people marked a tagger finds on texts that were held out."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from training.data import Span, TrainingData
from training.objectives.tagging import spans_of, tags_of, token_bounds
from training.token_targets import transformer
from training.tokenizer import TextTokenizer, padded

BATCH_SIZE = 64
Counts = npt.NDArray[np.int64]
"""(n, 3) or (3,): what was found rightly, what was said, and what there is."""
_RESAMPLES = 1000
_INTERVAL = (0.025, 0.975)


def span_quality(
    model: nn.Module, tokenizer: TextTokenizer, max_tokens: int, data: TrainingData, rng: np.random.Generator
) -> dict[str, Any]:
    """Measure a tagger on held-out records, by spans and by tokens.

    A span counts as found where start, end and label are all right. What lies behind the cut of a text is missed.

    Parameters
    ----------
    model : a ``Transformer`` whose class head stands for tags, on the CPU.
    data : the held-out records; those that nobody looked at are left out.
    rng : draws the resamples of the interval.

    Returns
    -------
    ``num_spans`` (that people marked), ``f1``, ``f1_low``, ``f1_high`` (95 % bootstrap over records), ``precision``,
    ``recall``, ``by_label`` (F1 of each), ``token_f1`` (of tags other than outside), ``token_accuracy``, and
    ``reachable_f1``: what the right tags would give, as spans of tokens neither overlap nor end inside a token.

    References
    ----------
    Tjong Kim Sang and De Meulder (2003), section 3: exact matches, counted over all records.
    """
    assert data.spans is not None
    rows = [row for row, spans in enumerate(data.spans) if spans is not None]
    pairs: list[tuple[set[Span], set[Span]]] = []
    reachable: list[tuple[set[Span], set[Span]]] = []
    tags: list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]] = []
    for start in range(0, len(rows), BATCH_SIZE):
        some = rows[start : start + BATCH_SIZE]
        ids = tokenizer.token_ids([data.texts[row] for row in some], max_tokens)
        for row, own, said in zip(some, ids, _said(model, tokenizer, ids), strict=True):
            text, gold = data.texts[row], data.spans[row] or ()
            bounds = token_bounds(tokenizer, np.asarray(own[1:], dtype=np.int64))
            right = tags_of(text, gold, bounds)
            tags.append((said, right))
            pairs.append((set(spans_of(text, said.tolist(), bounds)), set(gold)))
            reachable.append((set(spans_of(text, right.tolist(), bounds)), set(gold)))
    counts = _counts(pairs)
    hits, num_said, num_spans = counts.sum(0).tolist()
    low, high = _interval(counts, rng)
    said_N, right_N = (np.concatenate(one) for one in zip(*tags, strict=True))
    return {
        "num_spans": num_spans,
        "f1": _f1(counts.sum(0)),
        "f1_low": low,
        "f1_high": high,
        "precision": hits / max(num_said, 1),
        "recall": hits / max(num_spans, 1),
        "by_label": {
            name: _f1(_counts((_of_label(said, place), _of_label(gold, place)) for said, gold in pairs).sum(0))
            for place, name in enumerate(data.classes)
        },
        "token_f1": _f1(
            np.array([((said_N == right_N) & (right_N > 0)).sum(), (said_N > 0).sum(), (right_N > 0).sum()])
        ),
        "token_accuracy": float((said_N == right_N).mean()),
        "reachable_f1": _f1(_counts(reachable).sum(0)),
    }


def _said(model: nn.Module, tokenizer: TextTokenizer, ids: list[list[int]]) -> list[npt.NDArray[np.int64]]:
    """The likeliest tag of every token but the first, which stands before the text."""
    network, encoded = transformer(model.eval()), padded(ids, tokenizer.pad_id)
    with torch.inference_mode():
        tags_BT = network.head(network.hidden(*encoded)).argmax(-1).numpy()
    return [tags[1 : len(own)] for tags, own in zip(tags_BT, ids, strict=True)]


def _counts(pairs: Iterable[tuple[set[Span], set[Span]]]) -> Counts:
    return np.array([(len(said & gold), len(said), len(gold)) for said, gold in pairs], dtype=np.int64)


def _of_label(spans: set[Span], label: int) -> set[Span]:
    return {one for one in spans if one[2] == label}


def _f1(counts: Counts) -> float:
    """2 hits of all that was said and all that there is; 0 where both are nothing."""
    hits, said, gold = counts.tolist()
    return float(2 * hits / max(said + gold, 1))


def _interval(counts: Counts, rng: np.random.Generator) -> tuple[float, float]:
    drawn = [_f1(counts[rng.integers(0, len(counts), len(counts))].sum(0)) for _ in range(_RESAMPLES)]
    low, high = np.quantile(drawn, _INTERVAL)
    return float(low), float(high)
