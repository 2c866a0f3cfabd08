"""Answers as files over HTTP, and a queue's next schema: what comes in, goes out, and is refused whole."""

import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from sqlalchemy import func, select

from catalog.database import Catalog
from catalog.tables.labeling import Annotation, LabelQueue, LabelSuggestion
from labeling import queue
from labeling.schema import LabelSchema, parse_schema
from service.app import API
from service.gate import MAX_IMPORT_BYTES
from tests.service.conftest import SCHEMA as WORLD_SCHEMA
from tests.service.conftest import SHOP_TEXTS as TEXTS
from tests.service.conftest import World, add_queue, open_shop

NEWER = {"version": 2, "labels": [{"name": "좋음", "was": "긍정"}, {"name": "중립"}]}


@pytest.fixture
def shop(database: Catalog, tmp_path: Path) -> Iterator[World]:
    """The shop on each database."""
    world = open_shop(database, tmp_path)
    yield world
    world.close()


def send(world: World, body: bytes | str, format_: str = "jsonl", *, who: str = "curator", **params: Any) -> Any:
    path = f"{API}/queues/{params.pop('queue_id', world.queue_id)}/import"
    content = body.encode() if isinstance(body, str) else body
    return world.client(who).post(path, params={"format": format_, **params}, content=content)


def fetch(world: World, format_: str, *, who: str = "reviewer", **params: Any) -> Any:
    path = f"{API}/queues/{params.pop('queue_id', world.queue_id)}/export"
    return world.client(who).get(path, params={"format": format_, **params})


def jsonl(*rows: dict[str, Any]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def labels(world: World, queue_id: str | None = None) -> list[Any]:
    with world.catalog.read() as session:
        return [one.value for one in queue.current_labels(session, queue_id=queue_id or world.queue_id)]


def num_stored(world: World) -> int:
    with world.catalog.read() as session:
        answers = session.scalar(select(func.count()).select_from(Annotation)) or 0
        return answers + (session.scalar(select(func.count()).select_from(LabelSuggestion)) or 0)


LABELS = ("긍정", "부정", "긍정", "긍정")


def test_a_file_comes_in_once_and_goes_out_in_every_format(shop: World) -> None:
    rows = [{"text": text, "value": label, "annotator": "외주"} for text, label in zip(TEXTS, LABELS, strict=True)]
    guess = {"text": TEXTS[0], "predictions": [{"value": "부정", "model": "small", "score": 0.5}]}
    body = jsonl(*rows, guess, {"text": "nobody wrote this", "value": "긍정"})
    first = send(shop, body, name="answers.jsonl")
    assert first.status_code == 200, first.text
    told = first.json()
    assert (told["num_records"], told["num_new"], told["num_suggestions"]) == (6, 4, 1)
    assert told["reasons"] == {"no record of that id or text": 1}
    assert told["aside"] == [{"where": "line 6", "reason": "no record of that id or text"}]
    again = send(shop, body).json()
    assert (again["num_new"], again["num_repeated"]) == (0, 4)
    assert [entry.detail["new"] for entry in shop.audited("queue.imported")] == [4, 0]
    history = shop.client("reviewer").get(f"{API}/queues/{shop.queue_id}/history", params={"annotator": "외주"})
    assert {one["detail"]["imported"] for one in history.json()["items"]} == {"imported from answers.jsonl"}
    for format_ in ("jsonl", "csv", "label_studio", "prodigy"):
        file = fetch(shop, format_)
        assert (file.status_code, file.headers["winnow-records"], file.headers["winnow-answers"]) == (200, "4", "4")
        assert json.loads(file.headers["winnow-changed"]) == {}
        assert file.headers["content-disposition"].startswith("attachment; filename*=UTF-8''tone.")
        other = add_queue(shop.catalog, format_)
        there = send(shop, file.content, format_, queue_id=other)
        assert (there.status_code, there.json()["num_new"]) == (200, 4), there.text
        assert labels(shop, other) == labels(shop)
    folder = fetch(shop, "hf")
    assert folder.headers["content-type"] == "application/zip"
    with zipfile.ZipFile(io.BytesIO(folder.content)) as archive:
        assert archive.namelist() == ["README.md", "data/train.parquet"]
        frame = pl.read_parquet(archive.read("data/train.parquet"))
    assert sorted(frame["text"]) == sorted(TEXTS)
    config = shop.client("reviewer").get(f"{API}/queues/{shop.queue_id}/labeling-config", params={"text": "글"})
    assert ('<Choice value="긍정"' in config.text, 'value="$글"' in config.text) == (True, True)


def test_columns_and_labels_of_other_names_are_said_in_the_address(shop: World) -> None:
    body = f"body,said,who\n{TEXTS[1]!r},neg,ana\n".replace("'", '"')
    columns = {"option": ["text=body", "value=said", "annotator=who"]}
    refused = send(shop, body, "csv", **columns)
    assert (refused.status_code, refused.json()["code"]) == (422, "data")
    assert "'neg' (1, first in line 2" in refused.json()["message"]
    assert num_stored(shop) == 0
    taken = send(shop, body, "csv", rename=["neg=부정"], **columns)
    assert (taken.status_code, taken.json()["num_new"]) == (200, 1), taken.text
    assert labels(shop) == ["부정"]


def test_a_file_with_an_unknown_label_is_refused_whole_with_its_line_and_the_remedy(shop: World) -> None:
    good = [{"text": TEXTS[0], "value": "긍정"}, {"text": TEXTS[0], "predictions": [{"value": "긍정", "model": "m"}]}]
    refused = send(shop, jsonl(*good, {"text": TEXTS[1], "value": "긍정적"}))
    assert refused.status_code == 422
    message = refused.json()["message"]
    assert "'긍정적' (1, first in line 3, did you mean '긍정'?)" in message
    assert "Nothing was imported" in message
    assert "rename=OLD=NEW" in message
    assert num_stored(shop) == 0


def test_what_is_no_name_and_no_number_in_a_file_is_left_out_before_anything_is_taken(shop: World) -> None:
    rows = (
        {"text": TEXTS[0], "answers": [{"annotator": "x" * 201, "value": "긍정"}, {"annotator": "a", "value": "긍정"}]},
        {"text": TEXTS[1], "predictions": [{"value": "긍정", "model": 7}]},
        {"text": TEXTS[2], "predictions": [{"value": "긍정", "model": "m", "score": float("nan")}]},
        {"text": TEXTS[3], "predictions": [{"value": "긍정", "model": "m", "score": "high"}]},
    )
    told = send(shop, jsonl(*rows))
    assert told.status_code == 200, told.text
    assert told.json()["reasons"] == {
        "no annotator can be called so": 1,
        "prediction not allowed by the schema": 3,
    }
    assert (told.json()["num_new"], told.json()["num_suggestions"]) == (1, 0)


@pytest.mark.parametrize(
    ("params", "status", "words"),
    [
        ({"format_": "jsnol"}, 404, "did you mean 'jsonl'"),
        ({"format_": "conll"}, 422, "conll files hold no single_choice answers; choose one of csv"),
        ({"format_": "hf"}, 422, "run `winnow label import`"),
        ({"option": "text"}, 422, "option 'text' must be NAME=VALUE"),
        ({"format_": "csv", "option": "txt=a"}, 422, "option 'txt' is unknown here; did you mean 'text'"),
        ({"rename": "=긍정"}, 422, "rename '=긍정' must be OLD=NEW"),
        ({"name": "a\x00b"}, 422, "name holds a NUL"),
        ({"renames": "a=b"}, 422, "unknown query parameter 'renames'; did you mean 'rename'"),
        ({"queue_id": "nope"}, 404, "no label queue 'nope'"),
        ({"who": "reviewer"}, 403, "curator"),
        ({"who": "annotator"}, 403, "curator"),
    ],
)
def test_imports_that_cannot_be_say_why(world: World, params: dict[str, Any], status: int, words: str) -> None:
    answer = send(world, "", **params)
    assert (answer.status_code, set(answer.json())) == (status, {"code", "message"}), answer.text
    assert words in answer.json()["message"]


def test_a_file_that_is_none_of_its_format_is_refused(shop: World) -> None:
    for body, format_, words in (
        (b"\xff\xfe", "jsonl", "body.jsonl is not UTF-8"),
        (b"[1", "label_studio", "body.json is no JSON"),
        (b"a,b\n1,2\n", "csv", "value"),
    ):
        refused = send(shop, body, format_)
        assert (refused.status_code, words in refused.json()["message"]) == (422, True), refused.text
    assert send(shop, b"").json()["num_records"] == 0


def odd_files() -> Iterator[tuple[str, str]]:
    """Files of which each row is read by a program, and written by nobody who knew the format."""
    said = {"text": TEXTS[0], "value": "긍정"}
    rows: list[Any] = [
        {"text": 1},
        {"record_id": [], "text": None},
        {"text": TEXTS[0], "value": None},
        {"text": TEXTS[0], "answers": [{"annotator": "\ud800", "value": "긍정"}]},
        {"text": TEXTS[0], "answers": [{"annotator": "a\x00", "value": "긍정"}]},
        {"text": TEXTS[0], "answers": [{"annotator": "a", "value": {"x": 1}}]},
        {"text": TEXTS[0], "predictions": [{"value": [[]], "model": []}, 5]},
        said | {"at": "1e400", "annotator": ["x"]},
        said | {"at": 1e300, "num_votes": "x", "annotator": "b"},
        said | {"answers": [{"annotator": "c", "value": "긍정", "retracted": "gone", "seconds_spent": -1}]},
    ]
    yield from (("jsonl", json.dumps(one)) for one in rows)
    result = [{"type": "choices", "value": {"choices": [["긍정"]]}}]
    answers = [{"result": result, "completed_by": {"email": 5}, "created_at": {}}, {"result": 7}, 3]
    guesses = [{"result": result, "score": "x", "model_version": 4}, {"result": 5}]
    yield "label_studio", json.dumps([{"data": {"text": TEXTS[1]}, "annotations": answers, "predictions": guesses}, 1])
    yield "csv", f'text,value,annotator,retracted,at\n"{TEXTS[2]}",긍정,외주,gone,yesterday\n'
    yield "prodigy", json.dumps({"text": TEXTS[3], "answer": 3, "accept": {}, "meta": []})


def test_odd_files_are_taken_as_far_as_they_go_and_never_fail_the_service(shop: World) -> None:
    told = [(format_, send(shop, body, format_)) for format_, body in odd_files()]
    assert [(format_, one.text) for format_, one in told if one.status_code not in (200, 422)] == []
    taken = sum(one.json()["num_new"] for _, one in told if one.status_code == 200)
    assert (taken, num_stored(shop)) == (4, 5)


def test_a_file_beyond_the_limit_is_413_which_names_it_and_who_takes_larger_ones(world: World) -> None:
    piece = b" " * 2**20

    def pieces(number: int) -> Iterator[bytes]:
        yield from (piece for _ in range(number))

    path, params = f"{API}/queues/{world.queue_id}/import", {"format": "jsonl"}
    client, number = world.client("curator"), MAX_IMPORT_BYTES // len(piece)
    for content in (pieces(number + 1), piece * number + b" "):
        refused = client.post(path, params=params, content=content)
        assert (refused.status_code, refused.json()["code"]) == (413, "too_large")
        assert str(MAX_IMPORT_BYTES) in refused.json()["message"]
        assert "`winnow label import`" in refused.json()["message"]
    # The others keep the small one, and a role that may not is told so whatever it sends.
    assert client.put(f"{API}/queues/{world.queue_id}/schema", content=piece + b" ").status_code == 413
    assert world.client("annotator").post(path, params=params, content=piece * number).status_code == 403


def test_one_file_is_read_at_a_time(world: World) -> None:
    with world.app.state.importing:
        busy = send(world, "")
    assert (busy.status_code, busy.headers["retry-after"]) == (503, "1")
    assert "another file is being imported" in busy.json()["message"]
    # Whatever became of one, the next is let in.
    assert send(world, "", option="x").status_code == 422
    assert not world.app.state.importing.locked()


def test_a_closed_queue_gives_its_answers_and_takes_none(worlds: World) -> None:
    with worlds.catalog.write() as session:
        queue.close_queue(session, now=worlds.catalog.now(session), queue_id=worlds.queue_id)
    assert send(worlds, "").status_code == 410
    assert put_schema(worlds, NEWER).status_code == 410
    file = fetch(worlds, "jsonl")
    assert (file.status_code, file.content, file.headers["winnow-records"]) == (200, b"", "0")


def test_exports_are_for_reviewers_and_of_known_formats(world: World) -> None:
    assert fetch(world, "jsonl", who="annotator").status_code == 403
    for params, status in (({"format_": "jsnol"}, 404), ({"format_": "conll"}, 422), ({"option": "x=y"}, 422)):
        assert fetch(world, **{"format_": "csv", **params}).status_code == status
    assert fetch(world, "csv", queue_id="nope").status_code == 404
    config = f"{API}/queues/{world.queue_id}/labeling-config"
    assert world.client("annotator").get(config).status_code == 403


# ---- schemas ---------------------------------------------------------------------------------------------------------


def put_schema(world: World, schema: Any, *, who: str = "curator", **params: Any) -> Any:
    path = f"{API}/queues/{params.pop('queue_id', world.queue_id)}/schema"
    return world.client(who).put(path, params=params, json=schema)


def answer(world: World, value: str) -> dict[str, Any]:
    client = world.client("annotator")
    task = client.post(f"{API}/queues/{world.queue_id}/next").json()["task"]
    body = {"key": f"answer-{task['record_id']}", "value": value}
    assert client.put(f"{API}/leases/{task['lease_id']}/annotation", json=body).status_code == 200
    return dict(task)


def test_a_new_schema_says_what_becomes_of_the_answers(worlds: World) -> None:
    gone = [answer(worlds, value)["record_id"] for value in ("중립", "긍정", "부정")][2]
    tried = put_schema(worlds, NEWER, dry_run=True)
    assert tried.status_code == 200, tried.text
    with worlds.catalog.read() as session:
        assert session.get_one(LabelQueue, worlds.queue_id).schema["version"] == 1
    done = put_schema(worlds, NEWER).json()
    assert done == tried.json() | {"dry_run": False}
    assert (done["version"], done["num_kept"], done["num_migrated"], done["num_invalid"]) == (2, 1, 1, 1)
    assert done["changes"] == ["label '긍정' is now '좋음'", "label '부정' was removed"]
    told = {"record_id": gone, "annotator": "annotator", "answer": "부정"}
    assert done["invalid"] == [told | {"reason": "label '부정' was removed in version 2"}]
    # The reply was lost: the same again says the same.
    again = put_schema(worlds, NEWER)
    assert (again.status_code, again.json()) == (200, done | {"repeated": True})
    assert [entry.detail["version"] for entry in worlds.audited("queue.schema_changed")] == [2]
    shown = worlds.client("annotator").get(f"{API}/queues/{worlds.queue_id}").json()["schema"]
    assert LabelSchema.from_json(shown) == LabelSchema.from_json(NEWER)
    assert worlds.client("annotator").post(f"{API}/queues/{worlds.queue_id}/next").json()["task"]["record_id"] == gone


@pytest.mark.parametrize(
    ("schema", "status", "words"),
    [
        ({"labels": [{"name": "a"}, {"name": "b"}]}, 409, "version=1 must be above 1, the one it replaces; raise it"),
        ({"version": 2, "labels": [{"name": "a"}]}, 422, "1 label(s); a single_choice task needs at least two labels"),
        ({"version": 2, "labels": [{"name": "a", "was": "긍정적"}, {"name": "b"}]}, 422, "did you mean '긍정'"),
        ({"version": 2, "task": "spans", "labels": [{"name": "a"}]}, 422, "strategy 'margin' does not hold for spans"),
        ({"version": 2, "labels": [], "lables": []}, 422, "unknown key 'lables'; did you mean 'labels'"),
        ({"version": 0}, 422, "version"),
        ([], 422, "body"),
    ],
)
def test_a_schema_that_cannot_be_changes_nothing(world: World, schema: Any, status: int, words: str) -> None:
    refused = put_schema(world, schema)
    assert (refused.status_code, set(refused.json())) == (status, {"code", "message"}), refused.text
    assert words in refused.json()["message"]
    assert refused.json()["code"] == ("conflict" if status == 409 else refused.json()["code"])
    with world.catalog.read() as session:
        assert session.get_one(LabelQueue, world.queue_id).schema == parse_schema(WORLD_SCHEMA).to_json()


def test_schemas_are_for_curators_and_queues_that_exist(world: World) -> None:
    assert put_schema(world, NEWER, who="reviewer").status_code == 403
    assert put_schema(world, NEWER, who="annotator").status_code == 403
    assert put_schema(world, NEWER, queue_id="nope").status_code == 404


def test_openapi_says_what_the_file_is_how_large_and_what_comes_back(world: World) -> None:
    paths = world.client("annotator").get(f"{API}/openapi.json").json()["paths"]
    taken = paths[f"{API}/queues/{{queue_id}}/import"]["post"]
    assert str(MAX_IMPORT_BYTES) in taken["requestBody"]["description"]
    assert set(taken["requestBody"]["content"]) == {"application/octet-stream"}
    assert {"200", "403", "404", "410", "413", "422", "503"} <= set(taken["responses"])
    assert {one["name"] for one in taken["parameters"]} == {"queue_id", "format", "option", "rename", "name"}
    given = paths[f"{API}/queues/{{queue_id}}/export"]["get"]["responses"]["200"]
    assert set(given["headers"]) == {"Winnow-Records", "Winnow-Answers", "Winnow-Changed"}
    changed = paths[f"{API}/queues/{{queue_id}}/schema"]["put"]["responses"]
    assert {"200", "403", "404", "409", "410", "422"} <= set(changed)
