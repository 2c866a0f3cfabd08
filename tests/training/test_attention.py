"""Each attention equals a dense mask of its pattern, forward and backward, and never makes one."""

import math
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from catalog.errors import ConfigError
from training.attention import ATTENTION, AttentionMask, AttentionShape, Order
from training.attention.flex_backend import BLOCK, order_links, rule_of, window_links, window_rule
from training.model import ModelConfig, Transformer
from training.positions import POSITIONS, PositionShape

TOLERANCE = 1e-5
SHAPE = AttentionShape(num_heads=4, num_kv_heads=2, head_dim=8, max_tokens=200)
OPTIONS: dict[str, dict[str, Any]] = {
    "full": {},
    "block_sparse": {"block_size": 8, "num_random_blocks": 2},
    "linear": {"chunk_size": 16},
    "local_global": {"window": 5, "num_global_tokens": 3},
    "lsh": {"num_buckets": 4, "window": 6},
}
ORDERS: tuple[Order, ...] = ("encoder", "causal", "prefix")


def member(name: str, **options: object) -> Any:
    return ATTENTION[name].member(SHAPE, ATTENTION[name].configured(OPTIONS[name] | options))


def heads(num_tokens: int, num_records: int = 3) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(num_records, count, num_tokens, 8, generator=generator) for count in (4, 2, 2)]


def rule(order: Order, num_tokens: int, *, packed: bool, bias: Any = None) -> AttentionMask:
    """Rows that are whole, half padding, and one token; packed ones hold documents of 1, 29 and more tokens."""
    place = torch.arange(num_tokens)
    documents = None
    if packed:
        documents = (place >= 1).long() * 5 + (place >= 30).long() * 2 + (place >= num_tokens - 11).long()
        documents = documents.repeat(3, 1)
    return AttentionMask(
        attends_BT=place < torch.tensor([num_tokens, num_tokens // 2, 1])[:, None],
        order=order,
        documents_BT=documents,
        prefix_BT=(place % 30 < torch.tensor([[9], [4], [0]])) if order == "prefix" else None,
        bias=bias,
    )


def pairs(mask: AttentionMask) -> Tensor:
    """What order, padding and documents allow, (B, 1, T, T), pair by pair."""
    place = torch.arange(mask.attends_BT.shape[1])
    allowed = mask.attends_BT[:, None, :] & torch.ones(len(place), 1, dtype=torch.bool)
    if mask.order != "encoder":
        before = (place[:, None] >= place)[None]
        allowed = allowed & (before if mask.prefix_BT is None else before | mask.prefix_BT[:, None, :])
    if mask.documents_BT is not None:
        allowed = allowed & (mask.documents_BT[:, :, None] == mask.documents_BT[:, None, :])
    return allowed[:, None]


def pattern(name: str, layer: Any, q: Tensor, k: Tensor, mask: AttentionMask) -> Tensor:
    """Pairs that the member's own pattern allows, (B or 1, H or 1, T, T)."""
    num_tokens = q.shape[2]
    place = torch.arange(num_tokens)
    if name == "local_global":
        first = torch.zeros_like(mask.attends_BT)
        for record in range(len(first)):
            seen: dict[int, int] = {}
            for token in range(num_tokens):
                document = 0 if mask.documents_BT is None else int(mask.documents_BT[record, token])
                if mask.attends_BT[record, token] and seen.get(document, 0) < 3:
                    first[record, token] = True
                    seen[document] = seen.get(document, 0) + 1
        near = (place[:, None] - place).abs() <= 5
        return (near | first[:, :, None] | first[:, None, :])[:, None]
    if name == "block_sparse":
        linked = torch.zeros(len(layer.links(mask.order, q.device)), 200, dtype=torch.bool)
        for block, row in enumerate(layer.links(mask.order, q.device).tolist()):
            linked[block, [one for one in row if one >= 0]] = True
        linked[0] = True  # the global block sees all
        return linked[place[:, None] // 8, place // 8][None, None]
    if name == "lsh":
        group = layer.groups(q, k.repeat_interleave(2, dim=1), mask)
        same = group[..., :, None] == group[..., None, :]
        rank = same.tril().sum(-1)
        return same & ((rank[..., :, None] - rank[..., None, :]).abs() <= 6)
    return torch.ones(1, 1, num_tokens, num_tokens, dtype=torch.bool)


def dense(q: Tensor, k: Tensor, v: Tensor, allowed: Tensor, bias: Any, *, kernel: bool) -> Tensor:
    """Attention as it is written in papers, over a matrix of all pairs."""
    k, v = (x.repeat_interleave(2, dim=1) for x in (k, v))
    place = torch.arange(q.shape[2])
    if kernel:
        weight = (F.elu(q) + 1) @ (F.elu(k) + 1).transpose(-1, -2)
    else:
        scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
        if bias is not None:
            scores = scores + bias.score(place - place[:, None], torch.arange(4)[:, None, None])
        weight = scores.exp()
    weight = torch.where(allowed, weight, 0.0)
    return weight / weight.sum(-1, keepdim=True).clamp(min=1e-30) @ v


def bias_of(name: str | None, order: Order) -> Any:
    if name is None:
        return None
    shape = PositionShape(dim=32, num_heads=4, head_dim=8, max_tokens=200, sides=1 if order == "causal" else 2)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = POSITIONS[name].member(shape, POSITIONS[name].configured())
    for weight in module.parameters():
        torch.nn.init.normal_(weight, generator=torch.Generator().manual_seed(1))
    return module


@pytest.mark.parametrize("bias", [None, "alibi", "relative"])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("name", OPTIONS)
def test_attention_equals_a_dense_mask_forward_and_backward(
    name: str, order: Order, packed: bool, bias: str | None
) -> None:
    if bias and "scores" not in ATTENTION[name].config.positions:
        return  # refused by the model's config, which has a test
    inputs = heads(75)
    results = []
    for ours in (True, False):
        added = bias_of(bias, order)
        leaves = [x.clone().to(torch.float32 if ours else torch.float64).requires_grad_() for x in inputs]
        mask = rule(order, 75, packed=packed, bias=added)
        layer = member(name)
        if ours:
            out = layer(*leaves, mask)
        else:
            if added is not None:
                added.double()
            allowed = pairs(mask) & pattern(name, layer, inputs[0], inputs[1], mask)
            assert 0.01 < allowed[0].float().mean() < 0.9 or name in ("full", "linear")
            out = dense(*leaves, allowed, added, kernel=name == "linear")
        # Queries at padding get what they get: nobody reads it.
        read = torch.where(mask.attends_BT[:, None, :, None], out, 0)
        (read * torch.linspace(-1, 1, out.numel()).view_as(out)).sum().backward()
        learned = [weight.grad for weight in added.parameters()] if added is not None else []
        results.append([read, *(leaf.grad for leaf in leaves), *learned])
    for one, reference in zip(*results, strict=True):
        assert (one - reference).abs().max() <= TOLERANCE


def test_linformer_equals_its_formula() -> None:
    layer = ATTENTION["linformer"].member(SHAPE, ATTENTION["linformer"].configured({"num_projected": 9}))
    q, k, v = heads(75)
    mask = rule("encoder", 75, packed=False)
    for record, length in enumerate((75, 37, 1)):
        keys = torch.einsum("pt,gtd->gpd", layer.key_projection[:, :length], k[record, :, :length])
        values = torch.einsum("pt,gtd->gpd", layer.value_projection[:, :length], v[record, :, :length])
        keys, values = keys.repeat_interleave(2, dim=0), values.repeat_interleave(2, dim=0)
        expected = (q[record] @ keys.transpose(-1, -2) / math.sqrt(8)).softmax(-1) @ values
        out = layer(q, k, v, mask)[record]
        assert (out[:, :length] - expected[:, :length]).abs().max() <= TOLERANCE


def test_linformer_refuses_what_it_cannot_keep_apart() -> None:
    layer = ATTENTION["linformer"].member(SHAPE, ATTENTION["linformer"].configured())
    with pytest.raises(ValueError, match=r"order='causal': linformer mixes late tokens .* use order 'encoder'"):
        layer(*heads(75), rule("causal", 75, packed=False))
    with pytest.raises(ValueError, match="turn packing off"):
        layer(*heads(75), rule("encoder", 75, packed=True))


@pytest.mark.parametrize("order", ORDERS)
def test_links_of_blocks_are_the_neighbours_the_first_and_distinct_random_ones(order: Order) -> None:
    rows = member("block_sparse").links(order, torch.device("cpu")).tolist()
    assert len(rows) == 25
    random = []
    for block, row in enumerate(rows):
        linked = [one for one in row if one >= 0]
        assert len(set(linked)) == len(linked)
        expected = {0, block - 1, block} | ({block + 1} if order != "causal" else set())
        assert {one for one in expected if 0 <= one < 25} <= set(linked)
        assert order != "causal" or max(linked) == block
        random.append(set(linked) - expected)
    assert [len(one) for one in random[6:-1]] == [2] * 18
    assert len({frozenset(one) for one in random}) > 15  # chance, not a rule
    other = member("block_sparse", seed=1).links(order, torch.device("cpu")).tolist()
    assert rows != other


def test_tokens_of_like_content_share_a_bucket() -> None:
    q, k, _ = heads(75)
    q[:, :, 40] = q[:, :, 3] * 2 + 0.01  # far away, of like direction
    k[:, :, 40] = k[:, :, 3] * 2
    group = member("lsh").groups(q, k.repeat_interleave(2, dim=1), rule("encoder", 75, packed=False))
    assert (group[0, :, 40] == group[0, :, 3]).all()
    assert len(group[0].unique()) == 4


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("name", ["block_sparse", "local_global", "lsh"])
def test_flex_equals_the_plain_blocks(name: str, order: Order) -> None:
    # Forward alone: torch has no backward of flex on a CPU.
    q, k, v = heads(150)
    biases = [None] if name == "lsh" else [None, bias_of("alibi", order)]
    for bias in biases:
        mask = rule(order, 150, packed=bias is None, bias=bias)
        plain, flex = (member(name, backend=backend)(q, k, v, mask) for backend in ("plain", "flex"))
        real = mask.attends_BT[:, None, :, None]
        assert (torch.where(real, plain - flex, 0)).abs().max() <= TOLERANCE


@pytest.mark.parametrize("order", ORDERS)
def test_flex_skips_no_block_that_holds_an_allowed_pair(order: Order) -> None:
    num_tokens, size = 700, 130
    mask = rule(order, num_tokens, packed=True)
    shared = torch.zeros(3, num_tokens, dtype=torch.bool)
    shared[0, 300] = True
    tokens = mask.tokens()
    rules = (rule_of(tokens, order), window_rule(size, shared))
    links = window_links(num_tokens, size, shared, shared.device) & order_links(order, tokens)
    index = [torch.arange(count).view([-1 if place == axis else 1 for axis in range(4)])
             for place, count in enumerate((3, 1, num_tokens, num_tokens))]  # fmt: skip
    allowed = rules[0](*index) & rules[1](*index)
    padded = F.pad(allowed, (0, -num_tokens % BLOCK, 0, -num_tokens % BLOCK))
    needed = padded.unflatten(2, (-1, BLOCK)).unflatten(4, (-1, BLOCK)).any(5).any(3)
    assert not (needed & ~links).any()
    assert links.float().mean() < 0.75


@pytest.mark.parametrize("size", [32, 256])
def test_flex_links_cover_blocks_of_other_sizes(size: int) -> None:
    layer = ATTENTION["block_sparse"].member(
        AttentionShape(num_heads=4, num_kv_heads=2, head_dim=8, max_tokens=1024),
        ATTENTION["block_sparse"].configured({"block_size": size}),
    )
    from training.attention.block_sparse import _coarsened

    adjacent = layer.adjacency(layer.links("encoder", torch.device("cpu")))
    tokens = adjacent.repeat_interleave(size, 0).repeat_interleave(size, 1)
    needed = tokens.unflatten(0, (-1, BLOCK)).unflatten(2, (-1, BLOCK)).any(3).any(1)
    assert torch.equal(_coarsened(adjacent, size), needed)


def test_flex_refuses_to_train_on_a_cpu() -> None:
    q, k, v = heads(75)
    with pytest.raises(ConfigError, match="backend='flex' of the attention cannot train on a CPU; set it to auto"):
        member("local_global", backend="flex")(q.requires_grad_(), k, v, rule("encoder", 75, packed=False))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("local_global", {"window": 64, "num_global_tokens": 4}),
        ("block_sparse", {"block_size": 32}),
        ("lsh", {"num_buckets": 64, "window": 32}),
        ("linear", {}),
    ],
)
def test_nothing_of_the_size_of_all_pairs_is_made(name: str, options: dict[str, Any]) -> None:
    num_tokens = 4096
    shape = AttentionShape(num_heads=1, num_kv_heads=1, head_dim=8, max_tokens=num_tokens)
    layer = ATTENTION[name].member(shape, ATTENTION[name].configured(options))
    q, k, v = (torch.randn(1, 1, num_tokens, 8, requires_grad=True) for _ in range(3))
    mask = AttentionMask(attends_BT=torch.ones(1, num_tokens, dtype=torch.bool), order="causal")
    largest = Largest()
    with largest:
        layer(q, k, v, mask).sum().backward()
    # A matrix of pairs has 4096 numbers a token.
    assert largest.numel <= 700 * num_tokens


class Largest(torch.utils._python_dispatch.TorchDispatchMode):
    """Remembers the largest tensor that any operation returned."""

    numel = 0

    def __torch_dispatch__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for one in torch.utils._pytree.tree_leaves(out):
            if isinstance(one, Tensor):
                self.numel = max(self.numel, one.numel())
        return out


def test_time_of_a_window_grows_with_the_row_not_its_square() -> None:
    layer = ATTENTION["local_global"].member(SHAPE, ATTENTION["local_global"].configured({"window": 64}))
    seconds = {}
    for num_tokens in (2048, 8192):
        q, k, v = (torch.randn(1, 2, num_tokens, 16) for _ in range(3))
        mask = AttentionMask(attends_BT=torch.ones(1, num_tokens, dtype=torch.bool))
        times = []
        for _ in range(4):
            began = time.thread_time()
            layer(q, k, v, mask)
            times.append(time.thread_time() - began)
        seconds[num_tokens] = min(times)
    assert seconds[8192] < 8 * seconds[2048]  # four times the row; all pairs would take sixteen times


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("local_global", {"window": 0}, "window=0 must be at least 1"),
        ("local_global", {"num_global_tokens": -1}, "num_global_tokens=-1 must be 0 or more"),
        ("local_global", {"backend": "cuda"}, "backend='cuda' must be one of auto, plain, flex"),
        ("local_global", {"windw": 3}, "did you mean 'window'"),
        ("block_sparse", {"block_size": 0}, "block_size=0 must be at least 1"),
        ("block_sparse", {"num_random_blocks": -2}, "num_random_blocks=-2 must be 0 or more"),
        ("block_sparse", {"backend": "flex", "block_size": 48}, "block_size=48 must divide 128"),
        ("lsh", {"num_buckets": 5}, "num_buckets=5 must be even"),
        ("lsh", {"window": 0}, "window=0 must be at least 1"),
        ("linear", {"chunk_size": 0}, "chunk_size=0 must be at least 1"),
        ("linformer", {"num_projected": 0}, "num_projected=0 must be at least 1"),
    ],
)
def test_options_out_of_range_are_refused(name: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ATTENTION[name].configured(options)


@pytest.mark.parametrize(
    ("name", "options", "reaches"),
    [
        ("full", {}, True),
        ("local_global", {"window": 8, "num_global_tokens": 0}, False),
        ("local_global", {"window": 8, "num_global_tokens": 1}, True),
        ("block_sparse", {"block_size": 8}, True),
        ("block_sparse", {"block_size": 8, "num_global_blocks": 0, "num_random_blocks": 0}, False),
        ("lsh", {"num_buckets": 4, "window": 16}, True),
        ("linear", {}, True),
        ("linformer", {"num_projected": 32}, True),
    ],
)
def test_two_layers_carry_a_far_token_only_where_the_pattern_can(
    name: str, options: dict[str, Any], *, reaches: bool
) -> None:
    # Whether they learn to is benchmarks.needle; here, whether anything of it arrives.
    torch.manual_seed(0)
    model = Transformer(
        ModelConfig(vocab_size=9, num_classes=2, dim=16, num_heads=2, attention=name, attention_options=options)
    ).eval()
    ids = torch.randint(8, (1, 128))
    ids[0, 60] = 8
    model.hidden(ids, torch.ones_like(ids, dtype=torch.bool))[0, -1].square().mul(torch.arange(16)).sum().backward()
    gradient = model.tokens.weight.grad
    assert gradient is not None
    assert bool(gradient[8].any()) is reaches
