"""A trained decoder as a folder that the transformers library loads without any code of ours.

python -m training.transformers_export MODEL_FOLDER NEW_FOLDER
"""

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

from torch import Tensor, nn

from catalog.errors import ConfigError, ConflictError, ServiceError
from training.checkpoint import publish_folder
from training.export import load_model
from training.feedforward.dense import Dense
from training.model import ModelConfig, Transformer
from training.positions.rope import Rope
from training.third_party import quietly, without_bars
from training.tokenizer import PAD, START, TextTokenizer


def export_to_transformers(model: nn.Module, tokenizer: TextTokenizer, folder: Path, *, card: str = "") -> Path:
    """Write config, weights (safetensors) and tokenizer for ``AutoModelForCausalLM`` and ``AutoTokenizer``.

    ``learned`` positions become GPT2LMHeadModel, ``rope`` becomes Starcoder2ForCausalLM: the same computation, so that
    logits agree to rounding.

    Parameters
    ----------
    model : a ``Transformer`` trained by objective ``clm``.
    folder : made anew.
    card : Markdown that goes with it, if any.

    Raises
    ------
    ConfigError : transformers has no architecture that computes this; with each setting in the way.
    ConflictError : the folder is there.
    """
    if not isinstance(model, Transformer):
        raise ConfigError(
            f"no architecture of transformers computes a {type(model).__name__}; keep our layout, or train a decoder "
            "(backbone 'small', objective clm)"
        )
    if folder.exists():
        raise ConflictError(f"{folder} is there already; name a new folder, or remove it")
    _check(model.config)
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Not mkdtemp, whose folders none but their owner reads.
    aside = folder.with_name(f".tmp-{folder.name}-{uuid4().hex}")
    try:
        with quietly(), without_bars():
            _save(model, tokenizer, aside)
        if card:
            (aside / "README.md").write_text(card, encoding="utf-8")
        publish_folder(aside, folder)
        if aside.exists():
            raise ConflictError(f"{folder} was made by another meanwhile; remove it, or name a new folder")
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return folder


def _save(model: Transformer, tokenizer: TextTokenizer, folder: Path) -> None:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    theirs = (_gpt2 if model.config.positions == "learned" else _starcoder2)(model, tokenizer)
    theirs.save_pretrained(folder)
    words = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=Tokenizer.from_str(tokenizer.document), pad_token=PAD, bos_token=START
    )
    words.save_pretrained(folder)


def _check(config: ModelConfig) -> None:
    needed = {
        "order": "causal",
        "attention": "full",
        "feedforward": "dense",
        "embedding_dim": 0,
        "embedding_norm": "none",
        "num_own_layers": 0,
        "kv_latent_dim": 0,
        "vocab_bias": "none",
    }
    if config.positions == "learned":
        needed["num_kv_heads"] = 0
    wrong = [f"{name}={getattr(config, name)!r} (needs {value!r})" for name, value in needed.items()
             if getattr(config, name) != value]  # fmt: skip
    if config.vocab_head != "tied":
        wrong.append("no head over the vocabulary (needs objective clm)")
    if config.positions not in ("learned", "rope"):
        wrong.append(f"positions={config.positions!r} (needs 'learned' or 'rope')")
    if config.positions == "rope" and Rope(**config.position_options).scaling != "none":
        wrong.append("a scaling of rope (needs 'none')")
    if wrong:
        raise ConfigError(
            f"no architecture of transformers computes {', '.join(wrong)}; train one with those settings, or keep ours"
        )


def _common(config: ModelConfig, tokenizer: TextTokenizer) -> dict[str, Any]:
    special = {"bos_token_id": tokenizer.token_id(START), "eos_token_id": None, "pad_token_id": tokenizer.pad_id}
    return {"vocab_size": config.vocab_size, "tie_word_embeddings": True, **special}


def _gpt2(model: Transformer, tokenizer: TextTokenizer) -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = model.config
    theirs = GPT2LMHeadModel(
        GPT2Config(
            n_positions=config.max_tokens,
            n_embd=config.dim,
            n_layer=config.num_layers,
            n_head=config.num_heads,
            n_inner=Dense(**config.feedforward_options).hidden,
            activation_function="gelu",
            resid_pdrop=config.dropout,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            **_common(config, tokenizer),
        )
    )
    ours = model.state_dict()
    weights = {"transformer.wte.weight": ours["tokens.weight"], "transformer.wpe.weight": ours["positions.weight"]}
    weights |= _renamed(ours, "norm", "transformer.ln_f")
    names = {"attention.query_key_value": "attn.c_attn", "attention.output": "attn.c_proj"}
    names |= {"feedforward.0": "mlp.c_fc", "feedforward.2": "mlp.c_proj"}
    for layer in range(config.num_layers):
        block, new = f"blocks.{layer}", f"transformer.h.{layer}"
        weights |= _renamed(ours, f"{block}.attention_norm", f"{new}.ln_1")
        weights |= _renamed(ours, f"{block}.feedforward_norm", f"{new}.ln_2")
        for one, other in names.items():
            # Its linear layers keep their weights the other way round.
            weights[f"{new}.{other}.weight"] = ours[f"{block}.{one}.weight"].T.contiguous()
            weights[f"{new}.{other}.bias"] = ours[f"{block}.{one}.bias"]
    return _loaded(theirs, weights)


def _starcoder2(model: Transformer, tokenizer: TextTokenizer) -> Any:
    from transformers import Starcoder2Config, Starcoder2ForCausalLM

    config = model.config
    theirs = Starcoder2ForCausalLM(
        Starcoder2Config(
            max_position_embeddings=config.max_tokens,
            hidden_size=config.dim,
            num_hidden_layers=config.num_layers,
            num_attention_heads=config.num_heads,
            num_key_value_heads=config.num_kv_heads or config.num_heads,
            intermediate_size=Dense(**config.feedforward_options).hidden,
            hidden_act="gelu",
            residual_dropout=config.dropout,
            sliding_window=None,
            rope_parameters={"rope_type": "default", "rope_theta": Rope(**config.position_options).base},
            **_common(config, tokenizer),
        )
    )
    ours = model.state_dict()
    weights = {"model.embed_tokens.weight": ours["tokens.weight"]} | _renamed(ours, "norm", "model.norm")
    names = {"attention_norm": "input_layernorm", "feedforward_norm": "post_attention_layernorm"}
    names |= {"attention.output": "self_attn.o_proj", "feedforward.0": "mlp.c_fc", "feedforward.2": "mlp.c_proj"}
    widths = [heads * config.head_dim for heads in (config.num_heads, *(2 * [config.num_kv_heads or config.num_heads]))]
    for layer in range(config.num_layers):
        block, new = f"blocks.{layer}", f"model.layers.{layer}"
        for one, other in names.items():
            weights |= _renamed(ours, f"{block}.{one}", f"{new}.{other}")
        for kind in ("weight", "bias"):
            parts = ours[f"{block}.attention.query_key_value.{kind}"].split(widths)
            for name, part in zip("qkv", parts, strict=True):
                weights[f"{new}.self_attn.{name}_proj.{kind}"] = part.contiguous()
    return _loaded(theirs, weights)


def _renamed(weights: dict[str, Tensor], before: str, after: str) -> dict[str, Tensor]:
    return {f"{after}.{kind}": weights[f"{before}.{kind}"] for kind in ("weight", "bias")}


def _loaded(theirs: Any, weights: dict[str, Tensor]) -> Any:
    missing, unexpected = theirs.load_state_dict(weights, strict=False)
    # The head's weights are the embedding's.
    assert set(missing) <= {"lm_head.weight"}, missing
    assert not unexpected, unexpected
    return theirs.eval()


def main(argv: Sequence[str]) -> int:
    """Export the model in a folder; 0 when done, 1 when refused."""
    if len(argv) != 2:
        sys.stderr.write(f"{__doc__ or ''}\n")
        return 2
    try:
        saved = load_model(Path(argv[0]))
        sys.stdout.write(f"{export_to_transformers(saved.model, saved.tokenizer, Path(argv[1]))}\n")
    except ServiceError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
