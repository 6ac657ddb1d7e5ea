"""Colours and resolution of every figure."""

DPI = 100
"""Pixels of an inch; text of 9 points is then 12.5 pixels high."""

INK, QUIET = "#1c1e21", "#63686f"
"""Colours of text; on white even the second has a contrast of 5.6, above the 4.5 that WCAG 2 asks for."""

BLUE, GRID = "#1f5fa8", "#d5d8dc"
"""Colours of what is measured, and of the background of a diagram."""
