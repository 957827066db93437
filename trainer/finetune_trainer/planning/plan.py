"""The automatic choices of the prepare stage, read back as numbers. The train stage carries them out, none anew."""

from collections.abc import Mapping
from dataclasses import dataclass

from finetune_api.errors import DataError
from finetune_api.kinds.finetunejob.spec import Precision
from finetune_api.kinds.finetunejob.status import ResolvedKey

PACKED_DECODERS = frozenset({"gemma", "gpt2", "llama", "mistral", "qwen2", "qwen3"})
"""Architectures whose samples may share a row as language models; each has a test against one sample at a time."""
PACKED_ENCODERS = {"bert": "bert.encoder"}
"""Architectures whose samples may share a row as classifiers, and the module whose first token per sample the head
reads; each has such a test too."""

PLAIN_HEADS = PACKED_DECODERS
"""Architectures whose logits are nothing but the product of the last states and the head's matrix: they are scored
without their logits. The tests of the packed ones compare that too."""
HEAD_CHUNK_BYTES = {"cpu": 64 * 2**20, "cuda": 512 * 2**20}
"""Of the logits of a language model that are in memory at once, in float32 (choices): on a CPU they should stay near
its caches, a GPU wants large products."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What `resolved` of prepared.json says about the training."""

    micro_batch_tokens: int
    is_packed: bool
    learning_rate: float
    total_steps: int
    precision: Precision
    best_metric: str


def parse_plan(resolved: Mapping[str, str]) -> Plan:
    """Read the choices.

    Raises:
        DataError: one is missing or no number, as in files of another version of the trainer.
    """
    try:
        return Plan(
            micro_batch_tokens=int(resolved[ResolvedKey.MICRO_BATCH_TOKENS]),
            is_packed=_parse_flag(resolved[ResolvedKey.PACKING]),
            learning_rate=float(resolved[ResolvedKey.LEARNING_RATE]),
            total_steps=int(resolved[ResolvedKey.TOTAL_STEPS]),
            precision=Precision(resolved[ResolvedKey.PRECISION]),
            best_metric=resolved[ResolvedKey.BEST_METRIC],
        )
    except (KeyError, ValueError) as error:
        raise DataError(
            f"prepared.json must hold every choice of the prepare stage: {error}",
            "use the same trainer image for both stages",
        ) from error


def _parse_flag(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError(f"{text} is neither true nor false")
    return text == "true"
