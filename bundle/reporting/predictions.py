"""Output files of inference: masks, overlays, heat maps, tables and one report."""

import csv
import json
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import numpy as np
from bundle.files import CLAIM, claim, release, written_at_once, written_whole
from bundle.handlers.predictions import COLUMNS, Prediction, Row
from bundle.labels import GRADES, LESIONS
from bundle.reporting.overlay import heat_picture, lesion_overlay, shrink_lesions, write_mask_png
from bundle.reporting.report import Card, write_report
from bundle.transforms import load_photograph
from bundle.transforms.nifti import affine_of, write_label_nifti
from PIL import Image

CARD_LONG_SIDE_PX = 640

BAND_PX = 64
"""Rows in which lesions are drawn at a time; most bands of a photograph have no lesion."""

TITLE = "Diabetic retinopathy: lesions and grades"
UNREAD_EXIT_CODE = 3
UNREAD_SHOWN_MAX = 20
"""Maximum number listed on the screen; the tables and the report list all."""

FOLDERS = ("masks", "nifti", "overlays", "heatmaps")
TABLES = ("predictions.csv", "predictions.jsonl")
REPORT = "report.html"


class PredictionFiles:
    """Writer of masks, overlays and heat maps as predictions come, and of the tables and the report at the end.

    Pictures are in ``masks/``, ``overlays/`` and ``heatmaps/`` under the photograph's name. A mask is an indexed PNG at
    the photograph's native size: 0 background, 1-4 as in ``LESIONS``. A heat map is a grey PNG of at most 1024 pixels
    on its long side. ``predictions.csv`` and ``predictions.jsonl`` have the same row for every photograph; ``error`` is
    the reason why it could not be read. Rows are kept in an unnamed temporary file, so memory does not grow with their
    number and a killed run leaves nothing behind.

    Args:
        output_dir: output folder; the results of an earlier run are removed from it when a run starts.
        facts: facts about the run for the report's head, such as the weights.
        nifti: also write label maps ``(W, H, 1)`` to ``nifti/``, with the affine of the photograph.
        report: whether to write ``report.html``: about 0.1 MB per photograph.
    """

    def __init__(
        self, output_dir: str | os.PathLike, facts: Mapping[str, Any], nifti: bool = False, report: bool = True
    ) -> None:
        self.output_dir, self.facts = Path(output_dir), {key: str(value) for key, value in facts.items()}
        self.nifti, self.report = nifti, report
        self.number = {"photographs": 0, "abstained": 0, "unread": 0}
        self.unread: list[str] = []

    def start(self) -> None:
        """Claim the folder, and remove the results of an earlier run.

        Raises:
            ValueError: if it cannot be written to, another run is using it, or it contains files of unknown origin.
        """
        _take_folder(self.output_dir)
        for name in FOLDERS:
            shutil.rmtree(self.output_dir / name, ignore_errors=True)
        for name in (*TABLES, REPORT):
            (self.output_dir / name).unlink(missing_ok=True)
        self.rows = TemporaryFile("w+", dir=self.output_dir, encoding="utf-8")  # noqa: SIM115  (lives until finish)

    def draw(self, prediction: Prediction) -> None:
        """Write the pictures of one photograph."""
        write_mask_png(self._path("masks", prediction.name, ".png"), prediction.lesions_HW)
        _save(self._path("overlays", prediction.name, ".jpg"), _overlay(prediction))
        _save(self._path("heatmaps", prediction.name, ".png"), np.asarray(heat_picture(prediction.heat_hw)))
        if self.nifti:
            path = self._path("nifti", prediction.name, ".nii.gz")
            write_label_nifti(path, prediction.lesions_HW, affine_of(prediction.path))

    def note(self, row: Row, path: str) -> None:
        """Store a row on disk."""
        self.number["photographs"] += 1
        self.number["abstained"] += bool(row["abstained"])
        self.number["unread"] += bool(row["error"])
        if row["error"] and len(self.unread) < UNREAD_SHOWN_MAX:
            self.unread.append(f"{row['file']}: {row['error']}")
        self.rows.write(json.dumps({"path": path, "row": row}, allow_nan=False) + "\n")

    def finish(self) -> None:
        """Write the tables and, if a photograph was read, the report; release the folder."""
        with self.rows:
            self._write_tables()
            if self.report and self.number["unread"] < self.number["photographs"]:
                unread = {row["file"]: row["error"] for _, row in self._noted() if row["error"]}
                write_report(self.output_dir / REPORT, self._cards(), TITLE, self._head(), unread)
        release(self.output_dir)

    def exit_if_unread(self) -> None:
        """End the process with code 3 if a photograph could not be read.

        Raises:
            SystemExit: in that case, after listing the photographs on the error stream.
        """
        if self.number["unread"]:
            lines = [f"could not read {self.number['unread']} of {self.number['photographs']} photographs:"]
            sys.stderr.write("\n".join(["ValueError: " + lines[0] + " " + self.unread[0], *self.unread[1:]]) + "\n")
            raise SystemExit(UNREAD_EXIT_CODE)

    def _write_tables(self) -> None:
        table, lines = (self.output_dir / name for name in TABLES)
        with (
            written_whole(table) as table_beside,
            written_whole(lines) as lines_beside,
            table_beside.open("w", encoding="utf-8", newline="") as table_file,
            lines_beside.open("w", encoding="utf-8") as lines_file,
        ):
            writer = csv.DictWriter(table_file, fieldnames=COLUMNS)
            writer.writeheader()
            for _, row in self._noted():
                writer.writerow(row)
                lines_file.write(json.dumps(row) + "\n")

    def _noted(self) -> Iterator[tuple[str, Row]]:
        self.rows.seek(0)
        for line in self.rows:
            one = json.loads(line)
            yield one["path"], one["row"]

    def _head(self) -> dict[str, str]:
        """Return the facts for the report's head."""
        head = {**self.facts, "photographs": str(self.number["photographs"])}
        if self.number["abstained"]:
            head["abstained"] = f"{self.number['abstained']}; their grades are less confident than was asked for"
        return head

    def _cards(self) -> Iterator[Card]:
        """Read back the written files, one photograph at a time, so that memory does not grow with their number."""
        for path, row in self._noted():
            if not row["error"]:
                yield self._card(path, row)

    def _card(self, path: str, row: Row) -> Card:
        picture = Image.fromarray(load_photograph(path, CARD_LONG_SIDE_PX).pixels)
        picture.thumbnail((CARD_LONG_SIDE_PX, CARD_LONG_SIDE_PX))
        lesions = np.asarray(Image.open(self._path("masks", row["file"], ".png")))
        heat = np.asarray(Image.open(self._path("heatmaps", row["file"], ".png")), dtype=np.float32) / 255
        return Card(
            name=row["file"],
            image=np.asarray(picture),
            lesions=shrink_lesions(lesions, picture.size),
            heat=heat,
            probabilities=tuple(row[f"probability_{grade}"] for grade in GRADES),
            counts={lesion: row[f"{lesion}_count"] for lesion in LESIONS},
            areas_px={lesion: row[f"{lesion}_area_px"] for lesion in LESIONS},
            field_px=row["field_px"],
            feasible={int(grade) for grade in row["feasible"].split()},
            abstained=row["abstained"],
        )

    def _path(self, folder: str, name: str, suffix: str) -> Path:
        """Return an output path with the sub-folders and the original suffix: a.jpg and a.png are two photographs."""
        return self.output_dir / folder / (name + suffix)


def _take_folder(folder: Path) -> None:
    try:
        _refuse_foreign(folder)
        claim(folder)
    except OSError as error:
        raise ValueError(f"expected an --output_dir that can be written, got {folder}: {error.strerror}") from None


def _refuse_foreign(folder: Path) -> None:
    found = [name for name in (*FOLDERS, *TABLES, REPORT) if (folder / name).exists()]
    if found and not (folder / CLAIM).exists():
        raise ValueError(
            f"expected an --output_dir without {found[0]!r}, or one of a former inference, whose results are replaced; "
            f"{folder} is neither: name another, or remove {found[0]!r}"
        )


def _overlay(prediction: Prediction) -> np.ndarray:
    """Draw lesions on the photograph, one band of rows at a time, so that memory holds little more than its pixels.

    A band is read with one row above and below, because the neighbours of a pixel decide whether it is at the edge of
    its lesion.
    """
    pixels, lesions = np.array(load_photograph(prediction.path).pixels), prediction.lesions_HW  # pixels: (H, W, 3)
    for start in range(0, len(lesions), BAND_PX):
        if lesions[start : start + BAND_PX].any():
            above = min(start, 1)
            seen = slice(start - above, start + BAND_PX + 1)
            laid_over = lesion_overlay(pixels[seen], lesions[seen])
            pixels[start : start + BAND_PX] = laid_over[above : above + BAND_PX]
    return pixels


def _save(path: Path, pixels: np.ndarray) -> None:
    with written_at_once(path) as buffer:
        Image.fromarray(pixels).save(buffer, path.suffix[1:].replace("jpg", "jpeg"), quality=90, compress_level=1)
