"""Laws of every rule: one Float64 a text, from that text alone."""

import math

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curation.rules import RULES, Bounds, judge, measure

SAMPLES = [
    "The quick brown fox",
    "안녕 하세요",
    "今天天气很好。",
    "สวัสดี",
    "👍🏽",
    "- a\n- a\n…",
    "http://x.y #a",
    "",
    " \n\t",
]
texts = st.lists(st.sampled_from(SAMPLES) | st.text(), min_size=1, max_size=6)
NAMES = sorted(RULES.load())


@pytest.mark.parametrize("name", NAMES)
@given(rows=texts)
def test_decision_ignores_neighbours(name, rows):
    together = measure(pl.Series(rows, dtype=pl.String), [name])
    alone = [measure(pl.Series([row], dtype=pl.String), [name])[name][0] for row in rows]
    assert together[name].to_list() == alone
    bounds = {name: RULES[name].configured()}
    assert judge(together, bounds)["kept"].to_list() == [
        judge(together.slice(row, 1), bounds)["kept"][0] for row in range(len(rows))
    ]


@pytest.mark.parametrize("name", NAMES)
@given(rows=texts)
def test_value_is_a_finite_number_or_null(name, rows):
    measured = measure(pl.Series(rows, dtype=pl.String), [name])[name]
    assert measured.dtype == pl.Float64
    assert len(measured) == len(rows)
    assert all(value is None or (math.isfinite(value) and value >= 0) for value in measured)
    if name.endswith("_ratio") and not name.startswith("symbol_"):
        assert all(value is None or value <= 1 for value in measured)


@pytest.mark.parametrize("name", NAMES)
def test_config_is_bounds_with_a_published_side(name):
    bounds = RULES[name].configured()
    assert isinstance(bounds, Bounds)
    assert (bounds.minimum, bounds.maximum) != (None, None)
    assert RULES[name].member.__doc__
