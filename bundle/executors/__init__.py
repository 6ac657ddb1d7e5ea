"""Executors of a sweep's tasks: this machine, or a Ray cluster."""
