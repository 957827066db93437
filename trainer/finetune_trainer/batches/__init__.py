"""From prepared rows to what one forward pass takes.

In the order of a step: `dataset` maps the rows from disk; `sampler` says which rows make a step, which rank takes them
and how they are cut into micro-batches; `collate` makes tensors of them, padded or packed; `packed_attention` keeps
packed rows apart.
"""
