"""Keeping imported libraries quiet about what the user can do nothing about."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_NOISY = ("codecarbon", "torch.utils._pytree", "torchao", "transformers")


@contextmanager
def quietly() -> Iterator[None]:
    """Hide what the model libraries say below error, such as torchao's list of CUDA kernels that a CPU cannot load."""
    loggers = [logging.getLogger(name) for name in _NOISY]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
        # codecarbon sets its own level while it starts.
        logger.addFilter(_is_error)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
            logger.removeFilter(_is_error)


@contextmanager
def without_bars() -> Iterator[None]:
    """Hide the progress bars of transformers, which count files and not the work of the command that calls it."""
    from transformers.utils import logging as theirs

    shown = theirs.is_progress_bar_enabled()
    theirs.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        if shown:
            theirs.enable_progress_bar()  # type: ignore[no-untyped-call]


def _is_error(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.ERROR
