"""Files → FineTuneJobs with the line of every field, and what is wrong with them.

sources               command-line arguments → texts
scalars, documents    a text → documents, read as kubectl reads them
findings              documents → errors with file and line
report                errors → text, JSON, GitHub's commands
"""
