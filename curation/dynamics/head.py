"""The cheap trainer: a linear head, or one with a hidden layer, on fixed vectors, by Adam over a few epochs."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from catalog.errors import ConfigError
from curation.softmax import one_thread, softmax

_BETA1, _BETA2, _TINY = 0.9, 0.999, 1e-8
"""Kingma and Ba (2015), Adam, section 2."""


@dataclass(frozen=True, kw_only=True)
class HeadConfig:
    """How the head is trained.

    Parameters
    ----------
    epochs : passes over the records, 2 to 1,000.
    hidden : units of the hidden layer; 0 is a linear head.
    batch_size : records a step.
    learning_rate : of Adam, constant, so that early epochs differ from late ones.
    weight_decay : decoupled, a step, as a share of the learning rate.
    """

    epochs: int = 10
    hidden: int = 0
    batch_size: int = 64
    learning_rate: float = 0.02
    weight_decay: float = 0.001

    def __post_init__(self) -> None:
        """Refuse values outside their range."""
        for name, low, high in (("epochs", 2, 1_000), ("hidden", 0, 4_096), ("batch_size", 1, 65_536)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
                raise ConfigError(f"{name}={value!r} must be a whole number from {low} to {high}")


@dataclass(frozen=True, eq=False)
class Epochs:
    """(epochs, n) float32 each: ``confidence``, ``margin`` and ``error_norm``, as of ``Trace``."""

    confidence: np.ndarray
    margin: np.ndarray
    error_norm: np.ndarray


def train_head(vectors: np.ndarray, codes: np.ndarray, num_classes: int, config: HeadConfig, seed: int) -> Epochs:
    """Train once and look at every record after each epoch. The same input gives the same bits.

    Parameters
    ----------
    vectors : (n, d) float32.
    codes : (n,) int64 in [0, num_classes).
    seed : of the first weights and the order of the records.
    """
    rng = np.random.default_rng(seed)
    size = len(codes)
    sizes = [vectors.shape[1], *([config.hidden] if config.hidden else []), num_classes]
    layers = [_initial(rng, low, high) for low, high in pairwise(sizes)]
    moments = [(np.zeros_like(layer), np.zeros_like(layer)) for layer in layers]
    found = Epochs(*(np.empty((config.epochs, size), np.float32) for _ in range(3)))
    step = 0
    with one_thread():
        for epoch in range(config.epochs):
            order = rng.permutation(size)
            for start in range(0, size, config.batch_size):
                rows = order[start : start + config.batch_size]
                step += 1
                _adam(layers, moments, gradients_of(layers, vectors[rows], codes[rows]), step, config)
            _look(layers, vectors, codes, epoch, found)
    return found


def _initial(rng: np.random.Generator, low: int, high: int) -> np.ndarray:
    """(low + 1, high) float32, the bias last and 0 (He et al. 2015)."""
    weights = rng.normal(scale=np.sqrt(2.0 / low), size=(low + 1, high)).astype(np.float32)
    weights[low] = 0.0
    return weights


def _forward(layers: list[np.ndarray], inputs: np.ndarray) -> list[np.ndarray]:
    """What goes into each layer, and the logits last."""
    values = [inputs]
    for layer in layers[:-1]:
        values.append(np.maximum(values[-1] @ layer[:-1] + layer[-1], 0.0))
    values.append(values[-1] @ layers[-1][:-1] + layers[-1][-1])
    return values


def gradients_of(layers: list[np.ndarray], inputs: np.ndarray, codes: np.ndarray) -> list[np.ndarray]:
    """Gradients of the mean cross entropy by the weights of each layer, in their shapes."""
    values = _forward(layers, inputs)
    upper = softmax(values[-1]).astype(inputs.dtype)
    upper[np.arange(len(codes)), codes] -= 1.0
    upper /= len(codes)
    gradients = []
    for layer, below in zip(reversed(layers), reversed(values[:-1]), strict=True):
        gradients.append(np.concatenate([below.T @ upper, upper.sum(axis=0, keepdims=True)]))
        upper = (upper @ layer[:-1].T) * (below > 0)
    return gradients[::-1]


def _adam(
    layers: list[np.ndarray],
    moments: list[tuple[np.ndarray, np.ndarray]],
    gradients: list[np.ndarray],
    step: int,
    config: HeadConfig,
) -> None:
    rate = config.learning_rate * np.sqrt(1 - _BETA2**step) / (1 - _BETA1**step)
    for layer, (first, second), gradient in zip(layers, moments, gradients, strict=True):
        first += (1 - _BETA1) * (gradient - first)
        second += (1 - _BETA2) * (gradient**2 - second)
        layer[:-1] *= 1 - config.learning_rate * config.weight_decay
        layer -= np.float32(rate) * first / (np.sqrt(second) + np.float32(_TINY))


def _look(layers: list[np.ndarray], vectors: np.ndarray, codes: np.ndarray, epoch: int, found: Epochs) -> None:
    for start in range(0, len(codes), 16_384):
        part = slice(start, start + 16_384)
        logits = _forward(layers, vectors[part])[-1]
        rows, given = np.arange(len(logits)), codes[part]
        proba = softmax(logits.copy())
        found.confidence[epoch, part] = proba[rows, given]
        proba[rows, given] -= 1.0
        found.error_norm[epoch, part] = np.linalg.norm(proba, axis=1)
        own = logits[rows, given].copy()
        logits[rows, given] = -np.inf
        found.margin[epoch, part] = own - logits.max(axis=1)
