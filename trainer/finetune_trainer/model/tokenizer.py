"""The tokenizer of a base model: fast, whole, and without code of its own."""

from pathlib import Path
from typing import TYPE_CHECKING

from finetune_api import wording
from finetune_api.errors import ModelError
from finetune_api.kinds.finetunejob.spec import ModelSource

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def load_tokenizer(folder: Path, gguf_file: str | None, source: ModelSource) -> "PreTrainedTokenizerBase":
    """Load the tokenizer of a fetched model.

    Raises:
        ModelError: it can't be loaded, or needs code of its own.
    """
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    try:
        tokenizer: PreTrainedTokenizerBase
        if gguf_file is None:
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        else:
            # What AutoTokenizer makes of it too, after it has parsed all metadata for a configuration.
            tokenizer = PreTrainedTokenizerFast.from_pretrained(folder, gguf_file=gguf_file, local_files_only=True)
    except (ValueError, OSError, KeyError, TypeError, ImportError, AttributeError, StrictDataclassError) as error:
        raise ModelError(
            f"spec.model.uri ({source.uri}) must hold a tokenizer that can be loaded; {wording.show_error(error)}",
            "upload tokenizer.json and tokenizer_config.json as the model's makers publish them.",
        ) from error
    if not tokenizer.is_fast:
        raise ModelError(
            f"spec.model.uri ({source.uri}) must hold a fast tokenizer; {type(tokenizer).__name__} is not",
            "save the tokenizer as tokenizer.json.",
        )
    return tokenizer
