"""The base model, from its files to what is published of it.

Before any weight is there, and without torch: `files` (what is fetched), `gguf_header`, `facts` (sizes and types from
headers), `tokenizer`, `chat_template` and `special_tokens`, `architectures` (transformers' tables of names). Asked of
the model's class on torch's meta device: `structure` (heads, layers, positions) and `trial` (layers that take part).
From both: `fit` (can it be trained as the spec says), `input_ids` (does it take a row). With the weights:
`gguf_unpack`, `load`, `method` (what is trained), `unwrap`, `save`.
"""
