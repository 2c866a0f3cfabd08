"""What tests of objectives share: data that each can learn from, and a network for it."""

import json
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import nn

from training.arm import ArmConfig
from training.backbones import BACKBONES
from training.data import TrainingData
from training.objectives import Batch, Corpus, Losses, Objective, Records, objective_of
from training.tokenizer import TextTokenizer

TEXTS = [
    "지하철이 또 늦었어요 🚇. 버스도요!",
    "the soup was cold 🍲. it was late. nobody came",
    "レストランの予約をしたい。",
    "อาหารอร่อยมาก",
    "family 👨‍👩‍👧 likes noodles",
    "",
    "one",
    "택시 요금이 너무 비싸요",
]
OPTIONS: dict[str, dict[str, Any]] = {
    "rtd": {"masking_options": {"rate": 0.3}},
    "span_denoising": {"rate": 0.3, "num_sentinels": 4},
    "mixture": {"weights": {"mlm": 1.0, "rtd": 0.5, "classification": 2.0}},
}
ORDERS = {"clm": "causal", "span_denoising": "prefix", "sequence_reconstruction": "prefix"}


def arm_of(objective: str, **settings: Any) -> ArmConfig:
    """A tiny arm, without dropout."""
    backbone = {"vocab_size": 300, "dim": 16, "dropout": 0.0, "feedforward_options": {"hidden": 16}}
    backbone["order"] = ORDERS.get(objective, "encoder")
    defaults: dict[str, Any] = {"steps": 4, "batch_size": 8, "max_tokens": 64, "checkpoint_every": 2}
    defaults["objective_options"] = OPTIONS.get(objective, {})
    return ArmConfig(name=objective, backbone_options=backbone, objective=objective, **(defaults | settings))


def data_of(objective: str) -> TrainingData:
    """Sixteen records that the objective can learn from; some lack a label where it needs one."""
    texts = [f"{TEXTS[number % 8]}{f' {number}' if number % 8 != 5 else ''}" for number in range(16)]
    labels = [None if number % 5 == 4 else "ab"[number % 2] for number in range(16)]
    if objective == "pairwise":
        texts = [json.dumps({"a": one, "b": one[::-1], "prompt": "?"}, ensure_ascii=False) for one in texts]
    if objective not in ("pairwise", "classification", "mixture"):
        labels = [None] * 16
    frame = pl.DataFrame(
        {
            "id": [f"{number:02x}" for number in range(16)],
            "hash": [f"{number:02x}" for number in range(16)],
            "text": texts,
            "label": labels,
            "difficulty": [number / 16 for number in range(16)],
            "weight": [1.0] * 16,
        },
        schema_overrides={"label": pl.String},
    )
    data = TrainingData.build(frame)
    if objective != "tagging":
        return data
    spans = [None if number % 5 == 4 else [(0, min(3, len(text)), number % 2)] * bool(text)
             for number, text in enumerate(texts)]  # fmt: skip
    return TrainingData(data.texts, data.labels, ["thing", "place"], data.manifest, spans)


class Bench:
    """An objective with its network and its corpus, to be asked for batches and losses."""

    def __init__(self, arm: ArmConfig, data: TrainingData) -> None:
        self.objective: Objective = objective_of(arm)
        registered = BACKBONES[arm.backbone]
        config = registered.configured(arm.backbone_options)
        self.tokenizer: TextTokenizer = registered.member.tokenizer(data.texts, config)
        self.tokenizer = self.tokenizer.with_special(self.objective.special_tokens())
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = registered.member.build(
                vocab_size=self.tokenizer.vocab_size,
                heads=self.objective.heads(len(data.classes)),
                max_tokens=arm.max_tokens,
                config=config,
            )
            self.network: nn.Module = self.objective.network(model)
        self.max_tokens = arm.max_tokens
        self.corpus = Corpus(
            data=data,
            tokenizer=self.tokenizer,
            max_tokens=arm.max_tokens,
            packed=arm.packing == "rows",
            seed=arm.seed,
            total_steps=arm.steps,
        )

    def records(self, rows: list[int], step: int = 0) -> Records:
        """Records by row number."""
        ids = self.tokenizer.token_ids([self.corpus.data.texts[row] for row in rows], self.max_tokens)
        return Records(corpus=self.corpus, step=step, rows=rows, ids=ids)

    def batch(self, rows: list[int], step: int = 0) -> Batch:
        """A batch of them."""
        return self.objective.batch(self.records(rows, step))

    def losses(self, batch: Batch, *, each: bool = False) -> Losses:
        """What it costs."""
        return self.objective.losses(self.network, batch.tensors, each=each)

    def special(self, token: str) -> int:
        """The id of a special token."""
        return self.tokenizer.token_id(token)


def real_rows(batch: Batch, name: str) -> list[np.ndarray]:
    """What stands at the real tokens of each row."""
    mask = batch.tensors["attention_mask"]
    return [one[real].numpy() for one, real in zip(batch.tensors[name], mask, strict=True)]
