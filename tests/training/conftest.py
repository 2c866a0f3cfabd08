"""Small real data and one thread: equal bits are only promised for equal thread counts."""

from collections.abc import Iterator

import numpy as np
import polars as pl
import pytest
import torch

from training.arm import ArmConfig
from training.data import TrainingData

WORDS = {
    "교통": ["지하철이 또 늦었어요 🚇", "버스 노선 문의드립니다", "택시 요금이 너무 비싸요", "주차장 위치 알려주세요"],
    "food": ["the soup was cold 🍲", "great noodles, slow service", "レストランの予約をしたい", "อาหารอร่อยมาก"],
}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def frame() -> pl.DataFrame:
    """120 records of two classes in five scripts, each with its own id, hash and difficulty."""
    rng = np.random.default_rng(0)
    rows = []
    for number in range(120):
        label = list(WORDS)[number % 2]
        text = f"{WORDS[label][rng.integers(4)]} {WORDS[label][rng.integers(4)]} {number}"
        rows.append((f"{number:032x}-0", f"{number:032x}", text, label, float(rng.random()), 1.0))
    return pl.DataFrame(rows, schema=["id", "hash", "text", "label", "difficulty", "weight"], orient="row")


@pytest.fixture(scope="session")
def data(frame: pl.DataFrame) -> TrainingData:
    return TrainingData.build(frame)


@pytest.fixture
def arm() -> ArmConfig:
    """A mixture-of-experts Transformer that trains in a second."""
    return ArmConfig(
        name="tiny",
        backbone_options={
            "vocab_size": 300,
            "dim": 32,
            "feedforward": "moe_topk",
            "feedforward_options": {"num_experts": 4, "hidden": 32},
        },
        steps=12,
        batch_size=8,
        learning_rate=3e-3,
        max_tokens=32,
        checkpoint_every=5,
    )
