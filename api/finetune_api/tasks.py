"""Facts about each task that both sides and the documentation need: its data roles, its metrics and their direction.

How a task is trained stands in the trainer; a task without an entry here can't be run by this version.
"""

from dataclasses import dataclass

from finetune_api.kinds.finetunejob.spec import MethodKind, Task


@dataclass(frozen=True, slots=True)
class TaskFacts:
    """What may be written about a task in a spec.

    `metrics` maps a name to True where greater is better; the first one chooses the checkpoint unless the spec names
    another. `learning_rates` are those of runs that name none, by method.
    """

    roles: tuple[str, ...]
    metrics: dict[str, bool]
    learning_rates: dict[MethodKind, str]

    @property
    def default_metric(self) -> str:
        return next(iter(self.metrics))


_LANGUAGE_METRICS = {"loss": False, "perplexity": False, "token_accuracy": True}
# The largest rate the authors of BERT advise (https://arxiv.org/abs/1810.04805, appendix A.3), LoRA ten times that.
# HeadOnly, here and below, is a choice of ours.
_CLASSIFIER_RATES = {MethodKind.FULL: "5e-5", MethodKind.LORA: "5e-4", MethodKind.HEAD_ONLY: "1e-3"}
# LoRA as in QLoRA (https://arxiv.org/abs/2305.14314, table 9), the full model a tenth of that.
_LANGUAGE_RATES = {MethodKind.FULL: "2e-5", MethodKind.LORA: "2e-4", MethodKind.HEAD_ONLY: "1e-3"}

TASKS: dict[Task, TaskFacts] = {
    Task.SEQUENCE_CLASSIFICATION: TaskFacts(
        roles=("text", "textPair", "label"),
        metrics={
            "accuracy": True,
            "f1_macro": True,
            "f1_weighted": True,
            "precision_macro": True,
            "precision_weighted": True,
            "recall_macro": True,
            "recall_weighted": True,
            "loss": False,
        },
        learning_rates=_CLASSIFIER_RATES,
    ),
    Task.CAUSAL_LM: TaskFacts(roles=("text",), metrics=dict(_LANGUAGE_METRICS), learning_rates=_LANGUAGE_RATES),
    Task.INSTRUCTION_TUNING: TaskFacts(
        roles=("prompt", "completion", "context", "instruction", "input", "output", "messages", "system"),
        metrics=dict(_LANGUAGE_METRICS),
        learning_rates=_LANGUAGE_RATES,
    ),
}
"""The tasks this version can train."""
