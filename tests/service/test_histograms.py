"""Bars of a histogram lie on one side of a bound."""

import polars as pl
import pytest

from service.pages.histograms import histogram


@pytest.mark.parametrize("scale", [1.0, 1000.0])
def test_bars_divide_at_the_bounds_and_add_up(scale: float) -> None:
    values = pl.Series([float(value) for value in range(101)] + [scale * 100] * 3 + [None])
    found = histogram("word_count", values, minimum=20.0, maximum=50.0, num_failing=73)
    assert found is not None
    assert found.is_logarithmic is (scale > 1)
    assert found.num_null == 1

    def share(*, kept: bool) -> float:
        return sum(float(bar.label.rsplit(" ", 1)[1].rstrip("%")) for bar in found.bars if bar.kept is kept)

    # Both bounds keep: 20 to 50 are 31 of 104 values.
    assert share(kept=True) == pytest.approx(100 * 31 / 104, abs=0.2)
    assert share(kept=False) == pytest.approx(100 * 73 / 104, abs=0.4)
    assert all(0 <= bar.x <= found.width and 0 <= bar.y <= found.base for bar in found.bars)
    assert [text for _, text in found.thresholds] == ["from 20", "to 50"]


def test_one_value_and_none() -> None:
    assert histogram("x", pl.Series([None], dtype=pl.Float64), minimum=None, maximum=1.0, num_failing=0) is None
    found = histogram("x", pl.Series([0.0, 0.0]), minimum=None, maximum=None, num_failing=0)
    assert found is not None
    (bar,) = found.bars
    assert bar.kept
