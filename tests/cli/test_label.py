"""``winnow label``: queues over the curated records, and the rehearsal against random."""

from pathlib import Path
from typing import Any

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


def test_queue_serves_the_page_that_was_printed_and_its_answers_are_part_of_the_story(
    prepared: Prepared, schema: Path
) -> None:
    winnow = prepared.winnow
    command = ["label", "create", "tickets", "--schema", str(schema), "--strategy", "kmeans", "--name", "첫 번째"]
    made = winnow(*command)
    assert made.code == 0
    assert "chosen out of 370 by kmeans" in made.err
    page = made.out.strip()
    queue = page.rpartition("/")[2]
    assert page == f"{prepared.url}/label/{queue}"
    token = winnow.ok("user", "지민")["token"]
    with httpx.Client(base_url=f"{prepared.url}/api/v1", headers={"Authorization": f"Bearer {token}"}) as client:
        task = client.post(f"/queues/{queue}/next").json()["task"]
        body = {"key": "only-once", "value": "billing", "seconds_spent": 1.5}
        assert client.put(f"/leases/{task['lease_id']}/annotation", json=body).is_success
    story = winnow.ok("explain", "tickets", task["record_id"])
    assert story["text"] == task["text"]
    (answer,) = [one for one in story["labels"] if one["queue"] == "첫 번째"]
    assert (answer["annotator"], answer["value"], answer["retracted"]) == ("지민", "billing", None)
    shown, again = winnow.each(["explain", "tickets", task["record_id"]], command)
    assert "answered billing by 지민 in '첫 번째'" in shown.out
    assert again.code == 1
    assert "already has a label queue named '첫 번째'" in again.err
    (listed,) = [one for one in winnow.ok("label", "list", "tickets") if one["id"] == queue]
    assert listed == {
        "queue": "첫 번째",
        "id": queue,
        "strategy": "kmeans",
        "state": "open",
        "done": 1,
        "offered": listed["offered"],
    }


def test_rehearsal_spends_the_same_on_both_arms_and_leaves_no_open_queue(
    winnow: Winnow, rehearsed: dict[str, Any]
) -> None:
    assert {arm["strategy"]: arm["labels"] for arm in rehearsed["arms"]} == {"margin": 20, "random": 20}
    for arm in rehearsed["arms"]:
        assert 0 <= arm["low"] <= arm["accuracy"] <= arm["high"] <= 1
        assert [point[0] for point in rehearsed["curves"][arm["strategy"]]] == [10, 20]
    states = {one["id"]: one["state"] for one in winnow.ok("label", "list", "tickets")}
    assert {states[queue] for queue in rehearsed["queues"]} == {"closed"}


def test_schema_that_is_refused_says_what_is_known(winnow: Winnow, tmp_path: Path) -> None:
    cases = {"lables: [a, b]": "did you mean 'labels'?", "labels: [a]": "at least two", "\xff": "not UTF-8"}
    paths = [tmp_path / f"{number}.yaml" for number in range(len(cases))]
    for path, text in zip(paths, cases, strict=True):
        path.write_text(text, encoding="latin-1")
    refused = winnow.each(
        *[["label", "create", "tickets", "--schema", str(one)] for one in [*paths, tmp_path / "none.yaml"]]
    )
    for done, told in zip(refused, [*cases.values(), "labels: [positive, negative]"], strict=True):
        assert done.code == 2
        assert told in done.err
