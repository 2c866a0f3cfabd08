"""What is said against removing records by vectors that cannot tell random ones apart."""

import polars as pl
import pytest

from curation.dedup.semantic_step import SemanticStep, background_problem

ENCODERS = ["minilm", "static"]


def problem(ratios: list[float | None], num_sampled: int = 1000, action: str = "remove") -> str | None:
    background = pl.DataFrame(
        {"epsilon": [0.01, 0.05, 0.1], "random_ratio": ratios}, schema_overrides={"random_ratio": pl.Float64}
    )
    step = SemanticStep(sweep=(0.01, 0.1), action=action)
    return background_problem(step, background, num_sampled=num_sampled, encoder="static", encoders=ENCODERS)


def test_share_above_the_limit_is_named_with_what_helps():
    found = problem([0.0, 0.0123, 0.5])
    assert found is not None
    for part in ("1.23 % of pairs", "epsilon=0.05", "at most 0.1 %", "take epsilon=0.01", "(minilm)", "action report"):
        assert part in found
    assert "no smaller one tried is within it" in str(problem([0.02, 0.03, 0.5]))
    assert "action report" not in str(problem([0.0, 0.0123, 0.5], action="report"))


@pytest.mark.parametrize(("ratio", "num_sampled"), [(0.001, 1000), (0.02, 51), (None, 1)])
def test_share_that_true_duplicates_can_explain_is_no_problem(ratio, num_sampled):
    assert problem([0.0, ratio, 0.9], num_sampled) is None
    assert ratio is None or problem([0.0, ratio * 1.1, 0.9], num_sampled) is not None
