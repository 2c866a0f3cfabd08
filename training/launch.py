"""Train the arms of a recipe in several processes, each started by torchrun.

    torchrun --nproc-per-node=2 -m training.launch --recipe recipe.yaml --data train.parquet --out models --strategy ddp

Every process reads the same files; the folder of ``--out`` must be the same for all. Gloo on CPUs, NCCL on CUDA.
"""

import argparse
import json
import os
import sys
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import polars as pl
import torch

from catalog.errors import ConfigError, DataError, ServiceError
from training.arm import ArmConfig
from training.data import TrainingData, short_names
from training.distributed import Strategy, World
from training.export import load_folder, save_model
from training.fit import FitResult, fit
from training.initial import Initial, is_folder
from training.recipe import TrainRecipe, load_recipe
from training.remembering import TRAINED
from training.retrieval.memory import Memory

_PATIENCE = timedelta(minutes=10)
"""How long a process waits for another before it gives the run up."""
_DEFAULTS = {"difficulty": 0.5, "weight": 1.0}
"""Columns that a file need not have: nothing is ordered or weighed."""
_KEPT = pl.Schema(
    {
        "source": pl.String(),
        "slices": pl.List(pl.String()),
        "label_version": pl.String(),
        "spans": pl.List(pl.Struct({"start": pl.Int64(), "end": pl.Int64(), "label": pl.String()})),
    }
)
"""Columns that are kept where the file has them, in the type that they need."""


def main(argv: Sequence[str] | None = None) -> int:
    """Train every arm, or the one that is named; the first process prints a line of JSON an arm.

    Returns
    -------
    0 when all were trained, 1 when something was refused or failed.
    """
    options = _options().parse_args(argv)
    try:
        recipe = load_recipe(options.recipe)
        arms = [one for one in recipe.arms if options.arm in (None, one.name)]
        if not arms:
            names = ", ".join(one.name for one in recipe.arms)
            raise ConfigError(f"arm={options.arm!r} is not in recipe {recipe.name!r}; it has {names}")
        for arm in arms:
            if arm.retrieval not in {"none", *TRAINED}:
                raise ConfigError(
                    f"arm {arm.name!r}: retrieval={arm.retrieval!r} has no effect here, where no memory is kept; train "
                    "it by `winnow train`, or leave it out"
                )
        data = read_data(options.data, options.text, options.label, kept=_used(recipe))
        with joined(options.strategy) as world:
            for arm in arms:
                result = fit(
                    arm,
                    data,
                    device=world.device,
                    initial=_initial(arm, options.initial),
                    checkpoint_dir=options.out / "checkpoints" / arm.name,
                    token_dir=options.out / "tokens",
                    trackers=options.track,
                    track_dir=options.out / "tracked" / arm.name,
                    world=world,
                )
                if world.rank == 0:
                    facts = {"processes": f"{world.size}, {world.strategy}"}
                    folder = save_model(result, options.out / arm.name, facts=facts)
                    _keep_memory(result, options.out / "memories" / arm.name)
                    last = result.losses[-1][1] if result.losses else None
                    line = {"arm": arm.name, "steps": result.steps, "loss": last, "model": str(folder)}
                    sys.stdout.write(json.dumps(line) + "\n")
    except ServiceError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def _keep_memory(result: FitResult, folder: Path) -> None:
    """Write the memory that a model was trained to read, if it was; it is the same in every attempt."""
    memory = getattr(result.network, "memory", None)
    if memory is not None and not folder.exists():
        dim, width = memory.keys.shape[1], memory.values.shape[1]
        Memory.write(folder, [(memory.keys, memory.values)], source=memory.source, dim=dim, value_width=width)


def read_data(
    path: Path, text: str = "text", label: str = "label", *, kept: Collection[str] = tuple(_KEPT)
) -> TrainingData:
    """A Parquet file as ``winnow export`` writes it, or any with ids and texts.

    ``id``, ``difficulty`` and ``weight`` may be called ``winnow_id`` and so on, as in exports. Without labels,
    difficulty or weights there are none; a record's hash is its id.

    Parameters
    ----------
    text, label : names of these columns.
    kept : further columns to take where there are such: any of ``source``, ``slices``, ``label_version``, ``spans``.
        Without ``source``, a record's is its file in an export (``winnow_file``), named as in ``winnow train``.

    Raises
    ------
    DataError : the file cannot be read, lacks a column, or has one of another type.
    """
    if path.is_dir():
        raise DataError(f"{path} is a folder; name the Parquet file in it")
    try:
        frame = pl.read_parquet(path)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise DataError(f"{path.name} cannot be read as Parquet ({error}); write it with `winnow export`") from error
    columns = {}
    for name, given in (("id", "id"), ("text", text), ("label", label), *((one, one) for one in _DEFAULTS)):
        found = next((one for one in (given, f"winnow_{given}") if one in frame.columns), None)
        if found is not None:
            columns[name] = pl.col(found)
        elif name in ("id", "text"):
            remedy = "name the column of texts with --text" if name == "text" else "give every record one"
            raise DataError(f"{path.name} has no column {given!r}; {remedy}. It has {', '.join(frame.columns)}")
        else:
            columns[name] = pl.lit(_DEFAULTS.get(name))
    columns |= {"label": columns["label"].cast(pl.String), "hash": columns["id"]} | _kept(frame, path, kept)
    return TrainingData.build(frame.select(**columns))


def _kept(frame: pl.DataFrame, path: Path, names: Collection[str]) -> dict[str, pl.Expr]:
    found = {}
    for name in (one for one in names if one in frame.columns):
        try:
            found[name] = pl.lit(frame[name].cast(_KEPT[name]))
        except pl.exceptions.PolarsError as error:
            raise DataError(
                f"{path.name}: column {name!r} is {frame[name].dtype} and must be {_KEPT[name]}; cast or drop it"
            ) from error
    if "source" in names and "source" not in found and "winnow_file" in frame.columns:
        found["source"] = pl.lit(short_names(frame["winnow_file"]))
    return found


def _used(recipe: TrainRecipe) -> set[str]:
    """What the recipe's arms learn or draw by; another file's column of that name is not looked at."""
    unused = {"source": not recipe.draws_by_source(), "spans": recipe.reads != "spans"}
    return {name for name in _KEPT if not unused.get(name, False)}


def _initial(arm: ArmConfig, folder: Path | None) -> Initial | None:
    """The model that an arm starts from: ``folder`` stands here for the run that its recipe names, if it names one."""
    if not arm.init_from:
        return None
    if folder is None and not is_folder(arm.init_from):
        raise ConfigError(f"arm {arm.name!r} starts from {arm.init_from!r}; name the folder of that model by --initial")
    return load_folder(folder or Path(arm.init_from)).as_initial()


@contextmanager
def joined(strategy: Strategy) -> Iterator[World]:
    """The world of the processes that torchrun started, or of this one alone where it was not started by it."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    cuda = torch.cuda.is_available()
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if cuda else torch.device("cpu")
    if size == 1 and strategy != "fsdp2":
        yield World(device=device)
        return
    if "RANK" not in os.environ:
        raise ConfigError(f"strategy={strategy!r} needs processes; start this with torchrun, or take strategy ddp")
    if cuda:
        torch.cuda.set_device(device)
    torch.distributed.init_process_group("nccl" if cuda else "gloo", timeout=_PATIENCE)
    try:
        yield World(rank=int(os.environ["RANK"]), size=size, strategy=strategy, device=device)
    finally:
        torch.distributed.destroy_process_group()


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="training.launch", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--recipe", required=True, help="a preset's name or a YAML file")
    parser.add_argument("--data", required=True, type=Path, help="Parquet with id, text, label")
    parser.add_argument("--text", default="text", help="name of the column of texts")
    parser.add_argument("--label", default="label", help="name of the column of labels")
    parser.add_argument("--out", required=True, type=Path, help="folder for models and checkpoints, the same for all")
    parser.add_argument("--strategy", choices=["ddp", "fsdp2", "expert"], default="ddp", help="how the model is spread")
    parser.add_argument("--initial", type=Path, help="folder of the saved model that init_from of an arm stands for")
    parser.add_argument("--arm", help="train this arm alone")
    parser.add_argument("--track", action="append", default=[], help="a tracker; may be given several times")
    return parser


if __name__ == "__main__":
    sys.exit(main())
