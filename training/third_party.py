"""Keeping imported libraries quiet about what the user can do nothing about."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_NOISY = ("codecarbon", "torch.utils._pytree", "torchao", "transformers")


@contextmanager
def quietly() -> Iterator[None]:
    """Hide warnings below error of the model libraries, such as torchao's list of CUDA kernels that a CPU cannot load."""
    loggers = [logging.getLogger(name) for name in _NOISY]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
