"""Search is exact, memories are what was written, and votes are the papers' formulas."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from catalog.errors import ConfigError, ConflictError, CorruptionError, DataError, NotFoundError
from tests.training.memories import CHUNK, CLASSES, VOCAB, reader, remembered, tokens
from training.retrieval import RETRIEVAL
from training.retrieval.cross_attention import PADDING, remember_passages
from training.retrieval.knn_classifier import KnnClassifier, RetrievalClassifier, remember_means, remember_records
from training.retrieval.knn_lm import remember_contexts
from training.retrieval.memory import Memory
from training.retrieval.search import nearest_entries
from training.retrieval.votes import best_weight


def grid(rows: int, seed: int) -> np.ndarray:
    """Small whole numbers: distances are exact, and many are equal."""
    return np.random.default_rng(seed).integers(-2, 3, (rows, 3)).astype(np.float32)


@pytest.mark.parametrize("entry_rows", [7, 64, 1000])
@pytest.mark.parametrize("num_neighbours", [1, 5, 300])
def test_neighbours_are_those_of_a_full_sort_and_the_first_of_equally_near_ones(
    entry_rows: int, num_neighbours: int
) -> None:
    keys, questions = grid(200, 0), grid(30, 1)
    every = ((questions[:, None] - keys) ** 2).sum(-1)
    expected = np.argsort(every, axis=1, kind="stable")[:, :num_neighbours]
    distance, entry = nearest_entries(torch.from_numpy(questions), keys, num_neighbours, entry_rows=entry_rows)
    assert np.array_equal(entry.numpy(), expected)
    assert np.array_equal(distance.numpy(), np.take_along_axis(every, expected, 1))


def test_many_questions_are_asked_in_parts() -> None:
    keys, questions = grid(50, 0), torch.from_numpy(grid(1500, 1))
    distance, entry = nearest_entries(questions, keys, 3)
    alone = nearest_entries(questions[1400:], keys, 3)
    assert torch.equal(distance[1400:], alone[0])
    assert torch.equal(entry[1400:], alone[1])


def test_questions_that_cannot_be_asked_are_refused() -> None:
    with pytest.raises(ConfigError, match="num_neighbours=0 must be at least 1"):
        nearest_entries(torch.zeros(1, 3), grid(5, 0), 0)
    with pytest.raises(DataError, match=r"shape \(1, 4\) must have 3 numbers each"):
        nearest_entries(torch.zeros(1, 4), grid(5, 0), 1)
    with pytest.raises(DataError, match="a question is not finite"):
        nearest_entries(torch.full((1, 3), torch.nan), grid(5, 0), 1)


def test_a_memory_is_mapped_and_holds_what_was_written_part_by_part(tmp_path: Path) -> None:
    keys, values = grid(10, 0), np.arange(20).reshape(10, 2) - 5
    written = Memory.write(
        tmp_path / "one", [(keys[:4], values[:4]), (keys[4:], values[4:])], source="me", dim=3, value_width=2
    )
    read = Memory.open(tmp_path / "one")
    assert isinstance(read.keys, np.memmap)
    for one in (written, read):
        assert one.source == "me"
        assert np.array_equal(one.keys, keys)
        assert np.array_equal(one.values, values)
    half = Memory.write(tmp_path / "half", [(keys / 3, values)], source="me", dim=3, value_width=2, precision="float16")
    assert half.keys.nbytes * 2 == read.keys.nbytes
    assert np.allclose(half.keys, keys / 3, atol=1e-3)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["half", "one"]


@pytest.mark.parametrize("name", ["keys", "values"])
def test_a_damaged_memory_is_refused(tmp_path: Path, name: str) -> None:
    Memory.write(tmp_path / "memory", [(grid(10, 0), np.zeros((10, 1), int))], source="me", dim=3)
    file = tmp_path / "memory" / name
    raw = bytearray(file.read_bytes())
    raw[5] ^= 1
    file.write_bytes(raw)
    with pytest.raises(CorruptionError, match=rf"{name}: sha256 \w+ is not the \w+ that was written"):
        Memory.open(tmp_path / "memory")
    file.unlink()
    with pytest.raises(CorruptionError, match="sha256 missing is not"):
        Memory.open(tmp_path / "memory")
    (tmp_path / "memory" / "memory.json").write_text("{")
    with pytest.raises(CorruptionError, match=r"memory.json is damaged"):
        Memory.open(tmp_path / "memory")
    with pytest.raises(NotFoundError, match="no memory in"):
        Memory.open(tmp_path / "elsewhere")


@pytest.mark.parametrize(
    ("keys", "values", "message"),
    [
        (np.zeros((2, 4)), np.zeros((2, 1)), r"shapes \(2, 4\) and \(2, 1\) must have \(m, 3\)"),
        (np.zeros((2, 3)), np.zeros((1, 1)), r"give as many values as vectors"),
        (np.array([[0, 0, 0], [0, np.nan, 0]]), np.zeros((2, 1)), "the vector of entry 3 is not finite in float32"),
        (np.zeros((2, 3)), np.full((2, 1), 2**31), "a value among entries 2 to 4 does not fit into 32 bits"),
    ],
)
def test_entries_that_cannot_be_kept_are_refused_and_leave_nothing(
    tmp_path: Path, keys: np.ndarray, values: np.ndarray, message: str
) -> None:
    good = (grid(2, 0), np.zeros((2, 1)))
    with pytest.raises(DataError, match=message):
        Memory.write(tmp_path / "memory", [good, (keys, values)], source="me", dim=3)
    assert list(tmp_path.iterdir()) == []
    Memory.write(tmp_path / "memory", [good], source="me", dim=3)
    with pytest.raises(ConflictError, match="exists; memories are not overwritten"):
        Memory.write(tmp_path / "memory", [good], source="me", dim=3)


def test_the_mixture_is_the_paper_s_formula(tmp_path: Path) -> None:
    """Khandelwal et al. (2020), equations 2 and 3, in plain numpy."""
    made, (ids, real) = reader("knn_lm"), tokens()
    made.use(remembered("knn_lm", made, tmp_path / "memory"))
    hidden = made.model.hidden(ids, real)
    network = made.model.token_logits(hidden).double().softmax(-1).numpy()
    mixed = made(ids, real).exp().numpy()
    for record, place in ((0, 0), (1, 10), (2, 5)):
        distance = ((made.memory.keys - hidden[record, place].numpy()) ** 2).sum(1)
        near = np.argsort(distance)[: made.config.num_neighbours]
        weight = np.exp(-distance[near] / made.config.temperature)
        votes = np.zeros(VOCAB)
        np.add.at(votes, made.memory.values[near, 0], weight / weight.sum())
        expected = 0.75 * network[record, place] + 0.25 * votes
        assert np.allclose(mixed[record, place], expected, atol=1e-5)


def test_contexts_are_remembered_with_what_followed_and_help_where_they_return(tmp_path: Path) -> None:
    made, (ids, real) = reader("knn_lm"), tokens()
    memory = remember_contexts(made.model, [(ids[:2], real[:2]), (ids[2:], real[2:])], tmp_path / "memory")
    assert len(memory) == 10 + 10 + 5
    assert np.array_equal(memory.values[20:, 0], ids[2, 1:6])
    assert np.allclose(memory.keys[20:], made.model.hidden(ids[2:], real[2:])[0, :5], atol=1e-6)

    def loss() -> float:
        return float(F.nll_loss(made(ids[:2], real[:2])[:, :-1].flatten(0, 1), ids[:2, 1:].flatten()))

    without = loss()
    made.use(memory)
    assert loss() < without - 0.1
    order = np.random.default_rng(0).permutation(len(memory))
    made.use(Memory(source=memory.source, keys=memory.keys, values=memory.values[order]))
    assert loss() > without - 0.05


def test_a_memory_of_other_weights_is_refused(tmp_path: Path) -> None:
    made, (ids, real) = reader("knn_lm"), tokens()
    memory = remember_contexts(made.model, [(ids, real)], tmp_path / "memory")
    made.model.blocks[0].attention.output.weight[0, 0] += 1e-3
    with pytest.raises(ConfigError, match="load the network that made it"):
        made.use(memory)


def test_the_best_weight_is_where_a_fine_grid_finds_it() -> None:
    rng = np.random.default_rng(0)
    proba, votes = rng.beta(1, 3, 400), rng.beta(0.5, 2, 400)
    votes[:100] = 0
    weights = np.linspace(0.001, 0.999, 999)[:, None]
    expected = float(weights[np.log((1 - weights) * proba + weights * votes).mean(1).argmax(), 0])
    assert best_weight(torch.from_numpy(proba), torch.from_numpy(votes)) == pytest.approx(expected, abs=2e-3)
    assert best_weight(torch.full((9,), 0.9), torch.full((9,), 0.1)) == pytest.approx(0.001, abs=1e-6)
    with pytest.raises(DataError, match="2 probabilities and 1 votes must be equally many"):
        best_weight(torch.ones(2), torch.ones(1))


def test_a_classifier_s_own_means_are_remembered(tmp_path: Path) -> None:
    made, (ids, real) = reader("knn_classifier"), tokens()
    made.use(remember_means(made.model, [(ids, real, torch.tensor([2, 1, 0]))], tmp_path / "memory"))
    votes = made.votes(made.means(ids, real), CLASSES)
    assert votes.argmax(1).tolist() == [2, 1, 0]  # each record is its own nearest neighbour


def test_the_catalog_s_vectors_can_be_asked_with(tmp_path: Path) -> None:
    model, (ids, real) = reader("knn_classifier").model, tokens()
    made = RetrievalClassifier(model, KnnClassifier(encoder="hashing", num_neighbours=2, weight=0.4, temperature=0.5))
    keys = np.eye(5, dtype=np.float32)
    memory = remember_records(
        tmp_path / "memory", [(keys, np.array([[0], [1], [1], [2], [2]]))], encoder="hashing", dim=5
    )
    plain = made(ids, real)
    made.use(memory)
    asked = torch.tensor([[1.0, 0, 0, 0, 0], [0, 0.9, 0, 0.1, 0], [0, 0, 0, 1.0, 0]])
    votes = np.zeros((3, CLASSES))
    for row, vector in enumerate(asked.numpy()):
        distance = ((keys - vector) ** 2).sum(1)
        near = np.argsort(distance, kind="stable")[:2]
        weight = np.exp(-distance[near] / 0.5)
        np.add.at(votes[row], memory.values[near, 0], weight / weight.sum())
    assert np.allclose(made(ids, real, asked).exp().numpy(), 0.6 * plain.exp().numpy() + 0.4 * votes, atol=1e-5)
    with pytest.raises(DataError, match="wants with a batch its vectors of encoder 'hashing'"):
        made(ids, real)
    with pytest.raises(ConfigError, match="made by 'encoder static'"):
        made.use(remember_records(tmp_path / "other", [], encoder="static", dim=5))
    made.use(remember_records(tmp_path / "wide", [(keys, np.full((5, 1), 3))], encoder="hashing", dim=5))
    with pytest.raises(DataError, match=re.escape("label 3, the classifier's lie in [0, 2]")):
        made(ids, real, asked)


def test_passages_reach_only_tokens_behind_their_chunk(tmp_path: Path) -> None:
    made, (ids, real) = reader("cross_attention"), tokens()
    plain = made(ids[:1], real[:1])
    made.use(remembered("cross_attention", made, tmp_path / "memory"))
    read = made(ids[:1], real[:1])
    first = CHUNK - 1
    assert torch.equal(read[:, :first], plain[:, :first])
    assert (read - plain).abs().amax(-1)[0, first:].min() > 1e-4
    changed = ids[:1].clone()
    changed[0, 2 * CHUNK - 1] = (changed[0, 2 * CHUNK - 1] + 1) % VOCAB  # the last token of the second chunk
    later = made(changed, real[:1])
    assert torch.allclose(later[:, : 2 * CHUNK - 1], read[:, : 2 * CHUNK - 1], atol=1e-6)
    assert not torch.allclose(later[:, 2 * CHUNK - 1 :], read[:, 2 * CHUNK - 1 :], atol=1e-4)


def test_passages_are_the_nearest_chunks_with_what_follows_and_of_other_documents(tmp_path: Path) -> None:
    made = reader("cross_attention")
    same = [1, 2, 3, 4]
    documents = [(0, [*same, 5, 6, 7, 8]), (1, [*same, 9, 10]), (2, [11, 12, 13, 14, 15])]
    made.use(remember_passages(documents, tmp_path / "memory", made.config, vocab_size=VOCAB))
    ids, real = torch.tensor([[*same, 20, 20]]), torch.ones(1, 6, dtype=torch.bool)
    found = made.passages(ids, real, None)
    assert found.shape == (1, 1, 2, 2 * CHUNK)
    assert found[0, 0].tolist() == [[*same, 5, 6, 7, 8], [*same, 9, 10, PADDING, PADDING]]
    others = made.passages(ids, real, torch.tensor([0]))[0, 0].tolist()
    assert others[0] == [*same, 9, 10, PADDING, PADDING]
    assert [*same, 5, 6, 7, 8] not in others
    padded = real.clone()
    padded[0, 3:] = False
    assert (made.passages(ids, padded, None) == PADDING).all()
    assert made.passages(ids[:, :3], real[:, :3], None) is None


def test_readers_start_as_adding_nothing_and_then_learn(tmp_path: Path) -> None:
    made, (ids, real) = reader("cross_attention"), tokens()
    fresh = RETRIEVAL["cross_attention"].member(made.model, made.config)
    plain = fresh(ids, real)
    fresh.use(remembered("cross_attention", made, tmp_path / "memory"))
    assert torch.allclose(fresh(ids, real), plain, atol=1e-6)
    optimizer = torch.optim.AdamW([one for one in fresh.parameters() if one.requires_grad], lr=0.01)
    losses = []
    for _ in range(30):
        loss = F.nll_loss(fresh(ids[:2], real[:2])[:, CHUNK - 1 : -1].flatten(0, 1), ids[:2, CHUNK:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.1
    assert all(one.grad is not None and one.grad.abs().sum() > 0 for one in fresh.readers.parameters())


@pytest.mark.parametrize("name", ["knn_lm", "cross_attention"])
def test_networks_without_a_next_token_are_refused(name: str) -> None:
    encoder = reader("knn_classifier").model
    with pytest.raises(ConfigError, match=f"order='encoder' with vocab_head='none' has no next token; {name} needs"):
        RETRIEVAL[name].member(encoder, RETRIEVAL[name].configured())


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("knn_lm", {"weight": 1.0}, r"weight=1.0 must lie in \(0, 1\); to read nothing, use no memory"),
        ("knn_lm", {"temperature": 0.0}, "temperature=0.0 must be above 0 and finite"),
        ("knn_classifier", {"num_neighbours": 0}, "num_neighbours=0 must be at least 1"),
        ("cross_attention", {"chunk_tokens": 0}, "chunk_tokens=0 must be at least 1"),
        ("cross_attention", {"chunks": 3}, "unknown option 'chunks'"),
    ],
)
def test_options_out_of_range_are_refused(name: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        RETRIEVAL[name].configured(options)
