"""A memory on disk: vectors, and with each a row of integers, mapped from files; and what reads one.

A memory is a folder: ``keys`` (little-endian float32 or float16, row after row), ``values`` (little-endian int32), and
``memory.json``, written last, with sizes, checksums and what made the vectors. It is written aside and renamed.
Shapes: n entries, D numbers of a vector, W integers of a value.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Self, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from catalog.errors import ConfigError, ConflictError, CorruptionError, DataError, NotFoundError
from training.retrieval.search import Precision

_INDEX, _KEYS, _VALUES = "memory.json", "keys", "values"
_VALUE = np.dtype("<i4")
_DTYPES: dict[str, np.dtype[Any]] = {"float32": np.dtype("<f4"), "float16": np.dtype("<f2")}
Entries = tuple[npt.NDArray[Any], npt.NDArray[Any]]
"""Keys (m, D) and values (m, W) of some entries."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Described:
    """What ``memory.json`` holds."""

    source: str
    num_entries: int
    dim: int
    value_width: int
    precision: str
    sha256: dict[str, str]


@dataclass(frozen=True, kw_only=True, eq=False)
class Memory:
    """Vectors and values, read from where they are mapped.

    Parameters
    ----------
    source : what made the vectors: a network's digest, or an encoder's name. Only it can ask this memory anything.
    keys : (n, D) float32 or float16.
    values : (n, W) int32.
    """

    source: str
    keys: npt.NDArray[Any]
    values: npt.NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.keys)

    @classmethod
    def write(
        cls,
        folder: Path,
        entries: Iterable[Entries],
        *,
        source: str,
        dim: int,
        value_width: int = 1,
        precision: Precision = "float32",
    ) -> Self:
        """Write entries part by part, and open what was written.

        Parameters
        ----------
        folder : where the memory will lie; it must not exist.
        entries : parts of any size; none makes an empty memory.
        source, dim, value_width : as of a memory.
        precision : what vectors are stored as; ``float16`` takes half the space and rounds them.

        Raises
        ------
        DataError : a part of another shape, a vector with a number that is not finite, a value beyond 32 bits.
        ConflictError : the folder exists.
        """
        if precision not in get_args(Precision):
            raise ConfigError(f"precision={precision!r} must be one of {', '.join(get_args(Precision))}")
        if folder.exists():
            raise ConflictError(f"{folder} exists; memories are not overwritten, so write another folder")
        folder.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        try:
            described = _written(aside, entries, source, (dim, value_width), precision)
            _flushed(aside / _INDEX, json.dumps(asdict(described), indent=1).encode())
            aside.rename(folder)
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)
            raise
        return cls.open(folder)

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Map a memory, after its checksums were compared.

        Raises
        ------
        NotFoundError : there is none.
        CorruptionError : a file is missing, too short or not what was written.
        """
        try:
            described = _Described(**json.loads((folder / _INDEX).read_text(encoding="utf-8")))
        except FileNotFoundError as error:
            raise NotFoundError(f"no memory in {folder}: it has no {_INDEX}; write it first") from error
        except (TypeError, ValueError) as error:
            raise CorruptionError(f"{folder / _INDEX} is damaged ({error}); write the memory again") from error
        for name, expected in described.sha256.items():
            try:
                with (folder / name).open("rb") as file:
                    found = hashlib.file_digest(file, "sha256").hexdigest()
            except FileNotFoundError:
                found = "missing"
            if found != expected:
                raise CorruptionError(
                    f"{folder / name}: sha256 {found[:12]} is not the {expected[:12]} that was written; write the "
                    "memory again"
                )
        keys = _mapped(folder / _KEYS, _DTYPES[described.precision], (described.num_entries, described.dim))
        values = _mapped(folder / _VALUES, _VALUE, (described.num_entries, described.value_width))
        return cls(source=described.source, keys=keys, values=values)


class MemoryReader(nn.Module):
    """A network that asks a memory; a base of what is registered as retrieval.

    Attributes
    ----------
    memory : in use; None for none. It is no weight: it is neither trained nor saved with them.
    """

    value_width: ClassVar[int | None] = 1
    """Integers of a value that the reader wants; None takes any."""

    def __init__(self) -> None:
        super().__init__()
        self.memory: Memory | None = None

    @property
    def source(self) -> str:
        """What has to have made a memory's vectors."""
        raise NotImplementedError

    @property
    def key_dim(self) -> int | None:
        """Numbers of a vector; None where the reader does not know before it is asked."""
        raise NotImplementedError

    def use(self, memory: Memory | None) -> None:
        """Read this memory from now on, or none.

        Raises
        ------
        ConfigError : other vectors than the reader would ask with, of another size, or values of another width.
        """
        if memory is not None:
            self._check(memory)
        self.memory = memory

    def _check(self, memory: Memory) -> None:
        source, dim = self.source, self.key_dim
        if memory.source != source:
            raise ConfigError(
                f"the memory's vectors were made by {memory.source!r}, those of this reader by {source!r}; write the "
                "memory again with this reader's, or load the network that made it"
            )
        if dim is not None and memory.keys.shape[1] != dim:
            raise ConfigError(
                f"the memory's vectors have {memory.keys.shape[1]} numbers and must have {dim}; write it again"
            )
        if self.value_width is not None and memory.values.shape[1] != self.value_width:
            raise ConfigError(
                f"the memory's values have {memory.values.shape[1]} integers and must have {self.value_width}; it was "
                "written for another kind of retrieval"
            )

    @property
    def reads(self) -> bool:
        """Whether there is anything to read."""
        return self.memory is not None and len(self.memory) > 0


def weights_digest(model: nn.Module) -> str:
    """SHA-256 (hex) of all weights and buffers with their names: what tells two networks apart."""
    digest = hashlib.sha256()
    for name, one in sorted(model.state_dict().items()):
        digest.update(f"{name} {one.dtype} {tuple(one.shape)}".encode())
        digest.update(_raw(one))
    return digest.hexdigest()


def _raw(tensor: Tensor) -> bytes:
    return tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes() if tensor.numel() else b""


def _written(
    aside: Path, entries: Iterable[Entries], source: str, shape: tuple[int, int], precision: Precision
) -> _Described:
    """Both files, checked part by part."""
    dim, value_width = shape
    digests = {_KEYS: hashlib.sha256(), _VALUES: hashlib.sha256()}
    count = 0
    with (aside / _KEYS).open("wb") as keys_file, (aside / _VALUES).open("wb") as values_file:
        for keys, values in entries:
            if keys.shape[1:] != (dim,) or values.shape != (len(keys), value_width):
                raise DataError(
                    f"entries of shapes {keys.shape} and {values.shape} must have (m, {dim}) and (m, {value_width}); "
                    "give as many values as vectors"
                )
            stored = keys.astype(_DTYPES[precision])
            if not np.isfinite(stored).all():
                row = count + int(np.flatnonzero(~np.isfinite(stored).all(1))[0])
                raise DataError(f"the vector of entry {row} is not finite in {precision}; leave it out, or scale it")
            if values.size and not -(2**31) <= values.min() <= values.max() < 2**31:
                raise DataError(f"a value among entries {count} to {count + len(keys)} does not fit into 32 bits")
            for file, name, array in ((keys_file, _KEYS, stored), (values_file, _VALUES, values.astype(_VALUE))):
                raw = array.tobytes()
                file.write(raw)
                digests[name].update(raw)
            count += len(keys)
        for file in (keys_file, values_file):
            file.flush()
            os.fsync(file.fileno())
    return _Described(
        source=source,
        num_entries=count,
        dim=dim,
        value_width=value_width,
        precision=precision,
        sha256={name: one.hexdigest() for name, one in digests.items()},
    )


def _flushed(path: Path, raw: bytes) -> None:
    with path.open("wb") as file:
        file.write(raw)
        file.flush()
        os.fsync(file.fileno())


def _mapped(path: Path, dtype: np.dtype[Any], shape: tuple[int, int]) -> npt.NDArray[Any]:
    # A file of no bytes cannot be mapped.
    return np.memmap(path, dtype, "r", shape=shape) if shape[0] and shape[1] else np.zeros(shape, dtype)
