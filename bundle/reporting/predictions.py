"""What inference leaves in its output folder: masks, overlays, heat maps, one CSV, one report."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from bundle.files import write_csv_whole, written_whole
from bundle.handlers.predictions import Prediction, prediction_row
from bundle.reporting.overlay import heat_picture, lesion_overlay, shrink_lesions, write_mask_png
from bundle.reporting.report import Card, write_report

HEAT_LONG_SIDE_PX = 1024
"""Of a stored heat map; it comes from a feature map 32 times coarser than the network's input."""

CARD_LONG_SIDE_PX = 640


class PredictionFiles:
    """Write masks, overlays and heat maps as predictions come, then ``predictions.csv`` and ``report.html``.

    They lie in ``masks/``, ``overlays/`` and ``heatmaps/`` under the photograph's name. A mask is an indexed PNG at
    the photograph's own size: 0 background, 1-4 as in ``LESIONS``. A heat map is a grey PNG of at most 1024 pixels on
    its long side.

    Args:
        output_dir: where to.
        facts: what the report's head says of the run, such as the weights.
    """

    def __init__(self, output_dir: str | os.PathLike, facts: Mapping[str, Any]) -> None:
        self.output_dir, self.facts = Path(output_dir), {key: str(value) for key, value in facts.items()}
        self.predictions: list[dict[str, Any]] = []

    def __call__(self, prediction: Prediction) -> None:
        image = read_rgb(prediction.path)
        write_mask_png(self._path("masks", prediction.name, ".png"), prediction.lesions_HW)
        _save(self._path("overlays", prediction.name, ".jpg"), lesion_overlay(image, prediction.lesions_HW))
        heat = heat_picture(prediction.heat_HW)
        heat.thumbnail((HEAT_LONG_SIDE_PX, HEAT_LONG_SIDE_PX))
        _save(self._path("heatmaps", prediction.name, ".png"), np.asarray(heat))
        self.predictions.append(
            {"row": prediction_row(prediction), "path": prediction.path, "facts": prediction_facts(prediction)}
        )

    def finish(self) -> None:
        """Write the table and the report."""
        write_csv_whole(self.output_dir / "predictions.csv", [one["row"] for one in self.predictions])
        facts = {**self.facts, "photographs": str(len(self.predictions))}
        write_report(self.output_dir / "report.html", self._cards(), "Diabetic retinopathy: lesions and grades", facts)

    def _cards(self) -> Iterator[Card]:
        """Read back what was written, one photograph at a time, so that memory does not grow with their number."""
        for one in self.predictions:
            name = one["row"]["file"]
            with Image.open(one["path"]) as picture:
                picture.draft("RGB", (CARD_LONG_SIDE_PX, CARD_LONG_SIDE_PX))
                picture.thumbnail((CARD_LONG_SIDE_PX, CARD_LONG_SIDE_PX))
                image = np.asarray(picture.convert("RGB"))
            lesions = np.asarray(Image.open(self._path("masks", name, ".png")))
            heat = np.asarray(Image.open(self._path("heatmaps", name, ".png")), dtype=np.float32) / 255
            small = shrink_lesions(lesions, (image.shape[1], image.shape[0]))
            yield Card(name=name, image=image, lesions=small, heat=heat, **one["facts"])

    def _path(self, folder: str, name: str, suffix: str) -> Path:
        """Keep sub-folders and the original suffix: a.jpg and a.png are two photographs."""
        return self.output_dir / folder / (name + suffix)


def prediction_facts(prediction: Prediction) -> dict[str, Any]:
    """Keep the numbers of a prediction and let its arrays go."""
    names = ("probabilities", "counts", "areas_px", "field_px", "feasible")
    return {name: getattr(prediction, name) for name in names}


def read_rgb(path: str | os.PathLike) -> np.ndarray:
    """Read a photograph as RGB ``(H, W, 3)`` uint8."""
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


def _save(path: Path, pixels: np.ndarray) -> None:
    with written_whole(path) as beside:
        Image.fromarray(pixels).save(beside, quality=90)
