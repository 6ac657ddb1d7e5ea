"""Synthetic photographs with lesions and grades, in the layout of IDRiD."""
