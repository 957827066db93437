"""The exception tree. Each class knows the reason and the exit code it ends a run with, and whether a retry helps.

    FineTuneError
     ├── ConfigError          78  the spec or the pod's configuration can't work
     ├── DataError            65  rows, files or labels are wrong
     ├── ModelError           65  the base model is damaged, unsafe or unfit for the task
     ├── ReferenceNotFound    66  a bucket, key or file isn't there
     ├── AccessDenied         77  the store refused the credentials
     ├── CUDAOutOfMemory      79  the GPU's memory is too small for the run
     ├── Diverged             80  the loss is not a finite number any more
     ├── StorageUnavailable   69  the store can't be reached or fails; retried
     ├── GPUFault             85  the GPU a pod was promised can't be used; retried
     └── Interrupted         143  stopped by a signal; resumed, not counted

Final or retried is decided here, once for both sides: see `finetune_api.exits.FINAL_EXIT_CODES`.
"""

from typing import ClassVar

from finetune_api.exits import ExitCode
from finetune_api.kinds.finetunejob.status import Reason


class FineTuneError(Exception):
    """An end of a stage with a known cause.

    Args:
        message: where, what was found and what must hold; shown to the user as it is.
        remedy: one sentence: what to do about it.
    """

    reason: ClassVar[Reason] = Reason.INTERNAL
    exit_code: ClassVar[ExitCode] = ExitCode.UNCLASSIFIED

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy


class ConfigError(FineTuneError):
    reason = Reason.CONFIG_ERROR
    exit_code = ExitCode.CONFIG


class DataError(FineTuneError):
    reason = Reason.DATA_ERROR
    exit_code = ExitCode.DATA


class ModelError(FineTuneError):
    reason = Reason.MODEL_ERROR
    exit_code = ExitCode.DATA


class ReferenceNotFound(FineTuneError):
    reason = Reason.REFERENCE_NOT_FOUND
    exit_code = ExitCode.INPUT_MISSING


class AccessDenied(FineTuneError):
    reason = Reason.ACCESS_DENIED
    exit_code = ExitCode.ACCESS_DENIED


class CUDAOutOfMemory(FineTuneError):
    reason = Reason.CUDA_OUT_OF_MEMORY
    exit_code = ExitCode.CUDA_OUT_OF_MEMORY


class Diverged(FineTuneError):
    reason = Reason.DIVERGED
    exit_code = ExitCode.DIVERGED


class StorageUnavailable(FineTuneError):
    reason = Reason.STORAGE_UNAVAILABLE
    exit_code = ExitCode.STORAGE_UNAVAILABLE


class GPUFault(FineTuneError):
    exit_code = ExitCode.GPU_FAULT


class Interrupted(FineTuneError):
    reason = Reason.POD_DISRUPTED
    exit_code = ExitCode.INTERRUPTED
