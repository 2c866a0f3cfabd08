"""``winnow label export``, ``import`` and ``schema``."""

import csv
import json
from pathlib import Path

from tests.cli import corpus
from tests.cli.conftest import Prepared

RENAMED = """
question: 무엇에 관한 글인가요?
version: 2
labels:
  - {name: 배송, was: delivery}
  - billing
  - account
"""


def test_answers_come_in_go_out_and_outlive_a_new_schema(prepared: Prepared, tmp_path: Path) -> None:
    winnow = prepared.winnow
    schema, newer = tmp_path / "labels.yaml", tmp_path / "newer.yaml"
    schema.write_text(corpus.SCHEMA)
    newer.write_text(RENAMED)
    winnow.ok(
        "label", "create", "tickets", "--schema", schema, "--strategy", "random", "--name", "교환", "--overlap", "2"
    )
    records = tmp_path / "records.jsonl"
    winnow.ok("export", "tickets", "--output", records)
    rows = [json.loads(line) for line in records.read_text().splitlines()]
    chosen = [next(row for row in rows if row["queue"] == label) for label in ("delivery", "billing", "device")]
    answers = tmp_path / "answers.csv"
    with answers.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["body", "queue", "who"])
        writer.writerows([row["body"], row["queue"], "외주"] for row in chosen)
        writer.writerow(["nobody wrote this", "billing", "외주"])
        writer.writerow([rows[0]["body"], "", "외주"])
    columns = [word for one in ("text=body", "value=queue", "annotator=who") for word in ("--option", one)]
    command = ["label", "import", "tickets", answers, "--queue", "교환", *columns]
    first = winnow.ok(*command)
    aside = f"{answers}.aside.jsonl"
    assert first == {
        "queue": "교환",
        "records": 5,
        "unanswered": 1,
        "answers": 4,
        "predictions": 0,
        "suggestions": 0,
        "new": 3,
        "late": 0,
        "history": 0,
        "repeated": 0,
        "snapped_spans": 0,
        "set_aside": {"no record of that id or text": 1},
        "aside": aside,
    }
    assert json.loads(Path(aside).read_text())["text"] == "nobody wrote this"
    again = winnow(*command)
    assert "queue '교환': 0 answers are new (0 beyond the overlap), 3 were there already" in again.err
    assert "1 of 5 records in the file have no answer" in again.err
    assert again.out.splitlines()[-1] == aside

    shown = winnow("label", "schema", "tickets", "교환")
    assert "name: delivery" in shown.out
    change = ["label", "schema", "tickets", "교환", "--schema", newer]
    tried, done = winnow.ok(*change, "--dry-run"), winnow.ok(*change)
    assert tried == {**done, "dry_run": True}
    assert (done["version"], done["kept"], done["migrated"]) == (2, 1, 1)
    assert [one["answer"] for one in done["invalid"]] == ["device"]

    out = tmp_path / "out.json"
    told = winnow.ok("label", "export", "tickets", "교환", "--output", out)
    assert (told["records"], told["answers"]) == (2, 2)
    assert told["changed"] == {"answers that the present schema does not allow left out": 1}
    assert '<Choice value="배송"' in Path(told["config"]).read_text()
    found = {one["annotations"][0]["result"][0]["value"]["choices"][0] for one in json.loads(out.read_text())}
    assert found == {"배송", "billing"}
    winnow.ok("label", "close", "tickets", "교환")


def test_wrong_exchange_says_what_would_do(prepared: Prepared, tmp_path: Path) -> None:
    winnow = prepared.winnow
    schema = tmp_path / "labels.yaml"
    schema.write_text(corpus.SCHEMA)
    winnow.ok("label", "create", "tickets", "--schema", schema, "--strategy", "random", "--name", "wrong")
    line = tmp_path / "x.jsonl"
    line.write_text(
        json.dumps({"text": "x", "value": "a"}) + "\n" + json.dumps({"text": "a", "value": "billing"}) + "\n"
    )
    known = tmp_path / "known.csv"
    records = tmp_path / "records.jsonl"
    winnow.ok("export", "tickets", "--output", records)
    body = json.loads(records.read_text().splitlines()[0])["body"]
    with known.open("w", newline="") as file:
        csv.writer(file).writerows([["text", "value"], [body, "biling"]])
    into = ["label", "import", "tickets", known, "--queue", "wrong"]
    export = ["label", "export", "tickets", "wrong", "--output"]
    spans = ["label", "create", "tickets", "--schema", _spans(tmp_path), "--name", "s", "--strategy", "margin"]
    cases = {
        "1 label(s) of the file are none of the queue's: 'biling' (1, first in line 2, did you mean 'billing'?)": into,
        "does not exist": ["label", "import", "tickets", tmp_path / "none.csv", "--queue", "wrong"],
        "--rename 'biling' must be OLD=NEW": [*into, "--rename", "biling"],
        "--option 'txt' is unknown here; did you mean 'text'": [*into, "--option", "txt=a"],
        "conll files hold no single_choice answers": [*export, tmp_path / "a.conll"],
        "the suffix names no format": [*export, tmp_path / "a.txt"],
        "exists; remove it": [*export, line],
        "no label queue named 'wrnog'; did you mean 'wrong'": [*export[:3], "wrnog", "--output", tmp_path / "a.csv"],
        "strategy 'margin' does not hold for spans answers; choose one of": spans,
        "version=1 must be above 1": ["label", "schema", "tickets", "wrong", "--schema", schema],
    }
    for done, told in zip(winnow.each(*cases.values()), cases, strict=True):
        assert (done.code, done.out) == (2, "")
        assert told in done.err
        assert len(done.err.splitlines()) == 1
    winnow.ok("label", "close", "tickets", "wrong")


def _spans(folder: Path) -> Path:
    path = folder / "spans.yaml"
    path.write_text("task: spans\nlabels: [a]\n")
    return path
