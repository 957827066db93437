"""A training's state, saved between two optimizer steps so that another pod goes on as if nothing had happened.

In the order to read: `state` (what is saved, as files), `random_states` and `snapshot` (taken from a training that
runs, and put back into one), `archive` (where it lies in the store: found, proven, committed, removed), `schedule` and
`saver` (when, and in the background), `best` (the best weights so far). Files are safetensors, JSON and CSV; nothing is
pickled. The frozen base is not saved: the run's digest names it.
"""
