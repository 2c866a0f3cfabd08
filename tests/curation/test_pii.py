"""Finding and replacing personal data: borders, rules of single kinds, overlaps, pseudonyms, configuration."""

import math

import polars as pl
import pytest

from catalog.errors import ConfigError
from catalog.settings import load_settings
from curation.pii import KINDS
from curation.pii.finding import find_spans
from curation.pii.replacing import hidden, pseudonym, redact
from curation.pii.step import PiiStep
from curation.recipe import load_recipe, recipe_from_canonical

KEY = b"0123456789abcdef"


def found(text: str, kind: str, least: float = 0.01) -> list[tuple[str, float, bool | None]]:
    spans = find_spans(pl.Series([text]), [kind], least).to_dicts()
    return [(text[one["start"] : one["end"]], one["confidence"], one["checksum"]) for one in spans]


def test_places_count_characters_of_the_original_text():
    text = "👍🏽 전화 ０１０－１２３４－５６７８, 메일 a.b@c.kr"
    spans = find_spans(pl.Series(["", text, "010-1234-5678"]))
    values = [
        (row, [text, "010-1234-5678"][row - 1][start:end])
        for row, start, end in spans.select("row", "start", "end").iter_rows()
    ]
    assert values == [(1, "０１０－１２３４－５６７８"), (1, "a.b@c.kr"), (2, "010-1234-5678")]


def test_no_texts_and_no_values_have_the_same_columns():
    schema = find_spans(pl.Series(["a@b.kr"])).schema
    assert [find_spans(pl.Series(rows, dtype=pl.String)).schema for rows in ([], ["x"])] == [schema, schema]


@pytest.mark.parametrize(
    ("text", "confidence", "checksum"),
    [
        ("900101-1234568", 0.95, True),
        ("201101-3123456", 0.75, False),
        ("주민번호 2011013123456", 0.9, False),
        ("2011013123456", 0.2, False),
        ("9001011234568", 0.6, True),
        ("일련번호 9001011234568", 0.2, True),
    ],
)
def test_korean_resident_number_needs_no_check_digit_where_hyphen_or_word_speaks_for_it(text, confidence, checksum):
    assert [one[1:] for one in found(text, "kr_resident_number")] == [(confidence, checksum)]


@pytest.mark.parametrize("text", ["900230-1234568", "901301-1234568", "1900101-1234568", "900101-12345680"])
def test_korean_resident_number_has_a_date_and_borders(text):
    assert found(text, "kr_resident_number") == []


@pytest.mark.parametrize(
    "area", ["000-12-3456", "666-12-3456", "900-12-3456", "123-00-3456", "123-12-0000", "078-05-1120"]
)
def test_social_security_numbers_that_nobody_has_are_none(area):
    assert found(f"SSN {area}", "us_ssn") == []


def test_the_nearest_word_decides_and_a_word_belongs_to_the_number_behind_it():
    assert found("card 4111111111111111", "payment_card")[0][1] > 0.9
    assert found("card for order 4111111111111111", "payment_card")[0][1] < 0.5
    assert found("order 77812, 4111111111111111", "payment_card")[0][1] == 0.75


def test_of_values_that_overlap_the_surest_stays():
    text = "https://bob:s3cr3tpw@host.com and +82 10-1234-5678"
    spans = find_spans(pl.Series([text])).to_dicts()
    assert [(one["kind"], text[one["start"] : one["end"]]) for one in spans] == [
        ("url_credentials", "bob:s3cr3tpw"),
        ("phone", "+82 10-1234-5678"),
    ]


def test_private_key_without_an_end_reaches_as_far_as_it_looks_like_one():
    text = "-----BEGIN PRIVATE KEY-----\nMIIEvQ==\nnot a key line"
    assert found(text, "private_key")[0][0] == "-----BEGIN PRIVATE KEY-----\nMIIEvQ=="


def test_same_value_has_the_same_pseudonym_however_it_is_written():
    phone = KINDS["phone"].member
    written = ["010-1234-5678", "01012345678", "+82 10-1234-5678", "+82 (0)10 1234 5678", "０１０－１２３４－５６７８"]
    assert len({pseudonym("phone", phone, one, KEY) for one in written}) == 1
    assert pseudonym("phone", phone, "010-1234-5679", KEY) != pseudonym("phone", phone, "010-1234-5678", KEY)
    assert pseudonym("phone", phone, "010-1234-5678", KEY[::-1]) != pseudonym("phone", phone, "010-1234-5678", KEY)
    cards = [pseudonym("payment_card", KINDS["payment_card"].member, one, KEY) for one in ("4111 1111", "41111111")]
    assert cards[0] == cards[1]


def test_pseudonyms_keep_the_format_where_it_has_values_that_are_nobodys():
    step = PiiStep.configured({"action": "hash"})
    texts = pl.Series(["a.b@c.kr", "login from 106.31.73.20", "at 2607:f8b0:4004:c07::64", "010-1234-5678"])
    email, four, six, phone = redact(texts, step, KEY)
    assert email.endswith("@pii.invalid")
    assert int(four.rpartition(" ")[2].split(".")[0]) >= 240
    assert six.rpartition(" ")[2].startswith("2001:db8:")
    assert phone.startswith("+999")


def test_hiding_keeps_length_and_places():
    text = "카드 4111 1111 1111 1111, a.b@c.kr"
    shown = hidden(text, [("email", 24, 32), ("payment_card", 3, 22)])
    assert shown == "카드 **** **** **** 1111, a.*@*.**"


def test_only_kinds_whose_action_says_so_are_replaced():
    step = PiiStep.configured({"action": "ignore", "kinds": {"email": "tag", "phone": "report", "us_ssn": "drop"}})
    text = "a@b.kr 010-1234-5678 SSN 219-09-1234 AKIAIOSFODNN7EXAMPLE"
    assert redact(pl.Series([text]), step)[0] == text.replace("a@b.kr", "<EMAIL>")
    assert {name: one.maximum for name, one in step.bounds().items()} == {"pii_us_ssn": 0.0}


RECIPE = """
name: private
pii: {action: tag, kinds: {payment_card: drop, phone: {action: hash, maximum: 3}, iban: ignore}}
"""


def test_recipe_round_trips_and_an_older_kind_is_refused(tmp_path):
    path = tmp_path / "private.yaml"
    path.write_text(RECIPE)
    recipe = load_recipe(str(path))
    canonical = recipe.canonical()
    assert recipe_from_canonical(canonical).digest() == recipe.digest()
    assert "iban" not in canonical["pii"]["kinds"]
    canonical["pii"]["kinds"]["email"]["version"] = 0
    with pytest.raises(ConfigError, match="'email' was recorded at version 0"):
        recipe_from_canonical(canonical)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"kinds": {"emial": "tag"}}, "did you mean 'email'"),
        ({"action": "tga"}, "did you mean 'tag'"),
        ({"acton": "tag"}, "did you mean 'action'"),
        ({"kinds": {"email": {"maxmum": 1}}}, "did you mean 'maximum'"),
        ({"kinds": {"email": {"action": "drop", "maximum": 2}}}, "maximum=2"),
        ({"kinds": {"email": {"maximum": -1}}}, "maximum=-1"),
        ({"kinds": {"email": {"action": "ignore", "maximum": 1}}}, "ignore takes no"),
        ({"kinds": ["email"]}, "must map kinds"),
        ({"min_confidence": 0}, r"\(0, 1\]"),
        ({"min_confidence": math.nan}, r"\(0, 1\]"),
        ({"action": "ignore"}, "kinds is empty"),
        ({"action": [1]}, "is none"),
    ],
)
def test_what_makes_no_sense_is_refused_with_the_nearest_that_does(given, message):
    with pytest.raises(ConfigError, match=message):
        PiiStep.configured(given)


def test_names_are_looked_for_only_if_asked_and_say_what_they_need(monkeypatch):
    monkeypatch.setattr("curation.pii.kinds.person.PACKAGES", ("no_such_package",))
    PiiStep.configured({}).require()
    with pytest.raises(ConfigError, match=r"winnow\[names\]"):
        PiiStep.configured({"kinds": {"person": "tag"}}).require()


def test_key_is_never_shown(tmp_path, monkeypatch):
    monkeypatch.setenv("WINNOW_PII_KEY", "tooshort")
    with pytest.raises(ConfigError, match="pii_key") as refused:
        load_settings(home=tmp_path)
    assert "tooshort" not in str(refused.value)
    monkeypatch.setenv("WINNOW_PII_KEY", "long enough for a key")
    settings = load_settings(home=tmp_path)
    assert "long enough" not in f"{settings!r}{settings}{settings.model_dump()}{settings.model_dump_json()}"
