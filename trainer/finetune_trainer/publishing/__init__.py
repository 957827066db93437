"""What leaves the pod: `commit` uploads every file first, then the manifest once, then the pointer to it; `card` is the
model card, `replaced` says whose run was published there before.
"""
