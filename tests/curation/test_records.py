"""Record ids come from content, and a counter among equal contents in the order of source and line."""

from collections import Counter

import numpy as np
import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from curation.records import Seen, content_hash, content_of, count_before, hash_words, record_ids

CONTENT = {"text": pl.String, "label": pl.String, "fields": pl.String}


def hashed(*rows: tuple[str, str | None, str]) -> list[bytes]:
    return content_hash(pl.DataFrame(rows, schema=CONTENT, orient="row")).to_list()


def test_hash_separates_text_label_and_fields():
    rows = [("ab", "c", ""), ("a", "bc", ""), ("abc", None, ""), ("abc", "", ""), ("ab", "", "c"), ("", "ab", "c")]
    hashes = hashed(*rows)
    assert len(set(hashes)) == len(rows)
    assert all(len(one) == 16 for one in hashes)


def test_hash_does_not_confuse_values_that_look_like_its_own_encoding():
    assert len(set(hashed(("1:a", None, ""), ("1:a-0:", "", ""), ("", "3:1:a", ""), ("", None, "1:a")))) == 4


@given(st.lists(st.tuples(st.text(), st.none() | st.text(), st.text()), min_size=2, max_size=6, unique=True))
def test_different_contents_have_different_hashes(rows):
    rows = [row for row in rows if all(value is None or value.isprintable() for value in row)]
    assert len(set(hashed(*rows))) == len(rows)


def test_equal_contents_have_equal_hashes():
    one, other = hashed(("오늘", "pos", '{"a":1}'), ("오늘", "pos", '{"a":1}'))
    assert one == other


@given(st.lists(st.lists(st.sampled_from([(0, 1), (1, 0), (1, 1), (2**64 - 1, 7)]))))
def test_equal_contents_are_numbered_in_order_however_the_rows_are_cut_into_blocks(blocks):
    seen, counters = Seen.nothing(), []
    for block in blocks:
        found, seen = count_before(np.array(block, np.uint64).reshape(-1, 2), seen)
        counters += found.tolist()
    rows = [row for block in blocks for row in block]
    assert counters == [rows[:place].count(row) for place, row in enumerate(rows)]
    assert dict(zip(map(tuple, seen.hashes.tolist()), seen.counts.tolist(), strict=True)) == Counter(rows)


def test_an_id_is_the_hash_in_hex_and_the_counter_and_gives_its_hash_back():
    content = content_hash(pl.DataFrame([("오늘", "pos", ""), ("오늘", None, "")], schema=CONTENT, orient="row"))
    ids = record_ids(content, np.array([0, 12]))
    assert ids.to_list() == [f"{content[0].hex()}-0", f"{content[1].hex()}-12"]
    assert content_of(ids).to_list() == content.to_list()
    words = hash_words(content)
    assert [f"{high:016x}{low:016x}" for high, low in words.tolist()] == [one.hex() for one in content]


def test_ids_are_those_of_the_first_release():
    content = content_hash(pl.DataFrame([("a text", "a label", '{"a":1}')], schema=CONTENT, orient="row"))
    assert record_ids(content, np.array([3])).to_list() == ["fdc85fe12af89d46e5d38b55c8b06dc6-3"]
