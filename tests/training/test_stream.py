"""The stream's order is a pure function, covers the manifest, and is shared without loss."""

import subprocess
import sys

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog.errors import ConfigError, DataError, NotFoundError
from training.stream import Stream, StreamManifest, order, permuted, rank_share


def manifest(num_records: int, seed: int = 0, weight: list[float] | None = None) -> StreamManifest:
    return StreamManifest.build(records(num_records, seed, weight))


def records(num_records: int, seed: int = 0, weight: list[float] | None = None) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    return pl.DataFrame(
        {
            "id": [f"{number:08x}-0" for number in range(num_records)],
            "hash": [f"{number:08x}" for number in range(num_records)],
            "difficulty": rng.random(num_records),
            "weight": weight or [1.0] * num_records,
        }
    )


def stream(pacing: str, num_records: int = 100, **changed: object) -> Stream:
    settings = {"options": {}, "seed": 3, "total_steps": 50, "global_batch_size": 10} | changed
    return Stream(manifest=settings.pop("manifest", None) or manifest(num_records), pacing=pacing, **settings)


@given(size=st.integers(1, 3000), key=st.integers(0, 2**64 - 1), number=st.integers(0, 1000))
def test_permutation_is_a_bijection(size: int, key: int, number: int) -> None:
    assert sorted(permuted(np.arange(size), size, key, number).tolist()) == list(range(size))


def test_permutations_of_different_passes_and_keys_differ() -> None:
    base = permuted(np.arange(1000), 1000, 1, 0)
    for other in (permuted(np.arange(1000), 1000, 1, 1), permuted(np.arange(1000), 1000, 2, 0)):
        assert (base == other).mean() < 0.02  # a random permutation agrees in one place of a thousand


def test_permutation_never_changes_between_releases() -> None:
    assert permuted(np.arange(10), 10, 42, 7).tolist() == GOLDEN


@given(num_records=st.integers(10, 60), seed=st.integers(0, 2**31), batch=st.integers(1, 10), passes=st.integers(1, 2))
def test_random_order_visits_every_record_once_a_pass(num_records: int, seed: int, batch: int, passes: int) -> None:
    one = manifest(num_records)
    steps = passes * num_records  # steps * batch is a whole number of passes
    drawn = stream("random", manifest=one, seed=seed, total_steps=steps, global_batch_size=batch)
    seen = np.bincount(np.concatenate([drawn.batch(step) for step in range(steps)]), minlength=num_records)
    assert seen.tolist() == [passes * batch] * num_records


@given(step=st.integers(0, 49), order_seed=st.integers(0, 2**31))
def test_batch_depends_on_nothing_but_its_arguments(step: int, order_seed: int) -> None:
    frame = records(100)
    shuffled = frame.sample(fraction=1.0, shuffle=True, seed=order_seed)
    walked = stream("linear", manifest=StreamManifest.build(frame))
    for earlier in range(step):
        walked.batch(earlier)
    alone = order(
        StreamManifest.build(shuffled),
        pacing="linear",
        options={},
        seed=3,
        step=step,
        total_steps=50,
        global_batch_size=10,
    )
    assert walked.batch(step).tolist() == alone.tolist()


def test_another_process_draws_the_same_batch() -> None:
    code = (
        "import polars as pl; from training.stream import *;"
        "f = pl.DataFrame({'id': [f'{n:04d}' for n in range(50)], 'hash': ['x'] * 50,"
        "'difficulty': [n * 7 % 50 / 50 for n in range(50)], 'weight': [1.0] * 50});"
        "m = StreamManifest.build(f); import sys;"
        "r = order(m, pacing='root', options={}, seed=1, step=9, total_steps=20, global_batch_size=6);"
        "sys.stdout.write(m.digest + str(r.tolist()))"
    )
    answers = {
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": s}
        ).stdout
        for s in ("1", "2")
    }
    assert len(answers) == 1
    assert "[" in answers.pop()


@pytest.mark.parametrize("changed", [{"seed": 4}, {"manifest": manifest(100, seed=1)}])
def test_seed_and_manifest_change_the_order(changed: dict[str, object]) -> None:
    assert stream("random").batch(0).tolist() != stream("random", **changed).batch(0).tolist()


def test_linear_pacing_draws_only_from_the_easiest_at_first() -> None:
    one = stream("linear", options={"start": 0.2, "full_at": 0.5})
    difficulty = one.manifest.frame["difficulty"].to_numpy()
    limit = np.sort(difficulty)[19]
    assert difficulty[one.batch(0)].max() <= limit
    late = np.concatenate([one.batch(step) for step in range(25, 50)])
    assert set(late.tolist()) == set(range(100))


def test_anti_pacing_draws_only_from_the_hardest_at_first() -> None:
    one = stream("anti", options={"start": 0.2, "full_at": 0.5})
    difficulty = one.manifest.frame["difficulty"].to_numpy()
    assert difficulty[one.batch(0)].min() >= np.sort(difficulty)[80]


def test_same_pacing_random_grows_alike_but_ignores_difficulty() -> None:
    one, other = stream("same_pacing_random", num_records=2000), stream("linear", num_records=2000)
    assert [one.pool_size(step) for step in range(50)] == [other.pool_size(step) for step in range(50)]
    early = np.concatenate([one.batch(step) for step in range(10)])
    assert abs(one.manifest.frame["difficulty"].to_numpy()[early].mean() - 0.5) < 0.12


def test_records_are_drawn_in_proportion_to_weight_and_never_with_weight_zero() -> None:
    weight = [0.0] * 20 + [1.0] * 40 + [3.0] * 40
    one = stream("random", manifest=manifest(100, weight=weight), total_steps=80, global_batch_size=20)
    seen = np.bincount(np.concatenate([one.batch(step) for step in range(80)]), minlength=100)
    assert seen[:20].sum() == 0
    assert seen[20:60].sum() == pytest.approx(400, abs=20)
    assert seen[60:].sum() == pytest.approx(1200, abs=20)


@given(world_size=st.sampled_from([1, 2, 5, 10]), step=st.integers(0, 49))
def test_ranks_share_a_batch_without_loss_or_overlap(world_size: int, step: int) -> None:
    batch = stream("linear").batch(step)
    shares = [rank_share(batch, rank, world_size) for rank in range(world_size)]
    assert sorted(np.concatenate(shares).tolist()) == sorted(batch.tolist())
    assert {len(share) for share in shares} == {10 // world_size}


def test_rank_share_refuses_what_does_not_divide() -> None:
    with pytest.raises(ConfigError, match="10 does not divide by world_size=3"):
        rank_share(stream("linear").batch(0), 0, 3)
    with pytest.raises(ConfigError, match="rank=2 must lie in"):
        rank_share(stream("linear").batch(0), 2, 2)


def test_digest_ignores_row_order_and_sees_every_column() -> None:
    frame = records(50)
    base = StreamManifest.build(frame).digest
    assert StreamManifest.build(frame.reverse()).digest == base
    changes = {
        "id": pl.lit("ffffffff-0"),
        "hash": pl.lit("other"),
        "difficulty": pl.lit(0.5),
        "weight": pl.lit(2.0),
    }
    for name, value in changes.items():
        first = pl.int_range(pl.len()) == 0
        changed = frame.with_columns(pl.when(first).then(value).otherwise(pl.col(name)).alias(name))
        assert StreamManifest.build(changed).digest != base, name


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("difficulty", float("nan"), "difficulty=nan of record '00000000-0' .* must lie in"),
        ("difficulty", None, "difficulty=None"),
        ("difficulty", 1.5, "difficulty=1.5"),
        ("weight", -1.0, "weight=-1.0"),
        ("weight", float("inf"), "weight=inf"),
        ("weight", None, "weight=None"),
        ("id", None, "id=None"),
        ("id", "00000001-0", "id='00000001-0' .* must be unique"),
        ("hash", None, "hash=None"),
    ],
)
def test_manifest_refuses_bad_rows(name: str, value: object, message: str) -> None:
    frame = records(5)
    first = pl.int_range(pl.len()) == 0
    bad = frame.with_columns(pl.when(first).then(pl.lit(value)).otherwise(pl.col(name)).alias(name))
    with pytest.raises(DataError, match=message):
        StreamManifest.build(bad)


def test_manifest_refuses_nothing_to_draw() -> None:
    with pytest.raises(DataError, match="0 records"):
        StreamManifest.build(records(5).clear())
    with pytest.raises(DataError, match="every weight is 0"):
        StreamManifest.build(records(2, weight=[0.0, 0.0]))
    with pytest.raises(DataError, match="needs weight as well"):
        StreamManifest.build(records(2).drop("weight"))


def test_stream_refuses_fewer_records_than_a_batch() -> None:
    with pytest.raises(DataError, match=r"9 records .* fewer than one batch of 10; lower the batch size"):
        stream("random", num_records=9)


def test_stream_refuses_unknown_pacing_options_and_steps_outside_the_run() -> None:
    with pytest.raises(NotFoundError, match="did you mean 'linear'"):
        stream("lineer")
    with pytest.raises(ConfigError, match="did you mean 'start'"):
        stream("linear", options={"strat": 0.3})
    with pytest.raises(ConfigError, match="step=50 must lie in"):
        stream("random").batch(50)


GOLDEN = [7, 6, 0, 3, 2, 1, 9, 8, 4, 5]
