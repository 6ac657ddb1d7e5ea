"""Fundus transforms: the field of view, the square about it, lesion-preserving resizing, and the way back."""

from bundle.transforms.fundus import PrepareFundusd, ToModelInputd
from bundle.transforms.geometry import Crop, field_mask, field_of_view, to_native
from bundle.transforms.lesions import label_map, load_mask, load_masks
from bundle.transforms.photograph import load_photograph, resize_crop
from bundle.transforms.resize import resize_lesions, resize_mask

__all__ = [
    "Crop",
    "PrepareFundusd",
    "ToModelInputd",
    "field_mask",
    "field_of_view",
    "label_map",
    "load_mask",
    "load_masks",
    "load_photograph",
    "resize_crop",
    "resize_lesions",
    "resize_mask",
    "to_native",
]
