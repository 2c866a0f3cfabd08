"""Quality by a text classifier in a local Hugging Face folder."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from catalog.errors import ConfigError, nearest
from curation.quality import SCORERS, Model, Score, Scored

BATCH_TEXTS = 32
MAX_TOKENS = 512
"""Tokens of a text that are read where the model says nothing of its own."""
_NO_LIMIT = 10**9
DIGITS = 4
"""Of a score: rounding in a batch of other texts is far below."""


def check_folder(folder: Path, label: str | None) -> None:
    """Refuse a folder that holds no classifier, or a label that it does not know, before any work begins.

    Raises
    ------
    ConfigError : no folder, no config, or an unknown or missing label.
    """
    if not (folder / "config.json").is_file():
        raise ConfigError(f"model {str(folder)!r} is no folder with a config.json; give that of a Hugging Face model")
    from transformers import AutoConfig

    _column(AutoConfig.from_pretrained(str(folder), local_files_only=True), folder, label)


def _column(config: Any, folder: Path, label: str | None) -> int:
    names = {str(name): int(column) for column, name in config.id2label.items()}
    if label is None and config.num_labels == 1:
        return 0
    if label is None or label not in names:
        raise ConfigError(f"model {str(folder)!r}: label={label!r} is none of its labels; {nearest(str(label), names)}")
    return names[label]


@dataclass(frozen=True, kw_only=True)
class Folder(Scored):
    """What is said of the scorer."""

    is_trained: bool = False


@SCORERS.register("model", Folder)
def model(model: Model) -> Score:
    """Score of one label by a sequence classifier in a local folder; nothing is fetched and no code of it is run.

    The probability by softmax, or by sigmoid where the model says that a text may have several labels; of a model of
    one output, the output itself (a regression such as FineWeb-Edu's classifier, 0 to 5). Longer texts are read up to
    the model's limit.
    """
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    assert model.folder is not None
    folder = str(model.folder)
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    network = AutoModelForSequenceClassification.from_pretrained(
        folder, local_files_only=True, trust_remote_code=False, use_safetensors=True, dtype=torch.float32
    ).eval()
    wanted = _column(network.config, model.folder, model.label)
    places = getattr(network.config, "max_position_embeddings", None) or MAX_TOKENS
    known = tokenizer.model_max_length
    limit = min(places, known) if known < _NO_LIMIT else min(places, MAX_TOKENS)

    def probabilities(logits: Any) -> Any:
        if network.config.num_labels == 1:
            return logits
        if network.config.problem_type == "multi_label_classification":
            return logits.sigmoid()
        return logits.softmax(dim=-1)

    def score(texts: pl.Series) -> np.ndarray:
        found = np.full(len(texts), np.nan)
        # Texts of one length together: little padding, whatever came in between.
        lengths = texts.str.len_bytes().to_numpy()
        order = np.argsort(lengths, kind="stable")
        with torch.inference_mode():
            for start in range(0, len(order), BATCH_TEXTS):
                rows = order[start : start + BATCH_TEXTS]
                ids = tokenizer(texts.gather(rows).to_list(), truncation=True, max_length=limit)
                # A text without tokens has nothing to be judged by.
                some = [at for at, one in enumerate(ids["input_ids"]) if one]
                if not some:
                    continue
                rows = rows[some]
                batch = tokenizer.pad(
                    {name: [column[at] for at in some] for name, column in ids.items()}, return_tensors="pt"
                )
                found[rows] = probabilities(network(**batch).logits)[:, wanted].numpy()
        return np.round(found, DIGITS)

    return score
