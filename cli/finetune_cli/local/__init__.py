"""A run of both stages on this machine: no cluster, no object store, no root.

    machine               how many GPUs there are
    adapt                 the spec of a cluster → the spec of this machine, and what was changed
    inputs                where the addresses of a spec lie below a folder, and what is missing there
    figures               what the trainer's metrics say while it works
    stages                the trainer started twice, as the operator would start its pods
    view                  progress while it runs, the report at the end

The trainer is a program of its own here, too: nothing of it, and nothing of PyTorch, is imported.
"""
