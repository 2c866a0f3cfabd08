"""Replaced tokens: a small generator fills hidden places, the model says of every token whether it is the true one."""

from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, NamedTuple, cast, get_args

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from catalog.errors import DataError
from training.backbones import Heads
from training.masking import MASKING
from training.model import ModelConfig, Transformer, masked_mean
from training.objectives import IGNORED, OBJECTIVES, Batch, Corpus, Losses, Objective, Records
from training.packing import document_means
from training.rows import TokenRow, inputs
from training.token_targets import MASK, hidden_tokens, record_means, states, transformer
from training.tokenizer import START

Shares = Literal["tokens", "embeddings"]
Noise = Literal["network", "successors"]
Tells = Literal["state", "text"]
_NUM_FOLLOWERS = 32
"""Tokens that are kept of those that follow a token, drawn as often as they do."""
_OF_NETWORK = ("mask_share", "generator_share", "generator_layers", "shares", "weight")
"""Options that only a generator which is trained has."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rtd:
    """What is hidden, who fills it, how replaced tokens are told, and how much finding out counts.

    Parameters
    ----------
    masking, masking_options : which tokens are replaced (registry ``MASKING``), and its options.
    generator : ``network`` trains one, as the paper does; ``successors`` draws a token of those that stand behind the
        one before it in the training texts, which costs nothing and is plausible from the first step on. What follows
        belongs to the first alone, ``tells`` excepted.
    mask_share : of the hidden tokens, the share that the generator sees as the mask, in (0, 1]; the others it sees as
        they are, and is asked for all the same. The paper says 1, its code does 0.85, and a small generator learns
        nothing for long without them.
    generator_share : width and heads of the generator, as a share of the model's, in (0, 1].
    generator_layers : its blocks; 0 means as many as the model has.
    shares : what of the model the generator embeds with: ``tokens`` alone, or all that enters the model's first block,
        positions included (``embeddings``), as in the paper.
    weight : of telling replaced tokens, against the generator's own loss.
    tells : by what a token is told: by its state, or besides by how its embedding goes with the mean of its text's
        states (``text``), as word2vec tells words of a context from drawn ones.
    """

    masking: str = "rate"
    masking_options: dict[str, Any] = field(default_factory=dict)
    mask_share: float = 1.0
    generator_share: float = 0.25
    generator_layers: int = 0
    shares: Shares = "tokens"
    weight: float = 50.0
    generator: Noise = "network"
    tells: Tells = "state"

    def __post_init__(self) -> None:
        MASKING[self.masking].configured(self.masking_options)
        for name in ("mask_share", "generator_share"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"{name}={getattr(self, name)} must lie in (0, 1]")
        for name, kind in {"shares": Shares, "generator": Noise, "tells": Tells}.items():
            if getattr(self, name) not in get_args(kind):
                raise ValueError(f"{name}={getattr(self, name)!r} must be one of {', '.join(get_args(kind))}")
        if self.generator_layers < 0:
            raise ValueError(f"generator_layers={self.generator_layers} must be 0 (the model's) or more")
        if not 0 < self.weight < float("inf"):
            raise ValueError(f"weight={self.weight} must be above 0 and finite")
        if self.generator != "network":
            starting = {one.name: one.default for one in fields(self)}
            for name in _OF_NETWORK:
                if getattr(self, name) != starting[name]:
                    raise ValueError(
                        f"{name}={getattr(self, name)!r} has no effect with generator={self.generator!r}, which trains "
                        "no generator; leave it out"
                    )


class Generator(Transformer):
    """A narrow network that shares the embeddings of another one, and the bias of its head over tokens."""

    def __init__(self, config: ModelConfig, model: Transformer, shares: Shares) -> None:
        super().__init__(config)
        self.shares = shares
        self.tokens, self.vocab_bias = model.tokens, model.vocab_bias
        if shares == "embeddings":
            self.wide_embedded, self.wide_logits = model.embedded, model.token_logits
            for name in {"positions", "embedding_norm"} & set(dict(self.named_children())):
                if name != "positions" or self.acts == "input":
                    # Its own would be weights that nothing uses.
                    self.add_module(name, model.get_submodule(name))
        width = model.tokens.embedding_dim if shares == "tokens" else model.config.dim
        self.narrow = nn.Linear(width, config.dim, bias=False)

    def embedded(self, input_ids_X: Tensor, position_X: Tensor) -> Tensor:
        """What enters its first block, (..., C)."""
        if self.shares == "embeddings":
            return cast("Tensor", self.narrow(self.wide_embedded(input_ids_X, position_X)))
        x_XC = self.narrow(self.tokens(input_ids_X))
        if self.acts == "input":
            x_XC = x_XC + self.positions(position_X.flatten()).view_as(x_XC)
        if self.config.embedding_norm == "layer":
            x_XC = self.embedding_norm(x_XC)
        return cast("Tensor", x_XC)

    def token_logits(self, hidden_XC: Tensor) -> Tensor:
        """Logits (..., V), from the shared embeddings."""
        wide_XC = hidden_XC @ self.narrow.weight
        if self.shares == "embeddings":
            return self.wide_logits(wide_XC)
        return F.linear(wide_XC, self.tokens.weight, self.vocab_bias)


class Told(NamedTuple):
    """What generator and model made of a batch.

    The generator's loss at hidden tokens (N,), or None where none is trained; which tokens were replaced (R, T) bool;
    and the model's log odds that they were (M,), at all tokens that it is asked about.
    """

    found_N: Tensor | None  # noqa: N815
    replaced_RT: Tensor  # noqa: N815
    score_M: Tensor  # noqa: N815


class Replaced(nn.Module):
    """The model, the generator or what follows each token in the training texts, and what tells replaced tokens.

    Attributes
    ----------
    followers_VK : (V, K) int64, tokens that stand behind each in the training texts; where no generator is trained.
    """

    followers_VK: Tensor  # noqa: N815

    def __init__(self, model: Transformer, config: Rtd) -> None:
        super().__init__()
        self.model = model
        dim = model.config.dim
        self.generator: Generator | None = None
        if config.generator == "network":
            self.generator = Generator(generator_config(model.config, config), model, config.shares)
        else:
            empty_VK = torch.zeros(model.config.vocab_size, _NUM_FOLLOWERS, dtype=torch.int64)
            self.register_buffer("followers_VK", empty_VK)
        self.tell = nn.Sequential(nn.Linear(dim, dim), nn.GELU(), nn.Linear(dim, 1))
        self.goes_with: nn.Linear | None = None
        if config.tells == "text":
            self.goes_with = nn.Linear(dim, dim, bias=False)
            # A token goes with a text of tokens like it, to begin with.
            nn.init.eye_(self.goes_with.weight)

    def tell_replaced(self, tensors: dict[str, Tensor]) -> Told:
        """Fill the hidden places of a batch, and say of every token whether it was replaced."""
        at_RT = tensors["labels"] != IGNORED
        found_N, drawn_N = self._fill(tensors, at_RT)
        filled_RT = tensors["input_ids"].clone()
        filled_RT[at_RT] = drawn_N
        replaced_RT = filled_RT != tensors["input_ids"]
        hidden_RTC = states(self.model, tensors | {"filled": filled_RT}, "filled")
        told_RT = tensors["told"]
        score_M = self.tell(hidden_RTC[told_RT]).squeeze(-1)
        if self.goes_with is not None:
            ids_M = filled_RT[told_RT]
            embedded_MC = self.model.embedded(ids_M, torch.zeros_like(ids_M))
            text_MC = _of_texts(hidden_RTC, tensors, self.goes_with)[told_RT]
            score_M = score_M + (text_MC * embedded_MC).sum(-1) / embedded_MC.shape[-1] ** 0.5
        return Told(found_N, replaced_RT, score_M.float())

    def _fill(self, tensors: dict[str, Tensor], at_RT: Tensor) -> tuple[Tensor | None, Tensor]:
        """The generator's loss at hidden places (N,), where one is trained, and what is drawn for them (N,) int64."""
        if self.generator is None:
            # A start token is never hidden, so the token before is one of the same text.
            before_N = tensors["input_ids"].roll(1, 1)[at_RT]
            choice_N = (tensors["draws"][at_RT] * _NUM_FOLLOWERS).long()
            return None, self.followers_VK[before_N, choice_N]
        hidden_NC = states(self.generator, tensors, "masked_ids")[at_RT]
        logits_NV = self.generator.token_logits(hidden_NC).float()
        found_N = F.cross_entropy(logits_NV, tensors["labels"][at_RT], reduction="none")
        return found_N, drawn(logits_NV.detach(), tensors["draws"][at_RT])


def _of_texts(hidden_RTC: Tensor, tensors: dict[str, Tensor], turn: nn.Module) -> Tensor:
    """What ``turn`` makes of the mean state of its text, at every real token, (R, T, C)."""
    documents_RT = tensors.get("documents")
    if documents_RT is None:
        text_RC = turn(masked_mean(hidden_RTC, tensors["attention_mask"]))
        return cast("Tensor", text_RC[:, None].expand_as(hidden_RTC))
    # Padding has document -1, of which nothing is asked.
    return cast("Tensor", turn(document_means(hidden_RTC, documents_RT))[documents_RT.clamp(min=0)])


def followers(corpus: Corpus) -> Tensor:
    """Tokens drawn of those that stand behind each token in the training texts, (V, K) int64.

    Behind a token that nothing follows, any that is behind another. The same for a corpus and a seed.

    Raises
    ------
    DataError : no text has a token.
    """
    ids = corpus.tokenizer.token_ids(corpus.data.texts, corpus.max_tokens)
    before_N = np.concatenate([np.asarray(one[:-1], dtype=np.int64) for one in ids])
    behind_N = np.concatenate([np.asarray(one[1:], dtype=np.int64) for one in ids])
    if not len(behind_N):
        raise DataError("generator='successors' draws tokens of the training texts, and no text has any; train others")
    order_N = np.argsort(before_N, kind="stable")
    count_V = np.bincount(before_N, minlength=corpus.tokenizer.vocab_size)
    first_V = count_V.cumsum() - count_V
    draws_VK = np.random.default_rng([corpus.seed, _NUM_FOLLOWERS]).random((len(count_V), _NUM_FOLLOWERS))
    place_VK = np.where(
        count_V[:, None] > 0,
        first_V[:, None] + np.floor(draws_VK * count_V[:, None]),
        np.floor(draws_VK * len(behind_N)),
    ).astype(np.int64)
    return torch.from_numpy(behind_N[order_N][place_VK].astype(np.int64))


def generator_config(model: ModelConfig, config: Rtd) -> ModelConfig:
    """The generator's shape: the model's, narrower, with a plain feed-forward of four times its width."""
    num_heads = max(1, round(model.num_heads * config.generator_share))
    head_dim = max(1, round(model.dim * config.generator_share / num_heads))
    # Rotations turn pairs.
    head_dim += head_dim % 2
    return replace(
        model,
        dim=num_heads * head_dim,
        num_heads=num_heads,
        num_layers=config.generator_layers or model.num_layers,
        num_own_layers=0,
        num_kv_heads=0,
        kv_latent_dim=0,
        rope_head_dim=0,
        embedding_dim=0,
        num_classes=0,
        exit_layers=(),
        vocab_head="tied",
        feedforward="dense",
        feedforward_options={"hidden": 4 * num_heads * head_dim},
    )


@OBJECTIVES.register("rtd", Rtd)
class ReplacedTokenDetection(Objective):
    """Telling the tokens that were replaced, in nats a token, besides training what replaces them (ELECTRA).

    The generator hides tokens and is trained to find them; what it draws stands in their place. Where it draws the true
    token, that counts as not replaced. No gradient flows through the draw. Clark et al. (2020), sections 2 and 3.2; by
    default embeddings of tokens are shared and positions are not, as runs of before have it. With ``successors`` no
    generator is trained, and with ``tells: text`` it is close to negative sampling (Mikolov et al. 2013b, section 2.2).
    """

    def __init__(self, config: Rtd) -> None:
        self.config = config
        self.masking = MASKING[config.masking].configured(config.masking_options)

    def heads(self, num_classes: int) -> Heads:  # noqa: ARG002
        """A head over tokens, for the generator, which is its own as is what tells."""
        return Heads(tokens=True, orders=frozenset({"encoder"}))

    def special_tokens(self) -> tuple[str, ...]:
        """The mask."""
        return (MASK,)

    def network(self, model: nn.Module) -> nn.Module:
        """The model, with a generator."""
        return Replaced(transformer(model), self.config)

    def begin(self, network: nn.Module, corpus: Corpus) -> None:
        """See which tokens follow which, where these are drawn."""
        parts = cast("Replaced", network)
        if parts.generator is None:
            parts.followers_VK.copy_(followers(corpus))

    def batch(self, records: Records) -> Batch:
        """Tokens with hidden ones, the true ones (-100 where none is hidden), and a number in [0, 1) for each draw."""
        mask = records.corpus.tokenizer.token_id(MASK)
        shown: list[TokenRow] = []
        labels, draws = [], []
        for place, ids in enumerate(records.ids):
            hidden, rng = hidden_tokens(records, place, self.config.masking, self.masking)
            labels.append(np.where(hidden, ids, IGNORED))
            draws.append(rng.integers(0, 2**53, len(ids)))
            if self.config.generator == "network":
                # Drawn last, so that the other draws are those of runs without it.
                masked = hidden & (rng.random(len(ids)) < self.config.mask_share)
                shown.append(np.where(masked, mask, ids))
        is_trained = self.config.generator == "network"
        beside = {"masked_ids": (shown, records.corpus.tokenizer.pad_id)} if is_trained else {}
        tensors = inputs(records.corpus, records.ids, labels=(labels, IGNORED), draws=(draws, 0), **beside)
        # All but the start, which is never replaced.
        told_RT = tensors["attention_mask"] & (tensors["input_ids"] != records.corpus.tokenizer.token_id(START))
        num_hidden = (int((tensors["labels"] != IGNORED).sum()),) if is_trained else ()
        return Batch(
            rows=list(records.rows),
            tensors=tensors | {"draws": tensors["draws"].double() / 2**53, "told": told_RT},
            counts=(*num_hidden, int(told_RT.sum())),
            num_tokens=tensors["input_ids"].numel(),
        )

    def losses(self, network: nn.Module, tensors: dict[str, Tensor], *, each: bool) -> Losses:
        """Telling, over all but the start tokens, and before it the generator's, over hidden ones, if it is trained."""
        parts = cast("Replaced", network)
        at_RT, told_RT = tensors["labels"] != IGNORED, tensors["told"]
        found_N, replaced_RT, score_M = parts.tell_replaced(tensors)
        told_M = F.binary_cross_entropy_with_logits(score_M, replaced_RT[told_RT].float(), reduction="none")
        if found_N is None:
            return Losses((told_M.sum(),), record_means(told_M, told_RT, tensors) if each else None)
        weight = self.config.weight
        own = None
        if each:
            own = record_means(found_N, at_RT, tensors) + weight * record_means(told_M, told_RT, tensors)
        return Losses((found_N.sum(), weight * told_M.sum()), own)


def drawn(logits_NV: Tensor, draws_N: Tensor) -> Tensor:
    """A token of each distribution, (N,) int64, by numbers in [0, 1) that were drawn before.

    By the inverse of the cumulated probability: in whichever micro-batch a token stands, it is the same.
    """
    cumulated_NV = torch.softmax(logits_NV.double(), -1).cumsum(-1)
    found_N = torch.searchsorted(cumulated_NV, (draws_N * cumulated_NV[:, -1])[:, None], right=True).squeeze(-1)
    return found_N.clamp(max=logits_NV.shape[-1] - 1)
