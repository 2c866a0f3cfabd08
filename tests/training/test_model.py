"""The Transformer ignores padding, refuses what it cannot do, and learns."""

import dataclasses
import re

import pytest
import torch

from catalog.errors import ConfigError, NotFoundError
from training.model import ModelConfig, Transformer

CONFIG = ModelConfig(vocab_size=50, num_classes=3, dim=32, max_tokens=12, dropout=0.0)


def model(**changed: object) -> Transformer:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Transformer(dataclasses.replace(CONFIG, **changed)).eval()


def batch(lengths: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.randint(0, 50, (len(lengths), 12), generator=torch.Generator().manual_seed(0))
    return ids, torch.arange(12) < torch.tensor(lengths)[:, None]


@pytest.mark.parametrize("feedforward", ["dense", "moe_topk"])
@pytest.mark.parametrize("order", ["encoder", "causal"])
def test_logits_do_not_depend_on_padding_or_neighbours(order: str, feedforward: str) -> None:
    network = model(order=order, feedforward=feedforward)
    ids, attends = batch([3, 12, 7])
    together = network(ids, attends)
    for row, length in enumerate((3, 12, 7)):
        alone = network(ids[row : row + 1, :length], attends[row : row + 1, :length])
        assert torch.allclose(together[row], alone[0], atol=1e-5)
    noise = ids.clone()
    noise[~attends] = 7
    assert torch.equal(network(noise, attends), together)


def test_causal_and_encoder_differ() -> None:
    assert not torch.allclose(model(order="causal")(*batch([12])), model(order="encoder")(*batch([12])))


def test_longer_input_than_positions_is_refused() -> None:
    ids = torch.zeros(1, 13, dtype=torch.int64)
    with pytest.raises(ValueError, match="13 tokens exceed max_tokens=12"):
        model()(ids, ids == 0)


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"num_heads": 5}, ValueError, "dim=32 must be a multiple of num_heads=5"),
        ({"order": "perfix"}, ValueError, "order='perfix' must be one of encoder, causal, prefix"),
        (
            {"order": "causal", "attention": "linformer"},
            ValueError,
            "attention='linformer' cannot keep to order='causal', only to encoder; choose",
        ),
        (
            {"attention": "linear", "positions": "alibi"},
            ValueError,
            "positions='alibi' does not hold for attention='linear'; choose one of learned, none, sinusoidal, or",
        ),
        ({"positions": "rope", "dim": 12}, ValueError, r"head dim 3 \(dim / num_heads\) must be even for rope"),
        ({"positions": "ropes"}, NotFoundError, "did you mean 'rope'"),
        ({"num_layers": 0}, ValueError, "num_layers=0 must be at least 1"),
        ({"num_classes": -1}, ValueError, "num_classes=-1 must be 0 or more"),
        ({"num_classes": 0}, ValueError, "num_classes=0 with vocab_head='none' leaves no output"),
        ({"vocab_head": "tide"}, ValueError, "vocab_head='tide' must be one of none, tied, own"),
        ({"embedding_dim": 32}, ValueError, r"embedding_dim=32 must lie in \[0, dim=32\)"),
        ({"embedding_norm": "rms"}, ValueError, "embedding_norm='rms' must be one of none, layer"),
        ({"num_own_layers": 2}, ValueError, "num_own_layers=2 must divide num_layers=2 and be less"),
        ({"num_layers": 4, "num_own_layers": 3}, ValueError, "num_own_layers=3 must divide num_layers=4"),
        ({"num_kv_heads": 3}, ValueError, "num_kv_heads=3 must divide num_heads=4"),
        ({"num_kv_heads": 2, "kv_latent_dim": 8}, ValueError, "num_kv_heads=2 has no effect with kv_latent_dim=8"),
        ({"positions": "rope", "kv_latent_dim": 8}, ValueError, "rope_head_dim=0 must be at least 2 for positions"),
        ({"rope_head_dim": 4}, ValueError, "rope_head_dim=4 has no effect without kv_latent_dim"),
        ({"kv_latent_dim": 8, "rope_head_dim": 4}, ValueError, "rope_head_dim=4 has no effect without kv_latent_dim"),
        ({"exit_layers": (2,)}, ValueError, r"exit_layers=\(2,\) must rise and lie in \[1, 1\]"),
        ({"num_layers": 4, "exit_layers": (2, 1)}, ValueError, "must rise"),
        ({"num_classes": 0, "vocab_head": "own", "exit_layers": (1,)}, ValueError, "no effect with num_classes=0"),
        ({"dropout": 1.0}, ValueError, "dropout=1.0"),
        ({"attention": "ful"}, NotFoundError, "did you mean 'full'"),
        ({"feedforward_options": {"hiden": 3}}, ConfigError, "did you mean 'hidden'"),
    ],
)
def test_impossible_configs_are_refused(changed: dict[str, object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        model(**changed)


def states(network: Transformer, ids: torch.Tensor, **more: torch.Tensor) -> torch.Tensor:
    return network.hidden(ids, torch.ones_like(ids, dtype=torch.bool), **more)


VARIANTS: dict[str, dict[str, object]] = {
    "factorised": {"embedding_dim": 8},
    "normalised": {"embedding_norm": "layer", "embedding_dim": 8},
    "tied": {"vocab_head": "tied"},
    "tied and factorised": {"vocab_head": "tied", "embedding_dim": 8},
    "own head": {"vocab_head": "own"},
    "shared layers": {"num_layers": 4, "num_own_layers": 2},
    "grouped queries": {"num_kv_heads": 2},
    "multi-query": {"num_kv_heads": 1},
    "latent": {"kv_latent_dim": 12},
    "latent with rope": {"kv_latent_dim": 12, "positions": "rope", "rope_head_dim": 4},
    "exits": {"num_layers": 3, "exit_layers": (1, 2)},
}


@pytest.mark.parametrize("order", ["encoder", "causal", "prefix"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_variants_ignore_padding_and_train_every_weight(variant: str, order: str) -> None:
    network = model(order=order, **VARIANTS[variant])
    ids, attends = batch([3, 12, 7])
    prefix = (torch.arange(12) < 2).expand_as(ids) if order == "prefix" else None
    together = network(ids, attends, prefix)
    for row, length in enumerate((3, 12, 7)):
        cut = None if prefix is None else prefix[row : row + 1, :length]
        alone = network(ids[row : row + 1, :length], attends[row : row + 1, :length], cut)
        assert torch.allclose(together[row], alone[0], atol=1e-5)
    loss = sum(one.square().sum() for one in network.exit_logits(ids, attends, prefix))
    if network.config.vocab_head != "none":
        loss = loss + network.token_logits(network.hidden(ids, attends, prefix=prefix)).square().mean()
    assert isinstance(loss, torch.Tensor)
    loss.backward()
    for name, weight in network.named_parameters():
        assert weight.grad is not None, name
        assert weight.grad.abs().sum() > 0 or name.endswith("query_key_value.bias"), name


def count(**changed: object) -> int:
    return sum(one.numel() for one in model(**changed).parameters())


def test_sharing_saves_the_parameters_that_it_says() -> None:
    block = sum(one.numel() for one in model().blocks[0].parameters())
    assert count(num_layers=4) - count(num_layers=4, num_own_layers=2) == 2 * block
    assert count() - count(embedding_dim=8) == 50 * (32 - 8) - 8 * 32
    assert count(vocab_head="own") - count(vocab_head="tied") == 50 * 32
    assert count() - count(num_kv_heads=1) == 2 * 2 * 3 * 8 * (32 + 1)  # layers, keys and values, heads
    assert count(num_kv_heads=1) < count(kv_latent_dim=8) < count()


def test_normalised_embeddings_enter_the_first_block_at_its_own_scale() -> None:
    ids, places = batch([12])[0], torch.arange(12)[None]
    plain, normalised = (model(embedding_norm=one).embedded(ids, places) for one in ("none", "layer"))
    assert plain.std() < 0.05
    assert torch.allclose(normalised, torch.nn.functional.layer_norm(plain, (32,)), atol=1e-6)


def test_shared_layers_run_in_groups_one_after_the_other() -> None:
    shared = model(num_layers=4, num_own_layers=2)
    unshared = model(num_layers=4)
    weights = shared.state_dict()
    spread = {
        name: weights[re.sub(r"^blocks\.(\d)", lambda found: f"blocks.{int(found[1]) // 2}", name)]
        for name in unshared.state_dict()
    }
    unshared.load_state_dict(spread)
    assert torch.equal(shared(*batch([3, 12, 7])), unshared(*batch([3, 12, 7])))


def test_grouped_queries_equal_repeated_key_value_heads() -> None:
    grouped, plain = model(num_kv_heads=2), model()
    weights = grouped.state_dict()
    for name in list(weights):
        if "query_key_value" in name:
            q, k, v = weights[name].split([32, 16, 16])
            k, v = (x.unflatten(0, (2, 8)).repeat_interleave(2, 0).flatten(0, 1) for x in (k, v))
            weights[name] = torch.cat([q, k, v])
    plain.load_state_dict(weights)
    assert torch.allclose(grouped(*batch([3, 12, 7])), plain(*batch([3, 12, 7])), atol=1e-6)


def test_tied_logits_are_products_with_the_embedding() -> None:
    network = model(vocab_head="tied", num_classes=0)
    hidden = states(network, batch([12])[0])
    assert torch.equal(network.token_logits(hidden), hidden @ network.tokens.weight.T + network.vocab_bias)
    with pytest.raises(ValueError, match="num_classes=0: the model has no classification head; use token_logits"):
        network(*batch([12]))
    with pytest.raises(ValueError, match="vocab_head='none': the model has no head over tokens"):
        model().token_logits(hidden)


def test_exits_stand_behind_their_layers_and_the_last_one_is_the_head() -> None:
    network = model(num_layers=3, exit_layers=(1,))
    first, last = network.exit_logits(*batch([3, 12, 7]))
    assert torch.equal(last, network(*batch([3, 12, 7])))
    shallow = model(num_layers=1)
    weights = {name: one for name, one in network.state_dict().items() if name in shallow.state_dict()}
    norm, head = network.exits["1"].state_dict(), {"0": "norm", "1": "head"}
    weights |= {f"{head[name[0]]}{name[1:]}": one for name, one in norm.items()}
    shallow.load_state_dict(weights)
    assert torch.allclose(first, shallow(*batch([3, 12, 7])), atol=1e-6)


def test_an_exit_that_is_taken_saves_the_layers_behind_it() -> None:
    network = model(num_layers=3, exit_layers=(1,))
    run: list[int] = []
    for number, block in enumerate(network.blocks):
        block.register_forward_hook(lambda *_, number=number: run.append(number))
    next(network.exit_logits(*batch([12])))
    assert run == [0]


OLD_LOGITS = {
    "encoder": [[-0.136406, 0.269827, 0.543891], [-0.135906, 0.268997, 0.542151], [-0.13575, 0.268674, 0.541511]],
    "causal": [[-0.136407, 0.269818, 0.543878], [-0.135941, 0.269205, 0.542498], [-0.135764, 0.268769, 0.541668]],
}
"""Of the code before attention, positions and sharing could be chosen, with the weights below."""


@pytest.mark.parametrize("order", OLD_LOGITS)
def test_weights_of_before_these_options_load_and_give_the_same(order: str) -> None:
    network = model(order=order)
    parts = ("attention_norm", "attention.query_key_value", "attention.output", "feedforward_norm", "feedforward.0")
    names = {f"blocks.{layer}.{part}" for layer in (0, 1) for part in (*parts, "feedforward.2")} | {"norm", "head"}
    old = {"tokens.weight", "positions.weight"} | {f"{name}.{kind}" for name in names for kind in ("weight", "bias")}
    assert set(network.state_dict()) == old
    network.load_state_dict(
        {
            name: 0.2 * (torch.arange(one.numel()) * 0.37 + len(name)).sin().view_as(one)
            for name, one in network.state_dict().items()
        }
    )
    ids = (torch.arange(36) * 7 % 50).view(3, 12)
    assert torch.allclose(network(ids, batch([3, 12, 7])[1]), torch.tensor(OLD_LOGITS[order]), atol=1e-5)
