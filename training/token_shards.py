"""Texts tokenized once, ahead of training, in files that are mapped into memory and verified.

A shard holds the token ids of some thousand records: the offsets of the records (little-endian int64), then all ids
(little-endian uint16 or uint32, by the size of the vocabulary). Shards are written aside, flushed and renamed, and
listed with their SHA-256 in an index that is written last, so a folder is complete or is completed by whoever opens it.
"""

import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from training.stream import Rows
from training.tokenizer import TextTokenizer

_INDEX = "index.json"
_OFFSET = np.dtype("<i8")
_NARROW, _WIDE = np.dtype("<u2"), np.dtype("<u4")
SHARD_RECORDS = 16_384
"""Records of a shard: what is tokenized again when one is damaged."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TokenShards:
    """Token ids of records, by row number; ``open`` makes them.

    Parameters
    ----------
    shards : offsets (records + 1,) and ids of each shard.
    shard_records : records of each shard but the last.
    """

    shards: Sequence[tuple[npt.NDArray[np.int64], npt.NDArray[Any]]]
    shard_records: int

    @classmethod
    def open(
        cls,
        folder: Path,
        texts: Sequence[str],
        tokenizer: TextTokenizer,
        max_tokens: int,
        *,
        shard_records: int = SHARD_RECORDS,
    ) -> Self:
        """Map the tokens of these texts, writing what is missing or damaged.

        Parameters
        ----------
        folder : where the shards of all texts and tokenizers lie, each in a folder named by what it was made of.
            Several processes may open the same at once.
        texts : (n,) str; the rows.
        tokenizer, max_tokens : how they are tokenized and cut.
        shard_records : records of a shard.

        Raises
        ------
        DataError : a text is null or no Unicode text.
        """
        home = folder / _key(texts, tokenizer, max_tokens, shard_records)
        home.mkdir(parents=True, exist_ok=True)
        dtype = _NARROW if tokenizer.vocab_size <= 2**16 else _WIDE
        starts = range(0, len(texts), shard_records)
        known = _read_index(home, len(starts))
        checksums = []
        for number, start in enumerate(starts):
            path = home / f"{number:05d}.tokens"
            found = _sha256(path)
            if found is None or found != known[number]:
                if known[number] is not None:
                    logger.warning("token shard %s is missing or damaged and is written again", path.name)
                part = tokenizer.token_ids(texts[start : start + shard_records], max_tokens)
                found = _write(path, _packed(part, dtype))
            checksums.append(found)
        if checksums != known:
            _write(home / _INDEX, json.dumps({"sha256": checksums}, indent=1).encode())
        counts = [min(shard_records, len(texts) - start) for start in starts]
        shards = [_mapped(home / f"{number:05d}.tokens", count, dtype) for number, count in enumerate(counts)]
        return cls(shards, shard_records)

    @cached_property
    def lengths(self) -> Rows:
        """(n,) int64 tokens of each record, at least 1."""
        return np.concatenate([np.diff(offsets) for offsets, _ in self.shards])

    def rows(self, rows: Sequence[int]) -> list[npt.NDArray[Any]]:
        """Token ids of records, in the order asked for."""
        found = []
        for row in rows:
            number, place = divmod(row, self.shard_records)
            offsets, ids = self.shards[number]
            found.append(ids[offsets[place] : offsets[place + 1]])
        return found


def _key(texts: Sequence[str], tokenizer: TextTokenizer, max_tokens: int, shard_records: int) -> str:
    """What the tokens follow from; the lengths keep texts apart that would run together."""
    content = hashlib.sha256(json.dumps([tokenizer.document, max_tokens, shard_records, len(texts)]).encode())
    for text in texts:
        raw = text.encode("utf-8", "surrogatepass")
        content.update(len(raw).to_bytes(8, "little") + raw)
    return content.hexdigest()[:32]


def _packed(rows: list[list[int]], dtype: np.dtype[Any]) -> bytes:
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(_OFFSET)
    return offsets.tobytes() + np.concatenate(rows).astype(dtype).tobytes()


def _mapped(path: Path, num_records: int, dtype: np.dtype[Any]) -> tuple[npt.NDArray[np.int64], npt.NDArray[Any]]:
    head = (num_records + 1) * _OFFSET.itemsize
    raw = np.memmap(path, mode="r")
    # Plain views: a slice of a memmap costs several times that of an array.
    return np.asarray(raw[:head].view(_OFFSET)), np.asarray(raw[head:].view(dtype))


def _read_index(home: Path, num_shards: int) -> list[str | None]:
    """The checksums that the shards must have; None where nothing is known."""
    try:
        known = json.loads((home / _INDEX).read_text(encoding="utf-8"))["sha256"]
        if [type(one) for one in known] == [str] * num_shards:
            return list(known)
    except FileNotFoundError:
        pass
    except (OSError, ValueError, KeyError, TypeError) as error:
        logger.warning("the index of token shards %s cannot be read (%s): all are written again", home.name, error)
    return [None] * num_shards


def _write(path: Path, raw: bytes) -> str:
    """Write aside, flush and rename; return the SHA-256."""
    handle, aside = tempfile.mkstemp(dir=path.parent, prefix=f"{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(raw)
            file.flush()
            os.fsync(file.fileno())
        Path(aside).rename(path)
    finally:
        Path(aside).unlink(missing_ok=True)
    return hashlib.sha256(raw).hexdigest()


def _sha256(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return None
