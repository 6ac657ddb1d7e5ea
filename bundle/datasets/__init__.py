"""Data set readers, one per file, and the code that turns their rows into a checked, leak-free manifest."""
