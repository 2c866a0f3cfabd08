"""Exchange formats: what is written comes back, in every script; what other tools write is understood."""

import json
import unicodedata
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalog.errors import ConfigError, DataError, NotFoundError
from labeling.exchange import FORMATS, Given, Guess, Item, Problem, chosen, moment
from labeling.exchange.conll import aligned
from labeling.exchange.label_studio import labeling_config
from labeling.graphemes import is_boundary
from labeling.schema import parse_schema
from labeling.tasks.pairwise import pair_text

PIECES = [
    *("Winnow", " ", "\n", "\t", "é", "e\u0301", "서울", "에서", "각", "ᄀ", "ᅡ", "ᆨ", "我爱北京", "。", "สวัสดี", "ครับ"),
    *("👍🏽", "🇰🇷", "👩\u200d👩\u200d👧", "❤️", ",", '"', "\\n", "|", "# id = 1", "\u2028", "\xa0"),
    *("-DOCSTART-", "B-도시", "𝒳"),
]
texts = st.lists(st.sampled_from(PIECES), min_size=1, max_size=10).map("".join).filter(lambda text: text.strip())
SCHEMAS = {
    "single_choice": parse_schema("labels: [긍정, 'b, \"c\"', a-b]"),
    "multi_label": parse_schema("task: multi_label\nlabels: [긍정, b, '[c]']\nmin_labels: 0"),
    "spans": parse_schema("task: spans\nlabels: [도시, B-I, 사람 이름]"),
    "pairwise": parse_schema("task: pairwise\nties: true"),
    "rating": parse_schema("task: rating\nmin: 0\nmax: 2\nstep: 0.5"),
    "free_text": parse_schema("task: free_text\nmin_chars: 0"),
}
AT = datetime(2026, 3, 1, 9, 30, 15, 250_000, UTC)


def values(task: str, text: str) -> st.SearchStrategy:
    """Answers as they are stored."""
    schema = SCHEMAS[task]
    if task == "single_choice":
        return st.sampled_from(schema.names)
    if task == "multi_label":
        return st.sets(st.sampled_from(schema.names)).map(sorted)
    if task == "pairwise":
        return st.sampled_from(["a", "b", "tie"])
    if task == "rating":
        return st.sampled_from([0, 0.5, 1, 1.5, 2])
    if task == "free_text":
        return texts.map(lambda one: schema.validate(one))
    cuts = [at for at in range(len(text) + 1) if is_boundary(text, at)]
    edges = st.lists(st.sampled_from(cuts), max_size=6, unique=True).map(sorted)
    named = st.lists(st.sampled_from(schema.names), min_size=3, max_size=3)
    return st.tuples(edges, named).map(
        lambda drawn: [
            {"start": start, "end": end, "label": label}
            for start, end, label in zip(drawn[0][::2], drawn[0][1::2], drawn[1], strict=False)
            if not text[start:end].isspace()
        ]
    )


@st.composite
def items(draw: st.DrawFn, task: str) -> list[Item]:
    made = []
    for number in range(draw(st.integers(0, 3))):
        text = draw(texts)
        if task == "pairwise":
            text = pair_text(text, draw(texts), draw(st.none() | texts))
        answers = tuple(
            Given(
                annotator=who,
                value=draw(values(task, text)),
                at=draw(st.sampled_from([None, AT])),
                seconds_spent=draw(st.sampled_from([None, 0.0, 1.25])),
                late=draw(st.booleans()),
                retracted=draw(st.sampled_from([None, "undone"])),
            )
            for who in draw(st.lists(st.sampled_from(["ana", "지민", "a,b"]), min_size=1, unique=True))
        )
        taken = draw(values(task, text))
        made.append(Item(record_id=f"r{number}", text=text, answers=answers, value=taken, confidence=0.5, num_votes=2))
    return made


def round_trip(name: str, task: str, given_items: list[Item], folder: Path, **options: object) -> list[Item]:
    path = folder / "answers"
    written = chosen(name, path, SCHEMAS[task], dict(options)).write(path, given_items, SCHEMAS[task])
    found = list(chosen(name, path, SCHEMAS[task], dict(options)).read(path, SCHEMAS[task]))
    assert [one for one in found if isinstance(one, Problem)] == []
    assert written.num_items <= len(given_items)
    return found


def holds(name: str, task: str) -> bool:
    tasks = FORMATS[name].config.tasks
    return tasks is None or task in tasks


CASES = [(name, task) for name in FORMATS for task in SCHEMAS if holds(name, task) and name != "conll"]


@pytest.mark.parametrize(("name", "task"), CASES)
@settings(max_examples=25)
@given(data=st.data())
def test_answers_come_back_as_they_were(name, task, data, tmp_path_factory):
    given_items = data.draw(items(task))
    found = round_trip(name, task, given_items, tmp_path_factory.mktemp("exchange"))

    def flat(some):
        # Formats with a line an answer give an item for each.
        return [(one.record_id, one.text, answer) for one in some for answer in one.answers]

    assert flat(found) == flat(given_items)
    if name in ("jsonl", "hf"):
        assert [replace(one, where="") for one in found] == given_items


def as_tokens(item: Item) -> list[tuple[str, str]]:
    """What the spans of a read CoNLL item mark, and their labels."""
    bounds = aligned(item.tokens, item.text)
    return [
        (item.text[bounds[one["start"]][0] : bounds[one["end"] - 1][1]], one["label"]) for one in item.answers[0].value
    ]


def trimmed(item: Item) -> list[tuple[str, str]]:
    marked = [(item.text[one["start"] : one["end"]], one["label"]) for one in item.value]
    return [(text.strip(), label) for text, label in marked]


@given(given_items=items("spans"))
def test_spans_come_back_from_conll_but_for_white_space_at_their_ends(given_items, tmp_path_factory):
    found = round_trip("conll", "spans", given_items, tmp_path_factory.mktemp("exchange"))
    assert [(one.record_id, one.text) for one in found] == [(one.record_id, one.text) for one in given_items]
    assert [as_tokens(one) for one in found] == [trimmed(one) for one in given_items]


@given(given_items=items("spans"))
def test_snapped_conll_has_tokens_that_do_not_depend_on_the_spans(given_items, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exchange")
    found = round_trip("conll", "spans", given_items, folder, cut="snap")
    (folder / "answers").unlink()
    bare = round_trip("conll", "spans", [replace(one, value=[]) for one in given_items], folder, cut="snap")
    assert [one.tokens for one in found] == [one.tokens for one in bare]
    for before, after in zip(given_items, found, strict=True):
        assert len(after.answers[0].value) <= len(before.value)


KOREAN = "김민수는 서울에서 산다 🇰🇷!"
PLACE = [{"start": 0, "end": 3, "label": "사람 이름"}, {"start": 5, "end": 7, "label": "도시"}]


def conll(folder: Path, **options):
    path = folder / f"{len(list(folder.iterdir()))}.conll"
    item = Item(record_id="r1", text=KOREAN, value=PLACE, confidence=1.0, num_votes=1)
    return path, chosen(None, path, SCHEMAS["spans"], options).write(path, [item], SCHEMAS["spans"])


def test_noun_before_its_particle_splits_the_token_or_takes_it_whole(tmp_path):
    path, written = conll(tmp_path, comments=False)
    assert path.read_text() == ("김민수\tB-사람 이름\n는\tO\n서울\tB-도시\n에서\tO\n산다\tO\n🇰🇷\tO\n!\tO\n\n")
    assert written.changed == {"tokens split at a span's edge": 2}
    path, written = conll(tmp_path, cut="snap")
    assert path.read_text().splitlines()[:4] == [
        "# id = r1", f'# text = "{KOREAN}"', "김민수는\tB-사람 이름", "서울에서\tB-도시",
    ]  # fmt: skip
    assert written.changed == {"spans moved to the edges of tokens": 2}


def test_overlapping_spans_are_left_out_of_conll_and_counted(tmp_path):
    schema = parse_schema("task: spans\nlabels: [a]\noverlapping: true")
    spans = [{"start": 0, "end": 5, "label": "a"}, {"start": 3, "end": 5, "label": "a"}]
    item = Item(record_id="r1", text="ab cd", value=spans, num_votes=1)
    written = chosen("conll", tmp_path, schema, {}).write(tmp_path / "x", [item], schema)
    assert written.changed == {"spans left out: they overlap another": 1}


CONLL_2003 = """-DOCSTART- -X- -X- O

EU NNP B-NP B-ORG
rejects VBZ B-VP O
German JJ B-NP I-MISC
call NN I-NP I-MISC

Peter NNP B-NP B-PER
Blackburn NNP I-NP I-PER
broken
"""


def test_conll_2003_is_read_by_its_columns(tmp_path):
    path = tmp_path / "eng.conll"
    path.write_text(CONLL_2003)
    first, second = chosen("conll", path, SCHEMAS["spans"], {"annotator": "reuters"}).read(path, SCHEMAS["spans"])
    assert first.tokens == ("EU", "rejects", "German", "call")
    assert first.answers == (
        Given(
            annotator="reuters",
            value=[{"start": 0, "end": 1, "label": "ORG"}, {"start": 2, "end": 4, "label": "MISC"}],
        ),
    )
    # A single column is its own last one; "broken" is then no tag.
    assert second == Problem(
        where="line 8",
        reason="tag 'broken' is not O, B-LABEL or I-LABEL",
        raw=["Peter NNP B-NP B-PER", "Blackburn NNP I-NP I-PER", "broken"],
    )
    (parts,) = list(chosen("conll", path, SCHEMAS["spans"], {"tag": 2}).read(path, SCHEMAS["spans"]))[:1]
    assert [one["label"] for one in parts.answers[0].value] == ["NP", "VP", "NP"]
    wide = list(chosen("conll", path, SCHEMAS["spans"], {"tag": 7}).read(path, SCHEMAS["spans"]))
    assert [one.reason for one in wide] == ["has 4 columns; token=0 and tag=7 are wanted"] * 2


# ---- Label Studio ----------------------------------------------------------------------------------------------------

TEXT = "👍 Minsu lives in 서울\nnow"
SPAN = {"start": 0, "end": 1, "label": "a"}


def region(start: int, end: int, text: str, label: str, **more: str) -> dict:
    """A span as Label Studio writes it."""
    value = {"start": start, "end": end, "text": text, "labels": [label]}
    return {"value": value, "from_name": "label", "to_name": "text", "type": "labels", **more}


EXPORT = [
    {
        "id": 17,
        "annotations": [
            {
                "id": 31,
                "completed_by": 4,
                "result": [
                    region(2, 7, "Minsu", "사람", id="gew3t9fgkg", origin="manual"),
                    region(17, 23, "서울\\nnow", "도시", id="0gpIsb7s27", origin="prediction"),
                ],
                "was_cancelled": False,
                "ground_truth": False,
                "created_at": "2026-02-03T09:22:16.728353Z",
                "updated_at": "2026-02-03T09:23:00.000000Z",
                "draft_created_at": None,
                "lead_time": 4.288,
                "prediction": {},
                "result_count": 2,
                "unique_id": "5a1d8c53-4cde-4f1e-8c1f-4a94cbb0a0e6",
                "import_id": None,
                "last_action": None,
                "task": 17,
                "project": 3,
                "updated_by": 4,
                "parent_prediction": None,
                "parent_annotation": None,
                "last_created_by": None,
            },
            {"id": 32, "completed_by": {"id": 5, "email": "bo@example.org"}, "result": [], "was_cancelled": True},
            {"id": 33, "completed_by": {"id": 5, "email": "bo@example.org"}, "result": [], "was_cancelled": False},
        ],
        "file_upload": "0f2c-tasks.json",
        "drafts": [],
        "predictions": [
            {
                "id": 8,
                "model_version": "ner-v2",
                "score": 0.87,
                "result": [region(17, 19, "서울", "도시", id="p1")],
                "task": 17,
            }
        ],
        "data": {"text": TEXT},
        "meta": {},
        "inner_id": 1,
        "total_annotations": 2,
        "cancelled_annotations": 1,
        "total_predictions": 1,
        "comment_count": 0,
        "last_comment_updated_at": None,
        "project": 3,
        "updated_by": 4,
        "comment_authors": [],
    }
]
NAMES = parse_schema("task: spans\nlabels: [사람, 도시]")


def in_utf16(export: list) -> list:
    """The same as editors wrote it that counted UTF-16 units: one more behind the emoji."""
    shifted = json.loads(json.dumps(export))
    for one in (*shifted[0]["annotations"], *shifted[0]["predictions"]):
        for result in one["result"]:
            result["value"]["start"] += 1
            result["value"]["end"] += 1
    return shifted


def read_label_studio(folder: Path, export: object, schema=NAMES, **options) -> list:
    path = folder / "project-3-at-2026-02-03.json"
    path.write_text(export if isinstance(export, str) else json.dumps(export), encoding="utf-8")
    return list(chosen(None, path, schema, options).read(path, schema))


@pytest.mark.parametrize("export", [EXPORT, in_utf16(EXPORT)], ids=["code points", "utf-16"])
def test_label_studio_export_is_read_whichever_way_its_offsets_count(tmp_path, export):
    skipped, item = read_label_studio(tmp_path, export)
    assert (skipped.reason, skipped.where) == ("was skipped", "task 1, annotation 32")
    assert item.text == TEXT
    first, second = item.answers
    assert [(TEXT[one["start"] : one["end"]], one["label"]) for one in first.value] == [
        ("Minsu", "사람"),
        ("서울\nnow", "도시"),
    ]
    assert (first.annotator, first.at, first.seconds_spent) == (
        "label-studio:4",
        moment("2026-02-03T09:22:16.728353Z"),
        4.288,
    )
    assert (second.annotator, second.value) == ("bo@example.org", [])
    (guess,) = item.guesses
    assert (guess.model, guess.score, guess.value) == ("ner-v2", 0.87, [{"start": 17, "end": 19, "label": "도시"}])


def test_offsets_without_texts_count_what_is_said_they_count(tmp_path):
    bare = in_utf16(EXPORT)
    for one in (*bare[0]["annotations"], *bare[0]["predictions"]):
        for result in one["result"]:
            del result["value"]["text"]
    starts = {
        units: read_label_studio(tmp_path, bare, offsets=units)[1].answers[0].value[0]["start"]
        for units in ("auto", "code_points", "utf16")
    }
    assert starts == {"auto": 3, "code_points": 3, "utf16": 2}


@pytest.mark.parametrize(
    ("schema", "results", "value"),
    [
        ("labels: [a, b]", [{"type": "choices", "value": {"choices": ["a"]}}], "a"),
        ("labels: [a, b]", [{"type": "choices", "value": {"choices": [["group", "b"]]}}], "b"),
        ("labels: [a, b]", [{"type": "choices", "value": {"choices": ["a", "b"]}}], ["a", "b"]),
        ("task: multi_label\nlabels: [a, b]", [{"type": "choices", "value": {"choices": ["b", "a"]}}], ["b", "a"]),
        ("task: rating", [{"type": "rating", "value": {"rating": 4}}], 4),
        ("task: rating\nmax: 9\nstep: 2", [{"type": "number", "value": {"number": 7}}], 7),
        ("task: free_text", [{"type": "textarea", "value": {"text": ["하나", "둘"]}}], "하나\n둘"),
        ("task: pairwise", [{"type": "pairwise", "value": {"selected": "right"}}], "b"),
    ],
)
def test_every_control_of_label_studio_is_understood(tmp_path, schema, results, value):
    data = {"text": "t", "a": "x", "b": "y"}
    annotation = {"id": 1, "completed_by": 1, "result": [{"from_name": "c", "to_name": "t", **one} for one in results]}
    (item,) = read_label_studio(tmp_path, [{"data": data, "annotations": [annotation]}], parse_schema(schema))
    assert item.answers[0].value == value


@pytest.mark.parametrize(
    ("export", "message"),
    [("{", "no JSON"), ("3", "not a list of Label Studio tasks"), ("[" * 100_000, "no JSON")],
)
def test_file_that_is_no_export_is_refused(tmp_path, export, message):
    with pytest.raises(DataError, match=message):
        read_label_studio(tmp_path, export)


@pytest.mark.parametrize(
    ("task", "reason"),
    [
        (3, "has no data"),
        ({"data": {"body": "x"}}, "data has no text under 'text'; it has body"),
        (
            {"data": {"text": "x"}, "annotations": [{"result": [{"type": "brushlabels", "value": {}}]}]},
            "has no spans result",
        ),
    ],
)
def test_task_that_says_nothing_is_set_aside_with_the_reason(tmp_path, task, reason):
    (found,) = read_label_studio(tmp_path, [task])
    assert (type(found), found.reason) == (Problem, reason)


def test_label_studio_config_names_every_label_once_and_is_xml():
    from xml.etree import ElementTree

    for task, schema in SCHEMAS.items():
        tree = ElementTree.fromstring(labeling_config(schema))
        named = [one.get("value") for one in tree.iter() if one.tag in ("Choice", "Label")]
        assert named == ([*schema.names] if task != "pairwise" else ["tie"])
        assert tree.find("Header").get("value") == schema.question


# ---- Prodigy ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schema", "line", "expected"),
    [
        ("labels: [a, b]", {"accept": ["a"], "answer": "accept"}, "a"),
        ("labels: [a, b]", {"label": "a", "answer": "accept"}, "a"),
        ("labels: [a, b]", {"label": "a", "answer": "reject"}, "b"),
        ("labels: [a, b, c]", {"label": "a", "answer": "reject"}, "was rejected, which says only what is not so"),
        ("labels: [a, b]", {"label": "a", "answer": "ignore"}, "was ignored"),
        ("labels: [a, b]", {"accept": ["a", "b"]}, "2 options are accepted where one is asked for"),
        ("labels: [a, b]", {}, "has neither accept nor label"),
        ("task: multi_label\nlabels: [a, b]", {"accept": ["b", "a"]}, ["b", "a"]),
        ("task: rating", {"accept": ["4"]}, 4.0),
        ("task: free_text", {"user_input": "답"}, "답"),
        ("task: spans\nlabels: [a]", {"spans": [SPAN | {"token_start": 0}]}, [SPAN]),
        ("task: spans\nlabels: [a]", {"spans": None}, "has no spans"),
    ],
)
def test_prodigy_line_is_an_answer_or_says_why_not(tmp_path, schema, line, expected):
    path = tmp_path / "db-out.prodigy.jsonl"
    path.write_text(
        json.dumps({"text": "tx", "_annotator_id": "db-ana", "_timestamp": 1772355600, **line}) + "\n\nnot json\n"
    )
    found, broken = chosen(None, path, parse_schema(schema), {}).read(path, parse_schema(schema))
    assert broken.reason.startswith("no JSON")
    if isinstance(found, Problem):
        assert found.reason == expected
    else:
        (answer,) = found.answers
        assert (answer.value, answer.annotator, answer.at) == (expected, "db-ana", moment("2026-03-01T09:00:00Z"))


def test_prodigy_spans_carry_tokens_where_they_begin_and_end_with_them(tmp_path):
    path = tmp_path / "x.prodigy.jsonl"
    value = [{"start": 0, "end": 2, "label": "도시"}, {"start": 6, "end": 8, "label": "도시"}]
    item = Item(record_id="r1", text="go to 서울역", answers=(Given(annotator="a", value=value),))
    chosen(None, path, SCHEMAS["spans"], {}).write(path, [item], SCHEMAS["spans"])
    line = json.loads(path.read_text())
    assert [one["text"] for one in line["tokens"]] == ["go", "to", "서울역"]
    assert [(one.get("token_start"), one.get("token_end")) for one in line["spans"]] == [(0, 0), (None, None)]


# ---- the others ------------------------------------------------------------------------------------------------------


def test_hf_folder_is_what_the_library_loads(tmp_path):
    datasets = pytest.importorskip("datasets")
    value = [{"start": 0, "end": 2, "label": "도시"}]
    answers = (Given(annotator="지민", value=value, at=AT),)
    item = Item(record_id="r1", text="서울", answers=answers, value=value, confidence=1.0, num_votes=1)
    chosen("hf", tmp_path / "f", SCHEMAS["spans"], {}).write(tmp_path / "f", [item], SCHEMAS["spans"])
    loaded = datasets.load_dataset(str(tmp_path / "f"), cache_dir=str(tmp_path / "cache"))["train"]
    row = loaded[0]
    assert (row["record_id"], row["text"], row["value"]) == ("r1", "서울", value)
    assert row["answers"][0]["annotator"] == "지민"


def test_csv_of_another_tool_is_read_by_the_names_of_its_columns(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text('\ufefftweet,label,who\r\n"a, b",긍정,ana\r\nc,부정,\r\nd, ,ana\r\nbroken\r\n')
    schema = parse_schema("labels: [긍정, 부정]")
    options = {"text": "tweet", "value": "label", "annotator": "who"}
    one, other, empty, broken = chosen(None, path, schema, options).read(path, schema)
    assert [(each.text, each.answers[0].value, each.answers[0].annotator) for each in (one, other)] == [
        ("a, b", "긍정", "ana"),
        ("c", "부정", "imported"),
    ]
    assert (empty.text, empty.answers) == ("d", ())
    written = parse_schema("task: free_text\nmin_chars: 0")
    assert list(chosen(None, path, written, options).read(path, written))[2].answers[0].value == " "
    assert broken.reason == "the row has more or fewer cells than the header"
    with pytest.raises(ConfigError, match="no column 'value' for the answers; Known: label, tweet, who"):
        list(chosen(None, path, schema, {}).read(path, schema))
    with pytest.raises(ConfigError, match="neither a column 'record_id' nor 'text'"):
        list(chosen(None, path, schema, {"value": "label"}).read(path, schema))


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ({"value": "a"}, "has neither a record_id nor a text"),
        ({"text": 3, "value": "a"}, "has neither a record_id nor a text"),
        ({"text": "t", "answers": [{"value": "a"}]}, "answers must be objects with annotator and value"),
        ({"text": "t", "answers": 3}, "answers must be objects with annotator and value"),
        ({"text": "t", "predictions": [3]}, "predictions must be objects with a value"),
    ],
)
def test_line_of_ours_that_is_no_item_says_why(tmp_path, line, reason):
    path = tmp_path / "x.jsonl"
    path.write_text(json.dumps(line) + "\n")
    (found,) = chosen(None, path, SCHEMAS["single_choice"], {}).read(path, SCHEMAS["single_choice"])
    assert (type(found), found.reason) == (Problem, reason)


def test_bare_line_is_an_answer_of_whoever(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text('{"text": "t", "value": "a"}\n')
    (found,) = chosen(None, path, SCHEMAS["single_choice"], {}).read(path, SCHEMAS["single_choice"])
    assert found.answers == (Given(annotator="imported", value="a"),)


def test_predictions_of_ours_come_back(tmp_path):
    item = Item(record_id=None, text="t", guesses=(Guess(value="a", model="m", score=0.5),))
    for name in ("jsonl", "label_studio"):
        schema = parse_schema("labels: [a, b]")
        chosen(name, tmp_path, schema, {}).write(tmp_path / name, [item], schema)
        (found,) = chosen(name, tmp_path, schema, {}).read(tmp_path / name, schema)
        assert found.guesses == item.guesses


def test_format_is_chosen_by_suffix_and_refused_where_it_does_not_fit(tmp_path):
    spans, single = SCHEMAS["spans"], SCHEMAS["single_choice"]
    for name, named in {
        "a.jsonl": "jsonl",
        "a.prodigy.jsonl": "prodigy",
        "a.json": "label_studio",
        "A.CSV": "csv",
        "a.bio": "conll",
    }.items():
        assert isinstance(chosen(None, tmp_path / name, spans, {}), FORMATS[named].config)
    with pytest.raises(ConfigError, match="the suffix names no format; give --format, one of conll, csv"):
        chosen(None, tmp_path / "a.txt", spans, {})
    with pytest.raises(ConfigError, match="conll files hold no single_choice answers; choose one of csv, hf"):
        chosen("conll", tmp_path / "a", single, {})
    with pytest.raises(ConfigError, match="unknown option 'tagg'; did you mean 'tag'"):
        chosen("conll", tmp_path / "a", spans, {"tagg": 1})
    with pytest.raises(ConfigError, match="cut='half' must be one of split, snap"):
        chosen("conll", tmp_path / "a", spans, {"cut": "half"})
    with pytest.raises(NotFoundError, match="did you mean 'conll'"):
        chosen("connl", tmp_path / "a", spans, {})


@pytest.mark.parametrize("name", sorted(set(FORMATS) - {"hf"}))
def test_file_that_is_not_utf8_is_refused(tmp_path, name):
    path = tmp_path / "x"
    path.write_bytes("서울".encode("euc-kr"))
    with pytest.raises(DataError, match="is not UTF-8"):
        list(chosen(name, path, SCHEMAS["spans"], {}).read(path, SCHEMAS["spans"]))


def test_texts_of_jamo_stay_as_they_are(tmp_path):
    text = unicodedata.normalize("NFD", "서울")
    value = [{"start": 0, "end": len(text), "label": "도시"}]
    answers = (Given(annotator="a", value=value),)
    item = Item(record_id="r", text=text, answers=answers, value=value, num_votes=1, confidence=1.0)
    for name in sorted(set(FORMATS) - {"conll"}):
        (tmp_path / name).mkdir()
        (found,) = round_trip(name, "spans", [item], tmp_path / name)
        assert (found.text, found.answers[0].value) == (text, value)
