"""What `python -m scripts.benchmark` measures, one suite a file; peers run in the same process and in turn."""
