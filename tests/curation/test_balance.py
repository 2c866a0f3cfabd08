"""Balance reaches the mix that it was asked for, by the ids alone."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalog.errors import ConfigError, DataError
from curation.balance import NONE, SEVERAL, Balance, balance, values_of


def records(**counts: int) -> tuple[pl.Series, pl.Series]:
    values = [name.replace("none", NONE) for name, number in counts.items() for _ in range(number)]
    return pl.Series("id", [f"{row:08x}" for row in range(len(values))]), pl.Series("value", values)


def sizes(values: pl.Series, kept: pl.Series) -> dict[str, int]:
    return dict(values.filter(kept).value_counts().iter_rows())


def test_cap_by_number_keeps_at_most_so_many_of_each_and_those_without_a_value() -> None:
    ids, values = records(a=50, b=7, none=90)
    out, table = balance(ids, values, Balance(by="label", action="cap", cap=10))
    assert sizes(values, out["kept"]) == {"a": 10, "b": 7, NONE: 90}
    assert {one["value"]: one["after"] for one in table} == {"a": 10, "b": 7, NONE: 90}
    assert set(out["weight"]) == {1.0}


@settings(max_examples=30)
@given(counts=st.lists(st.integers(1, 400), min_size=2, max_size=6), cap=st.sampled_from([0.2, 0.25, 0.4, 0.5, 0.9]))
def test_cap_by_share_is_the_largest_that_holds(counts: list[int], cap: float) -> None:
    ids, values = records(**{f"v{place}": number for place, number in enumerate(counts)})
    after = sizes(values, balance(ids, values, Balance(by="label", action="cap", cap=cap))[0]["kept"])
    if len(counts) * cap < 1:
        assert set(after.values()) == {min(counts)}
        return
    whole = sum(after.values())
    # Whole records: one more or less of each of a few.
    assert max(after.values()) <= cap * (whole + len(counts)) + 1
    cut = [after[f"v{place}"] for place, number in enumerate(counts) if after[f"v{place}"] < number]
    assert all(number == max(after.values()) for number in cut)
    if cut:
        assert max(after.values()) + 1 > cap * (whole + len(cut)) - 1


def test_resample_keeps_the_most_that_make_the_mix() -> None:
    ids, values = records(a=600, b=100, c=33)
    step = Balance(by="label", action="resample", target={"a": 3, "b": 1})
    assert sizes(values, balance(ids, values, step)[0]["kept"]) == {"a": 300, "b": 100, "c": 33}


def test_reweight_makes_the_mix_and_keeps_everybody() -> None:
    ids, values = records(a=600, b=200, none=50)
    out, table = balance(ids, values, Balance(by="label", action="reweight", target="equal"))
    assert out["kept"].all()
    mass = {name: float(out["weight"].filter(values == name).sum()) for name in ("a", "b", NONE)}
    assert mass == pytest.approx({"a": 400, "b": 400, NONE: 50})
    assert [one["share_after"] for one in table] == pytest.approx([400 / 850, 400 / 850, 50 / 850])


def test_weights_stop_at_their_limit_and_the_table_says_what_was_wanted() -> None:
    ids, values = records(a=990, b=10)
    out, table = balance(ids, values, Balance(by="label", action="reweight", target="equal", max_weight=4))
    assert out["weight"].max() == 4.0
    reached = {one["value"]: (one["share_after"], one["wanted"]) for one in table}["b"]
    assert reached[0] < 0.1 < reached[1] == 0.5


def test_who_leaves_depends_on_ids_alone_and_larger_caps_keep_more() -> None:
    ids, values = records(a=80, b=40)
    order = np.random.default_rng(0).permutation(len(ids))
    small = set(ids.filter(balance(ids, values, Balance(by="label", action="cap", cap=20))[0]["kept"]))
    shuffled = balance(ids[order], values[order], Balance(by="label", action="cap", cap=20))[0]["kept"]
    assert set(ids[order].filter(shuffled)) == small
    # Ids begin with hashes by which others choose too, e.g. what is held out: not the smallest ids.
    assert small & set(ids[:80]) != set(ids[:20])
    assert small < set(ids.filter(balance(ids, values, Balance(by="label", action="cap", cap=30))[0]["kept"]))


def test_identity_counts_where_one_group_of_the_category_is_mentioned() -> None:
    frame = pl.DataFrame({"identity": [["gender/men", "age/older"], ["gender/men", "gender/women"], ["age/older"], []]})
    assert values_of(frame, "identity/gender").to_list() == ["gender/men", SEVERAL, NONE, NONE]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"by": "labels", "action": "cap", "cap": 3}, "label"),
        ({"by": "label", "action": "cap"}, "needs 'cap'"),
        ({"by": "label", "action": "cap", "cap": 1.5}, "whole number"),
        ({"by": "label", "action": "reweight", "target": {"a": 0}}, "above 0"),
        ({"by": "label", "action": "cap", "cap": 3, "max_weight": 3}, "no weights"),
        ({"by": "label", "action": "resample", "target": "equal", "cap": 3}, "takes no 'cap'"),
        ({"by": "label", "action": "cap", "caps": 3}, "unknown option 'caps'"),
        ({"action": "cap", "cap": 3}, "'by' is missing"),
    ],
)
def test_bad_steps_are_refused(given: dict[str, object], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        Balance.configured(given)


def test_target_of_nobody_is_refused() -> None:
    ids, values = records(spam=3, ham=4)
    with pytest.raises(DataError, match="label='sham'"):
        balance(ids, values, Balance(by="label", action="resample", target={"sham": 1, "ham": 1}))
