"""Output files of inference: masks, overlays, heat maps, tables and one report."""

# flake8: noqa: N806

import csv
import json
import os
import shutil
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import groupby, islice
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, NamedTuple

from bundle.datasets.readers.files import names
from bundle.files import CLAIM, TABLE_ENCODING, claim, release, written_at_once, written_whole
from bundle.handlers.predictions import COLUMNS, Prediction, Row
from bundle.labels import LESIONS
from bundle.reporting.copies import counted, printable
from bundle.reporting.dicom_seg import write_dicom_seg
from bundle.reporting.overlay import heat_picture, lesion_overlay, write_mask_png
from bundle.reporting.report import card_html, patient_html, write_report
from bundle.transforms import load_photograph
from bundle.transforms.nifti import affine_of, write_label_nifti
from PIL import Image

TITLE = "Diabetic retinopathy: lesions and grades"
UNREAD_EXIT_CODE = 3
UNREAD_SHOWN_MAX = 20
"""Maximum number listed on the screen; the tables and the report list all."""

FOLDERS = ("masks", "nifti", "dicom_seg", "overlays", "heatmaps")
TABLES = ("predictions.csv", "predictions.jsonl")
REPORT = "report.html"


NO_LESION_ABOVE = 20
"""Number of photographs above which it is said if no lesion was found on any."""

SHOWN_OF_PATIENT = ("file", "grade", "consistent_grade", "abstained", "doubts", "error")
"""Columns that the heading of a patient needs of each photograph."""


class _Noted(NamedTuple):
    """A photograph whose card waits to be shown with its patient's others: part of its row, and its card's length."""

    patient: str | None
    row: Row
    card_length: int


class Drawing(NamedTuple):
    """What :meth:`PredictionFiles.draw` hands to :meth:`PredictionFiles.note`."""

    card: str
    changes: tuple[str, ...]  # in which the photograph as read differs from its file


class PredictionFiles:
    """Writer of masks, overlays and heat maps as predictions come, and of the tables and the report at the end.

    Pictures are in ``masks/``, ``overlays/`` and ``heatmaps/`` under the photograph's name. A mask is an indexed PNG at
    the photograph's native size: 0 background, 1-4 as in ``LESIONS``. A heat map is a grey PNG of at most 1024 pixels
    on its long side. ``predictions.csv`` and ``predictions.jsonl`` have the same row for every photograph; ``error`` is
    the reason why it could not be read. Rows and the report's cards wait in unnamed temporary files, so memory does not
    grow with their number and a killed run leaves nothing behind.

    Args:
        output_dir: output folder; the results of an earlier run are removed from it when a run starts.
        facts: facts about the run for the report's head, such as the weights.
        nifti: also write label maps ``(W, H, 1)`` to ``nifti/``, with the affine of the photograph.
        report: whether to write ``report.html``: about 0.1 MB per photograph.
        dicom_seg: also write the lesions of each photograph, which must be DICOM, as a Segmentation to ``dicom_seg/``.
        patients: patient of each photograph, where it is known. If any is, the tables have a column ``patient``, and
            the report shows consecutive photographs of a patient side by side.
        eyes: ``left`` or ``right`` for each photograph, where it is known. If any is, the tables have a column ``eye``,
            and the report names the eye beside the photograph.
        passed_over: names of files among the photographs that were not read, because of their suffix.
    """

    def __init__(
        self,
        output_dir: str | os.PathLike,
        facts: Mapping[str, Any],
        nifti: bool = False,
        report: bool = True,
        dicom_seg: bool = False,
        patients: Mapping[str, str] | None = None,
        eyes: Mapping[str, str] | None = None,
        passed_over: Sequence[str] = (),
    ) -> None:
        self.output_dir, self.facts = Path(output_dir), {key: str(value) for key, value in facts.items()}
        self.nifti, self.report, self.dicom_seg = nifti, report, dicom_seg
        self.patients, self.eyes, self.passed_over = dict(patients or {}), dict(eyes or {}), tuple(passed_over)

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
        temporary = partial(TemporaryFile, "w+", dir=self.output_dir, encoding="utf-8", newline="\n")
        self.rows, self.cards = temporary(), temporary()  # JSON lines; HTML
        self.photographs, self.abstained, self.with_lesions = 0, 0, 0
        self.unread: dict[str, str] = {}
        self.doubtful: dict[str, list[str]] = defaultdict(list)  # photographs by the doubts about them
        self.noted: list[_Noted] = []  # only if patients are known
        self.changed: dict[str, list[str]] = defaultdict(list)

    def draw(self, prediction: Prediction) -> Drawing:
        """Write the pictures of one photograph, and return its card for the report.

        This is the only place that decodes the photograph at native size.
        """
        write_mask_png(self._path("masks", prediction.name, ".png"), prediction.lesions_HW)
        _save(self._path("heatmaps", prediction.name, ".png"), heat_picture(prediction.heat_hw))
        if self.nifti:
            path = self._path("nifti", prediction.name, ".nii.gz")
            write_label_nifti(path, prediction.lesions_HW, affine_of(prediction.path))
        if self.dicom_seg:
            write_dicom_seg(self._path("dicom_seg", prediction.name, ".dcm"), prediction.lesions_HW, prediction.path)
        image_HW3, _, _, changes = load_photograph(prediction.path)
        card = card_html(prediction, image_HW3, self.eyes.get(prediction.name)) if self.report else ""
        overlay_HW3 = lesion_overlay(image_HW3, prediction.lesions_HW)
        _save(self._path("overlays", prediction.name, ".jpg"), Image.fromarray(overlay_HW3))
        return Drawing(card, changes)

    def note(self, row: Row, drawing: Drawing | None) -> None:
        """Store a row and a card on disk."""
        self.photographs += 1
        self.abstained += bool(row["abstained"])
        self.with_lesions += any(row[f"{lesion}_count"] for lesion in LESIONS)
        if row["error"]:
            self.unread[row["file"]] = row["error"]
        if row["doubts"]:
            self.doubtful[row["doubts"]].append(row["file"])
        if self.patients:
            patient = self.patients.get(row["file"])
            card = "" if drawing is None else drawing.card
            self.noted.append(_Noted(patient, {key: row[key] for key in SHOWN_OF_PATIENT}, len(card)))
        self.rows.write(json.dumps(self._with_identity(row), allow_nan=False) + "\n")
        if drawing is not None:
            self.cards.write(drawing.card)
            for change in drawing.changes:
                self.changed[change].append(row["file"])

    def finish(self) -> dict[str, int]:
        """Write the tables and, if a photograph was read, the report; release the folder; count the files."""
        facts = {**self.facts, "photographs": str(self.photographs)}
        if self.patients:
            facts["patients"] = self._patients_in_words()
        if self.abstained:
            facts["abstained"] = f"{self.abstained}; their grades are less confident than was asked for"
        if self.doubtful:
            facts["doubtful photographs"] = ", ".join(f"{len(found):,} {why}" for why, found in self.doubtful.items())
        if self.finds_nothing:
            facts["lesions"] = self._nothing_in_words()
        if remarks := self.remarks():
            listed_kinds = "; ".join(f"{len(listed):,} {what}" for what, listed in remarks.items())
            facts["other files"] = f"{listed_kinds}: listed at the end of this page"
        with self.rows, self.cards:
            self._write_tables()
            if self.report and len(self.unread) < self.photographs:
                self.cards.seek(0)
                cards = self._cards_by_patient() if self.patients else self.cards
                write_report(self.output_dir / REPORT, cards, TITLE, facts, self.unread, remarks)
        release(self.output_dir)
        return {
            "files/read": self.photographs - len(self.unread),
            "files/left_out": len(self.unread),
            "files/passed_over": len(self.passed_over),
            "files/changed": len(set().union(*self.changed.values())),
            "files/doubtful": sum(map(len, self.doubtful.values())),
        }

    @property
    def finds_nothing(self) -> bool:
        """Whether there are many photographs, and no lesion was found on any."""
        return self.photographs - len(self.unread) > NO_LESION_ABOVE and not self.with_lesions

    def _nothing_in_words(self) -> str:
        return f"none found on any of {self.photographs - len(self.unread):,} photographs: look whether that can be"

    def remarks(self) -> dict[str, Sequence[str]]:
        """Map what was passed over or changed to the names of the files."""
        others = {"passed over, not photographs by their suffix": self.passed_over} if self.passed_over else {}
        return {**others, **{f"changed, {change}": self.changed[change] for change in sorted(self.changed)}}

    def summary(self) -> str:
        """Write in one line how many files were read, left out, doubtful and so on, and the first names."""
        unread = {"left out, could not be read": list(self.unread)} if self.unread else {}
        doubtful = {f"doubtful ({why})": listed for why, listed in self.doubtful.items()}
        found = {**unread, **doubtful, **self.remarks()}
        groups = [f"{len(listed):,} {what} ({names(listed)})" for what, listed in found.items()]
        nothing = [f"lesions: {self._nothing_in_words()}"] * self.finds_nothing
        return printable("; ".join([f"photographs: {self.photographs - len(self.unread):,} read", *groups, *nothing]))

    def exit_if_unread(self) -> None:
        """End the process with code 3 if a photograph could not be read.

        Raises:
            SystemExit: in that case, after listing the photographs on the error stream.
        """
        if self.unread:
            first, *others = (f"{name}: {reason}" for name, reason in islice(self.unread.items(), UNREAD_SHOWN_MAX))
            total = f"ValueError: could not read {len(self.unread)} of {self.photographs} photographs: "
            sys.stderr.write("\n".join([total + first, *others]) + "\n")
            raise SystemExit(UNREAD_EXIT_CODE)

    def _with_identity(self, row: Row) -> Row:
        """Add the patient and the eye, if those of any photograph are known, after the name."""
        known = {"patient": self.patients, "eye": self.eyes}
        stated = {what: found.get(row["file"]) for what, found in known.items() if found}
        return {"file": row["file"], **stated, **row}

    def _patients_in_words(self) -> str:
        unknown = sum(one.patient is None for one in self.noted)
        found = str(len({one.patient for one in self.noted} - {None}))
        return f"{found}, and {counted(unknown, 'photograph')} without one" if unknown else found

    def _cards_by_patient(self) -> Iterator[str]:
        """Yield the cards, those of a patient under one heading."""
        for patient, listed in groupby(self.noted, key=lambda one: one.patient):
            photographs = list(listed)
            cards = (self.cards.read(one.card_length) for one in photographs)
            yield from cards if patient is None else patient_html(patient, [one.row for one in photographs], cards)

    def _write_tables(self) -> None:
        table, lines = (self.output_dir / name for name in TABLES)
        with (
            written_whole(table) as table_beside,
            written_whole(lines) as lines_beside,
            table_beside.open("w", encoding=TABLE_ENCODING, newline="") as table_file,
            lines_beside.open("w", encoding="utf-8") as lines_file,
        ):
            writer = csv.DictWriter(table_file, fieldnames=list(self._with_identity(dict.fromkeys(COLUMNS))))
            writer.writeheader()
            self.rows.seek(0)
            for line in self.rows:
                writer.writerow(json.loads(line))
                lines_file.write(line)

    def _path(self, folder: str, name: str, suffix: str) -> Path:
        """Return an output path with the sub-folders and the original suffix: a.jpg and a.png are two photographs."""
        return self.output_dir / folder / (name + suffix)


def _take_folder(folder: Path) -> None:
    """Claim a folder, unless it contains files that look like results but that no inference wrote."""
    try:
        existing = [name for name in (*FOLDERS, *TABLES, REPORT) if (folder / name).exists()]
        if existing and not (folder / CLAIM).exists():
            raise ValueError(
                f"expected an --output_dir without {existing[0]!r}, or one of a former inference, whose results are "
                f"replaced; {folder} is neither: name another, or remove {existing[0]!r}"
            )
        claim(folder)
    except OSError as error:
        raise ValueError(f"expected an --output_dir that can be written, got {folder}: {error.strerror}") from None


def _save(path: Path, picture: Image.Image) -> None:
    with written_at_once(path) as buffer:
        picture.save(buffer, path.suffix[1:].replace("jpg", "jpeg"), quality=90, compress_level=1)
