"""Laws of every cache of keys and values, and what each keeps."""

from typing import Any

import pytest
import torch

from catalog.errors import ConfigError
from training.caches import CACHES, KeyValueCache
from training.generation import generate
from training.model import ModelConfig, Transformer

NAMES = sorted(CACHES.load())
BASE: dict[str, Any] = {
    "vocab_size": 40, "num_classes": 0, "vocab_head": "tied", "dim": 32, "max_tokens": 64, "dropout": 0.0,
    "order": "causal",
}  # fmt: skip
KINDS: dict[str, dict[str, Any]] = {
    "learned": {},
    "rope": {"positions": "rope"},
    "alibi": {"positions": "alibi"},
    "relative": {"positions": "relative", "num_kv_heads": 2},
    "grouped": {"positions": "rope", "num_kv_heads": 1},
    "latent": {"positions": "rope", "kv_latent_dim": 12, "rope_head_dim": 4},
    "latent without rope": {"kv_latent_dim": 12},
    "shared": {"num_layers": 4, "num_own_layers": 2, "embedding_dim": 8, "embedding_norm": "layer"},
    "experts": {"feedforward": "moe_topk", "feedforward_options": {"num_experts": 4, "hidden": 16}},
    "prefix": {"order": "prefix", "positions": "rope"},
}


def network(**changed: Any) -> Transformer:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Transformer(ModelConfig(**(BASE | changed))).eval()
        for weight in model.parameters():  # larger than at the start, so that differences show
            torch.nn.init.normal_(weight, std=0.15)
    return model


def prompt(num_tokens: int = 9) -> torch.Tensor:
    return torch.randint(0, 40, (3, num_tokens), generator=torch.Generator().manual_seed(0))


def made(name: str, **options: Any) -> KeyValueCache:
    return CACHES[name].member(CACHES[name].configured(options))


def states(model: Transformer, ids: torch.Tensor, name: str, parts: list[int], **options: Any) -> torch.Tensor:
    caches = [made(name, **options) for _ in range(model.config.num_layers)]
    with torch.no_grad():
        return torch.cat([model.extend(part, caches) for part in ids.split(parts, 1)], 1)


def whole(model: Transformer, ids: torch.Tensor, num_prefix: int = 0) -> torch.Tensor:
    prefix = (torch.arange(ids.shape[1]) < num_prefix).expand_as(ids) if model.config.order == "prefix" else None
    with torch.no_grad():
        return model.hidden(ids, torch.ones_like(ids, dtype=torch.bool), prefix=prefix)


@pytest.mark.parametrize("kind", KINDS)
def test_a_full_cache_computes_what_the_whole_row_does(kind: str) -> None:
    model, ids = network(**KINDS[kind]), prompt(20)
    expected = whole(model, ids, 9)
    for parts in ([9, *[1] * 11], [9, 4, 7]):
        assert torch.allclose(states(model, ids, "full", parts), expected, atol=2e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_generation_with_a_cache_equals_generation_without(kind: str) -> None:
    model = network(**KINDS[kind])
    assert torch.equal(generate(model, prompt(), 12), generate(model, prompt(), 12, cache="none"))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", NAMES)
def test_every_cache_equals_the_full_one_while_nothing_is_dropped(name: str, kind: str) -> None:
    model, ids = network(**KINDS[kind]), prompt(20)
    exact = states(model, ids, "full", [9, 1, 10])
    error = (states(model, ids, name, [9, 1, 10]) - exact).norm() / exact.norm()
    assert error < (0.03 if name == "int8" else 1e-5)  # a code is 1/127 of the largest number of its token


@pytest.mark.parametrize("name", NAMES)
def test_tokens_come_alone_or_together(name: str) -> None:
    if name == "heavy_hitter":  # keeps what the prompt as a whole attends to
        return
    model, ids = network(positions="rope"), prompt(30)
    options = {"window": 6, "num_sinks": 2} if name == "window_sink" else {}
    single = states(model, ids, name, [1] * 30, **options)
    assert torch.allclose(states(model, ids, name, [17, 13], **options), single, atol=2e-5)


@pytest.mark.parametrize("positions", ["learned", "rope", "alibi", "relative"])
def test_window_and_sinks_continue_local_and_global_attention(positions: str) -> None:
    local = {"attention": "local_global", "attention_options": {"window": 6, "num_global_tokens": 2}}
    model, ids = network(positions=positions, **local), prompt(40)
    got = states(model, ids, "window_sink", [9, *[1] * 31], window=6, num_sinks=2)
    assert torch.allclose(got, whole(model, ids), atol=2e-5)
    wide = states(model, ids, "window_sink", [40], window=6, num_sinks=2)
    assert torch.allclose(wide, whole(model, ids), atol=2e-5)
    with pytest.raises(ValueError, match="attention='local_global' cannot be continued from this cache"):
        states(model, ids, "window_sink", [40], window=7, num_sinks=2)


def test_a_window_keeps_its_tokens_and_the_sinks() -> None:
    model, ids = network(), prompt(40)
    cache = made("window_sink", window=6, num_sinks=2)
    with torch.no_grad():
        for token in ids.split(1, 1):
            model.extend(token, [cache, made("full")])
            cache_size = cache.num_bytes
    assert cache.kept_K.tolist() == [0, 1, 34, 35, 36, 37, 38, 39]  # type: ignore[attr-defined]
    assert cache_size == 8 * 2 * 3 * 32 * 4  # tokens, keys and values, records, width, bytes


def test_numbering_by_the_cache_never_runs_out_of_positions() -> None:
    model = network(positions="rope", max_tokens=16)
    options = {"window": 6, "num_sinks": 2}
    with pytest.raises(ValueError, match="17 tokens exceed max_tokens=16"):
        generate(model, prompt(), 50, cache="window_sink", cache_options=options)
    longer = generate(model, prompt(), 50, cache="window_sink", cache_options=options | {"numbering": "cache"})
    assert longer.shape == (3, 59)
    # What it computes late is what a row of the same tokens at positions from 0 would, in the first layer.
    with pytest.raises(ValueError, match="exceed max_tokens=16"):
        generate(
            network(max_tokens=16), prompt(), 50, cache="window_sink", cache_options=options | {"numbering": "cache"}
        )


def test_renumbered_positions_are_those_of_the_row_that_is_left() -> None:
    model, ids = network(positions="rope", num_layers=1), prompt(30)
    options = {"window": 6, "num_sinks": 2, "numbering": "cache"}
    late = states(model, ids, "window_sink", [9, *[1] * 21], **options)[:, -1]
    left = torch.cat([ids[:, :2], ids[:, -7:]], 1)
    assert torch.allclose(late, whole(model, left)[:, -1], atol=2e-5)


def test_the_heaviest_tokens_stay_and_the_light_ones_go() -> None:
    cache = made("heavy_hitter", num_recent=2, num_heavy=2)
    stored = torch.arange(6.0).view(1, 1, 6, 1), torch.arange(6.0).view(1, 1, 6, 1)
    cache.extend(stored, sees_ahead=False)
    # Two query heads share the keys: their weights add up. Token 1 is the heaviest, token 3 the next.
    weights = torch.zeros(1, 2, 6, 6)
    weights[0, 0, :, 1], weights[0, 1, :, 3], weights[0, 1, :, 0] = 0.9, 0.5, 0.4
    cache.observe(weights)
    assert cache.stored[0].flatten().tolist() == [1, 3, 4, 5]  # type: ignore[attr-defined]
    kept = cache.extend((torch.full((1, 1, 1, 1), 6.0), torch.full((1, 1, 1, 1), 6.0)), sees_ahead=False)
    assert kept.key_position.flatten().tolist() == [1, 3, 4, 5, 6]
    assert kept.query_position.tolist() == [[6]]
    weights = torch.zeros(1, 2, 1, 5)
    weights[..., 2] = 9.0  # token 4 becomes heavy as it leaves the recent ones
    cache.observe(weights)
    assert cache.stored[0].flatten().tolist() == [1, 4, 5, 6]  # type: ignore[attr-defined]


def test_a_needle_survives_where_a_window_loses_it() -> None:
    # One token of the prompt is attended to by all; recent ones alone miss it.
    generator = torch.Generator().manual_seed(0)
    keys, values = torch.randn(2, 1, 1, 40, 8, generator=generator)
    keys[0, 0, 5] = 3.0
    queries = torch.ones(1, 1, 40, 8)
    from training.caches import attend_to_kept

    late = {}
    kept_six = {
        "full": {},
        "heavy_hitter": {"num_recent": 4, "num_heavy": 2},
        "window_sink": {"num_sinks": 0, "window": 5},
    }
    for name, options in kept_six.items():
        cache = made(name, **options)
        for token in range(40):
            kept = cache.extend((keys[:, :, token, None], values[:, :, token, None]), sees_ahead=False)
            out, weights = attend_to_kept(queries[:, :, token, None], *kept.stored, kept, None, with_weights=True)
            assert weights is not None
            if cache.needs_weights:
                cache.observe(weights)
        late[name] = out
    assert (late["heavy_hitter"] - late["full"]).abs().max() < 0.05
    assert (late["window_sink"] - late["full"]).abs().max() > 0.3


def test_int8_keeps_a_quarter_and_two_bytes_a_token_and_kind() -> None:
    model, ids = network(), prompt(20)
    sizes = {}
    for name in ("full", "int8"):
        caches = [made(name) for _ in range(2)]
        model.extend(ids, caches)
        sizes[name] = caches[0].num_bytes
    assert sizes["full"] == 2 * 3 * 4 * 20 * 8 * 4
    assert sizes["int8"] == 2 * 3 * 4 * 20 * (8 + 2)


def test_a_latent_cache_keeps_the_latent_vector_alone() -> None:
    model = network(**KINDS["latent"])
    caches = [made("full") for _ in range(2)]
    model.extend(prompt(20), caches)
    assert caches[0].num_bytes == 3 * 20 * (12 + 4) * 4


def test_draws_follow_the_temperature_and_the_generator() -> None:
    model = network()
    one, other, again = (
        generate(model, prompt(), 10, temperature=1.0, generator=torch.Generator().manual_seed(seed))
        for seed in (1, 2, 1)
    )
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    cold = generate(model, prompt(), 10, temperature=1.0, top_k=1, generator=torch.Generator().manual_seed(1))
    assert torch.equal(cold, generate(model, prompt(), 10))


@pytest.mark.parametrize(
    ("changed", "given", "message"),
    [
        ({"order": "encoder"}, {}, "order='encoder' sees later tokens"),
        ({"order": "encoder"}, {"cache": "none"}, "order='encoder' cannot continue a text"),
        ({"attention": "lsh"}, {}, "attention='lsh' cannot be continued from this cache; generate without one"),
        ({}, {"num_new_tokens": 60}, "65 tokens exceed max_tokens=64"),
        ({}, {"num_new_tokens": 0}, "num_new_tokens=0 .* must be at least 1"),
        ({}, {"temperature": -1.0}, "temperature=-1.0"),
        ({}, {"top_k": 3}, "top_k=3 has no effect with temperature=0"),
        ({"vocab_head": "none", "num_classes": 2}, {}, "vocab_head='none'"),
    ],
)
def test_what_cannot_be_generated_is_refused(changed: dict[str, Any], given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        generate(network(**changed), prompt(), **({"num_new_tokens": 3} | given))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("window_sink", {"window": 0}, "window=0 must be at least 1"),
        ("window_sink", {"num_sinks": -1}, "num_sinks=-1 must be 0 or more"),
        ("window_sink", {"numbering": "txt"}, "numbering='txt' must be one of text, cache"),
        ("heavy_hitter", {"num_heavy": 0}, "num_heavy=0 must be at least 1"),
        ("int8", {"bits": 4}, "unknown option 'bits'"),
    ],
)
def test_options_out_of_range_are_refused(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        CACHES[name].configured(options)


@pytest.mark.parametrize("kind", ["rope", "alibi", "relative", "latent"])
def test_segments_with_a_long_memory_equal_the_whole_row(kind: str) -> None:
    model, ids = network(**KINDS[kind]), prompt(30)
    memory, parts = None, []
    for part in ids.split(10, 1):
        hidden, memory = model.segment(part, memory, 30)
        parts.append(hidden)
    assert torch.allclose(torch.cat(parts, 1), whole(model, ids), atol=2e-5)
    assert [len(one[0]) for one in memory or []] == [30, 30]


def test_a_memory_is_cut_to_its_size_and_reaches_further_than_a_segment() -> None:
    model, ids = network(positions="rope"), prompt(30)
    changed = ids.clone()
    changed[:, 3] = (changed[:, 3] + 1) % 40
    last = []
    for row in (ids, changed):
        memory = None
        for part in row.split(10, 1):
            hidden, memory = model.segment(part, memory, 10)
        last.append(hidden)
        assert memory is not None
        assert memory[0].shape == (3, 10, 32)
    # Two layers with memories of 10 see back 20 tokens: from 20 to before the third token's segment.
    assert not torch.allclose(*last, atol=1e-4)


def test_no_gradient_flows_into_a_memory_but_weights_learn_through_it() -> None:
    model, ids = network(positions="rope"), prompt(20)
    _, memory = model.segment(ids[:, :10], None, 10)
    assert all(not one.requires_grad for one in memory)
    hidden, _ = model.segment(ids[:, 10:], memory, 10)
    hidden.square().mean().backward()
    assert model.blocks[0].attention.query_key_value.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("changed", [{"order": "prefix"}, {"attention": "linear"}, {"positions": "learned"}])
def test_recurrence_is_refused_where_it_does_not_hold(changed: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="recurrence needs causal order, full attention and relative positions"):
        network(**({"positions": "none"} | changed)).segment(prompt(), None, 4)
