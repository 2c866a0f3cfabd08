"""Memories of passages, of what a language model was trained on or of another dataset, and what they are worth."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from catalog.errors import ConfigError
from catalog.store import Store, StoredFile
from workers.execution import UnitContext

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from training.arm import ArmConfig
    from training.data import TrainingData
    from training.export import SavedModel
    from training.retrieval.memory import Memory

PASSAGES = "hashed pairs of tokens"
_TOKENIZER = "tokenizer.json"


def kept_files(store: Store, folder: Path) -> dict[str, dict[str, Any]]:
    """A memory's files in the store, by name, as JSON."""
    return {
        path.name: store.write_bytes(path.read_bytes(), "memories", path.suffix.lstrip(".") or "bin").to_json()
        for path in sorted(folder.iterdir())
    }


def remember_passages_of(
    unit: UnitContext, arm: ArmConfig, saved: SavedModel, files: dict[str, StoredFile], texts: Sequence[str]
) -> dict[str, Any]:
    """Write the memory of some texts as a model's tokens into the store.

    Parameters
    ----------
    files : of the model.

    Returns
    -------
    What ``workers.memories.remember_arm`` keeps of a memory, and ``tokenizer`` (SHA-256 of the model's file) and
    ``max_tokens``, at which texts were cut.

    Raises
    ------
    DataError : no text is as long as a chunk.
    """
    from training.retrieval.reading import reading_config, remember_texts

    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / "memory"
        memory = remember_texts(saved.tokenizer, texts, arm.max_tokens, reading_config(arm), folder)
        kept = kept_files(unit.store, folder)
    return {
        "retrieval": arm.retrieval,
        "encoder": "",
        "source": memory.source,
        "classes": [],
        "num_entries": len(memory),
        "dim": int(memory.keys.shape[1]),
        "files": kept,
        "tokenizer": files[_TOKENIZER].sha256,
        "max_tokens": arm.max_tokens,
    }


def check_passages(store: Store, arm: ArmConfig, facts: dict[str, Any], files: dict[str, StoredFile]) -> None:
    """Refuse a memory whose passages are not of the tokens that a model knows.

    Parameters
    ----------
    facts : of the memory that the arm names.
    files : of the model that reads it.

    Raises
    ------
    ConfigError : another tokenizer made it, or chunks are of another size.
    """
    from training.retrieval.cross_attention import chunk_source
    from training.retrieval.reading import reading_config

    where = f"arm {arm.name!r}: memory={arm.retrieval_options['memory']!r}"
    if facts["tokenizer"] != files[_TOKENIZER].sha256:
        raise ConfigError(
            f"{where} has tokens of another tokenizer than the model of init_from={arm.init_from!r}; have one made of "
            "that dataset with steps: 0 and this init_from, and name that"
        )
    vocab_size = json.loads(store.read_bytes(files["config.json"]))["vocab_size"]
    source = chunk_source(reading_config(arm), vocab_size)
    if (facts["source"], facts["max_tokens"]) != (source, arm.max_tokens):
        raise ConfigError(
            f"{where} is of {facts['source']}, texts cut at {facts['max_tokens']}; this arm reads {source}, texts cut "
            f"at {arm.max_tokens}; take one that was made alike"
        )


def measured_reading(
    arm: ArmConfig, saved: SavedModel, memory: Memory, data: TrainingData
) -> list[tuple[str, dict[str, Any], npt.NDArray[np.float64]]]:
    """What a model costs on held-out records with its memory, and with one whose passages are shuffled.

    Returns
    -------
    Name, what differs in the row of held-out figures, and losses (n,) of the records.
    """
    from training.evaluation.held_out import held_out_loss
    from training.retrieval.memory import MemoryReader
    from training.retrieval.reading import shuffled

    reader = cast("MemoryReader", saved.network)
    found = []
    for name, one in ((arm.retrieval, memory), (f"{arm.retrieval}, shuffled", shuffled(memory, arm.seed))):
        reader.use(one)
        row = held_out_loss(saved.network, saved.model, saved.tokenizer, arm, data)
        kept = {key: row[key] for key in ("loss", "terms")}
        perplexity = math.exp(min(row["loss"], 700.0))
        found.append((name, {"retrieval": name, "perplexity": perplexity} | kept, row["losses"]))
    reader.use(None)
    return found
