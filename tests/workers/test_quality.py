"""Quality scores in a cleaning run: pinned when asked for, stored for every record, told with the rules."""

from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import select

from catalog.database import Catalog
from catalog.errors import ConfigError, DataError, NotFoundError
from catalog.store import Store
from catalog.tables.curation import Verdict
from catalog.tables.datasets import Version
from catalog.tables.engine import Run
from curation.bias.identity import IdentityTerms
from curation.quality.perplexity import ReferenceConfig
from curation.quality.step import quality_steps
from curation.recipe import Recipe
from tests.cli.corpus import records
from tests.workers.building import drain
from tests.workers.test_determinism import make_catalog
from tests.workers.test_pipelines import write_rows
from workers import curated, manifests
from workers.biography import biography
from workers.counterfactual import sampled_texts, scorer_named
from workers.pipelines.clean import funnel, submit_clean
from workers.pipelines.ingest import submit_ingest
from workers.quality import labelled_texts, list_models, texts_of_file, train_classifier, train_perplexity

CHARACTERS = ReferenceConfig(unit="character")


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    """Records ingested as ``tickets``, and a classifier of their labels as ``parcels``."""
    catalog = make_catalog(tmp_path / "home")
    path = write_rows(tmp_path / "rows.jsonl", records())
    submit_ingest(catalog, dataset="tickets", paths=[path], text_column="body", label_column="queue")
    drain(catalog)
    good, bad = labelled_texts(catalog, "tickets", "delivery", None)
    train_classifier(catalog, "parcels", good=good, bad=bad, encoder="hashing", origin={})
    return catalog


def clean(catalog: Catalog, *given: dict[str, object]) -> Run:
    recipe = Recipe(name="small", exact=False, quality=quality_steps(list(given)), identity=IdentityTerms.configured())
    run_id, _ = submit_clean(catalog, dataset="tickets", recipe=recipe)
    drain(catalog)
    with catalog.read() as session:
        return session.get_one(Run, run_id)


def test_run_keeps_to_its_model_and_stores_every_value(catalog: Catalog, tmp_path: Path) -> None:
    reference = texts_of_file(str(tmp_path / "rows.jsonl"), "body")
    trained = train_perplexity(catalog, "known", reference=reference, config=CHARACTERS, origin={})
    assert trained["quantiles"]["0.05"] < trained["quantiles"]["0.99"]
    asked = ({"classifier": "parcels", "minimum": 0.5}, {"perplexity": "known", "maximum": 1e6})
    run = clean(catalog, *asked)
    assert run.state == "done", run.reason
    with catalog.read() as session:
        verdicts = session.scalars(select(Verdict).where(Verdict.run_id == run.id)).all()
        dropped = {one["rule"]: one["dropped"] for one in funnel(session, run.id, run.config["recipe"])}
        dataset = manifests.find_dataset(session, "tickets")
        left = next(one for one in verdicts if one.reason == "classifier_parcels")
        story = biography(session, Store.of(catalog.settings), dataset, left.record_id)
        version = session.scalars(select(Version).where(Version.kind == "curated")).one()
        vectors = curated.read_embeddings(Store.of(catalog.settings), version)
    assert {one.kept for one in verdicts} == {True, False}
    assert all(one.kept == (one.measured["classifier_parcels"] >= 0.5) for one in verdicts)
    assert all(one.measured["perplexity_known"] > 1 for one in verdicts)
    assert dropped["classifier_parcels"] == sum(not one.kept for one in verdicts) > 100
    assert vectors.shape == (sum(one.kept for one in verdicts), 256)
    (told,) = [one for one in story["rules"] if one["rule"] == "classifier_parcels"]
    assert (told["minimum"], told["passed"]) == (0.5, False)
    # The same again is the same run; a new version of the model asks for a new one.
    assert clean(catalog, *asked).id == run.id
    good, bad = labelled_texts(catalog, "tickets", "delivery", "billing")
    assert train_classifier(catalog, "parcels", good=good, bad=bad, encoder="hashing", origin={})["version"] == 2
    assert clean(catalog, *asked).id != run.id
    with catalog.read() as session:
        assert [(one.name, one.version) for one in list_models(session)] == [
            ("known", 1),
            ("parcels", 2),
            ("parcels", 1),
        ]


def test_what_is_not_there_is_refused_before_the_run(catalog: Catalog) -> None:
    for given, error, told in (
        ({"classifier": "parcel"}, NotFoundError, "did you mean 'parcels'"),
        ({"classifier": "parcels", "version": 3}, NotFoundError, "has versions 1 to 1, not 3"),
        ({"perplexity": "parcels"}, ConfigError, "write `classifier: parcels`"),
        ({"model": "/nowhere"}, ConfigError, "is no folder"),
    ):
        with pytest.raises(error, match=told):
            clean(catalog, given)


def test_counterfactual_pairs_are_scored_by_what_the_run_scored_with(catalog: Catalog) -> None:
    run = clean(catalog, {"classifier": "parcels", "minimum": 0.0})
    with catalog.read() as session:
        texts = sampled_texts(Store.of(catalog.settings), session, run, 50)
        stored = {
            one.record_id: one.measured["classifier_parcels"]
            for one in session.scalars(select(Verdict).where(Verdict.run_id == run.id))
        }
        found = scorer_named(catalog, session, run, "classifier_parcels")(texts["text"])
        by_rule = scorer_named(catalog, session, run, "char_count")(texts["text"])
        with pytest.raises(ConfigError, match="did you mean 'classifier_parcels'"):
            scorer_named(catalog, session, run, "classifier_parcel")
        with pytest.raises(DataError, match="label:nothing"):
            scorer_named(catalog, session, run, "label:nothing")
        by_label = scorer_named(catalog, session, run, "label:billing")(texts["text"])
    np.testing.assert_allclose(found, [stored[name] for name in texts["id"]], rtol=1e-6)
    np.testing.assert_array_equal(by_rule, texts["text"].str.len_chars())
    assert by_label.min() >= 0
    assert by_label.max() <= 1
