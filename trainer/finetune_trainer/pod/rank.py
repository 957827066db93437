"""One rank: runs the stage and leaves a result file, whatever happens.

Classification is by exception type alone; what nobody classified ends with code 1. A traceback goes to the log, never
into the message a user reads. The stage's module, and with it torch, is imported only when chosen.
"""

import logging
import os
import sys
from pathlib import Path

from finetune_api import run
from finetune_api.errors import CUDAOutOfMemory, FineTuneError
from finetune_api.run import RunConfig, Stage, TerminationMessage
from finetune_trainer import rank_environment, signals
from finetune_trainer.pod import imports, launcher, rank_result
from finetune_trainer.telemetry import live, logs
from finetune_trainer.telemetry.live import LiveState

logger = logging.getLogger(__name__)


def main() -> int:
    """Run this rank's share of the stage and return its exit code."""
    config = launcher.load_run_config(Path(os.environ.get(run.RUN_CONFIG_VARIABLE, run.RUN_CONFIG_PATH)))
    logs.set_up_logs(config.job, config.stage, rank_environment.get_rank())
    try:
        message = _run_stage(config, Path(os.environ.get(run.SCRATCH_VARIABLE, run.SCRATCH_DIRECTORY)))
    except Exception as error:
        message = build_failure(config, error)
    if config.stage == Stage.TRAIN:
        message = add_progress(message, live.STATE)
    path = os.environ.get(rank_result.RESULT_VARIABLE)
    if path:
        rank_result.save_result(message, Path(path))
    logging.shutdown()
    return message.exit_code


def _run_stage(config: RunConfig, scratch: Path) -> TerminationMessage:
    signals.install_handlers()
    imports.leave_out(imports.find_unneeded(config.stage, config.spec))
    if config.stage == Stage.PREPARE:
        from finetune_trainer.stages import prepare

        return prepare.run(config, scratch)
    from finetune_trainer.stages import train

    return train.run(config, scratch)


def add_progress(message: TerminationMessage, state: LiveState) -> TerminationMessage:
    """Add to a training's end how far it came and which checkpoints stand, whatever ended it."""
    known = state.read()
    return message.model_copy(
        update={
            "step": message.step if message.step is not None else known.step,
            "resumed_from_step": known.resumed_from_step,
            "lost_steps": known.lost_steps,
            "checkpoints": known.checkpoints,
            "checkpoint_failure": known.checkpoint_failure or "",
            "warnings": [*message.warnings, *state.read_warnings()],
        }
    )


def build_failure(config: RunConfig, error: Exception) -> TerminationMessage:
    """Map an exception to the message and the exit code of this rank."""
    known = error if isinstance(error, FineTuneError) else _classify(config, error)
    if known is None:
        logger.error("unexpected error", exc_info=error)
        return launcher.build_internal_message(config, error)
    logger.info("stage ends with %s", type(known).__name__, exc_info=error)
    return TerminationMessage(
        stage=config.stage,
        attempt=config.job.attempt,
        exit_code=known.exit_code,
        reason=known.reason,
        message=logs.scrub_text(known.message),
        remedy=known.remedy,
    )


def _classify(config: RunConfig, error: Exception) -> FineTuneError | None:
    """Recognise errors of torch, which this module must not import: prepare runs without it."""
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(error, torch.OutOfMemoryError):
        return None
    return CUDAOutOfMemory(
        f"the GPU's memory is too small for {config.spec.method.kind} with spec.training.maxLength "
        f"({config.spec.training.max_length}) and the micro-batch chosen",
        "lower spec.training.maxLength, use method.quantization NF4 or Int8, or a GPU with more memory",
    )
