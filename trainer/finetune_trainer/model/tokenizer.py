"""The tokenizer of a base model: fast, whole, and without code of its own."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune_api import wording
from finetune_api.errors import ModelError
from finetune_api.kinds.finetunejob.spec import ModelSource

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_FAULTS = (
    *(ValueError, OSError, LookupError, TypeError, ImportError, AttributeError, RecursionError, ArithmeticError),
    *(AssertionError, NotImplementedError),
)


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
    except BaseException as error:
        # What can't be parsed is a plain Exception of the library, and a pattern that can't be compiled may panic.
        if (
            not isinstance(error, (*_FAULTS, StrictDataclassError))
            and type(error) is not Exception
            and type(error).__name__ != "PanicException"
        ):
            raise
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


def choose_pad_id(tokenizer: Any, config: Any) -> int:
    """Choose what fills short rows, and have configuration and tokenizer say so where they are published.

    Any id does for attention, since rows are masked by length. But some architectures count positions from their
    padding, and a decoder's classifier reads the last token that is not its padding: so the model's own id stays what
    it is, and one that has none gets one.
    """
    text = config.get_text_config()
    own = getattr(text, "pad_token_id", None)
    # Some checkpoints write -1 for none.
    if own is None or own < 0:
        candidates = (tokenizer.pad_token_id, tokenizer.eos_token_id, 0)
        own = next(int(candidate) for candidate in candidates if candidate is not None)
        text.pad_token_id = config.pad_token_id = own
    if tokenizer.pad_token_id != own and own < len(tokenizer):
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(own)
    return int(own)
