"""Scores that MONAI and Ignite lack."""
