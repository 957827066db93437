"""Rules across the fields of a spec, each once: as a CEL expression for the API server, as Python for all else.

A contract test sends the same objects through both and compares. A rule must not raise; it sees a spec whose single
fields are valid. The API server evaluates its rules also where a field is not: an expression that converts a text
first asks whether it has the form of a number.

    rule                  what a rule is
    limits                least and greatest amounts, and fields that exclude or need one another
    addresses             where the output lies
    effects               options that would have no effect are refused by name
    pods                  what the pod would be refused for, or must not be given
    versions              what later versions will allow, refused by name so that nothing is ever ignored
"""

from finetune_api.rules import addresses, effects, limits, pods, versions
from finetune_api.rules.rule import Rule

RULES: tuple[Rule, ...] = (*versions.RULES, *limits.RULES, *effects.RULES, *addresses.RULES, *pods.RULES)

IMMUTABLE_FIELDS = (
    "task",
    "model",
    "data",
    "split",
    "method",
    "training",
    "evaluation",
    "output",
    "storage",
    "resources",
    "placement",
    "trainer",
)
"""What defines a run; a changed run is a new FineTuneJob."""
IMMUTABLE_RUN_POLICY_FIELDS = ("backoffLimit", "pendingDeadlineSeconds", "checkpoint", "preemptionLimit")
