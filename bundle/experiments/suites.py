"""The rows of the paper's tables and of our own experiments, each with the configs that define it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

GRADERS = ("lite0", "lite2")
"""The rows whose graders give the pseudo-labels of stage 2; their weights come with packages, so none is downloaded."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One system of a table.

    Attributes:
        name: name of the row in folders, in MLflow, and in the paper's numbers.
        title: title of the row in the table.
        stage: ``pretrain`` for a grader, ``train`` for a network of stage 2, ``together`` for ``GRADERS`` as one.
        overlays: configs below ``configs/``, on top of the stage's config, in this order.
        options: options of the command line, on top of the overlays.
        teacher: row whose weights, of the same fold and seed, predict the masks of graded photographs.
        tasks: tasks that the row learns, out of ``lesions`` and ``grade``; the others are not shown.

    Example:
        >>> same = Row(name="unet", title="U-Net", tasks=["lesions"])
        >>> same == Row(name="unet", title="another title", tasks=["lesions"]), same == Row(name="unet", title="U-Net")
        (True, False)
    """

    name: str
    title: str = field(compare=False)
    stage: str = "train"
    overlays: Sequence[str] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    teacher: str | None = None
    tasks: Sequence[str] = ("lesions", "grade")


@dataclass(frozen=True, kw_only=True)
class Suite:
    """One table.

    Attributes:
        title: title of the page.
        baseline: row that the others are compared with, in pairs of the same fold and seed.
        rows: rows in table order.
    """

    title: str
    baseline: str
    rows: Sequence[Row]


def _segmenter(name: str, title: str) -> Row:
    overlays = [f"baselines/{name}/train.yaml", "experiments/segmentation_only/train.yaml"]
    return Row(name=name, title=title, overlays=overlays, tasks=["lesions"])


def _grader(name: str, title: str, architecture: str) -> Row:
    return Row(name=name, title=title, stage="pretrain", options={"architecture": architecture}, tasks=["grade"])


def _ablation(name: str, title: str, tasks: Sequence[str] = ("lesions", "grade")) -> Row:
    return Row(name=name, title=title, overlays=[f"experiments/{name}/train.yaml"], tasks=tasks)


_SEGMENTATION = _ablation("segmentation_only", "L_S", tasks=["lesions"])
"""PLDMLT's own network without grades: rows that differ from it differ by the grades alone."""

_PLDMLT = Row(name="pldmlt", title="PLDMLT [1, 0.8]")

_COMPARED = [
    _grader("lite0", "EfficientNet-Lite0", "tf_efficientnet_lite0"),
    _grader("lite2", "EfficientNet-Lite2", "tf_efficientnet_lite2"),
    Row(
        name="both_graders", title="both graders together", stage="together", tasks=["grade"],
        options={"architecture": "tf_efficientnet_lite0+tf_efficientnet_lite2"},
    ),
    _segmenter("unet", "U-Net"),
    _segmenter("linknet", "LinkNet"),
    _segmenter("deeplabv3plus", "DeepLabv3+"),
    _segmenter("fpn", "FPN"),
    _SEGMENTATION,
    Row(
        name="mtunet", title="MTUnet stand-in [1, 1]", overlays=["baselines/mtunet/train.yaml"],
        teacher=_SEGMENTATION.name,
    ),
]  # fmt: skip
"""Rows without an encoder of their own: an experiment gives all the same one; without, each has its usual one."""

_VGG16 = {"encoder": "vgg16", "network_def#freeze_batch_norm": False}
"""The paper's encoder, which has no batch norm."""


def _betas(values: Sequence[float]) -> list[Row]:
    return [Row(name=f"beta_{value:g}", title=f"beta {value:g}", options={"beta": value}) for value in values]


def _gammas(values: Sequence[float]) -> list[Row]:
    return [Row(name=f"gamma_{value:g}", title=f"gamma {value:g}", options={"gamma": value}) for value in values]


def _objectives(names: Sequence[str]) -> list[Row]:
    return [
        Row(name=name, title=f"labels updated: {name}", options={"meta_objective": name}) for name in names
    ]  # fmt: skip


SUITES: Mapping[str, Suite] = {
    "table1": Suite(
        title="Table 1: the systems that the paper compares", baseline=_SEGMENTATION.name,
        rows=[
            *_COMPARED,
            _PLDMLT,
            replace(_segmenter("unet", "U-Net, VGG16"), name="unet_vgg16", options=_VGG16),
            replace(_PLDMLT, name="pldmlt_vgg16", title="PLDMLT [1, 0.8], VGG16", options=_VGG16),
        ],
    ),
    "table2": Suite(
        title="Table 2: the systems that the paper compares, on DDR", baseline=_SEGMENTATION.name,
        rows=[*_COMPARED, Row(name="pldmlt", title="PLDMLT [1, 0.95]", options={"beta": 0.95})],
    ),
    "table3": Suite(
        title="Table 3: ablation", baseline=_SEGMENTATION.name,
        rows=[
            _SEGMENTATION,
            _ablation("fixed_labels", "L_S + L_C"),
            _ablation("unit_weight", "L_S + L_C, label update"),
            replace(_PLDMLT, title="L_S + 0.8 L_C, label update"),
        ],
    ),
    "beta": Suite(title="Weight of the grading loss", baseline="beta_0.8", rows=_betas([0.2, 0.5, 0.8, 0.95, 1.0])),
    "gamma": Suite(title="Focus of the focal loss", baseline="gamma_2", rows=_gammas([0.0, 1.0, 2.0, 5.0])),
    "generality": Suite(
        title="The method around other networks", baseline="pldmlt",
        rows=[
            replace(_PLDMLT, title="our U-Net"),
            *(
                Row(name=f"{name}_graded", title=title, overlays=[f"baselines/{name}/train.yaml"])
                for name, title in (("linknet", "LinkNet"), ("deeplabv3plus", "DeepLabv3+"), ("fpn", "FPN"))
            ),
        ],
    ),
    "graders": Suite(
        title="Graders of the paper's comparison", baseline="resnext50",
        rows=[
            _grader("resnext50", "ResNeXt-50", "resnext50_32x4d"),
            _grader("resnext101", "ResNeXt-101", "resnext101_32x8d"),
            _grader("densenet201", "DenseNet-201", "densenet201"),
            _grader("nasnetalarge", "NASNet-Large", "nasnetalarge"),
        ],
    ),
    "precision": Suite(
        title="bfloat16 compared with float32", baseline="pldmlt",
        rows=[replace(_PLDMLT, title="bfloat16"), Row(name="float32", title="float32", options={"amp": False})],
    ),
    "labels": Suite(
        title="Does the label update network help?", baseline="fixed",
        rows=[
            Row(name="fixed", title="labels fixed", options={"label_update": False}),
            replace(_PLDMLT, title="labels updated: segmentation"),
            *_objectives(["initial", "segmentation+initial", "graded", "literal"]),
        ],
    ),
}  # fmt: skip


def suite_named(name: str) -> Suite:
    """Return the suite of this name.

    Raises:
        ValueError: if there is no such suite.

    Example:
        >>> [row.name for row in suite_named("table3").rows]
        ['segmentation_only', 'fixed_labels', 'unit_weight', 'pldmlt']
    """
    if name not in SUITES:
        raise ValueError(f"expected --suite out of {sorted(SUITES)}, got {name!r}")
    return SUITES[name]


def homes(name: str) -> dict[str, set[str]]:
    """Map each row of a suite to all suites that contain the same row; its runs count in each of them.

    Example:
        >>> sorted(homes("table3")["pldmlt"])
        ['generality', 'labels', 'precision', 'table1', 'table3']
    """
    return {row.name: {other for other, suite in SUITES.items() if row in suite.rows} for row in suite_named(name).rows}


def helper(name: str) -> Row:
    """Return a row that other rows need (a grader or a teacher), from any suite that contains it."""
    return next(row for suite in SUITES.values() for row in suite.rows if row.name == name)
