"""From a loaded model and rows to the best weights.

`run` is the order of the stage's torch part; `arguments` puts the spec into transformers' words, `trainer` is its loop
with our rows, loss and evaluation, `ranks` what several ranks need of each other.
"""
