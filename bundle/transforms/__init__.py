"""Fundus transforms: field of view, square crop, lesion-preserving resizing, and mapping back to native pixels."""

from bundle.transforms.augment import RandColourd, RandFundusAffined
from bundle.transforms.components import (
    centre_of,
    components_by_quadrant,
    largest_component_px,
    largest_px,
    lesion_areas_px,
)
from bundle.transforms.decode import load_photograph, resize_crop
from bundle.transforms.field import Crop, field_mask, field_of_view
from bundle.transforms.native import native_labels, to_native
from bundle.transforms.outlines import (
    FuseLesionsd,
    class_names,
    fuse_lesions,
    fuse_outlines,
    fused_radius_px,
    label_map,
    load_mask,
    load_masks,
    load_runs,
)
from bundle.transforms.prepare import CutDetaild, MeasureFieldd, NativeLabelsd, PrepareFundusd
from bundle.transforms.quality import MeasureQualityd
from bundle.transforms.resize import resize_lesions, resize_mask
from bundle.transforms.runs import runs_of

__all__ = [
    "Crop",
    "CutDetaild",
    "FuseLesionsd",
    "MeasureFieldd",
    "MeasureQualityd",
    "NativeLabelsd",
    "PrepareFundusd",
    "RandColourd",
    "RandFundusAffined",
    "centre_of",
    "class_names",
    "components_by_quadrant",
    "field_mask",
    "field_of_view",
    "fuse_lesions",
    "fuse_outlines",
    "fused_radius_px",
    "label_map",
    "largest_component_px",
    "largest_px",
    "lesion_areas_px",
    "load_mask",
    "load_masks",
    "load_photograph",
    "load_runs",
    "native_labels",
    "resize_crop",
    "resize_lesions",
    "resize_mask",
    "runs_of",
    "to_native",
]
