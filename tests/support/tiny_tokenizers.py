"""Small real tokenizers, one for each convention that model families have: which special tokens, which ids, which side.

Each is trained in a moment on a few sentences and is of the class that transformers uses for its family, so what the
family's tokenizers do is done here too: XLNet's pads on the left and ends in its classification token, RoBERTa's pad id
is 1, GPT-2's has no pad token at all.
"""

import functools
import json
from collections.abc import Callable, Sequence
from typing import Any

import transformers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

SENTENCES = (
    "the film is a warm and funny story about an old man and his dog",
    "a dull plot, poor acting and no idea how to end make it hard to sit through",
    "define the noun house: a building in which somebody lives",
    "user assistant system question answer text label positive negative",
    "in the beginning was the word, and the word was with the people of the land",
    "what a wonderful surprise; I would see this one again tomorrow!",
)
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
_ENDOFTEXT = "<|endoftext|>"

# Special tokens in the order of their ids.
_BERT = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_MPNET = ("<s>", "<pad>", "</s>", "[UNK]", "<mask>")
_ROBERTA = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
_QWEN = (_ENDOFTEXT, "<|im_start|>", "<|im_end|>")
_BLOOM = ("<unk>", "<s>", "</s>", "<pad>")
_LLAMA = ("<unk>", "<s>", "</s>")
_GEMMA = ("<pad>", "<eos>", "<bos>", "<unk>")
_T5 = ("<pad>", "</s>", "<unk>")
_XLNET = ("<unk>", "<s>", "</s>", "<cls>", "<sep>", "<pad>", "<mask>")
_ALBERT = ("<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]")
_DEBERTA_V2 = ("[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]")
_XLM_ROBERTA = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")


def _train_word_pieces(special: Sequence[str]) -> dict[str, Any]:
    """Train WordPiece, as BERT's tokenizers are."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    model = _train(tokenizer, trainers.WordPieceTrainer, special, vocab_size=400)
    return {"vocab": model["vocab"]}


def _train_bytes(special: Sequence[str]) -> dict[str, Any]:
    """Train byte-level BPE, as GPT-2's and its relatives' tokenizers are."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    model = _train(tokenizer, trainers.BpeTrainer, special, vocab_size=380, initial_alphabet=alphabet)
    return {"vocab": model["vocab"], "merges": [tuple(pair) for pair in model["merges"]]}


def _train_sentence_pieces(special: Sequence[str]) -> dict[str, Any]:
    """Train BPE over whole text with a token for each byte, as the Llama family's tokenizers are."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    octets = [f"<0x{octet:02X}>" for octet in range(256)]
    model = _train(tokenizer, trainers.BpeTrainer, [*special, *octets], vocab_size=600)
    return {"vocab": model["vocab"], "merges": [tuple(pair) for pair in model["merges"]]}


def _train_unigrams(special: Sequence[str]) -> dict[str, Any]:
    """Train a unigram model, as T5's, XLNet's and the multilingual models' tokenizers are."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    unknown = next(token for token in special if token in ("<unk>", "[UNK]"))
    model = _train(tokenizer, trainers.UnigramTrainer, special, vocab_size=300, unk_token=unknown)
    return {"vocab": [tuple(piece) for piece in model["vocab"]]}


def _train(tokenizer: Any, trainer: Any, special: Sequence[str], **options: Any) -> dict[str, Any]:
    options = {"special_tokens": list(special), "show_progress": False, **options}
    tokenizer.train_from_iterator(SENTENCES * 4, trainer(**options))
    model: dict[str, Any] = json.loads(tokenizer.to_str())["model"]
    return model


_Trainer = Callable[[Sequence[str]], dict[str, Any]]
_KINDS: dict[str, tuple[str, _Trainer, Sequence[str], dict[str, Any]]] = {
    "bert": ("BertTokenizer", _train_word_pieces, _BERT, {}),
    "mpnet": ("MPNetTokenizer", _train_word_pieces, _MPNET, {}),
    "roberta": ("RobertaTokenizer", _train_bytes, _ROBERTA, {}),
    "gpt2": ("GPT2Tokenizer", _train_bytes, (_ENDOFTEXT,), {}),
    "gpt_neox": ("GPTNeoXTokenizer", _train_bytes, (_ENDOFTEXT,), {}),
    "opt": (
        "GPT2Tokenizer",
        _train_bytes,
        _ROBERTA,
        {"bos_token": "</s>", "eos_token": "</s>", "unk_token": "</s>", "pad_token": "<pad>", "add_bos_token": True},
    ),
    "bloom": (
        "GPT2Tokenizer",
        _train_bytes,
        _BLOOM,
        {
            "bos_token": "<s>",
            "eos_token": "</s>",
            "unk_token": "<unk>",
            "pad_token": "<pad>",
            "padding_side": "left",
        },
    ),
    "qwen2": ("Qwen2Tokenizer", _train_bytes, _QWEN, {"eos_token": "<|im_end|>", "chat_template": CHAT_TEMPLATE}),
    "llama": ("LlamaTokenizer", _train_sentence_pieces, _LLAMA, {"add_bos_token": True}),
    "gemma": ("GemmaTokenizer", _train_sentence_pieces, _GEMMA, {"add_bos_token": True}),
    "t5": ("T5Tokenizer", _train_unigrams, _T5, {"extra_ids": 4}),
    "xlnet": ("XLNetTokenizer", _train_unigrams, _XLNET, {}),
    "albert": ("AlbertTokenizer", _train_unigrams, _ALBERT, {}),
    "deberta-v2": ("DebertaV2Tokenizer", _train_unigrams, _DEBERTA_V2, {"unk_id": 3}),
    "xlm-roberta": ("XLMRobertaTokenizer", _train_unigrams, _XLM_ROBERTA, {}),
}
"""Kind → class in transformers, how it is trained, its special tokens by id, what else it is told."""


@functools.cache
def build_tokenizer(kind: str) -> Any:
    """Return the tokenizer of a kind; one object for all callers, who only read or save it."""
    name, train, special, options = _KINDS[kind]
    return getattr(transformers, name)(**train(special), **options)
