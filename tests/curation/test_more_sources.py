"""JSON arrays, Arrow, further compressions, nested columns and conversations: what is read, and what is refused."""

import bz2
import json
import lzma

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from curation.sources import ReadOptions, SourceRefusedError, read_batches
from curation.sources.conversations import STYLES, aligned, contents, rendered, restored
from curation.sources.nested import has, put, take

ROWS = [{"text": f'말 "{n}" [ {{ \\ }} ]', "n": [n, {"deep": "]"}]} for n in range(5)]


def read(path, data: bytes | None = None, **options):
    if data is not None:
        path.write_bytes(data)
    batches = list(read_batches(str(path), ReadOptions(**{"text_column": "text"} | options)))
    rows = [row for one in batches for row in one.records.to_dicts()]
    return rows, [row[:2] for one in batches for row in one.rejected.rows()]


def refusal(path, data: bytes, **options) -> str:
    with pytest.raises(SourceRefusedError) as raised:
        read(path, data, **options)
    return raised.value.reason


def test_json_array_gives_its_objects_in_order_however_it_is_written(tmp_path):
    for number, data in enumerate(
        (json.dumps(ROWS), json.dumps(ROWS, indent=2, ensure_ascii=False), "\ufeff \n" + json.dumps(ROWS) + "\n\n")
    ):
        rows, rejected = read(tmp_path / f"{number}.json", data.encode())
        assert [row["text"] for row in rows] == [row["text"] for row in ROWS]
        assert ([row["line"] for row in rows], rejected) == ([1, 2, 3, 4, 5], [])
    lines = "\n".join(json.dumps(row) for row in ROWS)
    assert [row["text"] for row in read(tmp_path / "lines.json", lines.encode())[0]] == [row["text"] for row in ROWS]


def test_json_array_rejects_each_bad_element_and_goes_on_behind_it(tmp_path):
    elements = [
        b'{"text": "good"}',
        b'{"text": nope, "a": ["]", {}]}',
        b"7",
        b'{"text": "' + b"x" * 300 + b'"}',
        b'{"text": "a\xffb"}',
        b'{"text": "\\ud800"}',
        b'{"other": [' + b"1," * 200 + b"1]}",
        b'{"text": "also good"}',
    ]
    rows, rejected = read(tmp_path / "a.json", b"[" + b" ,\n".join(elements) + b"]", max_line_bytes=200)
    assert [(row["text"], row["line"]) for row in rows] == [("good", 1), ("also good", 8)]
    assert rejected == [
        (2, "invalid_json"),
        (3, "not_an_object"),
        (4, "line_too_long"),
        (5, "invalid_utf8"),
        (6, "lone_surrogate"),
        (7, "line_too_long"),
    ]
    for tail, reason in ((b"", "invalid_json"), (b'{"text": "half', "invalid_json"), (b"}", "invalid_json")):
        rows, rejected = read(tmp_path / "b.json", b'[{"text": "good"}, ' + tail)
        assert ([row["text"] for row in rows], rejected) == (["good"], [(2, reason)])
    assert refusal(tmp_path / "c.json", b'{\n "data": [{"text": "x"}]\n}') == "not_an_array"
    assert refusal(tmp_path / "d.json", b'"text"') == "not_an_array"
    assert refusal(tmp_path / "e.json", b"[ ]") == "empty_file"


@hypothesis_settings(max_examples=20)
@given(
    st.lists(st.dictionaries(st.text(max_size=3), st.text(max_size=9) | st.lists(st.integers(), max_size=3))),
    st.sampled_from([None, 1]),
)
def test_json_array_reads_what_json_wrote_in_parts_of_any_size(tmp_path_factory, rows, indent):
    from curation.sources import json_array

    given_rows = [{**row, "text": f"t{number}"} for number, row in enumerate(rows)] or [{"text": "t"}]
    path = tmp_path_factory.mktemp("json") / "a.json"
    usual, json_array._READ_BYTES = json_array._READ_BYTES, 7
    try:
        found, rejected = read(path, json.dumps(given_rows, indent=indent, ensure_ascii=True).encode())
    finally:
        json_array._READ_BYTES = usual
    kept = [row["line"] for row in found]
    assert sorted(kept + [line for line, _ in rejected]) == list(range(1, len(given_rows) + 1))
    assert {reason for _, reason in rejected} <= {"nul_character", "lone_surrogate"}
    assert all(
        json.loads(row["fields"] or "{}") | {"text": row["text"]} == given_rows[row["line"] - 1] for row in found
    )


def write_arrow(path, table, kind):
    with pa.OSFile(str(path), "wb") as file, kind(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=2)
    return path.read_bytes()


def test_arrow_files_and_streams_are_read_and_damage_is_refused(tmp_path):
    table = pa.table({"text": ["하나", "둘", "셋"], "nested": [{"a": 1}, None, {"a": 3}]})
    for kind in (pa.ipc.new_file, pa.ipc.new_stream):
        data = write_arrow(tmp_path / "a.arrow", table, kind)
        rows, rejected = read(tmp_path / "a.arrow")
        assert ([row["text"] for row in rows], [row["line"] for row in rows]) == (["하나", "둘", "셋"], [1, 2, 3])
        assert (rows[0]["fields"], rejected) == ('{"nested":{"a":1}}', [])
        assert refusal(tmp_path / "b.arrow", data[: len(data) // 2]) in ("truncated", "corrupt")
    assert [row["text"] for row in read(tmp_path / "a.arrow.xz", lzma.compress(data))[0]] == ["하나", "둘", "셋"]
    assert refusal(tmp_path / "c.arrow", b"plain text that is long enough") == "not_arrow"
    file = write_arrow(tmp_path / "a.arrow", table, pa.ipc.new_file)
    assert refusal(tmp_path / "d.arrow.bz2", bz2.compress(file)) == "unknown_format"
    doubled = pa.table([["a"], ["b"]], names=["text", "text"])
    assert (
        refusal(tmp_path / "e.arrow", write_arrow(tmp_path / "e.arrow", doubled, pa.ipc.new_file)) == "duplicate_column"
    )


def test_arrow_offsets_that_lead_outside_are_refused_and_bad_utf8_costs_its_row(tmp_path):
    right, wild = (b"".join(n.to_bytes(4, "little") for n in (0, inner, 8)) for inner in (4, 900_000_000))
    data = write_arrow(tmp_path / "a.arrow", pa.table({"text": ["text", "more"]}), pa.ipc.new_stream)
    assert data.count(right) == 1
    assert refusal(tmp_path / "a.arrow", data.replace(right, wild)) == "corrupt"
    bad = pa.StringArray.from_buffers(2, pa.py_buffer(right), pa.py_buffer(b"textte\xff\xfe"))
    rows, rejected = read(
        tmp_path / "b.arrow", write_arrow(tmp_path / "b.arrow", pa.table({"text": bad}), pa.ipc.new_file)
    )
    assert ([row["text"] for row in rows], rejected) == (["text"], [(2, "invalid_utf8")])


def test_class_labels_of_the_datasets_library_become_their_names(tmp_path):
    features = {"label": {"names": ["나쁨", "좋음"], "_type": "ClassLabel"}, "text": {"dtype": "string"}}
    schema = pa.schema({"text": pa.string(), "label": pa.int64()})
    schema = schema.with_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    table = pa.table({"text": ["a", "b", "c"], "label": [1, 0, -1]}, schema=schema)
    write_arrow(tmp_path / "a.arrow", table, pa.ipc.new_stream)
    pq.write_table(table, tmp_path / "a.parquet")
    for name in ("a.arrow", "a.parquet"):
        assert [row["label"] for row in read(tmp_path / name, label_column="label")[0]] == ["좋음", "나쁨", None]


def test_bzip2_and_xz_are_unpacked_and_damage_and_bombs_refused(tmp_path):
    plain = b'{"text": "a"}\n' * 1_000
    for suffix, pack in (("bz2", bz2.compress), ("xz", lzma.compress)):
        assert len(read(tmp_path / f"a.jsonl.{suffix}", pack(plain) + pack(plain))[0]) == 2_000
        assert refusal(tmp_path / f"b.jsonl.{suffix}", pack(plain)[:-9]) in ("truncated", "corrupt")
        assert refusal(tmp_path / f"c.jsonl.{suffix}", pack(b"x" * 10**8)) == "decompression_bomb"
        assert refusal(tmp_path / f"d.jsonl.{suffix}", plain) == "wrong_compression"
    assert len(read(tmp_path / "e.jsonl.xz", lzma.compress(plain) + b"\0" * 8)[0]) == 1_000


def test_nested_columns_are_taken_and_put_back(tmp_path):
    rows = [
        {"body": {"content": "글", "n": 1}, "meta": {"topic": {"name": "쇼핑"}}},
        {"body": {}},
        {"body.content": "x"},
    ]
    data = "\n".join(json.dumps(row) for row in rows).encode()
    found, rejected = read(tmp_path / "a.jsonl", data, text_column="body.content", label_column="meta.topic.name")
    assert [(row["text"], row["label"]) for row in found] == [("글", "쇼핑"), ("x", None)]
    assert (found[0]["fields"], rejected) == ('{"body":{"n":1},"meta":{"topic":{}}}', [(2, "missing_text")])
    row = json.loads(found[0]["fields"])
    put(row, "body.content", "글")
    put(row, "meta.topic.name", "쇼핑")
    assert row == rows[0]
    assert take({"a": [1]}, "a.b") is None
    assert has({"a": {"b": None}}, "a.b")
    with pytest.raises(SourceRefusedError, match=r"did you mean 'body.content'"):
        read(tmp_path / "b.jsonl", data.split(b"\n")[0], text_column="body.contnt")


CONVERSATIONS = {
    "openai": {
        "messages": [
            {"role": "system", "content": "짧게 답하세요."},
            {
                "role": "user",
                "content": [{"type": "text", "text": "서울의 날씨는?"}, {"type": "image_url", "url": "x"}],
            },
            {"role": "assistant", "content": None, "tool_calls": [{"name": "weather"}]},
            {"role": "assistant", "content": "맑습니다. 문의: a@b.io"},
        ]
    },
    "sharegpt": {"conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "hello"}]},
    "alpaca": {"instruction": "번역하세요", "input": "hello", "output": "안녕"},
    "prompt_completion": {"prompt": [{"role": "user", "content": "q"}], "completion": "a"},
}


@pytest.mark.parametrize("style", sorted(STYLES))
def test_conversations_are_judged_as_what_was_said_and_keep_their_turns(tmp_path, style):
    row = CONVERSATIONS[style] | {"id": 7, "topic": "t"}
    found, rejected = read(tmp_path / "a.jsonl", json.dumps(row).encode(), turns=style, label_column="topic")
    said = {
        "openai": ["짧게 답하세요.", "서울의 날씨는?", "맑습니다. 문의: a@b.io"],
        "sharegpt": ["hi", "hello"],
        "alpaca": ["번역하세요", "hello", "안녕"],
        "prompt_completion": ["q", "a"],
    }[style]
    assert (found[0]["text"], found[0]["label"], rejected) == ("\n\n".join(said), "t", [])
    assert json.loads(found[0]["fields"]) == CONVERSATIONS[style] | {"id": 7}
    assert contents(row, STYLES[style]) == said


def test_turns_that_cannot_be_read_are_rejected_one_by_one(tmp_path):
    rows = [
        {"messages": [{"role": "user", "content": "ok"}]},
        {"messages": "a string"},
        {"messages": [{"role": "user"}]},
        {"messages": [{"content": "x"}]},
        {"messages": [{"role": "user", "content": 5}]},
        {"messages": []},
        {"other": 1},
    ]
    found, rejected = read(tmp_path / "a.jsonl", "\n".join(map(json.dumps, rows)).encode(), turns="openai")
    assert [row["text"] for row in found] == ["ok"]
    assert [reason for _, reason in rejected] == [
        "turns_not_list", "invalid_turn", "invalid_turn", "invalid_turn", "empty_text", "missing_text",
    ]  # fmt: skip
    assert refusal(tmp_path / "b.jsonl", b'{"conversations": []}', turns="openai") == "missing_column"
    with pytest.raises(ValueError, match="did you mean 'openai'"):
        ReadOptions(text_column="x", turns="openia")


def test_a_changed_text_goes_back_into_its_turns():
    row = json.loads(json.dumps(CONVERSATIONS["openai"]))
    text = rendered(contents(row, STYLES["openai"]))
    assert restored(row, STYLES["openai"], text) == CONVERSATIONS["openai"]
    masked = restored(row, STYLES["openai"], text.replace("a@b.io", "<EMAIL>").replace("서울의 날씨는?\n\n", ""))
    assert masked["messages"][1]["content"][0]["text"] == ""
    assert masked["messages"][3]["content"] == "맑습니다. 문의: <EMAIL>"
    assert masked["messages"][2] == CONVERSATIONS["openai"]["messages"][2]


@hypothesis_settings(max_examples=60)
@given(st.lists(st.text("ab c\n가", min_size=1, max_size=12).filter(str.strip), min_size=1, max_size=4), st.data())
def test_nothing_that_was_cut_comes_back_and_nothing_else_is_lost(said, data):
    original = rendered(said)
    start = data.draw(st.integers(0, len(original)))
    end = data.draw(st.integers(start, len(original)))
    text = original[:start] + original[end:]
    parts = aligned(said, text)
    assert len(parts) == len(said)
    assert "".join("".join(parts).split()) == "".join(text.split())
