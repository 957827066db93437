"""Chat templates with the structure of those that well-known models publish, each with its model's special tokens."""

# ruff: noqa: RUF001 - DeepSeek writes its tokens with wide bars

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tiny_models

FOLDER = Path(__file__).parents[1] / "trainer" / "tasks" / "templates"
_CHATML = ("<|im_start|>", "<|im_end|>")


@dataclass(frozen=True)
class Published:
    """A template, and what its model's tokenizer knows.

    Attributes:
        bos: begin-of-text token.
        eos: end-of-text token.
        special: what else is a token of its own.
        plain: tokens of its own that are not special, as models have them for reasoning.
    """

    bos: str
    eos: str
    special: tuple[str, ...] = ()
    plain: tuple[str, ...] = ()


PUBLISHED = {
    "qwen2.5": Published("<|endoftext|>", "<|im_end|>", _CHATML),
    "qwen3": Published("<|endoftext|>", "<|im_end|>", _CHATML, ("<think>", "</think>")),
    "phi-3": Published("<s>", "<|endoftext|>", ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>")),
    "phi-4-mini": Published("<|endoftext|>", "<|endoftext|>", ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>")),
    "phi-4": Published("<|endoftext|>", "<|im_end|>", (*_CHATML, "<|im_sep|>")),
    "llama-3.1": Published("<|begin_of_text|>", "<|eot_id|>", ("<|start_header_id|>", "<|end_header_id|>")),
    "llama-2": Published("<s>", "</s>"),
    "gemma-2": Published("<bos>", "<end_of_turn>", ("<start_of_turn>", "<eos>")),
    "gemma-3": Published("<bos>", "<end_of_turn>", ("<start_of_turn>", "<eos>")),
    "mistral-v3": Published("<s>", "</s>", ("[INST]", "[/INST]")),
    "mistral-small": Published("<s>", "</s>", ("[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]")),
    "deepseek-r1": Published(
        "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", ("<｜User｜>", "<｜Assistant｜>"), ("<think>", "</think>")
    ),
    "smollm3": Published("<|im_start|>", "<|im_end|>", (), ("<think>", "</think>")),
    "vicuna": Published("<s>", "</s>"),
    "alpaca": Published("<s>", "</s>"),
}


def read_template(name: str) -> str:
    return (FOLDER / f"{name}.jinja").read_text(encoding="utf-8")


def build_tokenizer(name: str) -> Any:
    """Build a small tokenizer with one of the templates and its tokens."""
    published = PUBLISHED[name]
    tokenizer = tiny_models.build_decoder_tokenizer()
    tokenizer.add_special_tokens(
        {
            "bos_token": published.bos,
            "eos_token": published.eos,
            "pad_token": published.eos,
            "extra_special_tokens": list(published.special),
        }
    )
    tokenizer.add_tokens(list(published.plain))
    tokenizer.chat_template = read_template(name)
    return tokenizer
