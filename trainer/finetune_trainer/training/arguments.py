"""The spec in the words of transformers' TrainingArguments."""

import math
from pathlib import Path

from transformers import TrainingArguments

from finetune_api.kinds.finetunejob.spec import EvaluationInterval, FineTuneJobSpec
from finetune_trainer.planning.plan import Plan


def build_arguments(
    spec: FineTuneJobSpec, plan: Plan, scratch: Path, *, has_validation: bool, is_cpu: bool
) -> TrainingArguments:
    """Translate the spec into transformers' words; whatever it would write to disk or report elsewhere is off.

    An item of our loader is a whole step of a rank, so the library sees a batch of one and no accumulation. Mixed
    precision is off as well: the task's `compute_loss` sees to it, for training and evaluation alike.
    """
    # At the end is after as many steps as there are.
    every_steps = {EvaluationInterval.STEPS: spec.evaluation.every_steps, EvaluationInterval.END: plan.total_steps}
    strategy = "steps" if spec.evaluation.every in every_steps else "epoch"
    # transformers' schedules begin at 0: a run that is all warm-up would learn nothing.
    warmup_steps = min(math.ceil(float(spec.training.warmup_fraction) * plan.total_steps), plan.total_steps - 1)
    arguments = TrainingArguments(
        output_dir=str(scratch / "trainer"),
        per_device_train_batch_size=1,
        max_steps=plan.total_steps,
        learning_rate=plan.learning_rate,
        lr_scheduler_type=spec.training.scheduler.value,
        warmup_steps=warmup_steps,
        weight_decay=float(spec.training.weight_decay),
        optim="adamw_torch_fused",
        use_cpu=is_cpu,
        seed=spec.training.seed,
        data_seed=spec.training.seed,
        eval_strategy=strategy if has_validation else "no",
        eval_steps=every_steps.get(spec.evaluation.every),
        logging_strategy="steps",
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        # Every trained weight takes part in every step. Looking for those that don't would take the head for one, since
        # its product is made outside of the model (`losses.chunked_lm_head`).
        ddp_find_unused_parameters=False,
    )
    if arguments.n_gpu > 1:
        # A process that sees more GPUs than it was given must not split its batches over them: one rank, one GPU.
        arguments._n_gpu = 1
    return arguments
