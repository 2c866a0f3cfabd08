"""``winnow label gold|advise|history``: what whoever leads a queue asks of it."""

import re
from collections import Counter
from pathlib import Path

import httpx

from tests.cli import corpus
from tests.cli.conftest import Prepared

NUM_ANSWERS = 60


def test_a_queue_is_led_from_its_first_known_task_to_the_advice(prepared: Prepared, tmp_path: Path) -> None:
    winnow, schema = prepared.winnow, tmp_path / "labels.yaml"
    schema.write_text(corpus.SCHEMA)
    options = ["--schema", schema, "--strategy", "kmeans", "--name", "led", "--random-share", "0.6", "--budget", "40"]
    queue = winnow.ok("label", "create", "tickets", *options, "--refresh-every", str(NUM_ANSWERS))["queue"]
    early = winnow.ok("label", "advise", "tickets", "led")
    assert (early["worth"], early["random_share"], early["known"]) == (None, 0.6, [])
    known = winnow.ok("label", "gold", "tickets", "led", "--sample", "5", "--every", "4")
    assert known == {"queue": queue, "known": 5, "every": 4}
    token = winnow.ok("user", "lead's annotator")["token"]
    answers, records = Counter[str](), []
    with httpx.Client(base_url=f"{prepared.url}/api/v1", headers={"Authorization": f"Bearer {token}"}) as client:
        for number in range(NUM_ANSWERS + 5):
            task = client.post(f"/queues/{queue}/next").json()["task"]
            said = set(task["text"].split())
            value = max(corpus.WORDS, key=lambda label: len(said & set(corpus.WORDS[label].split())))
            body = {"key": f"answer-{number:03}", "value": value, "seconds_spent": 1.0}
            told = client.put(f"/leases/{task['lease_id']}/annotation", json=body)
            assert told.is_success, told.text
            answers["judged" if told.json()["judged"] else task["why"]] += 1
            records.append(task["record_id"])
    assert answers["judged"] == 5
    # 36 of 60 ranks are chance's, less those that became known before they were asked.
    assert 30 <= answers["random check"] <= 38
    for _ in range(600):
        told = winnow.ok("label", "advise", "tickets", "led")
        if told["worth"]:
            break
    assert told["worth"]["num_labels"] >= NUM_ANSWERS
    assert told["worth"]["accuracy"]["low"] <= told["worth"]["accuracy"]["value"] <= told["worth"]["accuracy"]["high"]
    advice = {one["name"]: one["says_stop"] for one in told["advice"]}
    assert (advice["budget"], advice["agreement"]) == (True, None)
    assert told["known"][0]["annotator"] == "lead's annotator"
    assert told["known"][0]["answered"] == 5
    listed = winnow.ok("label", "gold", "tickets", "led", "--list")
    assert [one["num_answered"] for one in listed] == [1] * 5
    assert sum(one["num_right"] for one in listed) == told["known"][0]["right"]
    others = [one["record_id"] for one in listed if one["record_id"] != records[0]]
    gone = [word for one in others[:2] for word in ("--remove", one)]
    told = winnow.ok("label", "gold", "tickets", "led", *gone)
    assert told == {"queue": queue, "num_records": 2, "num_asked": 2, "num_votes": 2, "num_late": 0}
    assert winnow.ok("label", "suggestions", "tickets", "led") == []
    plain = winnow("label", "advise", "tickets", "led")
    assert "labels saved against random ones:" in plain.err
    assert "does asking on still pay?" in plain.out
    story = winnow.ok("label", "history", "tickets", "led", "--record", records[0])
    assert [one["what"] for one in story][-2:] == ["served", "submitted"]
    assert story[-2]["annotator"] == "lead's annotator"
    assert story[-2]["why"]
    fewer = winnow("label", "gold", "tickets", "led", "--sample", "9999")
    assert re.search(r"\d+ of the 9,999 asked for: no other record that is not among the tasks yet came", fewer.err)


def test_wrong_input_is_told_with_what_would_do(prepared: Prepared, tmp_path: Path) -> None:
    winnow, schema, known = prepared.winnow, tmp_path / "labels.yaml", tmp_path / "known.csv"
    schema.write_text(corpus.SCHEMA)
    winnow.ok("label", "create", "tickets", "--schema", schema, "--strategy", "random", "--name", "misled")
    known.write_text("record,value\nnope,billing\n")
    wordless = tmp_path / "wordless.csv"
    wordless.write_text("id,value\nnope,billing\n")
    cases = [
        (["gold", "tickets", "misled"], "say which records are known: --file FILE, or --sample NUMBER"),
        (["gold", "tickets", "misled", "--file", known], "record 'nope' is not in version"),
        (["gold", "tickets", "misled", "--file", wordless], "has no column 'record'; it has id, value"),
        (["gold", "tickets", "misled", "--file", tmp_path / "no.csv"], "is no file"),
        (["gold", "tickets", "misle", "--sample", "3"], "did you mean 'misled'"),
        (["history", "tickets", "misled", "--annotator", "nobody"], "no account is named 'nobody'"),
        (["history", "tickets", "misled", "--record", "nope"], "record 'nope' was never offered"),
        (["advise", "ticket"], "did you mean 'tickets'"),
        (["gold", "tickets", "misled", "--remove", "nope"], "record 'nope' is not known in this queue"),
        (["gold", "tickets", "misled", "--remove", "nope", "--list"], "or one of --list and --remove RECORD"),
        (["suggestions", "tickets", "misled", "--remove", "small"], "no suggestions of 'small'; none exist yet"),
    ]
    done = winnow.each(*(["label", *arguments] for arguments, _ in cases))
    for one, (arguments, words) in zip(done, cases, strict=True):
        assert (one.code, words in one.err) == (2, True), (arguments, one.err)
