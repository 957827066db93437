"""The contract: words that operator, trainer and command line share. No I/O, no clock, none of our other packages.

Read it in this order:

    group, names          the API group, its labels and annotations; how children are called
    kinds/                what users write and read: a folder per kind, what kinds share beside them
    tasks                 facts about each task: roles, metrics
    rules, validation     what must hold across fields, in CEL and in Python; every error of an object at once
    crd                   the CustomResourceDefinition, rendered from the kinds and the rules
    run, exits, errors    operator → trainer: one file; trainer → operator: an exit code and a message
    live                  what a running trainer tells of itself
    artifacts             S3 addresses, what lies where below an output folder
    metrics               every Prometheus series
    wording, redaction, log_format    how sentences are put, what is never shown, how a log line looks
    quantities            decimal strings and Kubernetes quantities

A new field: `kinds/finetunejob/spec.py`, then `make crd`. A rule between two fields: `rules.py`. A reason of a failure:
`kinds/finetunejob/status.py`, its exit code `exits.py`, its exception `errors.py`.
"""
