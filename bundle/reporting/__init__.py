"""Output for readers: figures, tables and the report."""
