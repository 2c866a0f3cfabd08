"""A pre-trained model is kept, measured, and started from."""

import dataclasses
import json
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch

from catalog.errors import ConfigError, ConflictError, CorruptionError, NotFoundError
from tests.training.objectives import Bench, arm_of, data_of
from training.arm import ArmConfig
from training.evaluation.held_out import held_out_loss, paired_loss_difference
from training.export import load_folder, load_model, save_model, write_model
from training.fit import FitResult, fit
from training.initial import Initial, check_same, take_over
from training.network import build_network
from training.objectives import Corpus, Records, objective_of
from training.recipe import load_recipe
from training.tokenizer import TextTokenizer


@pytest.fixture(scope="module")
def pretrained() -> FitResult:
    torch.set_num_threads(1)
    return fit(arm_of("rtd"), data_of("rtd"))


def initial(result: FitResult) -> Initial:
    return Initial(dict(result.model.state_dict()), result.tokenizer)


def test_a_generator_is_kept_beside_the_model_and_only_needed_for_the_loss(
    pretrained: FitResult, tmp_path: Path
) -> None:
    folder = save_model(pretrained, tmp_path / "model")
    saved = load_model(folder)
    assert saved.network is not saved.model
    data = data_of("rtd")
    kept = held_out_loss(saved.network, saved.model, saved.tokenizer, saved.arm, data)
    assert pretrained.network is not None
    before = held_out_loss(pretrained.network, pretrained.model, pretrained.tokenizer, pretrained.arm, data)
    assert kept["terms"] == before["terms"]
    assert "rtd" in (folder / "README.md").read_text()
    (folder / "objective.safetensors").unlink()
    with pytest.raises(CorruptionError, match="cannot be read"):
        load_model(folder)
    plain = fit(arm_of("mlm", steps=1), data_of("mlm"))
    assert not (save_model(plain, tmp_path / "plain") / "objective.safetensors").exists()
    again = load_model(tmp_path / "plain")
    assert again.network is again.model


def test_a_held_out_loss_is_the_mean_over_all_targets_whatever_the_batches() -> None:
    data, arm = data_of("mlm"), arm_of("mlm")
    bench = Bench(arm, data)
    model = cast("Any", bench.network)
    found = held_out_loss(model, model, bench.tokenizer, arm, data)
    corpus = Corpus(data=data, tokenizer=bench.tokenizer, max_tokens=64, packed=False, seed=0, total_steps=1)
    sums, counts = 0.0, 0
    for row in range(16):
        ids = bench.tokenizer.token_ids([data.texts[row]], 64)
        batch = bench.objective.batch(Records(corpus=corpus, step=0, rows=[row], ids=ids))
        sums += bench.losses(batch).sums[0].item()
        counts += batch.counts[0]
    assert found["num_targets"] == [counts]
    assert found["loss"] == pytest.approx(sums / counts, rel=1e-5)
    assert found["perplexity"] == pytest.approx(np.exp(sums / counts), rel=1e-5)
    assert np.isnan(found["losses"]).tolist() == [not data.texts[row] for row in range(16)]


def test_a_paired_difference_has_the_sign_of_what_was_saved() -> None:
    rng = np.random.default_rng(0)
    reference = rng.normal(3, 1, 200)
    losses = reference - 0.1 + rng.normal(0, 0.1, 200)
    losses[3] = np.nan
    mean, low, high = paired_loss_difference(losses, reference, np.random.default_rng(1))
    assert low < mean < high
    assert mean == pytest.approx(0.1, abs=0.02)
    assert low > 0
    # The interval of a mean of 199 with deviation 0.1.
    assert high - low == pytest.approx(2 * 1.96 * 0.1 / np.sqrt(199), rel=0.2)
    assert paired_loss_difference(np.full(2, np.nan), reference[:2], rng) == (0.0, 0.0, 0.0)


def test_a_classifier_starts_from_the_encoder_and_its_vocabulary(pretrained: FitResult) -> None:
    arm = arm_of("classification", init_from="run/rtd", steps=1, learning_rate=1e-9)
    tuned = fit(arm, data_of("classification"), initial=initial(pretrained))
    assert tuned.tokenizer.document == pretrained.tokenizer.document
    theirs, mine = pretrained.model.state_dict(), tuned.model.state_dict()
    assert mine.keys() - theirs.keys() == {"head.weight", "head.bias"}
    assert all(torch.allclose(theirs[name], one, atol=1e-7) for name, one in mine.items() if name in theirs)
    fresh = fit(arm_of("classification", steps=1, learning_rate=1e-9), data_of("classification"))
    assert not torch.allclose(
        fresh.model.state_dict()["blocks.0.attention.output.weight"], mine["blocks.0.attention.output.weight"]
    )


def test_special_tokens_are_added_behind_a_vocabulary_that_lacks_them(pretrained: FitResult) -> None:
    arm = arm_of("span_denoising", init_from="run/rtd", steps=1, learning_rate=1e-9)
    tuned = fit(arm, data_of("span_denoising"), initial=initial(pretrained))
    size = pretrained.tokenizer.vocab_size
    assert tuned.tokenizer.vocab_size == size + 5
    there, here = pretrained.model.state_dict()["tokens.weight"], tuned.model.state_dict()["tokens.weight"]
    assert torch.allclose(here[:size], there, atol=1e-7)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"max_tokens": 32}, r"positions.weight is of shape \(32, 16\) in this arm and of shape \(64, 16\)"),
        ({"dim": 32}, r"tokens.weight is of shape \(\d+, 32\) in this arm"),
        ({"num_layers": 3}, "blocks.2.* not there in the trained"),
        ({"num_layers": 1}, r"weight blocks.1.* \(and \d+ more\) of the trained model has no place in this arm"),
    ],
)
def test_a_model_of_another_shape_is_refused(pretrained: FitResult, change: dict[str, int], message: str) -> None:
    arm = arm_of("classification", init_from="run/rtd")
    if "max_tokens" in change:
        arm = dataclasses.replace(arm, max_tokens=32)
    else:
        arm = dataclasses.replace(arm, backbone_options=arm.backbone_options | change)
    with pytest.raises(ConfigError, match=message):
        fit(arm, data_of("classification"), initial=initial(pretrained))


def test_weights_and_where_they_are_from_go_together(pretrained: FitResult) -> None:
    for arm, given in (
        (arm_of("classification"), initial(pretrained)),
        (arm_of("classification", init_from="run/rtd"), None),
    ):
        with pytest.raises(ConfigError, match="do not go together"):
            fit(arm, data_of("classification"), initial=given)


def test_a_head_of_another_shape_is_drawn_and_one_alike_taken_over() -> None:
    model, other = torch.nn.Module(), torch.nn.Module()
    model.head, other.head = torch.nn.Linear(3, 2), torch.nn.Linear(3, 4)
    before = model.head.weight.clone()
    take_over(model, dict(other.state_dict()))
    assert torch.equal(model.head.weight, before)
    other.head = torch.nn.Linear(3, 2)
    take_over(model, dict(other.state_dict()))
    assert torch.equal(model.head.weight, other.head.weight)


def test_old_digests_do_not_know_the_new_settings() -> None:
    arm = ArmConfig(name="old")
    assert {"objective_options", "init_from"} & set(arm.settings()) == set()
    assert dataclasses.replace(arm, init_from="a/b").digest() != arm.digest()
    assert dataclasses.replace(arm, objective_options={"masking": "span"}).digest() != arm.digest()


def test_a_tokenizer_with_special_tokens_reads_texts_that_spell_them(pretrained: FitResult) -> None:
    tokenizer: TextTokenizer = pretrained.tokenizer
    ids = tokenizer.token_ids(["say [MASK] and [PAD]"], 64)[0]
    assert tokenizer.token_id("[MASK]") not in ids
    assert tokenizer.decode(ids) == "say [MASK] and [PAD]"
    assert tokenizer.with_special(["[MASK]"]) is tokenizer


def test_a_folder_of_a_model_or_of_checkpoints_is_read_as_what_was_trained(tmp_path: Path) -> None:
    arm = arm_of("mixture", ema_decay=0.5, checkpoint_every=2)
    result = fit(arm, data_of("mixture"), checkpoint_dir=tmp_path / "checkpoints")
    trained = result.model.state_dict()
    save_model(result, tmp_path / "model")
    for folder in ("model", "checkpoints", "checkpoints/step-00000004"):
        saved = load_folder(tmp_path / folder)
        assert saved.arm == arm
        assert saved.tokenizer.document == result.tokenizer.document
        assert saved.model.state_dict().keys() == trained.keys()
        assert all(torch.equal(one, trained[name]) for name, one in saved.model.state_dict().items())
    before = load_folder(tmp_path / "checkpoints" / "step-00000002").model.state_dict()
    assert not torch.equal(before["tokens.weight"], trained["tokens.weight"])
    (tmp_path / "again").mkdir()
    write_model(load_folder(tmp_path / "checkpoints"), tmp_path / "again")
    assert all(
        torch.equal(one, trained[name]) for name, one in load_model(tmp_path / "again").model.state_dict().items()
    )


def test_folders_that_nothing_can_start_from_are_refused(tmp_path: Path) -> None:
    fit(arm_of("mlm", steps=2), data_of("mlm"), checkpoint_dir=tmp_path / "checkpoints")
    checkpoint = tmp_path / "checkpoints" / "step-00000002"
    with pytest.raises(NotFoundError, match=r"no model in .*nothing; name a folder with model.safetensors"):
        load_folder(tmp_path / "nothing")
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ConfigError, match="was not written by Winnow"):
        load_folder(foreign)
    state = json.loads((checkpoint / "state.json").read_text())
    older = dict(state, sha256={name: one for name, one in state["sha256"].items() if name != "config.json"})
    (checkpoint / "state.json").write_text(json.dumps(older))
    config = (checkpoint / "config.json").read_text()
    (checkpoint / "config.json").unlink()
    with pytest.raises(ConflictError, match="step-00000002 does not say what model it is of"):
        load_folder(tmp_path / "checkpoints")
    (checkpoint / "config.json").write_text(config + " ")
    (checkpoint / "state.json").write_text(json.dumps(state))
    with pytest.raises(CorruptionError, match=r"step-00000002 is damaged \(config.json\)"):
        load_folder(checkpoint)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_heads": 2}, "num_heads=2 of arm 'classification' must be 4, as that model was trained with; set it so"),
        ({"positions": "rope"}, "positions='rope' of arm 'classification' must be 'learned'"),
        ({"num_own_layers": 1}, "num_own_layers=1 .* must be 0"),
    ],
)
def test_a_config_under_which_weights_mean_something_else_is_refused(
    pretrained: FitResult, change: dict[str, Any], message: str
) -> None:
    arm = arm_of("classification", init_from="run/rtd", steps=1)
    given = Initial(dict(pretrained.model.state_dict()), pretrained.tokenizer, pretrained.arm)
    with pytest.raises(ConfigError, match=f"init_from='run/rtd': {message}"):
        fit(
            dataclasses.replace(arm, backbone_options=arm.backbone_options | change),
            data_of("classification"),
            initial=given,
        )
    with pytest.raises(ConfigError, match=r"backbone=.minilm-lora. of arm .* must be .small."):
        check_same(dataclasses.replace(arm, backbone="minilm-lora", backbone_options={}), pretrained.arm)
    free = {"dropout": 0.3, "attention": "local_global", "exit_layers": [1], "vocab_size": 999}
    assert fit(
        dataclasses.replace(arm, backbone_options=arm.backbone_options | free), data_of("classification"), initial=given
    ).finished


def test_folders_of_a_recipe_are_seen_from_its_file(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "recipe.yaml"
    path.parent.mkdir()
    path.write_text("arms: [{name: one, init_from: ../models/one}, {name: two, init_from: RUN/one}]")
    assert [arm.init_from for arm in load_recipe(str(path)).arms] == [str(tmp_path / "models" / "one"), "RUN/one"]


def test_experts_start_as_the_dense_layer_of_the_trained_model_and_compute_the_same(pretrained: FitResult) -> None:
    arm = arm_of("mlm", init_from="run/rtd", steps=1)
    experts = {"num_experts": 4, "top_k": 2, "hidden": 16, "biases": "own"}
    options = arm.backbone_options | {"feedforward": "moe_topk", "feedforward_options": experts}
    given = Initial(dict(pretrained.model.state_dict()), pretrained.tokenizer, pretrained.arm)
    objective, data = objective_of(arm), data_of("mlm")
    sparse = dataclasses.replace(arm, backbone_options=options)
    (words, dense), (_, model) = (build_network(one, data, None, objective, given) for one in (arm, sparse))
    encoded = words.encode(list(data.texts), 64)
    with torch.inference_mode():
        states = dense.eval().hidden(*encoded)
        assert states.std() > 0.1
        assert (model.eval().hidden(*encoded) - states).abs().max() < 1e-5
    assert fit(sparse, data, initial=given).finished
    for change, message in (
        ({"hidden": 256}, "hidden=256 of moe_topk must be 16, since each expert starts as the dense layer"),
        ({"biases": "none"}, "biases='none' of moe_topk must be 'own'"),
    ):
        options = options | {"feedforward_options": experts | change}
        with pytest.raises(ConfigError, match=f"init_from='run/rtd' of arm 'mlm': {message}"):
            check_same(dataclasses.replace(arm, backbone_options=options), pretrained.arm)
    with pytest.raises(ConfigError, match=r"feedforward='dense' of arm 'mlm' must be 'moe_topk'"):
        check_same(arm, sparse)
