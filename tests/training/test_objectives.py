"""Each objective asks for what it is named after, and a small model can learn it."""

import dataclasses
import json
from itertools import pairwise
from typing import Any, cast

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from catalog.errors import ConfigError, DataError, NotFoundError
from tests.training.objectives import Bench, arm_of, data_of, real_rows
from training.arm import ArmConfig
from training.data import TrainingData
from training.fit import fit
from training.objectives import IGNORED, OBJECTIVES
from training.objectives.pairwise import pair_of
from training.objectives.rtd import Replaced, drawn, generator_config
from training.objectives.sequence_reconstruction import SequenceReconstruction, infilled, permuted, pieces
from training.objectives.span_denoising import SpanDenoising, denoising_pair, restored, span_cuts
from training.objectives.tagging import spans_of, tags_of, token_bounds
from training.tokenizer import START, train_tokenizer

ROWS = list(range(16))


def texts_alone(texts: list[str]) -> TrainingData:
    ids = [f"{number:04}" for number in range(len(texts))]
    frame = pl.DataFrame({"id": ids, "hash": ids, "text": texts}).with_columns(
        label=pl.lit(None, dtype=pl.String), difficulty=0.5, weight=1.0
    )
    return TrainingData.build(frame)


def options(name: str, **given: Any) -> ArmConfig:
    return arm_of(name, objective_options=given)


def test_the_next_token_is_asked_for_at_each() -> None:
    bench = Bench(arm_of("clm"), data_of("clm"))
    batch, records = bench.batch(ROWS), bench.records(ROWS)
    for ids, shown, labels in zip(records.ids, real_rows(batch, "input_ids"), real_rows(batch, "labels"), strict=True):
        assert shown.tolist() == ids
        assert labels.tolist() == [*ids[1:], IGNORED]


def test_hidden_tokens_are_asked_for_and_no_others() -> None:
    bench = Bench(options("mlm", masking_options={"rate": 0.3}), data_of("mlm"))
    batch, records = bench.batch(ROWS), bench.records(ROWS)
    mask = bench.special("[MASK]")
    for ids, shown, labels in zip(records.ids, real_rows(batch, "input_ids"), real_rows(batch, "labels"), strict=True):
        at = labels != IGNORED
        assert at.sum() == (round(0.3 * (len(ids) - 1)) or len(ids) > 1)
        assert not at[0]
        assert (labels[at] == np.array(ids)[at]).all()
        assert (shown[~at] == np.array(ids)[~at]).all()
        assert not np.isin(labels[at], [bench.special(START), mask]).any()
    assert mask in batch.tensors["input_ids"]
    # Padding is never asked for.
    assert (batch.tensors["labels"][~batch.tensors["attention_mask"]] == IGNORED).all()


def test_of_hidden_tokens_eight_in_ten_are_masked_one_drawn_and_one_left() -> None:
    bench = Bench(options("mlm", masking_options={"rate": 0.5}), texts_alone(["a b c d e f g h i j k l m n o p"] * 40))
    fates = np.zeros(3)
    for step in range(20):
        batch = bench.batch(list(range(40)), step)
        at = batch.tensors["labels"] != IGNORED
        shown, true = batch.tensors["input_ids"][at], batch.tensors["labels"][at]
        masked = shown == bench.special("[MASK]")
        fates += [int(masked.sum()), int((~masked & (shown != true)).sum()), int((shown == true).sum())]
        assert np.isin(shown[~masked].numpy(), bench.tokenizer.ordinary_ids).all()
    # 12,800 tokens: three standard errors of 0.8 are 0.011. A draw hits the true token once in 300.
    assert fates / fates.sum() == pytest.approx([0.8, 0.1, 0.1], abs=0.012)


def test_the_discriminator_is_asked_which_tokens_were_replaced() -> None:
    bench = Bench(arm_of("rtd"), data_of("rtd"))
    batch, parts = bench.batch(ROWS), cast("Replaced", bench.network)
    hidden = batch.tensors["labels"] != IGNORED
    found, _ = bench.losses(batch).sums
    assert found.item() / batch.counts[0] == pytest.approx(np.log(bench.tokenizer.vocab_size), rel=0.05)
    told_tokens = sum(len(ids) - 1 for ids in bench.records(ROWS).ids)
    assert batch.counts[1] == int(batch.tensors["told"].sum()) == told_tokens
    common = int(batch.tensors["labels"][hidden].mode().values)
    with torch.no_grad():
        # Every draw is one token, which here and there is the true one; and every token is told to be replaced.
        parts.model.vocab_bias[common] = 1000.0
        parts.tell[2].weight.zero_()  # type: ignore[union-attr]
        parts.tell[2].bias.fill_(2.0)  # type: ignore[union-attr]
    num_replaced = int((batch.tensors["labels"][hidden] != common).sum())
    assert 0 < num_replaced < int(hidden.sum())
    _, told = bench.losses(batch).sums
    by_hand = num_replaced * np.log1p(np.exp(-2.0)) + (told_tokens - num_replaced) * np.log1p(np.exp(2.0))
    assert told.item() == pytest.approx(50 * by_hand, rel=1e-5)


def test_generator_and_model_share_embeddings_and_the_draw_passes_no_gradient() -> None:
    bench = Bench(arm_of("rtd"), data_of("rtd"))
    parts = cast("Replaced", bench.network)
    assert parts.generator.tokens is parts.model.tokens
    assert parts.generator.config.dim == 4
    _, told = bench.losses(bench.batch(ROWS)).sums
    torch.autograd.backward(told)
    own = dict(parts.generator.named_parameters())
    assert all(one.grad is None for name, one in own.items() if not name.startswith(("tokens", "vocab_bias")))
    assert parts.model.tokens.weight.grad is not None
    found, _ = bench.losses(bench.batch(ROWS)).sums
    torch.autograd.backward(found)
    assert all(one.grad is not None for one in own.values())


@pytest.mark.parametrize("changed", [{}, {"embedding_dim": 8, "embedding_norm": "layer"}])
def test_a_generator_may_share_all_that_enters_the_models_first_block(changed: dict[str, Any]) -> None:
    arm = options("rtd", shares="embeddings")
    bench = Bench(dataclasses.replace(arm, backbone_options=arm.backbone_options | changed), data_of("rtd"))
    parts = cast("Replaced", bench.network)
    assert parts.generator.positions is parts.model.positions
    ids = bench.batch(ROWS).tensors["masked_ids"]
    places = torch.arange(ids.shape[1]).expand_as(ids)
    wide = parts.model.embedded(ids, places)
    assert torch.equal(parts.generator.embedded(ids, places), parts.generator.narrow(wide))
    states = torch.randn(5, 4)
    assert torch.equal(
        parts.generator.token_logits(states), parts.model.token_logits(states @ parts.generator.narrow.weight)
    )
    found, told = bench.losses(bench.batch(ROWS)).sums
    torch.autograd.backward(found + told)
    assert all(one.grad is not None for one in parts.parameters())


def test_of_hidden_tokens_the_generator_sees_a_share_as_they_are() -> None:
    data = texts_alone(["a b c d e f g h i j k l m n o p"] * 16)
    plain = Bench(options("rtd"), data).batch(ROWS).tensors
    bench = Bench(options("rtd", mask_share=0.6), data)
    batch, hidden, seen = bench.batch(ROWS).tensors, 0, 0
    # What is hidden and what is drawn are as they are without it.
    assert all(torch.equal(batch[name], plain[name]) for name in plain if name != "masked_ids")
    for step in range(60):
        batch = bench.batch(ROWS, step).tensors
        at = batch["labels"] != IGNORED
        shown = batch["masked_ids"] == batch["input_ids"]
        assert shown[~at].all()
        assert (batch["masked_ids"][~shown] == bench.special("[MASK]")).all()
        hidden, seen = hidden + int(at.sum()), seen + int(shown[at].sum())
    # Three standard errors of 0.4.
    assert seen / hidden == pytest.approx(0.4, abs=3 * (0.24 / hidden) ** 0.5)


def test_a_draw_follows_the_generators_probabilities_and_never_others() -> None:
    logits = torch.tensor([[0.0, 1.0, -torch.inf, 2.0]]).expand(4000, 4)
    draws = torch.from_numpy(np.random.default_rng(0).random(4000))
    counts = torch.bincount(drawn(logits, draws), minlength=4) / 4000
    assert counts.tolist() == pytest.approx(torch.softmax(logits[0], -1).tolist(), abs=0.025)
    assert counts[2] == 0
    assert drawn(logits[:2], torch.tensor([0.0, 1 - 2**-53], dtype=torch.float64)).tolist() == [0, 3]


@settings(max_examples=80)
@given(
    num_tokens=st.integers(0, 60),
    rate=st.floats(0.05, 0.9),
    mean=st.floats(1, 5),
    num_sentinels=st.integers(1, 8),
    seed=st.integers(0, 99),
)
def test_a_text_with_sentinels_and_its_spans_give_the_text_back(
    num_tokens: int, rate: float, mean: float, num_sentinels: int, seed: int
) -> None:
    config = SpanDenoising(rate=rate, mean_tokens=mean, num_sentinels=num_sentinels)
    ids, sentinels = list(range(num_tokens)), list(range(100, 100 + num_sentinels))
    hidden, spans = config.counts(num_tokens)
    cuts = span_cuts(hidden, spans, num_tokens, np.random.default_rng(seed))
    shown, told = denoising_pair(ids, cuts, sentinels)
    assert restored(shown, told, sentinels) == ids
    assert len(cuts) == spans <= num_sentinels
    assert sum(end - start for start, end in cuts) == hidden
    assert all(start < end for start, end in cuts)
    assert all(one[1] < other[0] for one, other in pairwise(cuts))
    if num_tokens >= 20 and num_sentinels == 8:
        assert hidden == round(rate * num_tokens)


@pytest.mark.parametrize("max_tokens", [64, 17])
def test_spans_are_asked_for_behind_the_prefix_that_lacks_them(max_tokens: int) -> None:
    bench = Bench(arm_of("span_denoising", max_tokens=max_tokens), data_of("span_denoising"))
    batch, records = bench.batch(ROWS), bench.records(ROWS)
    sentinels = [bench.special(f"[SPAN {number}]") for number in range(4)]
    end = bench.special("[END]")
    for ids, shown, labels, prefix in zip(
        records.ids, *(real_rows(batch, name) for name in ("input_ids", "labels", "prefix")), strict=True
    ):
        assert len(shown) <= max_tokens
        before, told = shown[prefix].tolist(), shown[~prefix].tolist()
        kept = restored(before, told, sentinels)
        assert kept == ids[: len(kept)]
        assert len(kept) >= min(len(ids), max_tokens - 8)
        assert (labels[prefix] == IGNORED).all()
        assert labels[~prefix].tolist() == ([*told[1:], end] if told else [])
        assert not prefix[-1] or len(ids) <= 2


def test_a_damaged_text_is_followed_by_the_whole_one() -> None:
    bench = Bench(arm_of("sequence_reconstruction"), data_of("sequence_reconstruction"))
    batch, records = bench.batch(ROWS), bench.records(ROWS)
    mask, end = bench.special("[MASK]"), bench.special("[END]")
    damaged = []
    for ids, shown, labels, prefix in zip(
        records.ids, *(real_rows(batch, name) for name in ("input_ids", "labels", "prefix")), strict=True
    ):
        whole = ids[:32]
        if len(whole) == 1:
            assert (shown.tolist(), labels.tolist()) == (whole, [IGNORED])
            continue
        assert shown[~prefix].tolist() == whole
        assert labels[~prefix].tolist() == [*whole[1:], end]
        assert (labels[prefix] == IGNORED).all()
        kept = [one for one in shown[prefix].tolist()[1:] if one != mask]
        assert len(kept) == len(whole) - 1 - round(0.3 * (len(whole) - 1))
        damaged.append(kept != [one for one in whole[1:] if one in kept])
    assert any(damaged)


def test_spans_of_any_length_leave_one_mask_each() -> None:
    ids = list(range(1, 101))
    for seed in range(30):
        found = infilled(ids, SequenceReconstruction(rate=0.3, mean_tokens=3.0), 0, np.random.default_rng(seed))
        kept = [one for one in found if one]
        assert kept == sorted(kept)
        assert len(kept) == 70
        gaps = sum(one + 1 != other for one, other in zip([0, *kept], [*kept, 101], strict=True))
        # Spans do not touch, so each gap has its mask; the rest stand where nothing is missing.
        assert found.count(0) >= gaps
        assert (0, 0) not in set(pairwise(found))
    everywhere = [
        infilled(ids, SequenceReconstruction(), 0, np.random.default_rng(seed)).count(0) for seed in range(30)
    ]
    # 30 tokens by Poisson(3): about ten spans, of which 5 in 100 are empty.
    assert np.mean(everywhere) == pytest.approx(10.5, abs=1.5)


def test_sentences_change_places_and_a_single_one_is_halved() -> None:
    tokenizer = train_tokenizer([], vocab_size=258)
    ids = tokenizer.token_ids(["하나. 둘. 셋."], 100)[0][1:]
    orders = {
        tokenizer.decode(permuted(ids, pieces(tokenizer, ids), np.random.default_rng(seed))) for seed in range(40)
    }
    assert {"하나. 둘. 셋.", " 셋.하나. 둘.", " 둘. 셋.하나."} < orders
    assert len(orders) == 6
    one = tokenizer.token_ids(["one two three four"], 100)[0][1:]
    halves = {tokenizer.decode(permuted(one, pieces(tokenizer, one), np.random.default_rng(seed))) for seed in range(9)}
    assert halves == {"one two three four", " three fourone two"}


MARKED = [
    ("민수가 서울에 갔다", [(0, 2, 0), (4, 6, 1)]),
    ("👨‍👩‍👧 met Ann-Marie in 東京", [(0, 5, 0), (10, 19, 0), (23, 25, 1)]),
    ("nothing here", []),
    ("AB", [(0, 1, 0), (1, 2, 0)]),
]


@pytest.mark.parametrize("vocab_size", [258, 400])
@pytest.mark.parametrize(("text", "spans"), MARKED)
def test_spans_become_tags_and_tags_spans(text: str, spans: list[tuple[int, int, int]], vocab_size: int) -> None:
    tokenizer = train_tokenizer(["서울에 갔다 met in Ann 東京", "서울에 갔다 met in Ann 東京"], vocab_size=vocab_size)
    ids = tokenizer.token_ids([text], 100)[0][1:]
    bounds = token_bounds(tokenizer, ids)
    tags = tags_of(text, spans, bounds)
    found = spans_of(text, tags.tolist(), bounds)
    if vocab_size == 258:  # no token holds more than a character
        assert found == spans
    assert len(found) == len(spans)
    assert all(one[0] <= true[0] < true[1] <= one[1] for one, true in zip(found, spans, strict=True))
    assert (tags % 2 == 1).sum() == len(spans)


def test_a_space_in_front_of_a_word_does_not_make_its_token_part_of_the_span_before() -> None:
    tokenizer = train_tokenizer(["we met", "we met"], vocab_size=300)
    text = "we met"
    ids = tokenizer.token_ids([text], 100)[0][1:]
    assert [tokenizer.token_bytes[one] for one in ids] == [b"we", b" met"]
    assert tags_of(text, [(0, 3, 0)], token_bounds(tokenizer, ids)).tolist() == [1, 0]
    assert spans_of(text, [0, 1], token_bounds(tokenizer, ids)) == [(3, 6, 0)]


def test_texts_that_nobody_marked_have_no_tags() -> None:
    bench = Bench(arm_of("tagging"), data_of("tagging"))
    batch = bench.batch(ROWS)
    for row, labels in enumerate(real_rows(batch, "labels")):
        assert labels[0] == IGNORED
        assert (labels[1:] == IGNORED).all() == (row % 5 == 4 or row == 13 or row == 5)


def test_the_loss_of_a_pair_is_the_log_odds_of_the_better_score() -> None:
    data = data_of("pairwise")
    bench = Bench(arm_of("pairwise"), data)
    batch = bench.batch(ROWS)
    each = bench.losses(batch, each=True).each
    assert each is not None
    for row in ROWS:
        scores = [bench.network(*bench.tokenizer.encode([one], 64)).item() for one in pair_of(data.texts[row])]
        label = data.labels[row]
        if label == IGNORED:
            assert each[row].isnan()
        else:
            better, worse = scores if data.classes[label] == "a" else reversed(scores)
            assert each[row].item() == pytest.approx(-np.log(1 / (1 + np.exp(worse - better))), abs=1e-5)
    tied = dataclasses.replace(data, classes=["a", "tie"])
    ties = Bench(arm_of("pairwise"), tied).losses(batch=Bench(arm_of("pairwise"), tied).batch([1]), each=True).each
    assert ties is not None
    assert ties[0].item() > np.log(2) - 1e-6


def test_a_mixture_weighs_its_objectives_or_draws_one_a_step() -> None:
    weights = {"mlm": 1.0, "classification": 3.0}
    data = data_of("mixture")
    mixed = Bench(options("mixture", weights=weights), data)
    alone = {name: Bench(options(name), data) for name in weights}
    batch = mixed.batch(ROWS)
    sums = mixed.losses(batch).sums
    assert batch.counts == tuple(alone[name].batch(ROWS).counts[0] for name in ("classification", "mlm"))
    plain = mixed.objective.losses(mixed.network, batch.tensors, each=False).sums
    parts = cast("Any", mixed.objective).parts
    own = {
        name: parts[name].losses(
            cast("Any", mixed.network).model,
            {key.removeprefix(f"{name}/"): one for key, one in batch.tensors.items() if key.startswith(f"{name}/")},
            each=False,
        ).sums[0].item()
        for name in weights
    }  # fmt: skip
    assert [one.item() for one in sums] == pytest.approx([3 * own["classification"], own["mlm"]])
    assert [one.item() for one in plain] == pytest.approx([one.item() for one in sums])
    drawing = Bench(options("mixture", weights=weights, combine="draw"), data)
    drawn_names = []
    for step in range(400):
        (name,) = {key.split("/")[0] for key in drawing.batch([0], step).tensors}
        drawn_names.append(name)
    assert drawn_names.count("classification") / 400 == pytest.approx(0.75, abs=0.07)
    assert {key.split("/")[0] for key in drawing.batch([1, 2], 7).tensors} == {drawn_names[7]}


LEARNABLE = ["one two three four", "red green blue black", "가 나 다 라", "mon tue wed thu"]


@pytest.mark.parametrize(
    ("name", "given", "share"),
    [
        ("clm", {}, 0.5),
        ("mlm", {}, 0.6),
        ("mlm", {"masking": "whole_word"}, 0.6),
        ("rtd", {"weight": 10.0}, 0.7),
        ("span_denoising", {"rate": 0.3}, 0.5),
        ("sequence_reconstruction", {}, 0.6),
        ("mixture", {"weights": {"mlm": 1.0, "rtd": 1.0}, "combine": "sum"}, 0.8),
    ],
)
def test_a_small_model_learns_from_texts_alone(name: str, given: dict[str, Any], share: float) -> None:
    arm = arm_of(name, objective_options=given, steps=40, batch_size=16, learning_rate=1e-2, max_tokens=32)
    losses = [loss for _, loss in fit(arm, texts_alone(LEARNABLE * 8)).losses]
    assert sum(losses[-5:]) < share * sum(losses[:5])


def test_a_small_model_learns_which_parts_are_marked() -> None:
    names = ("Ann", "서울")
    made = [(before, place, f" {number}") for number in range(8) for before in ("we saw ", "no, ") for place in (0, 1)]
    texts = [before + names[place] + after for before, place, after in made]
    spans = [[(len(before), len(before) + len(names[place]), place)] for before, place, _ in made]
    data = texts_alone(texts)
    marked = TrainingData(data.texts, data.labels, ["person", "place"], data.manifest, spans)
    result = fit(arm_of("tagging", steps=60, batch_size=16, learning_rate=1e-2), marked)
    text = "we saw 서울 3"
    ids, mask = result.encode([text])
    model = cast("Any", result.model)
    tags = model.head(model.hidden(ids, mask))[0, 1:].argmax(-1).tolist()
    assert spans_of(text, tags, token_bounds(result.tokenizer, ids[0, 1:].tolist())) == [(7, 9, 1)]


def test_a_small_model_learns_which_text_is_better() -> None:
    pairs = [
        json.dumps({"a": f"good {n}", "b": f"bad {n}"} if n % 2 else {"a": f"bad {n}", "b": f"good {n}"})
        for n in range(32)
    ]
    ids_of_pairs = [f"{number:04}" for number in range(32)]
    frame = pl.DataFrame({"id": ids_of_pairs, "hash": ids_of_pairs, "text": pairs}).with_columns(
        label=pl.Series(["ba"[n % 2] for n in range(32)]), difficulty=0.5, weight=1.0
    )
    ranked = fit(arm_of("pairwise", steps=40, batch_size=16, learning_rate=1e-2), TrainingData.build(frame))
    good, bad = ranked.model(*ranked.encode(["good 77", "bad 77"])).squeeze(-1).tolist()
    assert good - bad > 2


@pytest.mark.parametrize(
    ("name", "source", "message"),
    [
        ("classification", "mlm", "learns from labels, and these records have none"),
        ("tagging", "classification", "learns from parts of texts that were marked"),
        ("pairwise", "mlm", "these records have none; label them with a queue of task pairwise"),
        ("pairwise", "classification", r"text '지하철.*' is no pair of texts"),
        ("mixture", "mlm", "learns from labels"),
    ],
)
def test_data_that_lacks_what_is_learned_is_refused_before_the_first_step(name: str, source: str, message: str) -> None:
    weights = {"weights": {"mlm": 1.0, "classification": 1.0}}
    arm = arm_of(name, objective_options=weights if name == "mixture" else {})
    with pytest.raises(DataError, match=message):
        fit(arm, data_of(source))


def test_answers_that_say_nothing_are_refused_before_the_first_step() -> None:
    data = data_of("tagging")
    empty = TrainingData(data.texts, data.labels, data.classes, data.manifest, [[] for _ in data.texts])
    with pytest.raises(DataError, match="none of 16 records to learn from has a marked part; label more"):
        fit(arm_of("tagging"), empty)
    data = data_of("pairwise")
    tied = TrainingData(data.texts, [2] * 16, ["a", "b", "tie"], data.manifest)
    with pytest.raises(DataError, match="the answers to 16 pairs to learn from are all ties; label pairs of which"):
        fit(arm_of("pairwise"), tied)


@pytest.mark.parametrize(
    ("name", "order", "message"),
    [
        ("clm", "encoder", "order='encoder' is none that this objective can be trained in; .* to causal"),
        ("mlm", "causal", "to encoder"),
        ("classification", "prefix", "to causal or encoder"),
        ("span_denoising", "encoder", "to prefix"),
    ],
)
def test_an_order_that_gives_the_answer_away_is_refused(name: str, order: str, message: str) -> None:
    arm = arm_of(name)
    with pytest.raises(ConfigError, match=message):
        fit(dataclasses.replace(arm, backbone_options=arm.backbone_options | {"order": order}), data_of(name))


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("mlm", {"mask_share": 0.8, "random_share": 0.3}, "must add up to 1 at most"),
        ("mlm", {"masking": "word"}, "no masking policy named 'word'"),
        ("rtd", {"generator_share": 0.0}, r"generator_share=0.0 must lie in \(0, 1\]"),
        ("rtd", {"mask_share": 1.5}, r"mask_share=1.5 must lie in \(0, 1\]"),
        ("rtd", {"shares": "positions"}, "shares='positions' must be one of tokens, embeddings"),
        ("rtd", {"weight": -1.0}, "weight=-1.0 must be above 0"),
        ("span_denoising", {"rate": 1.0}, r"rate=1.0 must lie in \(0, 1\)"),
        ("span_denoising", {"mean_tokens": 0.5}, "mean_tokens=0.5 must be at least 1"),
        ("sequence_reconstruction", {"rate": 0.0, "permute": 0.0}, "leave the text whole"),
        ("mixture", {"weights": {"mlm": 1.0}}, "at least two objectives"),
        ("mixture", {"weights": {"mlm": 1.0, "rtd": 0}}, r"weights\[rtd\]=0 must be a number above 0"),
        ("mixture", {"options": {"clm": {}}}, "options of clm have no effect"),
        ("mixture", {"weights": {"mlm": 1.0, "clm": 1.0}}, "no order of attention suits all"),
        (
            "mixture",
            {"weights": {"pairwise": 1.0, "classification": 1.0}},
            "learn from classes and pairs; records have one of them",
        ),
    ],
)
def test_options_without_sense_are_refused(name: str, given: dict[str, Any], message: str) -> None:
    with pytest.raises((ConfigError, NotFoundError), match=message):
        OBJECTIVES[name].member(OBJECTIVES[name].configured(given)).heads(3)


def test_the_generator_is_narrower_whatever_the_model_is_made_of() -> None:
    bench = Bench(arm_of("rtd"), data_of("rtd"))
    model = cast("Replaced", bench.network).model.config
    for change in (
        {"positions": "rope", "kv_latent_dim": 8, "rope_head_dim": 4},
        {"embedding_dim": 8},
        {"num_layers": 4, "num_own_layers": 2, "num_kv_heads": 2},
        {"dim": 24, "num_heads": 3},
    ):
        made = generator_config(dataclasses.replace(model, **change), OBJECTIVES["rtd"].configured())  # type: ignore[arg-type]
        assert made.dim <= dataclasses.replace(model, **change).dim / 2  # type: ignore[arg-type]
        assert made.feedforward_options == {"hidden": 4 * made.dim}
