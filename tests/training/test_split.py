"""The held-out part depends on the id alone."""

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.split import is_test

IDS = pl.Series([f"{number:032x}-0" for number in range(5000)])


def test_share_is_met() -> None:
    assert is_test(IDS, 0.2, 0).mean() == pytest.approx(0.2, abs=0.02)  # three standard deviations
    assert is_test(IDS, 0.0, 0).sum() == 0


@given(kept=st.lists(st.integers(0, 4999), min_size=1, max_size=50), seed=st.integers(0, 2**63))
def test_a_record_stays_on_its_side_whatever_else_is_there(kept: list[int], seed: int) -> None:
    assert is_test(IDS.gather(kept), 0.3, seed).to_list() == is_test(IDS, 0.3, seed).gather(kept).to_list()


def test_a_larger_share_keeps_what_a_smaller_one_held_out() -> None:
    small, large = is_test(IDS, 0.1, 5), is_test(IDS, 0.4, 5)
    assert (small & ~large).sum() == 0


def test_seed_picks_another_split_and_the_answer_is_permanent() -> None:
    assert is_test(IDS, 0.5, 1).to_list() != is_test(IDS, 0.5, 2).to_list()
    assert is_test(IDS.head(12), 0.5, 0).to_list() == [bool(int(bit)) for bit in "111110110110"]


def test_share_out_of_range_is_refused() -> None:
    with pytest.raises(ValueError, match=r"share=1.0 must lie in \[0, 1\)"):
        is_test(IDS, 1.0, 0)
