"""The method of Liu & Huang 2023: losses, heat maps, decisions on pseudo-labels, meta gradient."""
