"""Checkpoints of a training: a new folder each, complete or absent."""

import hashlib
import json
import os
import shutil
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import torch
from torch import Tensor, nn

from catalog.errors import ConflictError, CorruptionError, DataError
from training.averaging import WeightAverage
from training.distributed import ALONE, World
from training.expert_state import gathered_state, own_state
from training.sharded import METADATA, load_sharded, load_sharded_weights, load_whole, save_sharded
from training.stream import StreamManifest

_MODEL, _OPTIMIZER, _TOKENIZER, _STATE = "model.safetensors", "optimizer.pt", "tokenizer.json", "state.json"
_AVERAGE, _SCALER = "average.safetensors", "scaler.json"
_CONFIG = "config.json"
_RECORD_LOSSES, _MANIFESTS = "record_losses.npy", "manifests"
_KEPT = 2
"""Older checkpoints are deleted: the newest, and one before it in case a disk loses the newest."""


@dataclass(frozen=True, kw_only=True)
class TrainingState:
    """What a run is, and how far it came.

    Parameters
    ----------
    config_digest, data_digest : the arm and the data; another one's checkpoint is refused.
    step : updates done. The stream and all randomness follow from it.
    losses : loss of each update so far.
    num_tokens : padded tokens seen so far.
    seconds : training time so far.
    precision : what the run computes in; a resumed run keeps it.
    wait_seconds : of the training time, what was spent waiting for a batch.
    revisions : (start step, digest) of the manifests that were published during the run.
    checks : (step, loss) of the held-out records.
    """

    config_digest: str
    data_digest: str
    step: int = 0
    losses: tuple[float, ...] = ()
    num_tokens: int = 0
    seconds: float = 0.0
    precision: str = "float32"
    wait_seconds: float = 0.0
    revisions: tuple[tuple[int, str], ...] = ()
    checks: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Moving:
    """What a step changes.

    Parameters
    ----------
    network, optimizer : the weights, and what changes them.
    average : the weights' average, where there is one.
    scaler : of the loss in float16.
    """

    network: nn.Module
    optimizer: torch.optim.Optimizer
    average: WeightAverage | None = None
    scaler: torch.amp.GradScaler | None = None


def save_checkpoint(
    folder: Path,
    state: TrainingState,
    moving: Moving,
    tokenizer: str,
    record_losses: npt.NDArray[np.float64] | None = None,
    world: World = ALONE,
    config: str | None = None,
) -> Path:
    """Write ``step-N`` aside, flush it to the disk, rename it, and delete all but the newest two.

    Parameters
    ----------
    world : the processes that call this, all of them, with one and the same folder. The first writes, once it has what
        others alone hold; under ``fsdp2`` each writes its own.
    record_losses : (n,) latest loss of each record, of a run whose order follows it.
    config : what the model is, as saved models have it, so that others can start from the checkpoint.

    Returns
    -------
    The checkpoint's folder. One that is there already is kept: equal runs write equal checkpoints.
    """
    target = folder / f"step-{state.step:08d}"
    aside = _made_aside(folder, target, world)
    average = moving.average.weights if moving.average else {}
    try:
        if world.strategy == "fsdp2":
            save_sharded(aside, moving.network, moving.optimizer, average)
            world.gathered(None)
            whole = None
        elif world.strategy == "expert":
            whole = gathered_state(moving.network, moving.optimizer, average)
        else:
            whole = (trained_parameters(moving.network), moving.optimizer.state_dict(), average)
        if world.rank == 0:
            _write_rest(aside, moving, tokenizer, record_losses, whole)
            if config is not None:
                (aside / _CONFIG).write_text(config, encoding="utf-8")
            document = asdict(state) | {"sha256": {one.name: _sha256(one) for one in sorted(aside.iterdir())}}
            (aside / _STATE).write_text(json.dumps(document, indent=1), encoding="utf-8")
            publish_folder(aside, target)
    finally:
        if world.rank == 0:
            shutil.rmtree(aside, ignore_errors=True)
    if world.rank == 0:
        for old in _complete(folder)[:-_KEPT]:
            shutil.rmtree(old, ignore_errors=True)
    return target


def _made_aside(folder: Path, target: Path, world: World) -> Path:
    """A new folder of the first process, which all know."""
    if world.rank:
        return Path(world.gathered(None)[0])
    folder.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(dir=folder, prefix=f"{target.name}.", suffix=".tmp"))
    world.gathered(str(aside))
    return aside


def _write_rest(
    aside: Path,
    moving: Moving,
    tokenizer: str,
    record_losses: npt.NDArray[np.float64] | None,
    whole: tuple[dict[str, Tensor], dict[str, Any], dict[str, Tensor]] | None,
) -> None:
    """Everything but the state; weights, optimizer and average only where this process was given the whole of them."""
    from safetensors.torch import save_file

    if whole is not None:
        weights, optimizer_state, average = whole
        save_file(weights, aside / _MODEL)
        torch.save(optimizer_state, aside / _OPTIMIZER)
        if moving.average is not None:
            save_file(average, aside / _AVERAGE)
    if moving.scaler is not None:
        (aside / _SCALER).write_text(json.dumps(moving.scaler.state_dict()), encoding="utf-8")
    (aside / _TOKENIZER).write_text(tokenizer, encoding="utf-8")
    if record_losses is not None:
        np.save(aside / _RECORD_LOSSES, record_losses)


def latest_checkpoint(folder: Path) -> Path | None:
    """The complete checkpoint with the highest step, or None."""
    found = _complete(folder)
    return found[-1] if found else None


def read_state(checkpoint: Path, expected: TrainingState) -> tuple[TrainingState, str]:
    """Read and verify a checkpoint.

    Parameters
    ----------
    checkpoint : folder that ``latest_checkpoint`` returned.
    expected : the state of the run that wants to go on; only its digests count.

    Returns
    -------
    The stored state, and the tokenizer's document.

    Raises
    ------
    ConflictError : the checkpoint belongs to another config or other data.
    CorruptionError : a file does not match its checksum.
    """
    document = _verified(checkpoint)
    revisions = tuple((step, digest) for step, digest in document.get("revisions", ()))
    checks = tuple((step, loss) for step, loss in document.get("checks", ()))
    pairs = {"revisions": revisions, "checks": checks}
    state = TrainingState(**(document | {"losses": tuple(document["losses"])} | pairs))
    for name, what in (("config_digest", "config"), ("data_digest", "manifest, labels or classes")):
        if getattr(state, name) != getattr(expected, name):
            raise ConflictError(
                f"checkpoint {checkpoint.name} was written under another {what} ({getattr(state, name)[:12]}, now "
                f"{getattr(expected, name)[:12]}); train in another folder, or delete its checkpoints to start over"
            )
    return state, (checkpoint / _TOKENIZER).read_text(encoding="utf-8")


def _verified(checkpoint: Path) -> dict[str, Any]:
    """What a checkpoint says of itself, once every file has its checksum."""
    try:
        document: dict[str, Any] = json.loads((checkpoint / _STATE).read_text(encoding="utf-8"))
        checksums = document.pop("sha256")
        damaged = [name for name, sha256 in checksums.items() if _sha256(checkpoint / name) != sha256]
    except (OSError, ValueError, KeyError) as error:
        raise CorruptionError(f"checkpoint {checkpoint.name} cannot be read ({error}); delete its folder") from error
    if damaged:
        raise CorruptionError(
            f"checkpoint {checkpoint.name} is damaged ({', '.join(damaged)}); delete it to go on from an older one"
        )
    return document


def is_checkpoint(folder: Path) -> bool:
    """Whether a folder is one checkpoint, complete or not."""
    return (folder / _STATE).is_file()


def read_model(checkpoint: Path) -> tuple[dict[str, Any], str]:
    """What the model of a checkpoint is, as saved models have it, and the tokenizer's document.

    Raises
    ------
    CorruptionError : a file does not match its checksum.
    ConflictError : the checkpoint is of before they said so.
    """
    _verified(checkpoint)
    if not (checkpoint / _CONFIG).is_file():
        raise ConflictError(
            f"checkpoint {checkpoint.name} does not say what model it is of, as those of older releases; let its run "
            "end, and start from the saved model"
        )
    config: dict[str, Any] = json.loads((checkpoint / _CONFIG).read_text(encoding="utf-8"))
    return config, (checkpoint / _TOKENIZER).read_text(encoding="utf-8")


@torch.no_grad()
def load_trained(checkpoint: Path, network: nn.Module) -> None:
    """Put a verified checkpoint's weights in place, of its average where it has one, and nothing else.

    Parameters
    ----------
    network : made by the same config, adapted for training.
    """
    from safetensors.torch import load_file

    parameters = trained_parameters(network)
    if (checkpoint / METADATA).is_file():
        stored = load_sharded_weights(checkpoint, parameters)
    else:
        average = checkpoint / _AVERAGE
        stored = load_file(average if average.is_file() else checkpoint / _MODEL)
    for name, parameter in parameters.items():
        parameter.copy_(stored[name])


def load_weights(checkpoint: Path, moving: Moving, world: World = ALONE) -> None:
    """Put a verified checkpoint's weights, optimizer state, average and scale in place, whatever world wrote it.

    Raises
    ------
    ConflictError : it lies in parts that this world cannot read.
    """
    from safetensors.torch import load_file

    if moving.scaler is not None:
        moving.scaler.load_state_dict(json.loads((checkpoint / _SCALER).read_text(encoding="utf-8")))
    if (checkpoint / METADATA).is_file():
        if world.strategy == "expert":
            raise ConflictError(
                f"checkpoint {checkpoint.name} lies in the parts of strategy fsdp2; go on under it, or let one process "
                "alone write the next"
            )
        load_sharded(checkpoint, moving.network, moving.optimizer, moving.average.weights if moving.average else {})
        return
    stored = load_file(checkpoint / _MODEL)
    average = load_file(checkpoint / _AVERAGE) if moving.average is not None else {}
    optimizer_state = torch.load(checkpoint / _OPTIMIZER, weights_only=True, map_location="cpu")
    parameters = trained_parameters(moving.network)
    assert stored.keys() == parameters.keys()
    if world.strategy == "expert":
        stored, optimizer_state, average = own_state(moving.network, moving.optimizer, stored, optimizer_state, average)
    if world.strategy == "fsdp2":
        load_whole(stored, optimizer_state, moving.network, moving.optimizer)
    else:
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(stored[name])
        moving.optimizer.load_state_dict(optimizer_state)
    if moving.average is not None:
        moving.average.load(average)


def load_record_losses(checkpoint: Path) -> npt.NDArray[np.float64]:
    """The losses of records that a verified checkpoint of an online pacing holds."""
    losses: npt.NDArray[np.float64] = np.load(checkpoint / _RECORD_LOSSES)
    return losses


def publish_manifest(folder: Path, manifest: StreamManifest) -> Path:
    """Write a manifest beside a run's checkpoints, named by its digest; one that is there already is the same."""
    target = folder / _MANIFESTS / f"{manifest.digest}.parquet"
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f"{target.name}.", suffix=".tmp")
    os.close(handle)
    aside = Path(name)
    try:
        manifest.frame.write_parquet(aside)
        _flush(aside)
        aside.rename(target)
        _flush(target.parent)
    finally:
        aside.unlink(missing_ok=True)
    return target


def read_manifest(folder: Path, digest: str) -> StreamManifest:
    """Read a published manifest back.

    Raises
    ------
    CorruptionError : it is gone, unreadable, or another one than its name says.
    """
    path = folder / _MANIFESTS / f"{digest}.parquet"
    try:
        manifest = StreamManifest.build(pl.read_parquet(path))
    except (OSError, pl.exceptions.PolarsError, DataError) as error:
        raise CorruptionError(f"manifest {path.name} cannot be read ({error}); {_START_OVER}") from error
    if manifest.digest != digest:
        raise CorruptionError(f"manifest {path.name} has the digest {manifest.digest[:12]}; {_START_OVER}")
    return manifest


_START_OVER = "restore it, or delete the run's checkpoints to start over"


def trained_parameters(model: nn.Module) -> dict[str, Tensor]:
    """What training changes: frozen weights come from the backbone and are not stored again."""
    return {name: parameter.detach() for name, parameter in model.named_parameters() if parameter.requires_grad}


def publish_folder(aside: Path, target: Path) -> None:
    """Flush a folder to the disk and rename it to ``target``; a folder that is there already stays."""
    for one in [*aside.iterdir(), aside]:
        _flush(one)
    try:
        aside.rename(target)
    except OSError:
        if not target.is_dir():
            raise
    _flush(target.parent)


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _complete(folder: Path) -> list[Path]:
    return sorted(one for one in folder.glob("step-*") if one.suffix != ".tmp") if folder.is_dir() else []


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
