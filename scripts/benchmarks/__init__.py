"""Measurements of `python -m scripts.benchmark`, one suite per file; peers run in the same process and in turn."""
