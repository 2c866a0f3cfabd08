"""Quality scorers: what the classifier says of itself, a local model's labels, and the recipe's keys."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from catalog.errors import ConfigError, DataError
from curation.encoders.hashing import hashing
from curation.quality import SCORERS, Model
from curation.quality.classifier import Classifier, Examples, examples_of, fit_classifier
from curation.quality.model import check_folder
from curation.quality.step import QualityStep
from curation.recipe import Recipe, recipe_from_canonical
from curation.rules import Bounds
from curation.verdicts import rule_verdicts
from tests.cli.corpus import records


def pair() -> tuple[pl.Series, pl.Series]:
    """Texts about parcels, and others."""
    made = records()
    good = [one["body"] for one in made if one["queue"] == "delivery"]
    return pl.Series(good), pl.Series([one["body"] for one in made if one["queue"] != "delivery"])


def encode(_: str, texts: list[str]) -> np.ndarray:
    return hashing(texts, Path())


def test_classifier_tells_unseen_examples_apart_and_says_how_well() -> None:
    good, bad = pair()
    examples = examples_of(good[:-20], bad[:-20])
    found, measured = fit_classifier(
        examples, encode("", examples.texts.to_list()), encoder="hashing", encoder_version=1
    )
    assert measured.auroc > 0.95
    assert measured.log_loss < 0.5
    assert measured.calibration_error < 0.15
    stored = Classifier.from_bytes(found.to_bytes())
    assert stored == found
    score = SCORERS["classifier"].member(Model(raw=found.to_bytes(), encode=encode))
    unseen = score(pl.concat([good[-20:], bad[-20:]]))
    assert ((unseen >= 0.5) == (np.arange(40) < 20)).mean() > 0.85
    turned, _ = fit_classifier(
        examples_of(good[:-20].reverse(), bad[:-20].reverse()),
        encode("", examples.texts.to_list()),
        encoder="hashing",
        encoder_version=1,
    )
    assert turned == found


def test_knowing_nothing_is_not_reported_as_skill() -> None:
    rng = np.random.default_rng(0)
    examples = Examples(pl.Series(["x"] * 400), np.arange(400) < 300, 0)
    _, measured = fit_classifier(examples, rng.normal(size=(400, 8)), encoder="hashing", encoder_version=1)
    assert 0.4 < measured.auroc < 0.6
    assert 0.68 < measured.log_loss < 0.75


def test_copies_count_once_and_contradictions_not_at_all() -> None:
    good, bad = pair()
    found = examples_of(pl.concat([good, good.str.to_uppercase(), bad[:3]]), bad)
    plain = examples_of(good, bad)
    assert found.is_good.sum() == plain.is_good.sum()
    assert (~found.is_good).sum() == (~plain.is_good).sum() - 3
    assert found.num_contradicting == 3
    with pytest.raises(DataError, match="5 distinct bad examples; at least 20"):
        examples_of(good, bad[:5])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of a few thousand weights with its tokenizer, as a model's folder."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

    made = tmp_path_factory.mktemp("model")
    words = ["[PAD]", "[UNK]", "good", "bad", "text", "환불"]
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]")
    wrapped.save_pretrained(made)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(words), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=12, initializer_range=0.5,
        id2label={0: "poor", 1: "fine"}, label2id={"poor": 0, "fine": 1},
    )  # fmt: skip
    BertForSequenceClassification(config).save_pretrained(made)
    return made


def test_local_model_scores_a_label_of_each_text_alone(folder: Path) -> None:
    texts = pl.Series(["good text", "", "환불 " * 40, "bad", "good bad text unknown"])
    fine, poor = (SCORERS["model"].member(Model(folder=folder, label=label)) for label in ("fine", "poor"))
    found = fine(texts)
    np.testing.assert_allclose((found + poor(texts))[[0, 2, 3, 4]], 1, atol=2e-4)
    alone = [fine(texts[row : row + 1])[0] for row in range(len(texts))]
    np.testing.assert_allclose(found, alone, atol=2e-4)
    assert np.isnan(found).tolist() == [False, True, False, False, False]
    assert len(set(found[[0, 2, 3, 4]])) == 4
    with pytest.raises(ConfigError, match="label='fin' is none of its labels; did you mean 'fine'"):
        check_folder(folder, "fin")
    with pytest.raises(ConfigError, match=r"is no folder with a config\.json"):
        check_folder(folder / "nothing", "fine")


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"clasifier": "a"}, "unknown option 'clasifier'; did you mean 'classifier'"),
        ({"minimum": 1}, "must name one scorer of classifier, model, perplexity, not 0"),
        ({"classifier": "a", "perplexity": "b"}, "not 2"),
        ({"classifier": "Not A Name"}, "model name 'Not A Name' must be"),
        ({"perplexity": "a", "minimum": 2, "maximum": 1}, "minimum=2 is above maximum=1"),
        ({"perplexity": "a", "label": "x"}, "label='x' is of a folder's model"),
        ({"classifier": "a", "version": 0}, "version=0 must be a whole number from 1"),
        ("a", "must map a scorer to a model"),
    ],
)
def test_wrong_keys_are_refused_with_what_is_known(given: object, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        QualityStep.configured(given)


def test_scores_are_judged_and_stored_beside_the_rules() -> None:
    steps = (
        QualityStep.configured({"classifier": "mine", "minimum": 0.5}),
        QualityStep.configured({"model": "/models/Edu Score", "label": "fine"}),
    )
    recipe = Recipe(name="a", rules={"char_count": Bounds(minimum=3)}, quality=steps)
    again = recipe_from_canonical(recipe.canonical())
    assert (again.quality, again.digest()) == (steps, recipe.digest())
    assert list(recipe.canonical()["rules"]) == ["char_count", "classifier_mine", "model_edu_score_fine"]
    measured = pl.DataFrame({"char_count": [9.0, 1.0, 9.0], "classifier_mine": [0.5, 0.1, None]}).with_columns(
        model_edu_score_fine=pl.lit(0.0)
    )
    verdicts = rule_verdicts(measured, recipe)
    assert verdicts["failed"].to_list() == [[], ["char_count", "classifier_mine"], []]
    with pytest.raises(ConfigError, match="classifier_mine stands twice"):
        Recipe(name="a", quality=(steps[0], steps[0]))
