"""One file per command: its arguments, what it prints, its exit code. What it works with lies beside this folder."""
