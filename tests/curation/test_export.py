"""Columns that hold whatever JSON came: typed where values agree, written as JSON where they do not."""

import json

import datasets
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.export import WRITERS
from curation.export.schema import Columns, to_table

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5)
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=150)
@given(st.lists(st.dictionaries(st.sampled_from(["x", "y"]), VALUES, max_size=2), min_size=1, max_size=4))
def test_any_rows_fit_the_columns_that_were_seen_in_them(rows):
    columns = Columns()
    for row in rows:
        columns.see([row])
    schema = columns.schema()
    table = to_table(rows, schema)
    assert table.num_rows == (len(rows) if len(schema) else 0)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as writer:
        writer.write_table(table)
    for name in schema.names:
        if pa.types.is_string(schema.field(name).type):
            values = [row.get(name) for row in rows]
            found = table.column(name).to_pylist()
            assert [
                one if isinstance(value, str) else json.loads(one or "null")
                for one, value in zip(found, values, strict=True)
            ] == values


def test_columns_are_typed_where_values_agree_and_json_where_they_do_not():
    columns = Columns()
    columns.see([{"a": 1, "b": {"k": [1]}, "c": None, "d": {}, "e": 1, "f": [{"r": "u"}]}])
    columns.see([{"a": 2.5, "b": {"k": [None, 2], "m": "x"}, "e": "one", "f": [{"r": "v", "w": True}], "g": True}])
    assert {field.name: str(field.type) for field in columns.schema()} == {
        "a": "double",
        "b": "struct<k: list<item: int64>, m: string>",
        "c": "string",
        "d": "string",
        "e": "string",
        "f": "list<item: struct<r: string, w: bool>>",
        "g": "bool",
    }
    many = Columns()
    many.see([{"a": {str(n): 1 for n in range(300)}}])
    assert many.schema().field("a").type == pa.string()


def test_a_folder_of_splits_with_names_of_their_own_is_loaded_with_them(tmp_path):
    rows = [{"text": "글"}]
    path, schema = tmp_path / "out", pa.schema({"text": pa.string()})
    assert WRITERS["hf"].member(path, iter([("gold", rows), ("silver", rows * 2), ("gold", rows)]), schema) == 4
    for found in (datasets.load_from_disk(str(path)), datasets.load_dataset(str(path), cache_dir=str(tmp_path / "c"))):
        assert {name: split["text"][:] for name, split in found.items()} == {"gold": ["글"] * 2, "silver": ["글"] * 2}
    WRITERS["hf"].member(tmp_path / "none", iter([]), schema)
    assert datasets.load_from_disk(str(tmp_path / "none"))["train"].num_rows == 0
