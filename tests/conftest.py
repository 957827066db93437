"""Loads the fixtures of tests/support; needs no tool at import."""

pytest_plugins = ["cluster_fixtures", "product_fixtures"]
