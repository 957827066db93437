"""Which of the processes of a training this one is, by torchrun's variables, which the launcher sets too.

They are read from the environment because the first of them is asked before torch is there.
"""

import os

RANK, LOCAL_RANK, WORLD_SIZE = "RANK", "LOCAL_RANK", "WORLD_SIZE"
"""Of all ranks, of those on this node, how many there are: https://docs.pytorch.org/docs/stable/elastic/run.html"""


def get_rank() -> int:
    """Return this process's rank; 0 where it is the only one."""
    return int(os.environ.get(RANK, "0"))


def get_local_rank() -> int:
    """Return this process's rank on its node, which is also the index of its GPU."""
    return int(os.environ.get(LOCAL_RANK, "0"))


def count_ranks() -> int:
    """Return how many ranks train together."""
    return int(os.environ.get(WORLD_SIZE, "1"))
