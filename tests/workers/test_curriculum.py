"""What is concluded of a curriculum, and how sources are named."""

import numpy as np
import polars as pl
import pytest

from catalog.errors import DataError
from training.data import short_names
from training.evaluation.held_out import paired_loss_difference, seeded_loss_difference
from training.recipe import TrainRecipe
from workers.comparing import by_loss, conclusions


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


COMPARED = """
arms: [{name: a, objective: mlm, pacing: linear, backbone_options: {dim: 16, vocab_size: 300}}]
"""


def test_what_one_seed_shows_and_others_do_not_is_no_gain() -> None:
    plan = TrainRecipe.from_yaml(COMPARED, name="compared").compared(3).plan()
    rng = np.random.default_rng(0)
    losses = {one.config.name: rng.normal(3, 0.1, 50) for one in plan}
    for name, nats in (("a", 0.5), ("a-seed1", -0.4), ("a-seed2", 0.0)):
        losses[name] = losses[name] - nats
    alone = paired_loss_difference(losses["a"], losses["a-random"], rng)
    assert alone[1] > 0, "the first seed alone would say that it paid"
    rows = by_loss(plan, losses, 0)
    assert [(one["control"], one["seeds"], one["verdict"]) for one in rows] == [
        ("a-random", 3, "no gain shown"),
        ("a-anti", 3, "no gain shown"),
        ("a-same-pacing", 3, "no gain shown"),
    ]
    for name in ("a", "a-seed1", "a-seed2"):
        losses[name] = rng.normal(2, 0.1, 50)
    better = by_loss(plan, losses, 0)
    assert conclusions(better) == [{"arm": "a", "verdict": "paid"}]
    pairs = [(losses[f"a{seed}"], losses[f"a-random{seed}"]) for seed in ("", "-seed1", "-seed2")]
    saved = np.array([reference - mine for mine, reference in pairs])
    # Student's t of 3 seeds, and the normal distribution over 50 records, added as independent.
    half = np.hypot(4.302653 * saved.mean(1).std(ddof=1) / 3**0.5, 1.959964 * saved.mean(0).std() / 50**0.5)
    found = [better[0][name] for name in ("low", "loss_saved", "high")]
    assert found == pytest.approx([saved.mean() - half, saved.mean(), saved.mean() + half])
    gone = [(np.where(np.arange(50) == 7, np.nan, mine), reference) for mine, reference in pairs]
    assert seeded_loss_difference(gone)[0] == pytest.approx(np.delete(saved, 7, axis=1).mean())
    assert seeded_loss_difference([(np.full(2, np.nan), np.ones(2))] * 2) == (0.0, 0.0, 0.0)
    with pytest.raises(DataError, match="1 seeds give no interval; train under at least 2"):
        seeded_loss_difference(pairs[:1])


def test_sources_are_files_without_folders_unless_two_have_one_name() -> None:
    assert short_names(pl.Series(["/a/one.jsonl", "two.csv", "/a/one.jsonl"])).to_list() == [
        "one.jsonl",
        "two.csv",
        "one.jsonl",
    ]
    assert short_names(pl.Series(["/a/one.jsonl", "/b/one.jsonl"])).to_list() == ["/a/one.jsonl", "/b/one.jsonl"]
