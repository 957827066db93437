"""Spec -> manifest, pure: the same input gives the same manifest, byte for byte."""

__all__: list[str] = []
