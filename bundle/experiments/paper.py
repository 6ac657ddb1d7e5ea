"""Scores printed in the paper, as far as they are legible in the copy that this bundle was written from.

Liu & Huang, CMC 76(2):1745-1761, 2023, doi 10.32604/cmc.2023.040710. All in percent. ``table1`` is IDRiD with
DiaRetDB1, ``table2`` DDR, ``table3`` the ablation; the Dice of its ``unit_weight`` is 94.64 + 0.41, as the text gives
it. Missing scores were not legible; no score was derived from others.
"""

from collections.abc import Mapping

SOURCE = "Liu & Huang, CMC 76(2):1745-1761, 2023, doi 10.32604/cmc.2023.040710"

PAPER: Mapping[str, Mapping[str, Mapping[str, float]]] = {
    "table1": {
        "unet": {"mdice": 91.859},
        "unet_vgg16": {"mdice": 91.859},
        "deeplabv3plus": {"mdice": 95.732, "miou": 91.813},
        "fpn": {"mdice": 95.897, "miou": 87.101},
        "pldmlt": {"mdice": 96.949, "miou": 94.164, "accuracy": 57.69},
        "pldmlt_vgg16": {"mdice": 96.949, "miou": 94.164, "accuracy": 57.69},
    },
    "graders": {"resnext50": {"accuracy": 53.01}, "resnext101": {"accuracy": 57.83}},
    "table2": {
        "unet": {"mdice": 95.612, "miou": 91.591},
        "linknet": {"mdice": 97.346, "miou": 94.829},
        "deeplabv3plus": {"mdice": 96.244, "miou": 92.760},
        "fpn": {"mdice": 98.258, "miou": 96.577},
        "mtunet": {"mdice": 98.961, "miou": 97.942},
        "pldmlt": {"mdice": 98.897, "miou": 97.820, "accuracy": 81.98},
    },
    "table3": {
        "segmentation_only": {"mdice": 94.96},
        "fixed_labels": {"mdice": 94.64, "miou": 89.83},
        "unit_weight": {"mdice": 95.05},
        "pldmlt": {"mdice": 96.94, "miou": 94.06},
    },
}
"""``mdice``, ``miou`` and ``accuracy`` by suite and row."""

NAMES = {"lesions/paper_dice": "mdice", "lesions/paper_iou": "miou", "grade/accuracy": "accuracy"}
"""The paper's score to compare with each of our scores, by our key."""


def printed(suite: str, row: str, score: str) -> float | None:
    """Return the paper's value for a row's score, in percent; None if there is no legible one.

    Example:
        >>> printed("table1", "unet", "lesions/paper_dice"), printed("table1", "unet", "lesions/paper_iou")
        (91.859, None)
    """
    return PAPER.get(suite, {}).get(row, {}).get(NAMES.get(score, ""))


def ill_matched(suite: str) -> dict[str, float]:
    """Return, by row, the IoU that the printed Dice implies, where the printed IoU differs by over 2 points.

    If both are one ratio over all pixels, ``IoU = D / (2 - D)``; in the paper's other rows, other ways to average
    change it by less.

    Example:
        >>> {row: round(iou, 3) for row, iou in ill_matched("table1").items()}
        {'fpn': 92.117}
    """
    pairs = {row: (found.get("mdice"), found.get("miou")) for row, found in PAPER.get(suite, {}).items()}
    implied = {row: (100 * dice / (200 - dice), iou) for row, (dice, iou) in pairs.items() if dice and iou}
    return {row: expected for row, (expected, iou) in implied.items() if abs(iou - expected) > 2}
