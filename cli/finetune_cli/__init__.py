"""The command `finetune`: what helps before a job reaches a cluster, and while it runs there.

See `main.py` for the list of commands.
"""

__all__: list[str] = []
