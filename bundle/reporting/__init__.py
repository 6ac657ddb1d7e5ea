"""What a person reads: figures, tables, the report."""
