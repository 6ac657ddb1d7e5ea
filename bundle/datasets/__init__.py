"""One reader a file, and what turns their rows into a checked, leak-free manifest."""
