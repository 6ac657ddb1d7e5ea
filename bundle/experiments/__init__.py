"""Many runs: the pipeline of stages, sweeps over folds and seeds, tables and figures of their results."""
