"""What later versions will allow. Refused by name: a field that is accepted and ignored would be a lie."""

from finetune_api.rules.rule import Rule, build_list, when
from finetune_api.tasks import TASKS

_TASK_NAMES = [task.value for task in TASKS]

RULES: tuple[Rule, ...] = (
    Rule(
        "task",
        f"self.task in {build_list(_TASK_NAMES)}",
        f"must be one of {', '.join(_TASK_NAMES)}: this version has no other task yet",
        lambda spec: when(spec.task not in TASKS, spec.task),
        "FieldValueForbidden",
    ),
    Rule(
        "method.preference",
        "!has(self.method.preference)",
        "must be absent: this version has no task Preference yet",
        lambda spec: when(spec.method.preference is not None, spec.method.preference),
        "FieldValueForbidden",
    ),
    Rule(
        "model.uri",
        "!self.model.uri.startsWith('hf://')",
        "must begin with s3://: this version does not read from the Hugging Face Hub yet; copy the model to S3",
        lambda spec: when(spec.model.uri.startswith("hf://"), spec.model.uri),
        "FieldValueForbidden",
    ),
    Rule(
        "data",
        "size(self.data) <= 1",
        "must have one item: this version does not mix data sets yet",
        lambda spec: f"{len(spec.data)} items" if len(spec.data) > 1 else None,
        "FieldValueForbidden",
    ),
    Rule(
        "data",
        "self.data.all(d, d.instruction == '' && d.weight == '1')",
        "must leave instruction empty and weight 1: this version has neither yet",
        lambda spec: (
            "instruction or weight" if any(item.instruction or item.weight != "1" for item in spec.data) else None
        ),
        "FieldValueForbidden",
    ),
    Rule(
        "output.merge",
        "!self.output.merge",
        "must be false: this version publishes adapters unmerged",
        lambda spec: when(spec.output.merge, True),
        "FieldValueForbidden",
    ),
    Rule(
        "resources.nodes",
        "self.resources.nodes == 1",
        "must be 1: this version trains on one node",
        lambda spec: when(spec.resources.nodes != 1, spec.resources.nodes),
        "FieldValueForbidden",
    ),
)
