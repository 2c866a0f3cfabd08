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


@given(world_size=st.integers(1, 10), step=st.integers(0, 49))
def test_ranks_share_a_batch_without_loss_or_overlap(world_size: int, step: int) -> None:
    batch = stream("linear").batch(step)
    shares = [rank_share(batch, rank, world_size) for rank in range(world_size)]
    whole = np.empty_like(batch)
    for rank, share in enumerate(shares):
        whole[rank::world_size] = share
    assert whole.tolist() == batch.tolist()
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_rank_share_refuses_ranks_without_a_record() -> None:
    with pytest.raises(ConfigError, match="batch of 10 leaves nothing for some of world_size=11 ranks"):
        rank_share(stream("linear").batch(0), 0, 11)
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


def test_orders_never_change_between_releases() -> None:
    for pacing, rows in GOLDEN_BATCHES.items():
        assert stream(pacing).batch(7).tolist() == rows, pacing


def tagged(num_records: int) -> pl.DataFrame:
    """A tenth from ``c``, three tenths from ``b``, the rest from ``a``."""
    place = [number % 10 for number in range(num_records)]
    return records(num_records).with_columns(
        source=pl.Series(["c" if one == 0 else "b" if one < 4 else "a" for one in place]),
        slices=pl.Series([["rare", "short"] if one == 0 else ["common"] for one in place]),
        label_version=pl.lit("given"),
    )


def test_tags_are_kept_and_count_in_the_digest() -> None:
    frame = tagged(20)
    base = StreamManifest.build(frame)
    assert base.frame["slices"].to_list()[0] == ["rare", "short"]
    assert base.digest != StreamManifest.build(records(20)).digest
    first = pl.int_range(pl.len()) == 0
    changes = {"source": pl.lit("d"), "slices": pl.concat_list(pl.lit("rare")), "label_version": pl.lit("annotated")}
    for name, value in changes.items():
        changed = frame.with_columns(pl.when(first).then(value).otherwise(pl.col(name)).alias(name))
        assert StreamManifest.build(changed).digest != base.digest, name
    with pytest.raises(DataError, match=r"source=None of record '00000000-0' .* must be given"):
        StreamManifest.build(frame.with_columns(source=pl.when(first).then(None).otherwise("source")))


def test_a_mixture_draws_sources_by_their_shares_and_records_of_one_alike() -> None:
    one = StreamManifest.build(tagged(200))
    options = {"shares": {"a": 1, "b": 1, "c": 2}}
    drawn = stream("mixture", manifest=one, options=options, total_steps=100, global_batch_size=20)
    seen = np.bincount(np.concatenate([drawn.batch(step) for step in range(100)]), minlength=200)
    source = one.frame["source"].to_numpy()
    for name, expected in {"a": 500, "b": 500, "c": 1000}.items():
        assert seen[source == name].sum() == pytest.approx(expected, abs=10)
        assert seen[source == name].min() >= 0.5 * seen[source == name].mean()


def test_a_mixture_moves_to_its_final_shares_and_takes_the_easiest_of_each_first() -> None:
    one = StreamManifest.build(tagged(200))
    options = {"shares": {"a": 1}, "final": {"b": 1}, "start": 0.1, "full_at": 1.0}
    drawn = stream("mixture", manifest=one, options=options, total_steps=100, global_batch_size=20)
    source, difficulty = one.frame["source"].to_numpy(), one.frame["difficulty"].to_numpy()
    first, last = drawn.batch(0), drawn.batch(99)
    assert set(source[first]) == {"a"}
    assert difficulty[first].max() <= np.sort(difficulty[source == "a"])[11]
    assert (source[last] == "b").mean() > 0.9


def test_a_mixture_without_shares_draws_all_sources_alike() -> None:
    one = StreamManifest.build(tagged(200))
    drawn = stream("mixture", manifest=one, total_steps=100, global_batch_size=20)
    source = one.frame["source"].to_numpy()[np.concatenate([drawn.batch(step) for step in range(100)])]
    assert np.unique(source, return_counts=True)[1].tolist() == pytest.approx([667, 667, 667], abs=10)


def test_a_mixture_of_what_is_not_there_is_refused() -> None:
    with pytest.raises(DataError, match="needs the column 'source' in the manifest"):
        stream("mixture")
    with pytest.raises(DataError, match="names source 'd', which has no record to draw; Known: a, b, c"):
        stream("mixture", manifest=StreamManifest.build(tagged(50)), options={"shares": {"d": 1}})
    with pytest.raises(DataError, match="sources have 5 records, fewer than one batch of 10; lower the"):
        stream("mixture", manifest=StreamManifest.build(tagged(50)), options={"shares": {"c": 1}})
    with pytest.raises(ConfigError, match="source 1 must be text; put it in quotes"):
        stream("mixture", manifest=StreamManifest.build(tagged(50)), options={"shares": {1: 1}})
    with pytest.raises(ConfigError, match="a=-1 must be a finite number"):
        stream("mixture", manifest=StreamManifest.build(tagged(50)), options={"shares": {"a": -1}})


def test_records_of_small_weight_are_drawn_in_their_turn() -> None:
    one = stream("random", manifest=manifest(100, weight=[1.0, 19.0] * 50), total_steps=1000)
    seen = np.bincount(np.concatenate([one.batch(step) for step in range(1000)]), minlength=100)
    assert seen[::2].tolist() == pytest.approx([10] * 50, abs=5)
    assert seen[1::2].tolist() == pytest.approx([190] * 50, abs=5)


LENGTHS = np.random.default_rng(5).integers(1, 60, 100)


@pytest.mark.parametrize(("pacing", "window"), [("linear", 2), ("linear", 7), ("random", 8)])
def test_a_window_by_length_draws_the_same_records_with_less_padding(pacing: str, window: int) -> None:
    plain, sorted_ = (
        np.array([one.batch(step) for step in range(50)])
        for one in (stream(pacing), stream(pacing, lengths=LENGTHS, length_window=window))
    )
    for start in range(0, 50, window):
        steps = slice(start, start + window)
        assert sorted(plain[steps].ravel().tolist()) == sorted(sorted_[steps].ravel().tolist())
    padding = [int((LENGTHS[one].max(axis=1, keepdims=True) - LENGTHS[one]).sum()) for one in (plain, sorted_)]
    assert padding[1] < 0.8 * padding[0]
    # Short batches do not always come first.
    assert (np.diff(LENGTHS[sorted_].sum(axis=1).reshape(-1, 1)[:window].ravel()) < 0).any() or window == 2


def test_a_window_without_lengths_is_refused() -> None:
    with pytest.raises(ConfigError, match="length_window=3 needs a length of each of 100 records, there are none"):
        stream("random", length_window=3)


def revised(**changed: object) -> Stream:
    """Half of the records leave at step 20, the others at step 30."""
    one = stream("random", **changed)
    half = np.arange(100) < 50
    for start, kept in ((20, half), (30, ~half)):
        one = one.revised(start, one.manifest.reweighted(kept.astype(float)))
    return one


def test_a_revision_is_in_force_from_its_step_on_and_changes_nothing_before() -> None:
    one, plain = revised(), stream("random")
    assert [one.batch(step).tolist() for step in range(20)] == [plain.batch(step).tolist() for step in range(20)]
    assert max(one.batch(step).max() for step in range(20, 30)) < 50
    assert min(one.batch(step).min() for step in range(30, 50)) >= 50


def test_revisions_that_would_lose_the_order_are_refused() -> None:
    one = revised()
    for start in (0, 30, 50):
        with pytest.raises(ConfigError, match=f"starts at step {start}; it must start after"):
            one.revised(start, manifest(100))
    with pytest.raises(ConfigError, match="has 90 records that are not the 100 that the run began with"):
        one.revised(40, manifest(90))
    with pytest.raises(DataError, match=r"9 records .* fewer than one batch of 10"):
        one.revised(40, one.manifest.reweighted((np.arange(100) < 9).astype(float)))
    with pytest.raises(ConfigError, match="step 20; with length_window=3 it must be a multiple"):
        revised(lengths=LENGTHS, length_window=3)
    with pytest.raises(ConfigError, match="every=25 of pacing 'self_paced' must be a multiple of length_window=2"):
        stream("self_paced", lengths=LENGTHS, length_window=2)


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
GOLDEN_BATCHES = {
    "random": [74, 49, 3, 83, 60, 33, 30, 78, 72, 85],
    "linear": [20, 24, 58, 34, 8, 21, 61, 79, 2, 96],
    "root": [20, 42, 46, 81, 17, 21, 15, 72, 2, 96],
    "warmup_then_random": [20, 40, 66, 79, 34, 88, 55, 75, 2, 32],
    "anti": [27, 8, 93, 70, 24, 87, 98, 22, 91, 71],
    "same_pacing_random": [6, 87, 55, 84, 14, 88, 80, 8, 56, 53],
}
