"""Exit codes of the trainer and what each means: which reasons it allows, whether the run is tried again.

The one truth for the exceptions (`errors`), the operator's decisions, the Job's failure policy and the reference.
"""

from enum import IntEnum

from finetune_api.kinds.finetunejob.status import Reason


class ExitCode(IntEnum):
    """Numbers of sysexits.h where they exist."""

    OK = 0
    UNCLASSIFIED = 1
    USAGE = 64
    DATA = 65
    INPUT_MISSING = 66
    STORAGE_UNAVAILABLE = 69
    TEMPORARY = 75
    ACCESS_DENIED = 77
    CONFIG = 78
    CUDA_OUT_OF_MEMORY = 79
    DIVERGED = 80
    GPU_FAULT = 85
    ABORTED = 134
    KILLED = 137
    SEGMENTATION_FAULT = 139
    INTERRUPTED = 143


FINAL_EXIT_CODES = (
    ExitCode.USAGE,
    ExitCode.DATA,
    ExitCode.INPUT_MISSING,
    ExitCode.ACCESS_DENIED,
    ExitCode.CONFIG,
    ExitCode.CUDA_OUT_OF_MEMORY,
    ExitCode.DIVERGED,
)
"""The user's to fix: a retry would give the same again."""
IGNORED_EXIT_CODES = (ExitCode.INTERRUPTED,)
"""Neither counted nor final."""

REASONS_BY_EXIT_CODE: dict[int, tuple[Reason, ...]] = {
    ExitCode.USAGE: (Reason.CONFIG_ERROR,),
    ExitCode.DATA: (Reason.DATA_ERROR, Reason.MODEL_ERROR),
    ExitCode.INPUT_MISSING: (Reason.REFERENCE_NOT_FOUND,),
    ExitCode.STORAGE_UNAVAILABLE: (Reason.STORAGE_UNAVAILABLE,),
    ExitCode.ACCESS_DENIED: (Reason.ACCESS_DENIED,),
    ExitCode.CONFIG: (Reason.CONFIG_ERROR, Reason.INVALID_SPEC),
    ExitCode.CUDA_OUT_OF_MEMORY: (Reason.CUDA_OUT_OF_MEMORY,),
    ExitCode.DIVERGED: (Reason.DIVERGED,),
    ExitCode.KILLED: (Reason.OUT_OF_MEMORY,),
    ExitCode.INTERRUPTED: (Reason.POD_DISRUPTED,),
}
"""The reasons a code allows; the first one is assumed when there is no message. Codes not listed mean Internal."""
