"""Facts about each task that both sides and the documentation need: its data roles, its metrics and their direction.

How a task is trained stands in the trainer; a task without an entry here can't be run by this version.
"""

from dataclasses import dataclass

from finetune_api.kinds.finetunejob.spec import Task


@dataclass(frozen=True, slots=True)
class TaskFacts:
    """What may be written about a task in a spec.

    `metrics` maps a name to True where greater is better; the first one chooses the checkpoint unless the spec names
    another.
    """

    roles: tuple[str, ...]
    metrics: dict[str, bool]

    @property
    def default_metric(self) -> str:
        return next(iter(self.metrics))


_LANGUAGE_METRICS = {"loss": False, "perplexity": False, "token_accuracy": True}

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
    ),
    Task.CAUSAL_LM: TaskFacts(roles=("text",), metrics=dict(_LANGUAGE_METRICS)),
    Task.INSTRUCTION_TUNING: TaskFacts(
        roles=("prompt", "completion", "instruction", "input", "output", "messages"), metrics=dict(_LANGUAGE_METRICS)
    ),
}
"""The tasks this version can train."""
