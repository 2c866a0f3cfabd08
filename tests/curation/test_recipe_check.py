"""All that is wrong with a recipe is said at once; what is right comes back from its own YAML."""

import pytest

from curation.recipe import load_recipe, preset_names
from curation.recipe_check import problems, rule_rows, steps, to_yaml

WRONG = """
name: Mine
versoin: 2
rules:
  word_count: {minmum: 3}
  wrod_count: {minimum: 1}
  url_ratio: {minimum: 2, maximum: 1}
near: {treshold: 0.9}
encoder: statik
difficulty: [lenght]
languages: en
"""


def test_every_problem_is_named_with_the_nearest_known_name():
    found = "\n".join(problems(WRONG))
    for said in (
        "unknown key 'versoin'; did you mean 'version'?",
        "unknown option 'minmum'; did you mean 'minimum'?",
        "no rule named 'wrod_count'; did you mean 'word_count'?",
        "minimum=2 is above maximum=1",
        "near: unknown option 'treshold'; did you mean 'threshold'?",
        "no encoder named 'statik'; did you mean 'static'?",
        "no difficulty named 'lenght'; did you mean 'length'?",
        "languages='en' must be a list",
        "name='Mine' must be 1 to 64",
    ):
        assert said in found
    assert len(problems(WRONG)) == 9


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- a", "a recipe is a mapping"),
        ("name: a\nname: b", "key 'name' is given twice"),
        ("a: [", "not YAML"),
        ("rules: {}", "the key 'name' is missing"),
        ("name: a\nencoder: static\nsemantic: {acton: report}", "unknown option 'acton'; did you mean 'action'?"),
        ("name: a\nencoder: hashing\nsemantic: {}", "semantic compares meanings"),
    ],
)
def test_each_kind_of_wrong_recipe_is_told_once(text, said):
    (found,) = problems(text)
    assert said in found


@pytest.mark.parametrize("name", preset_names())
def test_what_a_preset_would_do_reads_back_as_the_preset(name, tmp_path):
    recipe = load_recipe(name)
    text = to_yaml(recipe.canonical())
    assert problems(text) == []
    path = tmp_path / "again.yaml"
    path.write_text(text, "utf-8")
    assert load_recipe(str(path)).digest() == recipe.digest()
    assert [one["rule"] for one in rule_rows(recipe)] == list(recipe.rules)
    assert steps(recipe)["encoder"] == recipe.encoder


def test_a_recipe_without_a_name_has_each_of_its_problems_once() -> None:
    assert len(problems("rules:\n  word_cont: {}\nencodr: static\n")) == 2
