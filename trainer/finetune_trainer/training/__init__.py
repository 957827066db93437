"""From a loaded model and rows to the best weights: `run` in order, `trainer` as transformers' loop with our parts."""
