"""One rank of a train stage on the CPU, in a process of its own: python one_rank.py RUN_CONFIG SCRATCH [STEP].

Places of ranks come through the environment, as the launcher gives them. After STEP a signal comes to this rank. Prints
how the stage ended.
"""

import signal
import sys
from pathlib import Path

from finetune_api.errors import Interrupted
from finetune_api.run import RunConfig
from finetune_trainer import signals
from finetune_trainer.stages import train
from finetune_trainer.training import trainer


def stop_after(step: int) -> None:
    """Let SIGTERM come once a step was made."""
    log = trainer.FineTuneTrainer.log

    def log_and_stop(self: trainer.FineTuneTrainer, logs: dict[str, float], start_time: float | None = None) -> None:
        log(self, logs, start_time)
        if self.state.global_step == step:
            signals._received.append(signal.SIGTERM)

    trainer.FineTuneTrainer.log = log_and_stop  # type: ignore[method-assign]


def main() -> None:
    """Run the rank."""
    config = RunConfig.model_validate_json(Path(sys.argv[1]).read_bytes())
    if len(sys.argv) > 3:
        stop_after(int(sys.argv[3]))
    try:
        print(train.run(config, Path(sys.argv[2])).reason)
    except Interrupted as error:
        print(error.message)


if __name__ == "__main__":
    main()
