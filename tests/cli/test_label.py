"""``winnow label``: queues over the curated records, and the rehearsal against random."""

from pathlib import Path

import httpx
import pytest

from tests.cli import corpus
from tests.cli.command import Winnow
from tests.cli.conftest import Prepared

pytestmark = pytest.mark.xdist_group("cli")


@pytest.fixture
def schema(tmp_path: Path) -> Path:
    path = tmp_path / "labels.yaml"
    path.write_text(corpus.SCHEMA)
    return path


def test_queue_is_created_listed_and_serves_the_page_that_was_printed(prepared: Prepared, schema: Path) -> None:
    winnow = prepared.winnow
    made = winnow("label", "create", "tickets", "--schema", schema, "--strategy", "kmeans", "--name", "첫 번째")
    assert made.code == 0
    assert "chosen out of 370 by kmeans" in made.err
    page = made.out.strip()
    assert page.startswith(f"{prepared.url}/label/")
    (listed,) = [one for one in winnow.ok("label", "list", "tickets") if one["queue"] == "첫 번째"]
    assert page.endswith(listed["id"])
    assert (listed["strategy"], listed["state"], listed["done"], listed["offered"]) == ("kmeans", "open", 0, 200)
    token = winnow.ok("user", "annotator-1")["token"]
    served = httpx.post(
        f"{prepared.url}/api/v1/queues/{listed['id']}/next", headers={"Authorization": f"Bearer {token}"}
    )
    assert served.json()["task"]["text"] in {one["body"] for one in corpus.records()}


def test_answer_is_part_of_the_records_story(prepared: Prepared, schema: Path) -> None:
    winnow = prepared.winnow
    queue = winnow.ok("label", "create", "tickets", "--schema", schema, "--name", "told")["queue"]
    token = winnow.ok("user", "지민")["token"]
    with httpx.Client(base_url=f"{prepared.url}/api/v1", headers={"Authorization": f"Bearer {token}"}) as client:
        task = client.post(f"/queues/{queue}/next").json()["task"]
        body = {"key": "only-once", "value": "billing", "seconds_spent": 1.5}
        assert client.put(f"/leases/{task['lease_id']}/annotation", json=body).is_success
    (answer,) = [one for one in winnow.ok("explain", "tickets", task["record_id"])["labels"] if one["queue"] == "told"]
    assert (answer["annotator"], answer["value"], answer["retracted"]) == ("지민", "billing", None)
    assert "answered billing by 지민 in 'told'" in winnow("explain", "tickets", task["record_id"]).out
    (listed,) = [one for one in winnow.ok("label", "list", "tickets") if one["queue"] == "told"]
    assert listed["done"] == 1


def test_rehearsal_spends_the_same_on_both_arms_and_leaves_no_open_queue(prepared: Prepared) -> None:
    winnow = prepared.winnow
    found = winnow.ok("label", "simulate", "tickets", "--oracle", "queue", "--rounds", "2", "--per-round", "10")
    assert {arm["strategy"]: arm["labels"] for arm in found["arms"]} == {"margin": 20, "random": 20}
    for arm in found["arms"]:
        assert 0 <= arm["low"] <= arm["accuracy"] <= arm["high"] <= 1
        assert [point[0] for point in found["curves"][arm["strategy"]]] == [10, 20]
    states = {one["id"]: one["state"] for one in winnow.ok("label", "list", "tickets")}
    assert {states[queue] for queue in found["queues"]} == {"closed"}


def test_schema_that_is_refused_says_what_is_known(winnow: Winnow, tmp_path: Path) -> None:
    for text, told in (
        ("lables: [a, b]\n", "did you mean 'labels'?"),
        ("labels: [a]\n", "at least two"),
        ("labels: [a, {name: b, hotkye: x}]\n", "did you mean 'hotkey'?"),
        ("labels: [a, [b\n", "does not parse"),
    ):
        path = tmp_path / "bad.yaml"
        path.write_text(text)
        done = winnow("label", "create", "tickets", "--schema", path)
        assert done.code == 2
        assert told in done.err
    path.write_bytes(b"\xff\xfe")
    assert "not UTF-8" in winnow("label", "create", "tickets", "--schema", path).err
    missing = winnow("label", "create", "tickets", "--schema", tmp_path / "none.yaml")
    assert missing.code == 2
    assert "labels: [positive, negative]" in missing.err


def test_second_queue_of_a_name_is_refused(winnow: Winnow, schema: Path) -> None:
    assert winnow("label", "create", "tickets", "--schema", schema, "--name", "taken").code == 0
    done = winnow("label", "create", "tickets", "--schema", schema, "--name", "taken")
    assert done.code == 1
    assert "'taken'" in done.err
