"""Scores of the agreement between predicted grades and predicted lesions, on photographs of known true grade."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from bundle.grade_rules import Feasible, feasible_grades
from bundle.handlers.scores import Scorer, graded_images
from bundle.labels import lesions_large_enough
from bundle.metrics.joint import joint_intervals, joint_scores
from bundle.transforms import largest_px, lesion_areas_px, native_labels
from bundle.transforms.lesion_decision import lesion_decision
from ignite.engine import Engine


class ScoreJoint(Scorer):
    """Scorer of grades against the lesions of the same prediction, at native size (see :func:`joint_scores`).

    As in inference, a lesion is present if one of its components is large enough, and all four count as looked for.

    Args:
        ids: the photographs that count; the same as those on which grades are scored.
        fuse: the network has one class for all lesions. It cannot restrict the grades: no photograph counts.
        thresholds: thresholds of the lesions (:func:`lesion_decision`); None: the most probable class decides.
        min_area_ppm: smallest component that makes a lesion present, in millionths of the field of view's native
            area (``field_px`` of a batch); at least a pixel. One number, or one per lesion.
        patient_of: patient of each photograph, where it is known, for the intervals.

    Example:
        >>> geometry, exudates = torch.tensor([[0.0, 0.0, 4.0, 6.0, 4.0]]), torch.eye(5)[3].reshape(1, 5, 1, 1)
        >>> engine = Engine(lambda engine, batch: {"grade": torch.eye(5)[[0]], "lesions": exudates})
        >>> ScoreJoint(["7"]).attach(engine)
        >>> batch = {"id": ["7"], "grade": torch.tensor([0]), "field_px": torch.tensor([16]), "geometry": geometry}
        >>> engine.run([batch]).metrics["joint/contradictions"]  # exudates allow grades 2 to 4
        1.0
    """

    def __init__(
        self,
        ids: Sequence[str],
        fuse: bool = False,
        thresholds: Sequence[float] | None = None,
        min_area_ppm: float | Mapping[str, float] = 0.0,
        patient_of: Mapping[str, str] | None = None,
    ) -> None:
        self.ids = set() if fuse else set(ids)
        self.thresholds, self.min_area_ppm, self.patient_of = thresholds, min_area_ppm, dict(patient_of or {})
        self.reset()

    def reset(self) -> None:
        """Forget the images of an earlier evaluation."""
        self.probabilities: list[np.ndarray] = []
        self.feasible: list[Feasible] = []
        self.grades: list[int] = []
        self.patients: list[str | None] = []

    def update(self, engine: Engine) -> None:
        """Add the images of a batch."""
        batch, output = engine.state.batch, engine.state.output
        for index, grade in graded_images(batch, self.ids):
            areas_px = largest_found_px(output["lesions"][index], self.thresholds, batch["geometry"][index])
            present = lesions_large_enough(areas_px, float(batch["field_px"][index]), self.min_area_ppm)
            self.probabilities.append(output["grade"][index].float().cpu().numpy())
            self.feasible.append(feasible_grades(present))
            self.grades.append(grade)
            self.patients.append(self.patient_of.get(batch["id"][index]))

    def compute(self, engine: Engine) -> None:
        """Write the scores to ``engine.state.metrics``."""
        if self.grades:
            engine.state.metrics.update(joint_scores(np.array(self.probabilities), self.feasible, self.grades))

    def intervals(self) -> dict[str, tuple[float, float]]:
        """Return 95 % bootstrap intervals over the patients, or images of unknown patients, of the last evaluation."""
        if not self.grades:
            return {}
        return joint_intervals(np.array(self.probabilities), self.feasible, self.grades, patients=self.patients)


def largest_found_px(
    lesions: torch.Tensor, thresholds: Sequence[float] | None, geometry: torch.Tensor
) -> dict[str, int]:
    """Return the area, in native pixels, of the largest predicted component of each lesion on a photograph.

    Args:
        lesions: probabilities ``(5, S, S)``.
        thresholds: thresholds of the lesions (:func:`lesion_decision`); None: the most probable class decides.
        geometry: geometry of the square (:class:`bundle.transforms.PrepareFundusd`).

    Example:
        >>> lesions = torch.zeros(5, 4, 4)
        >>> lesions[3, :2, :2] = 1
        >>> largest_found_px(lesions, None, torch.tensor([0.0, 0.0, 4.0, 4.0, 4.0]))
        {'MA': 0, 'HE': 0, 'EX': 4, 'SE': 0}
    """
    return largest_px(lesion_areas_px(native_labels(lesion_decision(lesions.cpu(), thresholds), geometry)))
