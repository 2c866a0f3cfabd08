"""One row of the variant table: quality, speed, size, operations and energy of one model."""

import io
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from catalog.errors import DataError
from training.evaluation.energy import Energy, EnergyMeter
from training.evaluation.exits import early_exits
from training.evaluation.flops import count_flops
from training.evaluation.quality import Labels, accuracy_interval, quality
from training.tokenizer import Encoded

BATCH_SIZE = 64
WINDOW_SECONDS = 1.0
_WARMUP, _TIMED, _COUNTED = 5, 50, 32


def evaluate(
    model: nn.Module,
    encode: Callable[[list[str]], Encoded],
    texts: Sequence[str],
    labels: Sequence[int],
    classes: Sequence[str],
    *,
    seed: int,
    reference: Labels | None = None,
    uncompressed: nn.Module | None = None,
    meter: EnergyMeter | None = None,
) -> dict[str, Any]:
    """Measure a model on held-out records.

    Parameters
    ----------
    model : maps (input_ids, attention_mask) to logits; evaluated on the CPU in its own precision.
    encode : turns texts into the model's input.
    texts, labels : the held-out records; every label in [0, n_classes).
    classes : names of the classes.
    seed : picks the timed examples and the bootstrap's resamples.
    reference : predictions of another model, to report the share of equal ones.
    uncompressed : the model that ``model`` was made from, when its own kernels cannot be counted.
    meter : a started energy meter to share; None starts one for this call.

    Returns
    -------
    JSON scalars, lists and objects, except ``predictions`` ((n,) int64):
    ``num_examples``, ``accuracy``, ``accuracy_low``, ``accuracy_high`` (95 % bootstrap), ``macro_f1``,
    ``f1`` (by class), ``latency_ms`` (median, one text at a time, from text to label), ``throughput`` (examples a
    second, batches of 64 sorted by length, from text to label), ``flops`` (forward, mean of an example without
    padding), ``flops_method``, ``size_bytes`` (serialised state dict), ``energy_joules`` (an example, at full
    throughput) and ``energy_method``, ``agreement`` (share of predictions equal to the reference, or None),
    ``num_threads``; of a model with heads behind earlier layers also ``exits``, as of ``early_exits``.

    Raises
    ------
    DataError : no example, or an example without a label.
    """
    gold = _checked(labels, len(texts), len(classes))
    model.eval()
    rng = np.random.default_rng(seed)
    sample = [texts[row] for row in rng.permutation(len(texts))[:_TIMED]]
    passes = _Passes(model, encode, texts)
    energy = _energy_of(passes.run, meter)
    predictions = passes.predictions
    scores = quality(predictions, gold, len(classes))
    low, high = accuracy_interval(predictions, gold, rng)
    exits = early_exits(model, encode, texts, gold)
    return {
        "num_examples": len(gold),
        "accuracy": scores.accuracy,
        "accuracy_low": low,
        "accuracy_high": high,
        "macro_f1": scores.macro_f1,
        "f1": {name: float(value) for name, value in zip(classes, scores.f1, strict=True)},
        "latency_ms": latency_ms(model, encode, sample),
        "throughput": passes.num_examples / passes.seconds,
        "flops": flops_per_example(uncompressed or model, encode, sample[:_COUNTED]),
        "flops_method": "counted" if uncompressed is None else "counted on the uncompressed model",
        "size_bytes": size_bytes(model),
        "energy_joules": None if energy.joules is None else energy.joules / passes.num_examples,
        "energy_method": energy.method,
        "agreement": None if reference is None else float((predictions == reference).mean()),
        "num_threads": torch.get_num_threads(),
        "predictions": predictions,
    } | ({} if exits is None else {"exits": exits})


def _checked(labels: Sequence[int], num_texts: int, num_classes: int) -> Labels:
    """(n,) the labels, one in range for each text."""
    gold = np.asarray(labels, dtype=np.int64)
    if num_texts == 0 or num_texts != len(gold) or not ((gold >= 0) & (gold < num_classes)).all():
        raise DataError(
            f"{num_texts} held-out texts with {len(gold)} labels must be at least 1, equally many, all of "
            f"one of the {num_classes} classes; hold out labelled records"
        )
    return gold


def _energy_of(work: Callable[[], None], meter: EnergyMeter | None) -> Energy:
    """What work takes by a shared meter, or by one for it alone."""
    if meter is not None:
        return meter.measure(work)
    own = EnergyMeter()
    try:
        return own.measure(work)
    finally:
        own.close()


class _Passes:
    """Whole passes over the texts until a window is filled."""

    def __init__(self, model: nn.Module, encode: Callable[[list[str]], Encoded], texts: Sequence[str]) -> None:
        self.model, self.encode, self.texts = model, encode, texts
        self.num_examples, self.seconds = 0, 0.0
        predict(model, encode, texts[:BATCH_SIZE])  # warms up
        self.predictions: Labels = np.empty(0, dtype=np.int64)

    def run(self) -> None:
        started = time.perf_counter()
        while self.seconds < WINDOW_SECONDS:
            self.predictions = predict(self.model, self.encode, self.texts)
            self.num_examples += len(self.texts)
            self.seconds = time.perf_counter() - started


def predict(model: nn.Module, encode: Callable[[list[str]], Encoded], texts: Sequence[str]) -> Labels:
    """The likeliest class of each text, (n,) int64; batches are sorted by length to waste little on padding."""
    by_length = sorted(range(len(texts)), key=lambda row: -len(texts[row]))
    predictions = np.empty(len(texts), dtype=np.int64)
    with torch.inference_mode():
        for start in range(0, len(texts), BATCH_SIZE):
            rows = by_length[start : start + BATCH_SIZE]
            predictions[rows] = model(*encode([texts[row] for row in rows])).argmax(-1).numpy()
    return predictions


def probabilities(
    model: nn.Module, encode: Callable[[list[str]], Encoded], texts: Sequence[str]
) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The probability of each class for each text, (n, n_classes) float64, rows summing to 1."""
    by_length = sorted(range(len(texts)), key=lambda row: -len(texts[row]))
    found: list[np.ndarray[Any, np.dtype[np.float64]]] = []
    with torch.inference_mode():
        for start in range(0, len(texts), BATCH_SIZE):
            logits = model(*encode([texts[row] for row in by_length[start : start + BATCH_SIZE]]))
            found.append(logits.double().softmax(-1).numpy())
    back = np.empty(len(texts), dtype=np.int64)
    back[by_length] = np.arange(len(texts))
    return np.concatenate(found)[back]


def latency_ms(model: nn.Module, encode: Callable[[list[str]], Encoded], texts: Sequence[str]) -> float:
    """Median milliseconds from one text to its label, warmed up."""
    timed = []
    with torch.inference_mode():
        for text in [*texts[:_WARMUP], *texts]:
            started = time.perf_counter()
            model(*encode([text])).argmax(-1).item()
            timed.append((time.perf_counter() - started) * 1e3)
    return statistics.median(timed[min(_WARMUP, len(texts)) :])


def flops_per_example(model: nn.Module, encode: Callable[[list[str]], Encoded], texts: Sequence[str]) -> int:
    """Mean floating-point operations of one forward pass, one text at a time."""

    def run() -> None:
        with torch.no_grad():
            for text in texts:
                model(*encode([text]))

    return round(count_flops(run) / len(texts))


def size_bytes(model: nn.Module) -> int:
    """Bytes of the serialised state dict."""
    buffer = io.BytesIO()
    torch.save(model.state_dict(), buffer)
    return buffer.tell()
