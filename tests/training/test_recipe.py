"""Recipes are strict, planned, and replayed from their canonical form."""

from pathlib import Path
from textwrap import dedent

import pytest
import yaml

from catalog.errors import ConfigError, NotFoundError
from training.presets import preset_names
from training.recipe import TrainRecipe, load_recipe

MINIMAL = "arms:\n  - name: one\n"
MINILM = "arms:\n  - {name: one, backbone: minilm-lora, "


def recipe(text: str) -> TrainRecipe:
    return TrainRecipe.from_yaml(text, name="test")


@pytest.mark.parametrize("name", preset_names())
def test_presets_load_and_survive_their_canonical_form(name: str) -> None:
    loaded = load_recipe(name)
    assert loaded.name == name
    again = TrainRecipe.from_canonical(loaded.canonical())
    assert again == loaded
    assert again.digest() == loaded.digest()


def test_the_default_recipe_compares_every_arm_with_random_order() -> None:
    plan = load_recipe("classify").plan()
    assert [(one.config.name, one.control_of, one.compressions) for one in plan] == [
        ("small-moe", None, ("int8",)),
        ("small-moe-random", "small-moe", ()),
        ("minilm-lora", None, ("int8",)),
        ("minilm-lora-random", "minilm-lora", ()),
    ]
    for arm, control in (plan[0:2], plan[2:4]):
        assert control.config.pacing == "random"
        for name in ("backbone", "backbone_options", "steps", "batch_size", "seed", "learning_rate", "schedule"):
            assert getattr(arm.config, name) == getattr(control.config, name)


def test_comparison_can_be_turned_off_and_random_arms_need_none() -> None:
    assert len(recipe(MINIMAL + "compare: none\n").plan()) == 1
    assert len(recipe("arms:\n  - {name: one, pacing: random}\n").plan()) == 1


def test_shared_settings_reach_arms_that_set_none_of_their_own() -> None:
    made = recipe("seed: 7\nmax_tokens: 32\narms:\n  - name: one\n  - {name: two, seed: 9, max_tokens: 16}\n")
    assert [(arm.seed, arm.max_tokens) for arm in made.arms] == [(7, 32), (9, 16)]
    assert made.seed == 7
    assert TrainRecipe.from_canonical(made.canonical()) == made


def test_digest_sees_every_setting() -> None:
    texts = [MINIMAL, MINIMAL + "seed: 1\n", MINIMAL + "test_share: 0.3\n", MINIMAL + "    steps: 5\n"]
    assert len({recipe(text).digest() for text in texts}) == len(texts)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (MINIMAL + "lables: given\n", "unknown key 'lables'; did you mean 'labels'"),
        ("arms:\n  - name: one\n    stepz: 3\n", "arm 1: unknown key 'stepz'; did you mean 'steps'"),
        ("arms:\n  - {name: one, backbone: minilm-lorra}\n", "did you mean 'minilm-lora'"),
        ("arms:\n  - {name: one, pacing: lineal}\n", "did you mean 'linear'"),
        ("arms:\n  - {name: one, schedule: wds}\n", "did you mean 'wsd'"),
        ("arms:\n  - {name: one, objective: clasification}\n", "did you mean 'classification'"),
        (
            "arms:\n  - {name: one, pacing_options: {stat: 0.1}}\n",
            "'one': pacing linear: unknown option 'stat'; did you mean",
        ),
        ("arms:\n  - {name: one, pacing_options: {start: 2.0}}\n", "start=2.0 must lie in"),
        ("arms:\n  - {name: one, backbone_options: {feedforward: moe}}\n", "no feed-forward named 'moe'"),
        ("arms:\n  - {name: one, backbone_options: {feedforward_options: {hidde: 1}}}\n", "did you mean 'hidden'"),
        ("arms:\n  - {name: one, steps: ten}\n", "steps='ten' must be of type int"),
        ("arms:\n  - {name: one, steps: true}\n", "steps=True must be of type int"),
        ("arms:\n  - {name: one, steps: 0}\n", "steps=0 must be at least 1"),
        ("arms:\n  - {name: one, learning_rate: .nan}\n", "learning_rate=nan must be above 0"),
        ("arms:\n  - {name: one, precision: fp8}\n", "precision='fp8' must be one of"),
        ("arms:\n  - {name: one, pacing_options: 3}\n", "must be a mapping of options"),
        ("arms:\n  - {steps: 1}\n", "arm 1: name must be given"),
        ("arms:\n  - {name: one}\n  - {name: one}\n", "arm name 'one' occurs twice"),
        ("arms:\n  - {name: one}\n  - {name: one-random}\n", "arm name 'one-random' occurs twice"),
        ("arms: []\n", "has no arms"),
        ("arms: one\n", "must be a list of arms"),
        ("arms: [one]\n", "must be a mapping with at least a name"),
        (MINIMAL + "compressions: [int4]\n", "compressions='int4' is unknown; did you mean 'int8'"),
        (MINIMAL + "compressions: int8\n", "must be a list of names"),
        (MINIMAL + "labels: gold\n", "labels='gold' is unknown"),
        (MINIMAL + "compare: rando\n", "did you mean 'random'"),
        (MINIMAL + "objective: mlm\ncompressions: [int8]\n", "compressed are classifiers; leave it out"),
        (MINIMAL + "compare_seeds: 5\n", "compare_seeds=5 has no effect with compare='random'; say controls"),
        (MINIMAL + "compare: controls\ncompare_seeds: 1\n", "compare_seeds=1 must lie in"),
        ("arms:\n  - {name: one, packing: row}\n", "packing='row' must be one of none, rows"),
        (
            "arms:\n  - {name: one, batch_size: 8, micro_batch_size: 9}\n",
            "'one': micro_batch_size=9 must be at most batch_size=8, .*lower it, or set 0",
        ),
        ("arms:\n  - {name: one, length_window: 0}\n", "length_window=0 must be at least 1"),
        (
            "arms:\n  - {name: one, packing: rows, backbone_options: {attention: linformer}}\n",
            "packing='rows' does not go with attention='linformer', .*set packing to none, or attention to one of bloc",
        ),
        (
            "arms:\n  - {name: one, backbone_options: {attention: lsh, positions: alibi, attention_options: {backend: "
            "flex}}}\n",
            "positions='alibi' does not hold for attention='lsh' with .*'flex'.*choose one of learned",
        ),
        (MINILM + "max_tokens: 5000}\n", "'one': .*max_tokens=5000 exceeds the 512 positions of minilm-lora; lower it"),
        (MINILM + "packing: rows}\n", "packing='rows' does not go with backbone='minilm-lora', .*set packing to none"),
        (MINILM + "recompute: blocks}\n", "recompute='blocks' does not go with .*set recompute to none, or backbone"),
        (MINILM + "compile: inductor}\n", "compile='inductor' does not go with .*set compile to none, or backbone"),
        (MINIMAL + "test_share: 1.5\n", "test_share=1.5 must lie in"),
        (MINIMAL + "max_train_records: -1\n", "max_train_records=-1 must be 0"),
        ("- a\n", "must be a mapping of settings, not list"),
        ("a: [\n", "is no YAML"),
        ("arms:\n  - name: one\n    steps: 3\n    steps: 4\n", "key 'steps' is given twice, in lines 3 and 4"),
    ],
)
def test_mistakes_are_refused_with_what_would_be_right(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace("(", r"\(")):
        recipe(text)


RANDOM = "arms:\n  - {name: one, pacing: random, "
PACED = "arms:\n  - {name: one, pacing: self_paced, "
BY_DIFFICULTY = "objective: mlm, objective_options: {masking: by_difficulty"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("compare: controls\n" + RANDOM + "}\n", "compare='controls' has no effect .*every arm has pacing='random'"),
        ("difficulty: el2n\n" + RANDOM + "}\n", "difficulty='el2n' has no effect .*no arm's pacing orders by it"),
        ("difficulty: el2n\n" + PACED + "}\n", "difficulty='el2n' has no effect"),
        (
            "difficulty: el2n\n" + RANDOM + BY_DIFFICULTY + ", masking_options: {grows_with: progress}}}\n",
            "difficulty='el2n' has no effect",
        ),
        (PACED + "steps: 25}\n", "'one': every=25 of pacing='self_paced' must be below steps=25: .*lower every"),
        (
            "compare: none\n" + PACED + "record_losses: last}\n",
            "'one': record_losses='last' has no effect with pacing='self_paced', .*leave it out",
        ),
        (
            RANDOM + "init_from: RUN/x, backbone_options: {vocab_size: 300, dim: 16}}\n",
            "vocab_size=300 of backbone_options has no effect with init_from='RUN/x', .*leave it out",
        ),
    ],
)
def test_keys_without_effect_are_refused_in_files_and_read_in_stored_recipes(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        recipe(text)
    stored = TrainRecipe._parse({"name": "stored"} | yaml.safe_load(text), where="stored")
    assert TrainRecipe.from_canonical(stored.canonical()) == stored


@pytest.mark.parametrize(
    "text",
    [
        "compare: controls\n" + RANDOM + "}\n  - {name: two}\n",
        "difficulty: el2n\n" + RANDOM + "}\n  - {name: two, pacing: warmup_then_random}\n",
        "difficulty: el2n\n" + RANDOM + "record_losses: last}\n",
        "difficulty: el2n\n" + RANDOM + BY_DIFFICULTY + "}}\n",
        "difficulty: el2n\n"
        + RANDOM
        + "objective: mixture, "
        + "objective_options: {weights: {mlm: 1, rtd: 1}, options: {mlm: {masking: by_difficulty}}}}\n",
        "difficulty: combined\n" + RANDOM + "}\n",
        PACED + "steps: 26}\n",
        RANDOM + "init_from: RUN/x, backbone_options: {dim: 16}}\n",
        PACED + "record_losses: last}\n",
    ],
)
def test_keys_that_have_an_effect_somewhere_are_read(text: str) -> None:
    assert recipe(text).arms


def test_a_comparison_of_random_arms_alone_is_refused() -> None:
    with pytest.raises(ConfigError, match="compare='controls' has no effect in recipe 'test'"):
        recipe(RANDOM + "}\n").compared()


def test_stored_recipes_of_before_a_micro_batch_was_bounded_are_read() -> None:
    text = "arms:\n  - {name: one, batch_size: 8, micro_batch_size: 8}\n"
    stored = recipe(text).canonical().replace('"micro_batch_size": 8', '"micro_batch_size": 9')
    assert TrainRecipe.from_canonical(stored).arms[0].micro_batch_size == 9


def test_files_are_read_and_unknown_names_suggest_a_preset(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(MINIMAL)
    assert load_recipe(str(path)).name == "mine"
    with pytest.raises(NotFoundError, match="did you mean 'classify'"):
        load_recipe("clasify")
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="is not UTF-8"):
        load_recipe(str(path))


def test_controls_are_every_order_under_every_seed() -> None:
    made = recipe("compare: controls\ncompare_seeds: 2\narms:\n  - {name: one, pacing: root, seed: 5}\n")
    assert [
        (one.config.name, one.config.pacing, one.config.seed, one.control_of, one.replica_of) for one in made.plan()
    ] == [
        ("one", "root", 5, None, None),
        ("one-random", "random", 5, "one", None),
        ("one-anti", "anti", 5, "one", None),
        ("one-same-pacing", "same_pacing_random", 5, "one", None),
        ("one-seed6", "root", 6, None, "one"),
        ("one-random-seed6", "random", 6, "one-seed6", "one-random"),
        ("one-anti-seed6", "anti", 6, "one-seed6", "one-anti"),
        ("one-same-pacing-seed6", "same_pacing_random", 6, "one-seed6", "one-same-pacing"),
    ]
    assert [one.compressions for one in made.plan()] == [("int8",), *[()] * 7]
    for control in made.plan()[2:4]:
        assert control.config.pacing_options == {"of": "root", "options": {}}
    assert TrainRecipe.from_canonical(made.canonical()) == made


def test_pacings_that_order_by_nothing_have_random_order_as_their_only_control() -> None:
    made = recipe("compare: controls\narms:\n  - {name: one, pacing: self_paced}\n  - {name: two, pacing: random}\n")
    assert [one.config.name for one in made.plan()] == [
        *("one", "one-random", "one-seed1", "one-random-seed1", "one-seed2", "one-random-seed2"),
        "two",
    ]


def test_a_recipe_compared_is_another_run_and_one_as_before_is_the_same() -> None:
    made = recipe(MINIMAL)
    assert made.compared().compare_seeds == 3
    assert made.compared(5).digest() not in {made.digest(), made.compared().digest()}
    assert made.digest() == DIGEST_BEFORE


DIGEST_BEFORE = "b919ee3b7a0b3c4134c3de07e890c4f23d4ae90bc8d1479083950fd82f16d754"


CLM = "objective: clm, backbone_options: {order: causal}"


@pytest.mark.parametrize(
    ("arm", "message"),
    [
        ("retrieval: knn_clasifier", "retrieval='knn_clasifier' is unknown; did you mean 'knn_classifier'"),
        ("retrieval: knn_lm", "retrieval='knn_lm' goes with objective 'clm', not with 'classification'"),
        (f"retrieval: knn_classifier, {CLM}", "goes with objective 'classification', not with 'clm'; change one"),
        ("retrieval_options: {weight: 0.2}", "has no effect without retrieval; name one"),
        (
            "retrieval: knn_classifier, retrieval_options: {wieght: 0.2}",
            "unknown option 'wieght'; did you mean 'weight'",
        ),
        ("retrieval: knn_classifier, retrieval_options: {weight: 1.5}", r"weight=1.5 must lie in \(0, 1\)"),
        (f"retrieval: knn_lm, {CLM}, retrieval_options: {{encoder: x}}", "unknown option 'encoder'"),
        ("retrieval: knn_classifier, retrieval_options: {memory: RUN}", "memory='RUN' must be RUN/ARM of a training"),
        (
            "retrieval: knn_classifier, backbone: minilm-lora, retrieval_options: {encoder: ''}",
            "would ask with the model's own states, and backbone='minilm-lora' has no outputs for single tokens",
        ),
        ("steps: 0", "steps=0 must be at least 1, or 0 for a model of init_from that gets a memory of retrieval"),
        ("steps: 0, init_from: RUN/x", "steps=0 must be at least 1, or 0"),
        (
            "steps: 0, init_from: RUN/x, retrieval: knn_classifier, batch_size: 8",
            "batch_size=8 has no effect with steps=0; leave it out",
        ),
    ],
)
def test_memories_that_no_arm_can_have_are_refused(arm: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        recipe(f"arms:\n  - {{name: one, {arm}}}\n")


def test_an_arm_without_a_memory_is_the_arm_of_before_and_one_without_training_has_no_control() -> None:
    plain = recipe(MINIMAL).arms[0]
    assert not {"retrieval", "retrieval_options"} & set(plain.settings())
    asks = recipe("arms:\n  - {name: one, retrieval: knn_classifier}\n")
    assert asks.arms[0].digest() != plain.digest()
    assert [(one.config.name, one.remembers) for one in asks.plan()] == [("one", True), ("one-random", False)]
    as_it_is = recipe("arms:\n  - {name: one, steps: 0, init_from: RUN/x, retrieval: knn_classifier}\n")
    assert [one.config.name for one in as_it_is.plan()] == ["one"]
    assert TrainRecipe.from_canonical(as_it_is.canonical()) == as_it_is


def test_the_recipe_of_the_page_on_retrieval_is_one() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "retrieval.md").read_text(encoding="utf-8")
    written = page.split("cat > remember.yaml <<END\n", 1)[1].split("    END\n", 1)[0]
    (planned,) = recipe(dedent(written)).plan()
    assert planned.remembers
    swapped = recipe("arms:\n  - {name: swapped" + page.split("{name: swapped", 1)[1].split("\n", 1)[0]).arms[0]
    assert (swapped.steps, swapped.retrieval_options) == (0, {"memory": "RUN/other"})


@pytest.mark.parametrize("name", ["../../etc", "/tmp/a", "a/b", "a\\b", ".a", "-a", "a b", "a\n", "", "x" * 65])
def test_a_name_that_no_folder_should_have_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=r"arm name .* must be 1 to 64 letters"):
        TrainRecipe.from_document({"arms": [{"name": name}]}, name="asked")


@pytest.mark.parametrize("name", ["small-moe", "v1.2_b", "작은모형", "हिन्दी"])
def test_names_in_any_script_are_taken(name: str) -> None:
    assert TrainRecipe.from_document({"arms": [{"name": name}]}, name="asked").arms[0].name == name


def test_a_stored_recipe_of_before_is_read_whatever_its_arms_are_called() -> None:
    stored = TrainRecipe.from_document({"arms": [{"name": "ab"}]}, name="asked").canonical()
    assert TrainRecipe.from_canonical(stored.replace('"ab"', '"a b"')).arms[0].name == "a b"


def test_a_right_key_in_the_wrong_place_is_told_its_own() -> None:
    with pytest.raises(ConfigError, match="unknown key 'steps'; it belongs to an arm: write it under 'arms'"):
        recipe(MINIMAL + "steps: 3\n")
    with pytest.raises(ConfigError, match="arm 1: unknown key 'compare'; it is a setting of the whole recipe"):
        recipe("arms:\n  - {name: one, compare: none}\n")


def test_a_rate_may_be_written_without_a_point() -> None:
    assert recipe("arms:\n  - {name: one, learning_rate: 1e-3, weight_decay: 5E-2}\n").arms[0].learning_rate == 0.001
