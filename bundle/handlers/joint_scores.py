"""Score how predicted grades and predicted lesions go together, where the true grade of a photograph is known."""

from collections.abc import Sequence

import torch
from bundle.datasets.items import UNKNOWN_GRADE
from bundle.handlers.scores import Scorer
from bundle.labels import Feasible, feasible_grades
from bundle.metrics.joint import joint_intervals, joint_scores
from bundle.pseudo_labels import present_lesions
from bundle.transforms import native_labels
from ignite.engine import Engine


class ScoreJoint(Scorer):
    """Score grades against the lesions of the same prediction at native size (see :func:`joint_scores`).

    As in inference, a lesion is present if one pixel of it is predicted, and all four were looked for.

    Args:
        ids: the photographs that count; the same as those on which grades are scored.
        fuse: the network has one class for all lesions, which allows no grade to be told: none counts.

    Example:
        >>> batch = {"id": ["7"], "grade": torch.tensor([0]), "geometry": torch.tensor([[0.0, 0.0, 4.0, 6.0, 4.0]])}
        >>> exudates = torch.eye(5)[3].reshape(1, 5, 1, 1).expand(1, 5, 2, 2)
        >>> engine = Engine(lambda engine, batch: {"grade": torch.eye(5)[[0]], "lesions": exudates})
        >>> ScoreJoint(["7"]).attach(engine)
        >>> engine.run([batch]).metrics["joint/contradictions"]  # exudates allow grades 2 to 4
        1.0
    """

    def __init__(self, ids: Sequence[str], fuse: bool = False) -> None:
        self.ids = set() if fuse else set(ids)
        self.reset()

    def reset(self) -> None:
        """Forget the images of an earlier evaluation."""
        self.predicted: list[int] = []
        self.feasible: list[Feasible] = []
        self.grades: list[int] = []

    def update(self, engine: Engine) -> None:
        """Add the images of a batch."""
        batch, output = engine.state.batch, engine.state.output
        for index, (name, grade) in enumerate(zip(batch["id"], batch["grade"].tolist(), strict=True)):
            if name in self.ids and grade != UNKNOWN_GRADE:
                self.predicted.append(int(output["grade"][index].argmax()))
                self.feasible.append(_allowed(output["lesions"][index], batch["geometry"][index]))
                self.grades.append(grade)

    def compute(self, engine: Engine) -> None:
        """Put the scores into ``engine.state.metrics``."""
        if self.grades:
            engine.state.metrics.update(joint_scores(self.predicted, self.feasible, self.grades))

    def intervals(self) -> dict[str, tuple[float, float]]:
        """Return 95 % bootstrap intervals over the images of the last evaluation."""
        return joint_intervals(self.predicted, self.feasible, self.grades) if self.grades else {}


def _allowed(lesions: torch.Tensor, geometry: torch.Tensor) -> Feasible:
    return feasible_grades(present_lesions(native_labels(lesions.cpu(), geometry)))
