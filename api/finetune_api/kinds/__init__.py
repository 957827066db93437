"""One folder for each kind of object: what users write, what the operator reports."""
