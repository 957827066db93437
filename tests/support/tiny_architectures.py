"""A tiny model of random weights for every architecture that transformers trains on text, with its family's tokenizer.

`SIZES` are the fields that make a configuration small, by the names they have anywhere; `ARCHITECTURES` says by model
type what differs: fields that have to fit each other, and whose conventions the tokenizer follows. `LEFT_OUT` names the
types that get no model here, with the reason. A test compares all three with what transformers lists.
"""

import copy
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tiny_tokenizers
import torch
import transformers
from transformers.models.auto import modeling_auto

VOCABULARY = 640
"""Tokens of every model: more than any of the tokenizers has, as with most published models."""
MAX_PARAMETERS = 2_500_000
"""Above it a size was forgotten."""

SIZES: dict[str, Any] = dict.fromkeys(
    ("hidden_size", "d_model", "n_embd", "dim", "emb_dim", "embedding_size", "n_embed", "model_dim"), 32
)
SIZES |= dict.fromkeys(
    (
        "num_hidden_layers",
        "n_layer",
        "n_layers",
        "num_layers",
        "encoder_layers",
        "decoder_layers",
        "num_decoder_layers",
        "num_encoder_layers",
    ),
    2,
)
SIZES |= dict.fromkeys(
    (
        "num_attention_heads",
        "n_head",
        "n_heads",
        "num_heads",
        "encoder_attention_heads",
        "decoder_attention_heads",
        "num_encoder_attention_heads",
        "num_decoder_attention_heads",
    ),
    4,
)
SIZES |= {"num_key_value_heads": 2}
SIZES |= dict.fromkeys(("head_dim", "d_kv", "d_head"), 8)
SIZES |= dict.fromkeys(
    (
        "intermediate_size",
        "d_ff",
        "d_inner",
        "dff",
        "ffn_dim",
        "encoder_ffn_dim",
        "decoder_ffn_dim",
        "ffn_hidden_size",
        "hidden_dim",
    ),
    64,
)
SIZES |= dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size"), 32)
SIZES |= dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"), 4)
SIZES |= dict.fromkeys(("num_experts_per_tok", "moe_topk", "moe_k"), 2)
SIZES |= {"n_shared_experts": 1, "n_group": 1, "topk_group": 1}
SIZES |= dict.fromkeys(
    ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "max_sequence_length", "context_length"), 64
)
SIZES |= {"sliding_window": 16, "rotary_dim": 4}
SIZES |= dict.fromkeys(("kv_lora_rank", "q_lora_rank"), 16)
SIZES |= dict.fromkeys(("qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim"), 8)
# As with real ones, more than most rows have: which of two equal scores is among the first depends on the padding.
SIZES |= {"index_topk": 64, "index_head_dim": 16, "index_n_heads": 2}
SIZES |= {"state_size": 8, "mamba_d_state": 8, "mamba_n_heads": 8, "mamba_d_head": 8, "mamba_n_groups": 1}
SIZES |= {
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
}
# Ten times the usual: logits far enough apart that a difference shows.
SIZES |= dict.fromkeys(("initializer_range", "init_std"), 0.2)

_TOKENIZERS = {
    "AlbertTokenizer": "albert",
    "BertTokenizer": "bert",
    "CamembertTokenizer": "xlm-roberta",
    "DebertaTokenizer": "roberta",
    "DebertaV2Tokenizer": "deberta-v2",
    "GPT2Tokenizer": "gpt2",
    "GPTNeoXTokenizer": "gpt_neox",
    "GemmaTokenizer": "gemma",
    "MPNetTokenizer": "mpnet",
    "MobileBertTokenizer": "bert",
    "MvpTokenizer": "roberta",
    "Qwen2Tokenizer": "qwen2",
    "Qwen3_5Tokenizer": "qwen2",
    "RoFormerTokenizer": "bert",
    "RobertaTokenizer": "roberta",
    "T5Tokenizer": "t5",
    "XLMRobertaTokenizer": "xlm-roberta",
    "XLNetTokenizer": "xlnet",
}
"""The kind of tokenizer by the class that transformers names for a model type."""


@dataclass(frozen=True, slots=True)
class Architecture:
    """What a tiny model of a type needs beyond `SIZES`."""

    fields: Mapping[str, Any] = field(default_factory=dict)
    tokenizer: str | None = None
    """Kind of tokenizer; None: by the class that transformers names, else `llama` for decoders and `bert`."""
    model_type: str | None = None
    """The type of which this is a model that is put together differently; None: its name is its type."""


_LATENT = {"num_key_value_heads": 4}
"""Attention over compressed keys has as many of them as queries."""
_VISION = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "image_size": 16,
    "patch_size": 8,
}
_MIXED = {"layer_types": ["linear_attention", "full_attention"]}

ARCHITECTURES: dict[str, Architecture] = {
    "axk1": Architecture(_LATENT),
    "axk2": Architecture(_LATENT),
    "bailing_hybrid": Architecture(_MIXED),
    "bamba": Architecture({"attn_layer_indices": [1]}),
    "biogpt": Architecture(tokenizer="opt"),
    "blenderbot": Architecture(tokenizer="roberta"),
    "bloom": Architecture(tokenizer="bloom"),
    "canine": Architecture({"num_hash_buckets": 64}),
    "cohere_compass_text": Architecture(
        {
            "rope_parameters": {
                kind: {"rope_type": "default", "rope_theta": 10000.0}
                for kind in ("full_attention", "sliding_attention")
            }
        }
    ),
    "cpmant": Architecture(
        {"prompt_length": 4, "prompt_types": 2, "segment_types": 4, "position_bias_num_buckets": 32}
    ),
    "data2vec-text": Architecture(tokenizer="roberta"),
    "deberta": Architecture(tokenizer="roberta"),
    "deepseek_v2": Architecture(_LATENT),
    "deepseek_v3": Architecture(_LATENT),
    "deepseek_v32": Architecture(_LATENT),
    "dots3_note_text": Architecture(_LATENT),
    "ernie": Architecture(tokenizer="bert"),
    "esmc": Architecture({"num_key_value_heads": 4}),
    "falcon": Architecture(tokenizer="gpt2"),
    "falcon_h1": Architecture({"mamba_d_ssm": 64}),
    "gemma3": Architecture({"vision_config": _VISION, "mm_tokens_per_image": 4}),
    "gemma3n_text": Architecture(
        {
            "layer_types": ["sliding_attention", "full_attention"],
            "num_kv_shared_layers": 0,
            "vocab_size_per_layer_input": VOCABULARY,
            "hidden_size_per_layer_input": 8,
            "laurel_rank": 8,
        },
        tokenizer="gemma",
    ),
    "gemma4_text": Architecture(
        {"vocab_size_per_layer_input": VOCABULARY, "hidden_size_per_layer_input": 8}, tokenizer="gemma"
    ),
    "glm4_moe_lite": Architecture(_LATENT),
    "glm_moe_dsa": Architecture(_LATENT),
    "gpt-sw3": Architecture(tokenizer="gpt2"),
    "gpt_bigcode": Architecture(tokenizer="gpt2"),
    "granitemoehybrid": Architecture({"layer_types": ["mamba", "attention"]}),
    "gpt_neo": Architecture({"attention_types": [[["global", "local"], 1]], "window_size": 16}),
    "gpt_oss": Architecture(tokenizer="gpt2"),
    "jamba": Architecture({"attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2}),
    "kimi_linear": Architecture({"num_key_value_heads": 4, "linear_head_dim": 8, "linear_num_heads": 4}),
    "lfm2_moe": Architecture({"layer_types": ["conv", "full_attention"], "num_dense_layers": 1}),
    "longcat_flash": Architecture({"expert_ffn_hidden_size": 32, "zero_expert_num": 1, "num_key_value_heads": 4}),
    "longformer": Architecture({"attention_window": 16}),
    "luke": Architecture({"entity_vocab_size": 8, "entity_emb_size": 8}, tokenizer="roberta"),
    "mamba2": Architecture({"num_heads": 8, "head_dim": 8}),
    "markuplm": Architecture(
        {"max_xpath_tag_unit_embeddings": 8, "max_xpath_subs_unit_embeddings": 8, "xpath_unit_hidden_size": 4},
        tokenizer="roberta",
    ),
    "mbart": Architecture(tokenizer="xlm-roberta"),
    "minicpm3": Architecture(_LATENT),
    "mistral4": Architecture(_LATENT),
    "modernbert": Architecture(tokenizer="bert"),
    "modernbert-decoder": Architecture({"cls_token_id": 0, "sep_token_id": 0}, tokenizer="gpt_neox"),
    "mt5": Architecture({"decoder_start_token_id": 0}),
    "nanochat": Architecture(tokenizer="gpt2"),
    "olmo2": Architecture(tokenizer="gpt_neox"),
    "olmo3": Architecture(tokenizer="gpt_neox"),
    "opt": Architecture({"word_embed_proj_dim": 32}, tokenizer="opt"),
    "phi3": Architecture(tokenizer="llama"),
    "plbart": Architecture(tokenizer="roberta"),
    "qwen3_5_text": Architecture(_MIXED),
    "qwen3_next": Architecture(_MIXED),
    "recurrent_gemma": Architecture({"block_types": ["recurrent", "attention"], "lru_width": 32}),
    "reformer": Architecture({"axial_pos_embds_dim": (16, 16), "axial_pos_shape": (8, 8)}),
    "roc_bert": Architecture({"pronunciation_vocab_size": 16, "shape_vocab_size": 16}, tokenizer="bert"),
    "smollm3": Architecture(tokenizer="qwen2"),
    "t5": Architecture({"decoder_start_token_id": 0}),
    "umt5": Architecture({"decoder_start_token_id": 0}, tokenizer="t5"),
    "xglm": Architecture(tokenizer="xlm-roberta"),
    "xlm-roberta-xl": Architecture(tokenizer="xlm-roberta"),
    "xmod": Architecture({"default_language": "en_XX", "languages": ("en_XX",)}),
    "youtu": Architecture(_LATENT),
    "zamba2": Architecture({"layers_block_type": ["mamba", "hybrid"], "num_key_value_heads": 4, "adapter_rank": 4}),
    "zaya": Architecture({"num_experts_per_tok": 1}),
}


VARIANTS: dict[str, Architecture] = {
    # Its positions begin after the configuration's padding id, whatever the tokenizer pads with.
    "roberta-padded-with-0": Architecture({"pad_token_id": 1}, tokenizer="bert", model_type="roberta"),
    # The tokenizer's first token is what begins, ends and pads a text.
    "llama-with-one-special-token": Architecture({"pad_token_id": None}, tokenizer="gpt2", model_type="llama"),
    # The tokenizer has a token that the model has no embedding for, and that no text needs.
    "gemma3_text-with-a-token-more": Architecture({"vocab_size": 559}, tokenizer="gemma", model_type="gemma3_text"),
    # The same, and half of the rows use it.
    "qwen2-with-a-token-more-in-use": Architecture({"vocab_size": 378}, tokenizer="qwen2", model_type="qwen2"),
}
"""Models as they are found, by a name of ours: configuration and tokenizer don't agree."""

_TOKENS = tuple(f"{name}_token_id" for name in ("bos", "cls", "eos", "mask", "pad", "sep", "unk"))


def list_types() -> list[str]:
    """Return the model types that transformers classifies sequences or continues text with."""
    known = {
        *modeling_auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
        *modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    }
    return sorted(known)


def find_architecture(name: str) -> Architecture:
    """Return what the model of a type, or of a variant of one, needs."""
    return VARIANTS.get(name) or ARCHITECTURES.get(name, Architecture())


def find_type(name: str) -> str:
    """Return the model type of a name in the table."""
    return find_architecture(name).model_type or name


def build_config(name: str, tokenizer: Any) -> Any:
    """Build a tiny configuration; ids of special tokens are the tokenizer's where it has them."""
    config_class = transformers.CONFIG_MAPPING[find_type(name)]
    values = _build_fields(config_class, tokenizer)
    return config_class(**values | copy.deepcopy(dict(find_architecture(name).fields)))


def _build_fields(config_class: Any, tokenizer: Any) -> dict[str, Any]:
    defaults = {item.name: item.default for item in dataclasses.fields(config_class)}
    values = {name: size for name, size in SIZES.items() if name in defaults}
    if "vocab_size" in defaults:
        values["vocab_size"] = VOCABULARY
    for name in _TOKENS:
        if name not in defaults:
            continue
        token = getattr(tokenizer, name)
        default = defaults[name]
        is_usable = isinstance(default, int) and default < len(tokenizer)
        values[name] = token if token is not None else default if is_usable else None
    for name, part in (config_class.sub_configs or {}).items():
        if name.endswith(("text_config", "decoder", "encoder")) and dataclasses.is_dataclass(part):
            values[name] = _build_fields(part, tokenizer)
    return values


def choose_tokenizer(name: str) -> str:
    """Name the kind of tokenizer of a type or a variant."""
    from transformers.models.auto.tokenization_auto import TOKENIZER_MAPPING_NAMES

    model_type = find_type(name)
    is_decoder = model_type in modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and not is_encoder(model_type)
    by_class = _TOKENIZERS.get(str(TOKENIZER_MAPPING_NAMES.get(model_type)))
    return find_architecture(name).tokenizer or by_class or ("llama" if is_decoder else "bert")


def is_encoder(model_type: str) -> bool:
    """Tell whether a type's published models fill gaps instead of continuing text."""
    return model_type in modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES


def build_model(name: str, folder: Path) -> Path:
    """Write a tiny model as its makers would publish it: with its language head where the type has one, no classes."""
    tokenizer = tiny_tokenizers.build_tokenizer(choose_tokenizer(name))
    config, model_type = build_config(name, tokenizer), find_type(name)
    if model_type in modeling_auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES:
        auto: Any = transformers.AutoModelForSeq2SeqLM
    elif is_encoder(model_type):
        auto = transformers.AutoModelForMaskedLM
    elif model_type in modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        auto = transformers.AutoModelForCausalLM
    else:
        auto = transformers.AutoModel
    with torch.device("meta"):
        size = sum(parameter.numel() for parameter in auto.from_config(copy.deepcopy(config)).parameters())
    if size > MAX_PARAMETERS:
        raise ValueError(f"{name} has {size} parameters; tell ARCHITECTURES which field makes it small")
    torch.manual_seed(0)
    model = auto.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                # Biases begin at 0 and scales at 1: one that is lost would not show.
                parameter.add_(0.05 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
