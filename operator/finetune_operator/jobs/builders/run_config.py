"""The RunConfig of one attempt: what the trainer reads, as the text of a pod annotation.

No secret is ever in it: whoever may read pods reads it.
"""

from finetune_api import errors, run
from finetune_api.kinds.finetunejob.spec import FineTuneJobSpec
from finetune_api.run import JobIdentity, PreparedReference, RunConfig, Stage


def build_run_config(
    identity: JobIdentity, stage: Stage, spec: FineTuneJobSpec, image: str, prepared: PreparedReference | None
) -> str:
    """Serialize the RunConfig of one attempt.

    Raises:
        ConfigError: the text is longer than an annotation may be.
    """
    config = RunConfig(job=identity, stage=stage, spec=spec, image=image, prepared=prepared)
    text = config.model_dump_json(exclude_none=True)
    size = len(text.encode())
    if size > run.MAX_RUN_CONFIG_BYTES:
        raise errors.ConfigError(
            f"spec ({size} bytes as RunConfig) must be at most {run.MAX_RUN_CONFIG_BYTES} bytes",
            "Shorten the instruction or the environment variables.",
        )
    return text
