"""The label taught for each photograph: training reads it, curves and tables show it, updates replace it."""

# flake8: noqa: N803

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from bundle.datasets.items import UNKNOWN_GRADE
from bundle.distributed import is_main
from bundle.files import write_csv_whole
from bundle.labels import GRADES
from ignite.engine import Engine, Events
from torch import Tensor


class LabelTable:
    """Table of one soft label per photograph, which stays the same until it is replaced.

    Training, curves and tables all use this one copy of the labels.

    Args:
        table: maps each id to ``initial`` and ``feasible`` ``(5,)``, ``weight`` ``()`` and ``grade``, -1 if unknown;
            from :func:`bundle.datasets.items.taught_labels`.

    Example:
        >>> known = {"feasible": torch.ones(5, dtype=torch.bool), "weight": torch.tensor(1.0), "grade": 2}
        >>> table = LabelTable({"7": {"initial": torch.tensor([0.0, 0.0, 0.5, 0.5, 0.0]), **known}})
        >>> table.replace(torch.tensor([[0.0, 0.0, 0.75, 0.25, 0.0]]))
        >>> table.of(["7"]).tolist(), table.curves()["labels/movement"]
        ([[0.0, 0.0, 0.75, 0.25, 0.0]], 0.25)
    """

    def __init__(self, table: Mapping[str, Mapping[str, Any]]) -> None:
        self.ids = list(table)
        self.initial_M5, self.feasible_M5 = (
            torch.stack([row[key] for row in table.values()]) for key in ("initial", "feasible")
        )
        self.weight_M = torch.stack([row["weight"] for row in table.values()])
        self.grade_M = torch.tensor([row["grade"] for row in table.values()])
        self.current_M5 = self.initial_M5.clone()
        self._place = {name: place for place, name in enumerate(self.ids)}

    def of(self, ids: Sequence[str]) -> Tensor:
        """Return the labels of the given photographs, ``(N, 5)``."""
        return self.current_M5[self.places(ids)]

    def places(self, ids: Sequence[str]) -> list[int]:
        """Return the row numbers of the given photographs in the table."""
        return [self._place[name] for name in ids]

    def replace(self, labels_M5: Tensor) -> None:
        """Replace the taught labels."""
        self.current_M5 = labels_M5.detach().cpu().to(self.initial_M5.dtype)

    @property
    def free_M(self) -> Tensor:
        """Mask ``(M,)`` of the labels that can move: taught labels with more than one feasible grade."""
        return (self.feasible_M5.sum(dim=1) > 1) & (self.weight_M > 0)

    def curves(self) -> dict[str, float]:
        """Return statistics of the current labels, for MLflow.

        Movement is the total variation from the initial label, entropy is in nats, both averaged over the photographs.
        Accuracy is over photographs of known grade, and left out if there are none.
        """
        top, initially = self.current_M5.argmax(dim=1), self.initial_M5.argmax(dim=1)
        known = self.grade_M != UNKNOWN_GRADE
        curves = {
            "labels/movement": self.movement(self.initial_M5).mean(),
            "labels/entropy": entropy(self.current_M5).mean(),
            "labels/top_grade_changed": (top != initially).float().mean(),
            "labels/accuracy": (top == self.grade_M)[known].float().mean(),
            "labels/initial_accuracy": (initially == self.grade_M)[known].float().mean(),
            "labels/grades_in_use": top.unique().numel(),
        }
        return {name: float(value) for name, value in curves.items() if value == value}

    def movement(self, other_M5: Tensor) -> Tensor:
        """Return the total variation between the current and the given labels, ``(M,)`` in [0, 1]."""
        return (self.current_M5 - other_M5.cpu()).abs().sum(dim=1) / 2

    def rows(self) -> list[dict[str, Any]]:
        """Return a row for every label: its initial shares, its taught shares, and the true grade if it is known."""
        return [
            {"id": name, "true_grade": None if grade == UNKNOWN_GRADE else grade, "weight": weight}
            | {f"initial_{c}": value for c, value in zip(GRADES, initial, strict=True)}
            | {f"taught_{c}": value for c, value in zip(GRADES, taught, strict=True)}
            for name, grade, weight, initial, taught in zip(
                self.ids, self.grade_M.tolist(), self.weight_M.tolist(), self.initial_M5.tolist(),
                self.current_M5.tolist(), strict=True,
            )
        ]  # fmt: skip

    def write(self, path: str | Path) -> None:
        """Write :meth:`rows` as CSV."""
        write_csv_whole(Path(path), self.rows())

    def state_dict(self) -> dict[str, Any]:
        """Return the state that a resumed run needs."""
        return {"ids": self.ids, "current": self.current_M5}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the state from :meth:`state_dict`.

        Raises:
            ValueError: if the state belongs to other photographs.
        """
        if list(state["ids"]) != self.ids:
            raise ValueError(
                f"expected the labels of these {len(self.ids)} photographs, got those of {len(state['ids'])} others; "
                f"start again with `--resume False`"
            )
        self.current_M5 = state["current"].clone()


class WriteLabels:
    """Handler that writes the last taught labels, with the initial and true ones, when training has finished.

    Args:
        path: the CSV file.
        table: table of the labels.
    """

    def __init__(self, path: str, table: LabelTable) -> None:
        self.path, self.table = path, table

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        if is_main():
            self.table.write(self.path)

    def facts(self) -> dict[str, float]:
        """Return the final values of the label curves, for the weights file."""
        return {name.replace("/", "_"): value for name, value in self.table.curves().items()}


def entropy(labels_M5: Tensor) -> Tensor:
    """Return ``-sum_c p_c log p_c`` of each label in nats, ``(M,)``.

    Example:
        >>> entropy(torch.tensor([[0.5, 0.5], [1.0, 0.0]]))
        tensor([0.6931, 0.0000])
    """
    return torch.special.entr(labels_M5).sum(dim=1)
