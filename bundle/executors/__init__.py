"""Who runs the tasks of a sweep: this machine, or a Ray cluster."""
