"""Personal data through the engine: counted, located, replaced, a reason to leave; never stored or told in clear."""

import json
from pathlib import Path

import polars as pl
import pytest
from sqlalchemy import select

from catalog.database import Catalog
from catalog.errors import ConfigError
from catalog.store import Store, StoredFile
from catalog.tables.curation import Verdict
from catalog.tables.engine import Run
from curation.dedup.substring import SubstringConfig
from curation.pii.finding import find_spans
from curation.pii.step import PiiStep
from curation.recipe import Recipe
from service.cli import pii as command
from service.report import render_report
from tests.workers.building import drain
from tests.workers.test_dedup import NEAR, ingest
from tests.workers.test_determinism import make_catalog
from workers import manifests, pii
from workers.biography import biography
from workers.pipelines.clean import submit_clean

KEY = "a secret of the tests"
STEP = {"action": "tag", "kinds": {"email": "hash", "payment_card": "drop", "phone": "mask", "ip_address": "report"}}
EMAIL, PHONE, CARD, ADDRESS = "hong.gildong@naver.com", "010-1234-5678", "4111 1111 1111 1111", "106.31.73.20"
PASSAGE = " ".join(f"word{number}" for number in range(30)) + f" call {PHONE} now. "
BODIES = [
    f"메일은 {EMAIL}으로 보내 주세요, 감사합니다",
    f"please write to {EMAIL.upper()} or call {PHONE} about the broken lamp",
    f"my card {CARD} was charged twice this month",
    f"login from {ADDRESS} was refused by the gateway",
    "nothing of anybody in this one, only plain words",
    f"{PASSAGE}First of two with a passage",
    f"{PASSAGE}Second with the passage and a longer tail of its own, SSN 219-09-1234",
    "write to first.person@site.com about your order, thank you very much indeed for all of it",
    "write to other.person@site.org about your order, thank you very much indeed for all of it",
]


def clean(catalog: Catalog, folder: Path, step: dict, bodies: list[str] = BODIES) -> Run:
    ingest(catalog, folder, "tickets", bodies)
    recipe = Recipe(
        name="private",
        near=NEAR,
        substring=SubstringConfig(min_tokens=20, action="remove"),
        pii=PiiStep.configured(step),
    )
    run_id, _ = submit_clean(catalog, dataset="tickets", recipe=recipe)
    drain(catalog)
    with catalog.read() as session:
        run = session.get_one(Run, run_id)
        assert run.state == "done", run.reason
        return run


def curated(catalog: Catalog, run: Run) -> list[str]:
    """Texts of the published version, of the records that stay."""
    store = Store.of(catalog.settings)
    with catalog.read() as session:
        version = manifests.latest_version(session, run.dataset_id, "curated")
        assert version is not None
        shards = manifests.read(store, version)["shards"]
    texts = []
    for one in shards:
        rows = store.read_frame(StoredFile.from_json(one["selection"]))["row"]
        texts += store.read_frame(StoredFile.from_json(one["data"]))["text"].gather(rows).to_list()
    return texts


def test_personal_data_is_replaced_counted_told_and_nowhere_in_clear(tmp_path: Path) -> None:
    catalog = make_catalog(tmp_path / "home", pii_key=KEY)
    run = clean(catalog, tmp_path, STEP)
    texts = "\n".join(curated(catalog, run))
    assert ADDRESS in texts
    assert [value for value in (EMAIL, EMAIL.upper(), PHONE, CARD, "219-09-1234") if value in texts] == []
    assert "***-****-**78" in texts
    assert "<US_SSN>" in texts
    # Both spellings of the address have one pseudonym.
    pseudonyms = [word for word in texts.replace("으로", " ").split() if word.endswith("@pii.invalid")]
    assert len(pseudonyms) >= 3
    assert pseudonyms[0] == pseudonyms[1] != pseudonyms[2]
    again = find_spans(pl.Series(curated(catalog, run)))
    assert set(again["kind"]) == {"ip_address"}
    found = run.result["pii"]
    assert found["kinds"]["email"] == {"action": "hash", "values": 4, "records": 4, "checked": 0}
    assert found["kinds"]["payment_card"]["checked"] == 1
    assert run.result["dropped"]["pii_payment_card"] == 1
    store = Store.of(catalog.settings)
    with catalog.read() as session:
        dataset = manifests.find_dataset(session, "tickets")
        measured = session.scalars(select(Verdict.measured).where(Verdict.reason == "pii_payment_card")).one()
        assert measured["pii_payment_card"] == 1
        hidden = biography(session, store, dataset, "tickets.jsonl:2")
        shown = biography(session, store, dataset, "tickets.jsonl:2", clear=True)
        exported = pl.concat(pii.export_rows(session, store, run))
        page = render_report(session, store, dataset)
    assert (PHONE in hidden["text"], PHONE in str(hidden["pii"]), PHONE in shown["text"]) == (False, False, True)
    assert [(one["kind"], one["value"], one["action"]) for one in hidden["pii"]] == [
        ("email", "H***.*******@*****.***", "hash"),
        ("phone", "***-****-**78", "mask"),
    ]
    assert exported.height == sum(one["values"] for one in found["kinds"].values())
    assert set(exported.filter(kind="phone")["masked"]) == {"***-****-**78"}
    assert "<h2>Personal data</h2>" in page
    assert [value for value in (EMAIL, PHONE, CARD, "first.person") if value in page] == []
    # The database, and every file that the run wrote but texts on their way between stages.
    kept = b"".join(path.read_bytes() for path in (tmp_path / "home").glob("winnow.db*"))
    assert [value for value in (EMAIL, PHONE, CARD, KEY) if value.encode() in kept] == []
    catalog.close()


def test_another_key_is_another_run_and_no_key_is_refused(tmp_path: Path) -> None:
    bodies = BODIES[:1]
    catalog = make_catalog(tmp_path / "home", pii_key=KEY)
    first = clean(catalog, tmp_path, {"action": "hash"}, bodies)
    texts = curated(catalog, first)
    catalog.close()
    other = make_catalog(tmp_path / "home", pii_key=KEY[::-1])
    second = clean(other, tmp_path, {"action": "hash"}, bodies)
    assert second.id != first.id
    assert curated(other, second) != texts
    other.close()
    without = make_catalog(tmp_path / "home")
    with pytest.raises(ConfigError, match="WINNOW_PII_KEY"):
        clean(without, tmp_path, {"action": "hash"}, bodies)
    without.close()


def test_looking_through_a_dataset_counts_and_shows_nothing_in_clear(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    catalog = make_catalog(tmp_path / "home")
    ingest(catalog, tmp_path, "tickets", BODIES)
    catalog.close()
    monkeypatch.setenv("WINNOW_HOME", str(tmp_path / "home"))
    command.run("tickets", json=True)
    found = json.loads(capsys.readouterr().out)
    assert (found["records"], found["kinds"]["payment_card"]["records"]) == (len(BODIES), 1)
    assert found["kinds"]["payment_card"]["samples"] == ["**** **** **** 1111"]
    command.run("tickets")
    command.check(f"my card {CARD}", action="mask")
    shown = capsys.readouterr().out
    assert "my card **** **** **** 1111" in shown
    assert [value for value in (EMAIL, PHONE, CARD, ADDRESS) if value in shown] == []
    command.check(f"my card {CARD}", clear=True)
    assert CARD in capsys.readouterr().out
    with pytest.raises(ConfigError, match="--file"):
        command.check(None)
