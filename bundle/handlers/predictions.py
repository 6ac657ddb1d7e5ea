"""Inference: what the network says of each photograph, in the photograph's own frame, handed to writers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from ignite.engine import Engine, Events
from skimage.measure import label

from bundle.labels import LESIONS, feasible_grades
from bundle.pseudo_labels import present_lesions
from bundle.transforms import field_mask, to_native


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """One photograph and everything that was predicted for it.

    Attributes:
        name: path below the input folder.
        path: of the photograph.
        lesions_HW: uint8 label map at native size.
        heat_HW: Grad-CAM of the predicted grade at native size, float in [0, 1].
        probabilities: of the five grades.
        field_px: pixels of the field of view.
        counts: connected components of each lesion.
        areas_px: pixels of each lesion.
        feasible: grades that the predicted lesions allow.
    """

    name: str
    path: str
    lesions_HW: np.ndarray
    heat_HW: np.ndarray
    probabilities: tuple[float, ...]
    field_px: int
    counts: Mapping[str, int]
    areas_px: Mapping[str, int]
    feasible: frozenset[int]

    @property
    def grade(self) -> int:
        """The most probable grade."""
        return int(np.argmax(self.probabilities))

    @property
    def contradiction(self) -> bool:
        """Whether the predicted lesions do not allow the predicted grade."""
        return self.grade not in self.feasible


class Writer(Protocol):
    """Takes each prediction as it comes, and is told when there are no more."""

    def __call__(self, prediction: Prediction) -> None:
        """Write what belongs to one photograph."""

    def finish(self) -> None:
        """Write what belongs to all of them."""


class PredictionHandler:
    """Make a :class:`Prediction` of every image of an evaluation and hand it to each writer.

    Args:
        paths: photograph by item id.
        writers: given each prediction, then told to finish.
        min_area_px: smallest component of a lesion that makes it present, at native size.
    """

    def __init__(self, paths: Mapping[str, str], writers: Sequence[Writer], min_area_px: int = 1) -> None:
        self.paths, self.writers, self.min_area_px = dict(paths), list(writers), min_area_px

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)
        for writer in self.writers:
            engine.add_event_handler(Events.COMPLETED, writer.finish)

    def __call__(self, engine: Engine) -> None:
        batch, output = engine.state.batch, engine.state.output
        for index, name in enumerate(batch["id"]):
            one = {key: output[key][index].cpu() for key in ("lesions", "grade", "maps")}
            prediction = self._predict(name, one, batch["image"][index], batch["geometry"][index])
            for write in self.writers:
                write(prediction)

    def _predict(
        self, name: str, output: Mapping[str, torch.Tensor], image: torch.Tensor, geometry: torch.Tensor
    ) -> Prediction:
        lesions_HW = to_native(output["lesions"], geometry).argmax(dim=0).to(torch.uint8).numpy()
        heat = output["maps"][int(output["grade"].argmax())]
        present = present_lesions(lesions_HW, self.min_area_px)
        px_per_pixel = (float(geometry[2]) / image.shape[-1]) ** 2
        return Prediction(
            name=name,
            path=self.paths[name],
            lesions_HW=lesions_HW,
            heat_HW=to_native(torch.stack([1 - heat, heat]), geometry)[1].numpy(),
            probabilities=tuple(output["grade"].tolist()),
            field_px=round(float(field_mask(image.max(dim=0).values.numpy()).sum()) * px_per_pixel),
            counts={lesion: _components(lesions_HW == value) for value, lesion in enumerate(LESIONS, start=1)},
            areas_px={lesion: int((lesions_HW == value).sum()) for value, lesion in enumerate(LESIONS, start=1)},
            feasible=feasible_grades(present).grades,
        )


def _components(mask_HW: np.ndarray) -> int:
    return int(label(mask_HW, connectivity=2).max())


def prediction_row(prediction: Prediction) -> dict[str, Any]:
    """Lay out the numbers of one prediction, flat, for a CSV."""
    row: dict[str, Any] = {
        "file": prediction.name,
        "grade": prediction.grade,
        "confidence": max(prediction.probabilities),
        "contradiction": prediction.contradiction,
        "feasible": " ".join(str(grade) for grade in sorted(prediction.feasible)),
        "field_px": prediction.field_px,
    }
    row |= {f"probability_{grade}": p for grade, p in enumerate(prediction.probabilities)}
    for lesion in LESIONS:
        row[f"{lesion}_count"] = prediction.counts[lesion]
        row[f"{lesion}_area_px"] = prediction.areas_px[lesion]
        row[f"{lesion}_area_percent"] = 100 * prediction.areas_px[lesion] / max(prediction.field_px, 1)
    return row
