"""What the process ends with, as linters do: 0 nothing to fix, and the two below. Imports nothing."""

INVALID = 1
"""There is something to fix in the files."""
UNCHECKED = 2
"""Nothing could be checked or written: wrong arguments, unreadable files, no FineTuneJob. typer's code for usage."""
