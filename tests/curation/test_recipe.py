"""Recipes: strict to read, complete to store, stable to hash."""

import json

import polars as pl
import pytest

from catalog.errors import ConfigError, NotFoundError
from curation.dedup.substring import SubstringConfig
from curation.recipe import PURPOSES, Recipe, load_recipe, preset_names, recipe_from_canonical
from curation.rules import RULES, Bounds, judge, measure

PLAIN = "name: mine\nrules:\n  word_count: {minimum: 3}\n"


def write(path, text: str) -> str:
    path.write_text(text, "utf-8")
    return str(path)


@pytest.mark.parametrize("name", preset_names())
def test_preset_survives_storage_that_reorders_keys(name):
    recipe = load_recipe(name)
    stored = json.loads(json.dumps(recipe.canonical(), sort_keys=True))
    again = recipe_from_canonical(stored)
    assert again == recipe
    assert list(again.rules) == list(recipe.rules)
    assert again.digest() == recipe.digest()


def test_web_text_is_gopher_as_published():
    recipe = load_recipe("web-text")
    for name, bounds in recipe.rules.items():
        assert bounds == RULES[name].configured()


def test_short_text_keeps_a_short_message_in_any_language():

    recipe = load_recipe("short-text")
    texts = pl.Series(
        [
            "my flight was cancelled again",
            "비행기가 또 취소되어서 화가 납니다",
            "航班又被取消了，我非常生气，怎么办",
            "lol",
        ]
    )
    assert judge(measure(texts, list(recipe.rules)), recipe.rules)["kept"].to_list() == [True, True, True, False]
    assert recipe.near is not None
    assert "stop_word_count" not in recipe.rules


def test_file_is_read_with_published_bounds_where_it_is_silent(tmp_path):
    recipe = load_recipe(write(tmp_path / "mine.yaml", PLAIN + "near: {threshold: 0.9}\nlanguages: [en, ko]\n"))
    assert recipe.rules == {"word_count": RULES["word_count"].configured({"minimum": 3})}
    assert recipe.rules["word_count"].maximum == 100_000
    assert recipe.near.threshold == 0.9
    assert recipe.languages == ("en", "ko")
    opened = load_recipe(write(tmp_path / "open.yaml", "name: mine\nrules: {word_count: {maximum: null}}\n"))
    assert opened.rules["word_count"].maximum is None
    assert load_recipe(write(tmp_path / "none.yml", "name: none\n")).near is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: x\nlanguage: [en]\n", "did you mean 'languages'"),
        ("name: x\nrules: {word_cout: {}}\n", "did you mean 'word_count'"),
        ("name: x\nrules: {word_count: {minimun: 1}}\n", "did you mean 'minimum'"),
        ("name: x\nrules: {word_count: {minimum: 9, maximum: 1}}\n", "minimum=9 is above maximum=1"),
        ("name: x\nrules: {word_count: 5}\n", "must be bounds"),
        ("name: x\nrules: [word_count]\n", "rules must map"),
        ("name: x\nencoder: minilmm\n", "did you mean 'minilm'"),
        ("name: x\nencoder: [minilm]\n", "must be a name"),
        ("name: x\ndifficulty: [lenght]\n", "did you mean 'length'"),
        ("name: x\ndifficulty: []\n", "at least one"),
        ("name: x\nnear: {treshold: 0.8}\n", "did you mean 'threshold'"),
        ("name: x\nnear: {threshold: 1.3}\n", r"threshold=1.3 must lie in \(0, 1\]"),
        ("name: x\nnear: {threshold: high}\n", "near: "),
        ("name: x\nnear: true\n", "near=True"),
        ("name: x\nsubstring: {min_token: 9}\n", "substring: unknown option 'min_token'; did you mean 'min_tokens'"),
        ("name: x\nsubstring: {min_tokens: 1}\n", "substring: min_tokens=1 must be a whole number from 2 to 10000"),
        ("name: x\nsubstring: {action: cut}\n", "substring: action='cut' must be one of report, remove"),
        ("name: x\nsubstring: true\n", "substring=True must map options"),
        ("name: x\nencoder: static\nsemantic: {epsilom: 0.1}\n", "semantic: .*did you mean 'epsilon'"),
        ("name: x\nencoder: static\nsemantic: {epsilon: 1}\n", r"semantic: epsilon=1 must lie in \[0, 1\)"),
        ("name: x\nencoder: static\nsemantic: {action: remov}\n", "did you mean 'remove'"),
        ("name: x\nencoder: static\nsemantic: {sweep: 0.1}\n", "sweep=0.1 must be a list"),
        ("name: x\nencoder: static\nsemantic: true\n", "semantic=True"),
        ("name: x\nencoder: hashing\nsemantic: {}\n", "'hashing' knows nothing; set encoder to .*minilm.*static"),
        ("name: x\nlanguages: [no]\n", "quote 'no'"),
        ("name: x\nlanguages: en\n", "must be a list"),
        ("name: x\nmin_language_confidence: 2\n", "min_language_confidence=2"),
        ("name: x\nexact: 3\n", "exact=3"),
        ("name: x\nversion: 0\n", "version=0"),
        ("name: Bad Name\n", "name='Bad Name'"),
        ("version: 1\n", "'name' is missing"),
        ("- a list\n", "mapping"),
        ("name: [unclosed\n", "not YAML"),
        ("name: x\nexact: true\nexact: false\n", r"bad.yaml: key 'exact' is given twice, in lines 2 and 3"),
        ("name: x\nrules:\n  word_count: {}\n  url_ratio: {}\n  word_count: {}\n", "'word_count' .* lines 3 and 5"),
    ],
)
def test_fault_is_refused_with_its_value_and_remedy(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message):
        load_recipe(write(tmp_path / "bad.yaml", text))


def test_unknown_recipe_names_the_nearest_preset(tmp_path):
    with pytest.raises(NotFoundError, match="did you mean 'web-text'"):
        load_recipe("web-txt")
    with pytest.raises(NotFoundError, match="yaml"):
        load_recipe(str(tmp_path / "absent.yaml"))


def test_digest_depends_on_what_the_recipe_decides_and_not_on_how_it_is_written(tmp_path):
    digests = [
        load_recipe(write(tmp_path / "a.yaml", text)).digest()
        for text in (PLAIN, "rules: {word_count: {maximum: 1.0e+5, minimum: 3.0}}\nversion: 1\nname: mine\n")
    ]
    assert digests[0] == digests[1]
    assert load_recipe(write(tmp_path / "b.yaml", PLAIN + "exact: false\n")).digest() != digests[0]
    one, other = {"char_count": Bounds(), "word_count": Bounds()}, {"word_count": Bounds(), "char_count": Bounds()}
    assert Recipe(name="x", rules=one).digest() != Recipe(name="x", rules=other).digest()


def test_substring_is_off_unless_asked_for_and_a_recipe_stored_without_it_is_read(tmp_path):
    asked = load_recipe(write(tmp_path / "asked.yaml", PLAIN + "substring: {action: remove}\n"))
    assert asked.substring == SubstringConfig(min_tokens=50, action="remove")
    assert recipe_from_canonical(json.loads(json.dumps(asked.canonical()))) == asked
    plain = load_recipe(write(tmp_path / "plain.yaml", PLAIN))
    assert plain.substring is None
    assert plain.digest() != asked.digest()
    older = {key: value for key, value in plain.canonical().items() if key != "substring"}
    assert recipe_from_canonical(older) == plain


def test_semantic_step_is_stored_whole_and_equal_for_equal_decisions(tmp_path):
    text = "name: mine\nencoder: static\nsemantic: {epsilon: %s, sweep: %s, action: report}\n"
    recipes = [
        load_recipe(write(tmp_path / "a.yaml", text % given))
        for given in (("0", "[0.1, 0.01]"), ("0.0", "[0.01, 0.1]"))
    ]
    assert recipes[0].digest() == recipes[1].digest()
    stored = json.loads(json.dumps(recipes[0].canonical(), sort_keys=True))
    assert stored["semantic"] == {
        "epsilon": 0.0,
        "num_cells": None,
        "probes": 2,
        "seed": 1,
        "sweep": [0.01, 0.1],
        "max_better": 64,
        "action": "report",
    }
    assert recipe_from_canonical(stored).digest() == recipes[0].digest()
    assert recipe_from_canonical(stored).semantic.action == "report"
    assert load_recipe(write(tmp_path / "b.yaml", "name: mine\n")).canonical()["semantic"] is None


def test_recipe_that_was_stored_before_there_was_a_semantic_step_is_read():
    recipe = load_recipe("short-text")
    stored = recipe.canonical()
    del stored["semantic"]
    assert recipe_from_canonical(stored) == recipe


def test_recipe_of_another_rule_version_is_not_replayed():
    stored = load_recipe("short-text").canonical()
    stored["rules"]["word_count"]["version"] = 99
    with pytest.raises(ConfigError, match="rule 'word_count' was recorded at version 99"):
        recipe_from_canonical(stored)


def test_every_preset_says_what_it_is_for():
    assert sorted(PURPOSES) == preset_names()
