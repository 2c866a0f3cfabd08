"""What another recipe would decide: reasons, keepers, and in what recipes differ."""

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.dedup.resettle import MEASURED_SCHEMA, resettle
from curation.recipe import Recipe
from curation.recipe_diff import MISSING, differences
from curation.rules import Bounds
from curation.verdicts import rule_reasons, rule_verdicts

VALUES = st.one_of(st.none(), st.integers(0, 4).map(float))
ROWS = st.lists(st.tuples(VALUES, VALUES, st.sampled_from([None, "en", "ko"]), VALUES), min_size=1, max_size=8)


@settings(max_examples=50)
@given(rows=ROWS, languages=st.sampled_from([(), ("en",), ("en", "ko")]), rules=st.booleans())
def test_first_reason_alone_is_that_of_the_verdicts(rows, languages, rules):
    schema = {"word_count": pl.Float64, "url_ratio": pl.Float64, "language": pl.String, "confidence": pl.Float64}
    measured = pl.DataFrame(rows, schema=schema, orient="row").with_row_index("id")
    bounds = {"word_count": Bounds(minimum=2.0), "url_ratio": Bounds(minimum=1.0, maximum=3.0)} if rules else {}
    recipe = Recipe(name="a", rules=bounds, languages=languages, min_language_confidence=0.5)
    assert rule_reasons(measured, recipe).to_list() == rule_verdicts(measured, recipe)["reason"].to_list()


def records(*rows):
    schema = {"id": pl.String, "exact_hash": pl.String, "length": pl.Int64, "quality": pl.Float64}
    return pl.DataFrame(rows, schema=schema, orient="row")


def measured(*rows):
    return pl.DataFrame([(*row, 3) for row in rows], schema=MEASURED_SCHEMA, orient="row")


def left(pairs):
    return sorted(pairs.filter("accepted").select("record_id", "keeper_id", "kind").rows())


def test_a_copy_takes_the_place_of_a_keeper_that_fails_and_its_pairs_with_it():
    pairs = measured(("c", "a1", 0.9), ("d", "a1", 0.7))
    both = records(("a1", "A", 9, 1.0), ("a2", "A", 8, 1.0), ("c", "C", 7, 1.0), ("d", "D", 6, 1.0))
    assert left(resettle(both, pairs, exact=True, threshold=0.8)) == [("a2", "a1", "exact"), ("c", "a1", "near")]
    fails = both.with_columns(quality=pl.Series([0.0, 1.0, 1.0, 1.0]))
    assert left(resettle(fails, pairs, exact=True, threshold=0.8)) == [("a1", "a2", "exact"), ("c", "a2", "near")]
    # Where no copy passes, the near one is better than all of them, and they follow.
    all_fail = both.with_columns(quality=pl.Series([0.0, 0.0, 1.0, 1.0]))
    assert left(resettle(all_fail, pairs, exact=True, threshold=0.8)) == [("a1", "c", "near"), ("a2", "c", "near")]
    assert left(resettle(both, pairs, exact=True, threshold=0.6))[-1] == ("d", "a1", "near")
    assert left(resettle(both, pairs, exact=True, threshold=None)) == [("a2", "a1", "exact")]
    assert left(resettle(both, pairs, exact=False, threshold=0.8)) == [("c", "a1", "near")]


def test_records_of_other_datasets_never_leave():
    pairs = measured(("b", "other:a", 0.9), ("other:c", "other:a", 0.9))
    others = [("other:a", "A", 5, float("inf")), ("other:c", "C", 4, float("inf"))]
    given_records = records(*others, ("b", "B", 9, 1.0), ("a", "A", 9, 1.0))
    expected = [("a", "other:a", "exact"), ("b", "other:a", "near")]
    assert left(resettle(given_records, pairs, exact=True, threshold=0.8)) == expected


def test_differences_name_each_key_and_no_position_that_only_moved():
    old = Recipe(name="a", rules={"word_count": Bounds(minimum=3), "url_ratio": Bounds(maximum=0.5)})
    new = Recipe(
        name="a",
        rules={"char_count": Bounds(minimum=1), "word_count": Bounds(minimum=5), "url_ratio": Bounds(maximum=0.5)},
    )
    assert [(one["key"], one["before"], one["after"]) for one in differences(old, new)] == [
        ("rules.word_count.minimum", 3.0, 5.0),
        ("rules.char_count.version", MISSING, 1),
        ("rules.char_count.minimum", MISSING, 1.0),
        ("rules.char_count.maximum", MISSING, None),
    ]
    turned = Recipe(name="a", rules=dict(reversed(old.rules.items())))
    assert differences(old, old) == []
    assert [one["key"] for one in differences(old, turned)] == ["order of rules"]
