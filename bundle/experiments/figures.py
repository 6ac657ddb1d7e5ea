"""The paper's Figures 6 and 7 from the finished runs of a sweep, and a note on how they were made."""

# flake8: noqa: N806

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bundle.datasets.items import items
from bundle.datasets.splits import evaluation
from bundle.experiments.runs import Repeat
from bundle.experiments.suites import Row, suite_named
from bundle.experiments.sweep import LABELS, repeat_folder
from bundle.files import file_sha256, load_json, write_text_whole, written_whole
from bundle.labels import GRADE_NAMES, GRADES, LESION_NAMES, LESIONS
from bundle.manifest import Manifest, Photograph, load_manifest
from bundle.method.evidence import Thresholds
from bundle.method.heat_maps import grade_maps
from bundle.method.initial_labels import load_pseudo_labels
from bundle.metrics.lesions import lesion_dice
from bundle.networks.graded_network import GradedNetwork
from bundle.networks.weights import (
    check_facts,
    facts_of,
    lesion_thresholds,
    load_grader,
    network_of,
    refuse_fused,
    short_name,
)
from bundle.provenance import origin
from bundle.reporting.overlay import LESION_HEX, lesion_overlay, shrink_lesions
from bundle.reporting.panel import write_panel
from bundle.reporting.style import DPI, INK, QUIET
from bundle.reporting.tables import MISSING, markdown_table, number
from bundle.transforms import PrepareFundusd, label_map, load_masks, load_photograph, to_native
from bundle.transforms.lesion_decision import lesion_decision, most_probable_class
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray
from PIL import Image

REPEAT_FOLDER = re.compile(r"fold(\d+)_seed(\d+)")


@dataclass(frozen=True, kw_only=True, eq=False)
class Trained:
    """One network of a sweep, in evaluation mode.

    Attributes:
        row: row of the table.
        weights: weights file.
        facts: facts in the weights file, such as ``image_size`` and ``epochs``.
        network: network with these weights loaded.
    """

    row: Row
    weights: Path
    facts: Mapping[str, Any]
    network: GradedNetwork

    @property
    def image_size(self) -> int:
        return int(self.facts["image_size"])


def load_trained(sweep: Path, row: Row, repeat: Repeat, manifest: Manifest) -> Trained:
    """Build the network of a finished training from its weights file.

    Raises:
        ValueError: if no such training has finished, it ran on another manifest, fold or seed, no network can be
            built from its weights, or they have one fused lesion class.
    """
    folder = repeat_folder(sweep, row.name, repeat)
    weights = folder / "model.pt"
    if not ((folder / "finished.train.json").is_file() and weights.is_file()):
        raise ValueError(_nothing_finished(sweep, row, repeat))
    facts = facts_of(weights)
    made_from = str(facts.get("manifest_sha256"))
    if made_from != manifest.sha256:
        raise ValueError(
            f"expected weights that were trained on this manifest (sha256 {manifest.sha256[:12]}), {weights} was "
            f"trained on another ({made_from[:12]}): give the --manifest of the sweep"
        )
    refuse_fused(weights)
    check_facts(weights, facts, repeat._asdict())
    return Trained(row=row, weights=weights, facts=facts, network=network_of(weights))


def _nothing_finished(sweep: Path, row: Row, repeat: Repeat) -> str:
    """Write the error message: the missing training, and the finished ones found instead."""
    matches = (REPEAT_FOLDER.fullmatch(path.parent.name) for path in (sweep / row.name).glob("*/finished.train.json"))
    there = sorted(Repeat(*map(int, match.groups())) for match in matches if match)
    return (
        f"expected a finished training of row {row.name!r} ({repeat}) in {sweep}, found "
        f"{'those of ' + '; '.join(map(str, there)) if there else 'none of this row'}; choose --sweep, --fold and "
        f"--seed, or train it with python -m scripts.sweep --rows {row.name}"
    )


PICTURE_PX = 460
"""Long side of a photograph in the figure."""

TRUTH = "outlines of the data set"


@dataclass(frozen=True, kw_only=True, eq=False)
class Compared:
    """One photograph, its outlines, and the lesions that each column predicts.

    Attributes:
        name: id of the photograph.
        image: RGB ``(H, W, 3)``, uint8.
        truth: label map ``(H, W)`` of the outlines.
        predicted: label map ``(H, W)`` by column, in the order of the columns.
        scores: text below the picture of a column.
    """

    name: str
    image: NDArray[np.uint8]
    truth: NDArray[np.uint8]
    predicted: Mapping[str, NDArray[np.uint8]]
    scores: Mapping[str, str]


def write_lesion_figure(path: str | os.PathLike, photographs: Sequence[Compared]) -> None:
    """Draw one row per photograph: the photograph, its outlines, and the lesions that each network predicts.

    Label maps are shrunk without losing a lesion: a pixel is drawn if any pixel that it covers was lesion.

    Raises:
        ValueError: if there is no photograph, or two differ in their columns.
    """
    columns = [list(one.predicted) for one in photographs]
    if not columns or any(names != columns[0] for names in columns):
        raise ValueError(f"expected one photograph or more, all with the same columns, got {columns}")
    figure = _figure(photographs, ["photograph", TRUTH, *columns[0]])
    with written_whole(path) as beside:
        figure.savefig(beside, dpi=DPI)


def _figure(photographs: Sequence[Compared], titles: Sequence[str]) -> Figure:
    tallest = max(one.image.shape[0] / one.image.shape[1] for one in photographs)
    width_in = PICTURE_PX / DPI
    # Axes a little wider than a picture, drawn without interpolation, show each of its pixels at least once.
    size = ((width_in + 0.1) * len(titles), (width_in * tallest + 0.5) * len(photographs) + 0.9)
    figure = Figure(figsize=size, facecolor="white", layout="constrained")
    grid = figure.subplots(len(photographs), len(titles), squeeze=False)
    for axes, title in zip(grid[0], titles, strict=True):
        axes.set_title(title, size=13, color=INK)
    for cells, one in zip(grid, photographs, strict=True):
        _draw_row(cells, one)
    patches = [Patch(color=LESION_HEX[lesion], label=f"{LESION_NAMES[lesion]} ({lesion})") for lesion in LESIONS]
    figure.legend(handles=patches, loc="outside lower center", ncols=len(patches), frameon=False, fontsize=13)
    return figure


def _draw_row(cells: Sequence[Axes], one: Compared) -> None:
    picture = Image.fromarray(one.image)
    picture.thumbnail((PICTURE_PX, PICTURE_PX))
    small = np.asarray(picture)
    maps = [np.zeros(one.image.shape[:2], np.uint8), one.truth, *one.predicted.values()]  # (H, W) each
    present = [lesion for value, lesion in enumerate(LESIONS, start=1) if (one.truth == value).any()]
    below = [one.name, " ".join(present) or "no lesion", *(one.scores.get(name, "") for name in one.predicted)]
    for axes, lesions, text in zip(cells, maps, below, strict=True):
        axes.imshow(lesion_overlay(small, shrink_lesions(lesions, picture.size)), interpolation="nearest")
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
        axes.set_xlabel(text, size=12, color=QUIET, parse_math=False)


Mask = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Asked:
    """Inputs of the figures.

    Attributes:
        sweep: folder of ``scripts.sweep``.
        manifest: manifest of the sweep.
        suite: name of its table.
        rows: names of the rows in Figure 7, in the order of its columns.
        repeat: fold and seed.
        photographs: number of held-out photographs to show, the first of the manifest.
    """

    sweep: Path
    manifest: Path
    suite: str
    rows: Sequence[str]
    repeat: Repeat
    photographs: int


def write_figures(out: str | os.PathLike, asked: Asked, command: Sequence[str]) -> str:
    """Write ``figure6.png``, ``figure7.png`` and ``figures.md`` into a folder; return their paths as text.

    Figure 7 shows the outlines of the first held-out photographs next to the predictions of each row. Figure 6 shows
    one photograph with the heat map of every grade; the note lists the rules that each grade fails.

    Raises:
        ValueError: if a row is unknown or has no finished run, the runs are of another manifest, the fold has no
            outlined photograph, or the pseudo-labels or their graders are missing or changed.
    """
    folder, manifest = Path(out), load_manifest(asked.manifest)
    subset, rows = evaluation(manifest, asked.repeat.fold, "lesions")
    if not 1 <= asked.photographs <= len(rows):
        raise ValueError(f"expected --photographs in 1-{len(rows)}, those of {subset}, got {asked.photographs}")
    trained = [load_trained(asked.sweep, row, asked.repeat, manifest) for row in _rows(asked)]
    labels = _Labels.read(asked, manifest)
    compared = [_compare(manifest, row, trained) for row in rows[: asked.photographs]]
    write_lesion_figure(folder / "figure7.png", compared)
    shown = labels.write_panel(folder / "figure6.png", manifest, rows)
    head = [
        f"# Figures 6 and 7: {manifest.name}\n",
        "These pictures show photographs of the data set. Its licence holds for them too.\n",
        *origin(command, manifest.sha256),
        f"- suite {asked.suite}, {asked.repeat}",
    ]
    note = ["\n".join(head), _about_7(subset, trained, compared), labels.about(shown)]
    write_text_whole(folder / "figures.md", "\n\n".join(note) + "\n")
    return "\n".join(str(folder / name) for name in ("figure6.png", "figure7.png", "figures.md"))


def _rows(asked: Asked) -> list[Row]:
    known = {row.name: row for row in suite_named(asked.suite).rows if "lesions" in row.tasks}
    unknown = [name for name in asked.rows if name not in known]
    if unknown or not asked.rows:
        raise ValueError(f"expected --rows out of {list(known)}, which outline lesions, got {unknown or 'none'}")
    return [known[name] for name in dict.fromkeys(asked.rows)]


def _compare(manifest: Manifest, row: Photograph, trained: Sequence[Trained]) -> Compared:
    (item,) = items(manifest, [row])
    paths = {lesion: manifest.path(path) for lesion, path in row.masks.items()}
    outlines = load_masks(paths, row.width_px, row.height_px)
    predicted = {one.row.title: predict_lesions(one, item) for one in trained}
    return Compared(
        name=row.id, image=load_photograph(item["image"]).pixels,
        truth=label_map(outlines, row.width_px, row.height_px),
        predicted=predicted, scores={name: scores_below(lesions, outlines) for name, lesions in predicted.items()},
    )  # fmt: skip


def predict_lesions(trained: Trained, item: Mapping[str, Any]) -> NDArray[np.uint8]:
    """Return the lesion of every native pixel, by the same decision as the evaluation, in float32.

    Returns:
        Label map ``(H, W)``.
    """
    prepared = PrepareFundusd(trained.image_size)(item)
    with torch.no_grad():
        logits = trained.network(prepared["image"][None].float() / 255)  # (1, C, S, S)
    scores = lesion_decision(logits.softmax(dim=1)[0], lesion_thresholds(trained.weights))  # (C, S, S)
    return most_probable_class(to_native(scores, prepared["geometry"])).numpy()


def scores_below(lesions: NDArray[np.uint8], outlines: Mapping[str, Mask]) -> str:
    """Write the Dice of every outlined lesion, and a remark if the network predicts none."""
    found = {
        lesion: lesion_dice(lesions == value, outlines[lesion])
        for value, lesion in enumerate(LESIONS, start=1)
        if lesion in outlines and outlines[lesion].any()
    }
    text = ", ".join(f"{lesion} {score:.2f}" for lesion, score in found.items())
    return ("" if lesions.any() else "no lesion; ") + (f"Dice {text}" if found else "nothing to score")


@dataclass(frozen=True, kw_only=True)
class _Labels:
    """The pseudo-labels of one fold and seed, with the graders that made them."""

    path: Path
    settings: Mapping[str, Any]
    rows: Mapping[str, Mapping[str, Any]]
    graders: Sequence[Path]

    @classmethod
    def read(cls, asked: Asked, manifest: Manifest) -> "_Labels":
        path = repeat_folder(asked.sweep, LABELS, asked.repeat) / "pseudo_labels.json"
        load_pseudo_labels(path, manifest)
        content = load_json(path)
        graders = [_grader(asked.sweep, recorded) for recorded in content["settings"]["graders"]]
        rows = {row["id"]: row for row in content["rows"]}
        return cls(path=path, settings=content["settings"], rows=rows, graders=graders)

    def write_panel(self, path: Path, manifest: Manifest, preferred: Sequence[Photograph]) -> Mapping[str, Any]:
        """Draw the first preferred photograph with a label, else the first of the manifest; return its audit row."""
        first = next((row for row in [*preferred, *manifest.photographs] if row.id in self.rows), None)
        if first is None:
            raise ValueError(f"expected a pseudo-label in {self.path}, found none")
        (item,) = items(manifest, [first])
        prepared = PrepareFundusd(self.settings["image_size"])(item)
        row = self.rows[first.id]
        winner = row["winner"]
        graders = self.graders if winner is None else [self.graders[winner]]
        image, stride = prepared["image"][None].float() / 255, self.settings["heat_map_stride"]
        maps_5HW = torch.stack(
            [grade_maps(load_grader(one, heat_map_stride=stride), image).maps[0] for one in graders]
        ).mean(dim=0)
        write_panel(path, prepared["image"], prepared["lesions"][0].numpy(), maps_5HW.numpy(), row)
        return row

    def about(self, row: Mapping[str, Any]) -> str:
        """Write the note on Figure 6: the evidence for every grade on its photograph."""
        thresholds = Thresholds(**self.settings["thresholds"])
        header = ["grade", "probability", "o", "lift", "of perfect", "coverage", "of perfect", "the lesions allow it",
                  "the heat map fails"]  # fmt: skip
        names = ("probability", "optic_disc", "lift", "relative_lift", "coverage", "relative_coverage")
        lines = [
            [f"{grade} {GRADE_NAMES[grade]}", *(number(row.get(f"{name}_{grade}")) for name in names),
             "yes" if row[f"feasible_{grade}"] else "no", ", ".join(failed_rules(row, grade, thresholds)) or "nothing"]
            for grade in GRADES
        ]  # fmt: skip
        graders = "".join(f"\n- grader: {path.parent.parent.name}/{short_name(path)}" for path in self.graders)
        return (
            f"## Figure 6: which grade the heat maps support\n\n![Heat map of every grade](figure6.png)\n\n"
            f"- photograph: {row['id']}\n- pseudo-labels: {self.path.parent.parent.name}/{self.path.parent.name}"
            f"{graders}\n\n{markdown_table(header, lines)}\n\no: share of the heat map's hot part on the optic disc; "
            f"lift: its energy on lesions over chance; coverage: share of the lesions that is hot; of perfect: the "
            f"gain in lift, and the coverage, as a share of what a perfect heat map of this grid reaches.\n\n"
            f"Decision: {row['reason']}."
        )


def _grader(sweep: Path, recorded: Mapping[str, Any]) -> Path:
    """Return the path of a grader's weights in the sweep's present folder.

    Raises:
        ValueError: if the file is missing, or is not the one that made the labels.
    """
    path = sweep.joinpath(*Path(recorded["path"]).parts[-3:])
    there = file_sha256(path)[:12] if path.is_file() else "no file"
    if there != recorded["sha256"][:12]:
        raise ValueError(
            f"expected the grader of the pseudo-labels (sha256 {recorded['sha256'][:12]}) at {path}, found {there}; "
            "run the sweep again"
        )
    return path


def failed_rules(row: Mapping[str, Any], grade: int, thresholds: Thresholds) -> list[str]:
    """Name the rules of :func:`bundle.method.evidence.evidence` that a grade's heat map fails, with thresholds.

    Example:
        >>> row = {"optic_disc_0": 0.5, "relative_lift_0": 0.3, "relative_coverage_0": 0.0}
        >>> failed_rules(row, 0, Thresholds())
        ['o above 0.3', 'coverage below 0.25 of perfect']
    """
    if row.get(f"empty_{grade}"):
        return ["it is empty"]
    disc, lift, coverage = (row[f"{name}_{grade}"] for name in ("optic_disc", "relative_lift", "relative_coverage"))
    if lift is None or coverage is None:
        return ["there are no lesions, or no map of this grid shows them"]
    failed = {
        f"o above {thresholds.optic_disc_max:g}": disc is not None and disc > thresholds.optic_disc_max,
        f"lift below {thresholds.lift_min:g} of perfect": lift < thresholds.lift_min,
        f"coverage below {thresholds.coverage_min:g} of perfect": coverage < thresholds.coverage_min,
    }
    return [rule for rule, fails in failed.items() if fails]


def _about_7(subset: str, trained: Sequence[Trained], compared: Sequence[Compared]) -> str:
    names = ("image_size", "epochs", "num_training_images", "pretrained")
    settings = [
        [
            one.row.title,
            f"{one.row.name}/{short_name(one.weights)}",
            *(str(one.facts.get(name, MISSING)) for name in names),
        ]
        for one in trained
    ]
    scores = [[one.name, *(one.scores[name] for name in one.predicted)] for one in compared]
    return "\n\n".join(
        [
            "## Figure 7: lesions next to those of other networks",
            "![Photographs, outlines, and what each network outlines](figure7.png)",
            f"The first {len(compared)} outlined photographs of {subset}, which no network here was trained on, in the "
            "order of the manifest. Pixels are decided as in the evaluation. Dice is of one photograph at native size.",
            markdown_table(["network", "weights", *(name.replace("_", " ") for name in names)], settings),
            markdown_table(["photograph", *compared[0].predicted], scores),
        ]
    )
