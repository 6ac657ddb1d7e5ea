"""Lesion segmentation and diabetic retinopathy grading from outlined fundus photographs."""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
"""The bundle's root: the folder that holds ``configs/``."""
