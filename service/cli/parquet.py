"""Writing a Parquet file that is there whole or not at all."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl

from catalog.errors import ConfigError, TransientError


@contextmanager
def aside(path: Path, example: str) -> Iterator[Path]:
    """Another name to write under; the file gets its own when the body ends without an error.

    Parameters
    ----------
    path : given as ``--output``.
    example : a file name for the message where a folder was given.

    Raises
    ------
    ConfigError : the file cannot be written there. TransientError : no space is left.
    """
    if path.is_dir():
        raise ConfigError(f"--output {path} is a folder; give a file name, e.g. {path / example}")
    if not path.parent.is_dir():
        raise ConfigError(f"folder {path.parent} does not exist; make it, or write elsewhere with --output")
    other = path.with_name(f".{path.name}.tmp")
    try:
        yield other
        other.replace(path)
    except OSError as error:
        # Of the file alone: the store has errors of its own.
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise TransientError(f"no space left for {path}; free space, then run the same command") from error
        raise ConfigError(f"--output {path} cannot be written: {error.strerror or error}") from error
    finally:
        other.unlink(missing_ok=True)


def write_parquet(path: Path, frames: Iterator[pl.DataFrame], columns: Any) -> tuple[int, int]:
    """Write frames one after another; how many rows they had, and of how many what they tell of was accepted."""
    import pyarrow.parquet as pq

    schema, total = pl.DataFrame(schema=columns).to_arrow().schema, 0
    accepted = 0
    with path.open("wb") as file, pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for frame in frames:
            writer.write_table(frame.to_arrow())
            total += frame.height
            accepted += int(frame["accepted"].sum()) if "accepted" in columns else frame.height
    return total, accepted
