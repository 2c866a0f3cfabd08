"""Edits: what they change, why, and that what is told of it is true."""

import polars as pl
import pytest

from catalog.errors import NotFoundError
from curation.edits import EDITS, apply, count_changes

PAGE = (
    "Hello world, this is a line. And two.[2] \n\nshort\nWe use cookies here for the win.\n"
    " He is (see [3]) an old man. \nJavaScript must be on for this.\nOne two three.\n"
    "오늘은 좋은 날입니다. 산책을 갑니다."
)


def test_c4_takes_lines_out_and_says_why():
    texts, changes = apply(pl.Series([PAGE, "", "no end"]), ["c4_lines"])
    assert texts.to_list() == [
        "Hello world, this is a line. And two.\nHe is (see ) an old man.\n오늘은 좋은 날입니다. 산책을 갑니다.",
        "",
        "",
    ]
    assert changes.select("row", "reason", "after").rows() == [
        (0, "citation", "Hello world, this is a line. And two."),
        (0, "no end mark", None),
        (0, "cookies and terms of use", None),
        (0, "citation", "He is (see ) an old man."),
        (0, "javascript", None),
        (0, "fewer than 5 words", None),
        (2, "no end mark", None),
    ]
    counted = count_changes(changes)
    assert counted[0] == {"edit": "c4_lines", "reason": "citation", "changes": 2, "records": 1, "characters": 70}


def test_variants_of_c4_differ_as_published():
    text = pl.Series(["One two three.\nno end mark here at all\nShe said 'no'\ntwo words."])
    kept = {name: apply(text, [name])[0][0].split("\n") for name in EDITS if name.startswith("c4")}
    assert kept == {
        "c4_lines": [""],
        "c4_lines_datatrove": ["One two three.", "She said 'no'"],
        "c4_lines_fineweb": ["One two three.", "no end mark here at all", "She said 'no'"],
    }


def test_encodings_are_repaired_and_style_is_left():
    texts = pl.Series(
        ["caf\u00c3\u00a9 &amp; â€œquoteâ€\x9d", "ｆｕｌｌ，安 “curly” ﬁ 가", "plain\r\ntext", "ì•ˆë…•í•˜ì„¸ìš”"]
    )
    fixed, changes = apply(texts, ["fix_encoding"])
    assert fixed.to_list() == ["café & “quote”", *texts[1:3], "안녕하세요"]
    assert changes["row"].to_list() == [0, 3]
    assert "windows-1252" in changes["reason"][0]


@pytest.mark.parametrize("name", sorted(EDITS.load()))
def test_text_becomes_the_same_alone_and_changes_lead_from_before_to_after(name):
    texts = pl.Series("body", [PAGE, "", "caf\u00c3\u00a9 and more.", "a\n{b}", "안녕하세요 여러분, 반갑습니다 모두."])
    after, changes = apply(texts, [name])
    assert after.name == "body"
    assert after.to_list() == [apply(pl.Series([text]), [name])[0][0] for text in texts]
    for one in changes.rows(named=True):
        assert texts[one["row"]][one["start"] : one["end"]] == one["before"]
        assert one["edit"] == name
    untouched = set(range(len(texts))) - set(changes["row"])
    assert all(after[row] == texts[row].strip("\n") for row in untouched)
    assert EDITS[name].member.__doc__


def test_edits_are_done_in_turn_and_unknown_ones_refused():
    texts, changes = apply(pl.Series(["Caf\u00c3\u00a9 is open for us today.\nshort"]), ["fix_encoding", "c4_lines"])
    assert texts[0] == "Café is open for us today."
    assert changes["edit"].to_list() == ["fix_encoding", "c4_lines"]
    with pytest.raises(NotFoundError, match="did you mean 'c4_lines'"):
        apply(texts, ["c4_line"])
