"""What is concluded of a curriculum, and how sources are named."""

import polars as pl
import pytest

from training.data import short_names
from workers.pipelines.train import conclusions


@pytest.mark.parametrize(
    ("verdicts", "concluded"),
    [
        (("paid", "paid", "paid"), "paid"),
        (("no gain shown", "paid", "paid"), "no gain shown"),
        (("did worse than random order", "no gain shown", "paid"), "did worse than random order"),
        (
            ("paid", "paid", "no gain shown"),
            "paid against random order, but not shown against the same pacing in random order: "
            "the order may not be why",
        ),
    ],
)
def test_a_curriculum_paid_only_if_it_beats_every_control(verdicts: tuple[str, ...], concluded: str) -> None:
    orders = ("random order", "hardest first", "the same pacing in random order")
    compared = [
        {"arm": "a", "order": order, "verdict": verdict} for order, verdict in zip(orders, verdicts, strict=True)
    ]
    assert conclusions(compared) == [{"arm": "a", "verdict": concluded}]


def test_sources_are_files_without_folders_unless_two_have_one_name() -> None:
    assert short_names(pl.Series(["/a/one.jsonl", "two.csv", "/a/one.jsonl"])).to_list() == [
        "one.jsonl",
        "two.csv",
        "one.jsonl",
    ]
    assert short_names(pl.Series(["/a/one.jsonl", "/b/one.jsonl"])).to_list() == ["/a/one.jsonl", "/b/one.jsonl"]
