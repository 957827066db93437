"""Tiny random models with real, freshly trained tokenizers: whole Hugging Face folders that load and train in a second.

Hidden size 64, 2 layers. The decoder's pad token is its stop token, as in many real models: masking by pad id would
show. Nothing is downloaded.
"""

import json
from pathlib import Path
from typing import Any

HIDDEN = 64
LAYERS = 2
STOP_TOKEN = "<|im_end|>"
START_TOKEN = "<|im_start|>"
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
_SENTENCES = (
    "the film is a warm and funny story about an old man and his dog",
    "a dull plot, poor acting and no idea how to end make it hard to sit through",
    "define the noun house: a building in which somebody lives",
    "user assistant system question answer text label positive negative",
    "in the beginning was the word, and the word was with the people of the land",
    "what a wonderful surprise; I would see this one again tomorrow!",
)


def build_encoder(folder: Path, seed: int = 0) -> Path:
    """Write a BERT encoder without a head; its tokenizer is a WordPiece one."""
    import torch
    import transformers
    from tokenizers import BertWordPieceTokenizer
    from tokenizers.processors import BertProcessing

    trained = BertWordPieceTokenizer(lowercase=True)
    trained.train_from_iterator(_SENTENCES * 4, vocab_size=400, min_frequency=1, show_progress=False)
    separators = [(name, trained.token_to_id(name)) for name in ("[SEP]", "[CLS]")]
    trained.post_processor = BertProcessing(*separators)
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=trained._tokenizer,
        unk_token="[UNK]",
        sep_token="[SEP]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        mask_token="[MASK]",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        model_max_length=128,
    )
    config = transformers.BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=HIDDEN,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        intermediate_size=128,
        max_position_embeddings=128,
    )
    torch.manual_seed(seed)
    return _save(transformers.BertModel(config), tokenizer, folder)


def build_decoder(folder: Path, seed: int = 0, *, is_tied: bool = False) -> Path:
    """Write a Llama decoder with its language head; its tokenizer is a byte-level BPE one with a chat template."""
    import torch
    import transformers

    tokenizer = build_decoder_tokenizer()
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=HIDDEN,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=128,
        max_position_embeddings=128,
        bos_token_id=tokenizer.convert_tokens_to_ids(START_TOKEN),
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=is_tied,
    )
    torch.manual_seed(seed)
    return _save(transformers.LlamaForCausalLM(config), tokenizer, folder)


def build_decoder_tokenizer() -> Any:
    """Train a byte-level BPE tokenizer with a chat template; pad and stop token are one."""
    import transformers
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=[START_TOKEN, STOP_TOKEN],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(_SENTENCES * 4, trainer)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        bos_token=START_TOKEN,
        eos_token=STOP_TOKEN,
        pad_token=STOP_TOKEN,
        chat_template=CHAT_TEMPLATE,
        model_max_length=128,
    )


def write_gguf(folder: Path, path: Path) -> Path:
    """Write the decoder of a folder as a GGUF file with float32 weights, as llama.cpp converts a Llama."""
    import gguf
    import transformers
    from safetensors.numpy import load_file

    config = transformers.AutoConfig.from_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    bpe = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    special = set(tokenizer.all_special_tokens)
    tokens = sorted(bpe["vocab"], key=bpe["vocab"].__getitem__)
    kinds = [gguf.TokenType.CONTROL if token in special else gguf.TokenType.NORMAL for token in tokens]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges([" ".join(pair) for pair in bpe["merges"]])
    writer.add_bos_token_id(tokenizer.bos_token_id)
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_pad_token_id(tokenizer.pad_token_id)
    writer.add_chat_template(tokenizer.chat_template)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    for name, weight in load_file(folder / "model.safetensors").items():
        count = heads.get(name.split(".")[-2])
        writer.add_tensor(names.get_name(name, [".weight"]), _interleave(weight, count) if count else weight)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _interleave(weight: Any, num_heads: int) -> Any:
    """Reorder the rows of each head: llama.cpp rotates neighbours, transformers the halves."""
    return weight.reshape(num_heads, 2, -1, weight.shape[1]).swapaxes(1, 2).reshape(weight.shape)


def _save(model: Any, tokenizer: Any, folder: Path) -> Path:
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
