"""A trained model as a folder: safetensors, config, tokenizer and a model card."""

import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from catalog.errors import ConfigError, CorruptionError, NotFoundError
from training.arm import ArmConfig
from training.backbones import BACKBONES
from training.checkpoint import is_checkpoint, latest_checkpoint, load_trained, publish_folder, read_model
from training.fit import FitResult
from training.initial import Initial, model_document
from training.objectives import objective_of
from training.tokenizer import Encoded, TextTokenizer

_MODEL, _CONFIG, _TOKENIZER, _CARD = "model.safetensors", "config.json", "tokenizer.json", "README.md"
_BESIDE = "objective.safetensors"
"""Weights that an objective trained beside the model; only needed to go on with it or to measure its loss."""


@dataclass(frozen=True, kw_only=True)
class SavedModel:
    """A model read back, its tokenizer, what it was trained as, and what holds the objective's own modules as well."""

    arm: ArmConfig
    model: nn.Module
    tokenizer: TextTokenizer
    classes: tuple[str, ...]
    network: nn.Module

    def encode(self, texts: list[str]) -> Encoded:
        """Turn texts into the model's input."""
        return self.tokenizer.encode(texts, self.arm.max_tokens)

    def as_initial(self) -> Initial:
        """What another training starts from."""
        return Initial(dict(self.model.state_dict()), self.tokenizer, self.arm)


def save_model(result: FitResult, folder: Path, *, facts: dict[str, Any] | None = None) -> Path:
    """Write the model aside, then put the folder in place of whatever was there.

    Parameters
    ----------
    result : what ``fit`` returned.
    folder : where the model goes; its parent is created.
    facts : more lines for the card (dataset, version, scores), as JSON scalars by name.

    Returns
    -------
    The folder.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f"{folder.name}.", suffix=".tmp"))
    try:
        saved = SavedModel(
            arm=result.arm,
            model=result.model,
            tokenizer=result.tokenizer,
            classes=result.classes,
            network=result.network or result.model,
        )
        write_model(saved, aside)
        (aside / _CARD).write_text(model_card(result, facts or {}), encoding="utf-8")
        replaced = aside.with_suffix(".old")
        if folder.exists():
            folder.rename(replaced)
        publish_folder(aside, folder)
        shutil.rmtree(replaced, ignore_errors=True)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return folder


def write_model(saved: SavedModel, folder: Path) -> None:
    """Write weights, config and tokenizer into a folder that is there, without a card."""
    from safetensors.torch import save_file

    save_file({name: one.contiguous() for name, one in saved.model.state_dict().items()}, folder / _MODEL)
    beside = _beside(saved.network, saved.model)
    if beside:
        save_file({name: one.detach().contiguous() for name, one in beside.items()}, folder / _BESIDE)
    document = model_document(saved.arm, saved.classes, saved.tokenizer.vocab_size)
    (folder / _CONFIG).write_text(document, encoding="utf-8")
    (folder / _TOKENIZER).write_text(saved.tokenizer.document, encoding="utf-8")


def load_folder(folder: Path) -> SavedModel:
    """Read what an arm's ``init_from`` may name: a saved model, a checkpoint, or a run's folder of them (the newest).

    Raises
    ------
    NotFoundError : the folder holds none of these.
    ConfigError : its model was not written by ``save_model``.
    CorruptionError, ConflictError : a file is damaged, or a checkpoint of an older release, which says too little.
    """
    checkpoint = folder if is_checkpoint(folder) else latest_checkpoint(folder)
    if checkpoint is not None:
        return _load_checkpoint(checkpoint)
    if not (folder / _CONFIG).is_file():
        raise NotFoundError(
            f"no model in {folder}; name a folder with {_MODEL} and {_CONFIG} that Winnow wrote, or one of checkpoints"
        )
    try:
        document = json.loads((folder / _CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CorruptionError(f"{_CONFIG} in {folder} cannot be read ({error}); name another folder") from error
    if not isinstance(document, dict) or "arm" not in document:
        raise ConfigError(
            f"the model in {folder} was not written by Winnow: its {_CONFIG} names no arm; name a folder that "
            "training.launch or training.export.save_model wrote"
        )
    return load_model(folder)


def _load_checkpoint(checkpoint: Path) -> SavedModel:
    document, tokenizer = read_model(checkpoint)
    arm = ArmConfig(**document["arm"])
    registered, objective = BACKBONES[arm.backbone], objective_of(arm)
    config = registered.configured(arm.backbone_options)
    with torch.random.fork_rng(devices=[]):
        model = registered.member.build(
            vocab_size=document["vocab_size"],
            heads=objective.heads(len(document["classes"])),
            max_tokens=arm.max_tokens,
            config=config,
        )
        model = registered.member.adapt(model, config)
        network = objective.network(model)
    load_trained(checkpoint, network)
    return SavedModel(
        arm=arm,
        model=registered.member.merge(model).eval(),
        tokenizer=TextTokenizer(tokenizer),
        classes=tuple(document["classes"]),
        network=network.eval(),
    )


def load_model(folder: Path) -> SavedModel:
    """Read a model that ``save_model`` wrote.

    Raises
    ------
    NotFoundError : there is no model in the folder.
    CorruptionError : a file does not parse, or the weights do not fit the config.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not (folder / _CONFIG).is_file():
        raise NotFoundError(f"no model in {folder}; train one, or name the folder of a saved one")
    try:
        document = json.loads((folder / _CONFIG).read_text(encoding="utf-8"))
        arm = ArmConfig(**document["arm"])
        weights = load_file(folder / _MODEL)
        tokenizer = TextTokenizer((folder / _TOKENIZER).read_text(encoding="utf-8"))
        registered, objective = BACKBONES[arm.backbone], objective_of(arm)
        with torch.random.fork_rng(devices=[]):
            model = registered.member.build(
                vocab_size=document["vocab_size"],
                heads=objective.heads(len(document["classes"])),
                max_tokens=arm.max_tokens,
                config=registered.configured(arm.backbone_options),
            )
            network = objective.network(model)
        model.load_state_dict(weights)
        beside = _beside(network, model)
        stored = load_file(folder / _BESIDE) if beside else {}
        for name, one in beside.items():
            one.data.copy_(stored[name])
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise CorruptionError(f"model in {folder.name} cannot be read ({error}); train it again") from error
    return SavedModel(
        arm=arm, model=model.eval(), tokenizer=tokenizer, classes=tuple(document["classes"]), network=network.eval()
    )


def _beside(network: nn.Module, model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers of the network that are none of the model's."""
    held = {id(one) for one in (*model.parameters(), *model.buffers())}
    own = (*network.named_parameters(), *network.named_buffers())
    return {name: one for name, one in own if id(one) not in held}


def model_card(result: FitResult, facts: dict[str, Any]) -> str:
    """A Markdown page that says what the model is and how it came about (after Mitchell et al. 2019)."""
    arm = result.arm
    last = f"{result.losses[-1][1]:.4f}" if result.losses else "none"
    rows = {
        "objective": f"{arm.objective} {json.dumps(arm.objective_options, sort_keys=True)}",
        "classes": ", ".join(result.classes) or "none",
        "backbone": f"{arm.backbone} {json.dumps(arm.backbone_options, sort_keys=True)}",
        "pacing": f"{arm.pacing} {json.dumps(arm.pacing_options, sort_keys=True)}",
        "parameters": f"{result.num_parameters:,}, of which {result.num_trained_parameters:,} trained",
        "optimizer": f"{arm.optimizer}, rate {arm.learning_rate:g}, schedule {arm.schedule}",
        "steps": f"{result.steps} of {arm.steps}, {arm.batch_size} records each",
        "last training loss": last,
        "training operations": f"{result.flops:.3e}",
        "training seconds": f"{result.seconds:.1f}",
        "precision": result.precision,
        **({"stopped early": f"held-out loss {result.checks[-1][1]:.4f}"} if result.stopped_early else {}),
        **{f"experts, {name}": f"{value:.2f}" for name, value in result.router.items()},
        "seed": str(arm.seed),
        "config digest": arm.digest(),
    } | {name: str(value) for name, value in facts.items()}
    kind = "A text classifier" if arm.objective == "classification" else f"A model ({arm.objective})"
    table = "\n".join(f"| {name} | {_cell(value)} |" for name, value in rows.items())
    return f"# {_cell(arm.name)}\n\n{kind} trained by Winnow.\n\n| what | value |\n|---|---|\n{table}\n"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
