"""The last step of stage 1: an initial label and its audit row for each lesion image, from the graders' output."""

# flake8: noqa: N803, N806

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from bundle.datasets.items import patients
from bundle.files import write_csv_whole, write_json_whole
from bundle.grade_rules import feasible_grades
from bundle.labels import lesions_large_enough, smallest_area_px
from bundle.manifest import Manifest, Photograph, Point
from bundle.method.evidence import Thresholds, check_grid, evidence
from bundle.method.heat_maps import NonFiniteLogits
from bundle.method.initial_labels import save_pseudo_labels
from bundle.method.pseudo_labels import audit_row, combine, decide, haemorrhages_in_doubt
from bundle.metrics.pseudo_labels import summarise
from bundle.transforms import centre_of, components_by_quadrant, field_mask, largest_component_px, load_runs
from ignite.engine import Engine, Events

Picture = Callable[[Path, np.ndarray, np.ndarray, np.ndarray, Mapping[str, Any]], None]
Rows = Sequence[Mapping[str, Any]]
Page = Callable[[Path, Rows, Mapping[str, Any], Mapping[str, str], Mapping[str, str]], None]


class PseudoLabelHandler:
    """Handler that decides the initial label of every image of an evaluation (Liu & Huang 2023, section 3.1).

    Attach it to an evaluator whose step is :class:`bundle.steps.ProposalStep`. It writes ``pseudo_labels.json``
    (the hand-over to stage 2), ``pseudo_labels.csv`` (the same rows), ``summary.json`` (scores wherever the true
    grade is known), one picture per image, and ``decisions.html``, a page of all decisions. An interrupted run leaves
    no partial file and starts from the beginning: the same graders and photographs give the same labels.

    Args:
        output_dir: folder of the files.
        manifest: manifest of the photographs to label; its hash goes into the hand-over.
        settings: origin of the labels, such as the graders' hashes.
        thresholds: thresholds of the decision.
        mode: how graders are combined: ``max_confidence`` (the paper) or ``log_mean``.
        picture: draws one image's panel into a file, or None.
        page: writes rows, summary, panel by id and facts as a page into a file, or None.
        min_area_ppm: smallest component of a lesion that counts, in millionths of the field of view. It is measured on
            the native masks, because every speck keeps a pixel when masks are downscaled.
    """

    def __init__(
        self,
        output_dir: str,
        manifest: Manifest,
        settings: Mapping[str, Any],
        thresholds: Thresholds | None = None,
        mode: str = "max_confidence",
        picture: Picture | None = None,
        min_area_ppm: float = 3.0,
        page: Page | None = None,
    ) -> None:
        self.output_dir, self.manifest, self.settings = Path(output_dir), manifest, dict(settings)
        self.thresholds, self.mode = thresholds or Thresholds(), mode
        self.picture, self.page, self.min_area_ppm = picture, page, min_area_ppm
        self.photographs = {row.id: row for row in manifest.photographs}
        self.rows: list[dict[str, Any]] = []

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, self.rows.clear)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.update)
        engine.add_event_handler(Events.COMPLETED, self.write)
        engine.add_event_handler(Events.EXCEPTION_RAISED, self.fail)

    def fail(self, engine: Engine, error: BaseException) -> None:
        """Raise the error again; if a grader gave NaN, name the grader and the images.

        Raises:
            ValueError: naming grader and images.
        """
        if not isinstance(error, NonFiniteLogits):
            raise error
        names = [engine.state.batch["id"][place] for place in error.images]
        raise ValueError(
            f"grader {self._name_grader(engine, error.grader)} gave NaN or infinity for {', '.join(names)}; "
            "train it again, with a lower learning_rate or amp false, or leave it out of --graders"
        ) from error

    def _name_grader(self, engine: Engine, grader: object) -> str:
        """Return the file and the architecture of a grader, as far as they are known."""
        listed = [network is grader for network in getattr(engine, "network", [])]
        files = self.settings.get("graders", [])
        name = getattr(grader, "architecture", type(grader).__name__)
        if not any(listed) or len(files) != len(listed):
            return name
        file = files[listed.index(True)]
        return f"{file['path']} ({name})" if isinstance(file, Mapping) else f"{file} ({name})"

    def update(self, engine: Engine) -> None:
        """Decide the label of each image of the batch.

        Raises:
            ValueError: if the grid of a grader's heat maps is too coarse
                (:func:`bundle.method.evidence.check_grid`).
        """
        batch, output = engine.state.batch, engine.state.output
        for grid_hw in output["grids"]:
            check_grid(grid_hw, batch["image"].shape[-1], self.thresholds)
        for index, name in enumerate(batch["id"]):
            arrays = {key: batch[key][index].cpu().numpy() for key in ("image", "lesions", "optic_disc", "field_px")}
            # (G, 5) and (G, 5, H, W)
            proposals = output["probabilities"][index].numpy(), output["maps"][index].numpy()
            self._decide(name, arrays, *proposals, grids=output["grids"])

    def _decide(
        self,
        name: str,
        arrays: Mapping[str, np.ndarray],
        graders_GC: np.ndarray,
        maps: np.ndarray,
        grids: Sequence[tuple[int, int]],
    ) -> None:
        probabilities, winner = combine(graders_GC, self.mode)
        heat_5HW = maps.mean(axis=0) if winner is None else maps[winner]  # maps: (G, 5, H, W)
        heat_grids = grids if winner is None else [grids[winner]]
        lesions_HW, photograph = arrays["lesions"][0], self.photographs[name]
        largest_px, field_px = largest_components_px(self.manifest, photograph), float(arrays["field_px"])
        present = lesions_large_enough(largest_px, field_px, self.min_area_ppm)
        quadrants = haemorrhages_by_quadrant(self.manifest, photograph, smallest_area_px(field_px, self.min_area_ppm))
        field = field_mask(arrays["image"].max(axis=0))  # (H, W), bool
        in_doubt = haemorrhages_in_doubt(lesions_HW, field, self.thresholds)
        feasible = feasible_grades(
            present, photograph.annotated, in_doubt=in_doubt, name_atypical=self.thresholds.name_atypical,
            disputed=photograph.disputed, quadrants=quadrants,
        )  # fmt: skip
        disc = arrays["optic_disc"][0] > 0 if photograph.optic_disc is not None else None
        support = evidence(heat_5HW, lesions_HW > 0, disc, field, self.thresholds, grids=heat_grids)
        decision = decide(probabilities, feasible, support, self.thresholds, present=present)
        row = audit_row(
            name, decision, support, feasible=feasible, present=present, probabilities=probabilities,
            graders_GC=graders_GC, winner=winner, largest_px=largest_px, quadrants=quadrants,
        )  # fmt: skip
        self.rows.append(row)
        if self.picture is not None:
            self.picture(self.output_dir / _panel(name), arrays["image"], lesions_HW, heat_5HW, row)

    def write(self, engine: Engine) -> None:
        """Write all files; the hand-over comes last, because its presence marks the stage as done."""
        known = self.manifest.known_grades()
        truth = {row.id: known[row.group] for row in self.manifest.photographs if row.group in known}
        summary = summarise(self.rows, truth, patients=patients(self.manifest.photographs))
        engine.state.metrics.update({f"labels/{key.replace('/', '_')}": v for key, v in summary.items()})
        rows = [{**row, "true_grade": truth.get(row["id"])} for row in self.rows]
        write_csv_whole(self.output_dir / "pseudo_labels.csv", rows)
        write_json_whole(self.output_dir / "summary.json", summary)
        if self.page is not None:
            panels = {row["id"]: _panel(row["id"]) for row in rows if self.picture is not None}
            facts = {"Manifest": self.manifest.name, "Graders combined by": self.mode}
            self.page(self.output_dir / "decisions.html", rows, summary, panels, facts)
        settings = {**self.settings, "combine": self.mode, "thresholds": asdict(self.thresholds)}
        save_pseudo_labels(self.output_dir / "pseudo_labels.json", self.manifest, settings, rows)


def largest_components_px(manifest: Manifest, photograph: Photograph) -> dict[str, int]:
    """Measure the largest component of each lesion that was looked for, in native pixels; 0 where it is absent.

    Raises:
        ValueError: as :func:`bundle.transforms.load_runs`.
    """
    size_px = photograph.width_px, photograph.height_px
    found = {
        lesion: largest_component_px(load_runs(manifest.path(mask), *size_px))
        for lesion, mask in photograph.masks.items()
    }
    return dict.fromkeys(photograph.annotated, 0) | found


def haemorrhages_by_quadrant(manifest: Manifest, photograph: Photograph, min_area_px: float) -> list[int] | None:
    """Count the outlined haemorrhages in each quadrant (:func:`bundle.transforms.components_by_quadrant`).

    The quadrants are centred on the fovea, in the middle of a photograph of the macula. If the fovea is not marked,
    they are centred on the disc, at the photograph's edge. None if neither is known, or no haemorrhage is outlined.

    Raises:
        ValueError: as :func:`bundle.transforms.load_runs`.
    """
    about_px = centre_of_quadrants(manifest, photograph) if "HE" in photograph.masks else None
    if about_px is None:
        return None
    runs = load_runs(manifest.path(photograph.masks["HE"]), photograph.width_px, photograph.height_px)
    return components_by_quadrant(runs, about_px, min_area_px)


def centre_of_quadrants(manifest: Manifest, photograph: Photograph) -> Point | None:
    """Return the fovea, else the middle of the outlined disc, else the marked point of the disc, else None."""
    fovea_px = manifest.landmark(photograph, "fovea_px")
    if fovea_px is not None or photograph.optic_disc is None:
        return fovea_px or manifest.landmark(photograph, "disc_px")
    return centre_of(load_runs(manifest.path(photograph.optic_disc), photograph.width_px, photograph.height_px))


def _panel(name: str) -> str:
    """Return the path of a photograph's picture below the output folder."""
    return f"panels/{name.replace('/', '_')}.jpg"
