"""The API group and every label and annotation key of ours, each with its meaning and range.

Both sides and the chart read these names; nobody spells one a second time. Imports nothing.
"""

GROUP = "finetune.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
KIND = "FineTuneJob"
PLURAL = "finetunejobs"
SINGULAR = "finetunejob"
SHORT_NAME = "ftj"
CATEGORIES = ("finetune", "ml")

LABEL_JOB = f"{GROUP}/job"
"""Name of the FineTuneJob a child belongs to; at most 40 characters."""
LABEL_UID = f"{GROUP}/uid"
"""UID of the FineTuneJob a child belongs to: a name can be used again, a UID cannot."""
LABEL_STAGE = f"{GROUP}/stage"
"""`prepare` or `train`."""
LABEL_ATTEMPT = f"{GROUP}/attempt"
"""Number of the attempt within its stage, from 1."""

ANNOTATION_RUN_CONFIG = f"{GROUP}/run-config"
"""On pod templates: the RunConfig as JSON, mounted by a downward API volume."""

ANNOTATION_CHECKPOINT_NOW = f"{GROUP}/checkpoint-now"
"""On a FineTuneJob: with each new value its running pod saves a checkpoint, once. Any text, a time for instance."""

QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
"""Kueue's label for the LocalQueue of a Job: https://kueue.sigs.k8s.io/docs/tasks/run/jobs/"""
