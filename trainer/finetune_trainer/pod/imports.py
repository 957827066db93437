"""What a stage's process does without, though it is installed: libraries import what they find, needed or not.

torch is most of what transformers imports for a tokenizer: 1.6 s and 400 MB. bitsandbytes brings torch's compiler
along: 1.3 s (measured, 2026, one core).
"""

import os
import sys
from collections.abc import Sequence

from finetune_api.kinds.finetunejob.spec import FineTuneJobSpec, Quantization
from finetune_api.run import Stage

UNNEEDED_TO_LOOK = ("bitsandbytes", "scipy", "sklearn", "triton")
"""What a look at a model's class has no use for; with it, 8.8 s of a processor for BERT with LoRA, without, 5.4."""


def find_unneeded(stage: Stage, spec: FineTuneJobSpec) -> list[str]:
    """Return the packages a stage of this run has no use for. Pure."""
    if stage == Stage.PREPARE:
        # transformers reads the tokenizer of a GGUF file only where torch is.
        return [] if spec.model.uri.endswith(".gguf") else ["torch"]
    return ["bitsandbytes"] if spec.method.quantization == Quantization.NONE else []


def leave_out(packages: Sequence[str]) -> None:
    """Make packages look as if they were not installed, for as long as this process lives.

    Only in a process of its own and before anything imports them: libraries look once.
    """
    for name in packages:
        sys.modules.setdefault(name, None)  # type: ignore[arg-type]  # None is how Python says "not to be imported"
    if "torch" in packages:
        # transformers would warn of every process that has none.
        os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
