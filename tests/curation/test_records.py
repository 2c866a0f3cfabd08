"""Record ids come from content and origin, never from the order of rows."""

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from curation.records import assign_ids, content_hash

CONTENT = {"text": pl.String, "label": pl.String, "fields": pl.String}


def hashed(*rows: tuple[str, str | None, str]) -> list[str]:
    return content_hash(pl.DataFrame(rows, schema=CONTENT, orient="row")).to_list()


def test_hash_separates_text_label_and_fields():
    rows = [("ab", "c", ""), ("a", "bc", ""), ("abc", None, ""), ("abc", "", ""), ("ab", "", "c"), ("", "ab", "c")]
    hashes = hashed(*rows)
    assert len(set(hashes)) == len(rows)
    assert all(len(one) == 32 and int(one, 16) >= 0 for one in hashes)


def test_hash_does_not_confuse_values_that_look_like_its_own_encoding():
    assert len(set(hashed(("1:a", None, ""), ("1:a-0:", "", ""), ("", "3:1:a", ""), ("", None, "1:a")))) == 4


@given(st.lists(st.tuples(st.text(), st.none() | st.text(), st.text()), min_size=2, max_size=6, unique=True))
def test_different_contents_have_different_hashes(rows):
    rows = [row for row in rows if all(value is None or value.isprintable() for value in row)]
    assert len(set(hashed(*rows))) == len(rows)


def test_equal_contents_have_equal_hashes():
    one, other = hashed(("오늘", "pos", '{"a":1}'), ("오늘", "pos", '{"a":1}'))
    assert one == other


@given(
    st.lists(st.tuples(st.sampled_from("xyz"), st.sampled_from("ab"), st.integers(1, 50)), unique=True), st.randoms()
)
def test_ids_do_not_depend_on_the_order_of_rows(rows, random):
    schema = {"content": pl.String, "source": pl.String, "line": pl.Int64}
    mixed = random.sample(rows, len(rows))
    ids = dict(zip(rows, assign_ids(pl.DataFrame(rows, schema=schema, orient="row")), strict=True))
    again = dict(zip(mixed, assign_ids(pl.DataFrame(mixed, schema=schema, orient="row")), strict=True))
    assert ids == again
    for content in "xyz":
        mine = sorted((row[1], row[2], one) for row, one in ids.items() if row[0] == content)
        assert [one for _, _, one in mine] == [f"{content}-{counter}" for counter in range(len(mine))]


def test_counter_goes_on_after_taken_ids():
    hashes = pl.DataFrame({"content": ["x", "y", "x"], "source": ["b", "b", "a"], "line": [1, 2, 9]})
    taken = pl.DataFrame({"content": ["x", "other"], "count": [3, 7]})
    assert assign_ids(hashes, taken).to_list() == ["x-4", "y-0", "x-3"]
