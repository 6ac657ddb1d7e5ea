"""Make the manifest of a data set.

fundus prepare --dataset idrid --root DIR --out idrid.json
fundus prepare --dataset folder --root DIR --masks "MA=masks/ma,EX=masks/ex" --out my.json
fundus prepare --dataset joined --root idrid.json,diaretdb1.json --out both.json
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bundle.datasets.build import build_manifest
from bundle.datasets.folds import join
from bundle.datasets.notes import counts, in_one_line
from bundle.datasets.readers import read
from bundle.experiments.next_steps import after_prepare, say
from bundle.manifest import Manifest, load_manifest, save_manifest
from bundle.phantom.tree import write_phantom
from bundle.reporting.copies import write_copies
from bundle.reporting.data_check import check_text, summary_text
from bundle.reporting.data_check_page import write_check
from scripts.cli import main


def prepare(
    dataset: str,
    root: str,
    out: str,
    name: str | None = None,
    folds: int = 5,
    seed: int = 0,
    allow_missing: bool = False,
    keep_leaks: bool = False,
    follow_links: bool = False,
    check: bool = False,
    consensus: float | None = None,
    images: str | None = None,
    masks: str | None = None,
    indexed_masks: str | None = None,
    indices: str | None = None,
    mask_min: int | None = None,
    outlined: str | None = None,
    grades: str | None = None,
    table: str | None = None,
    name_column: str | None = None,
    grade_column: str | None = None,
    split_column: str | None = None,
    patient_column: str | None = None,
    patient_pattern: str | None = None,
    columns: str | None = None,
    same_patients: bool | None = None,
) -> None:
    """Read and audit a data set, assign its folds, and write its manifest.

    Args:
        dataset: idrid, ddr, diaretdb1, folder (your own), joined (several manifests), or phantom: a synthetic set in
            the layout of IDRiD, written to `root` unless it exists.
        root: folder of the data set; for joined, manifests, separated by commas.
        out: the manifest to write; the audit's table and picture of copies, and drawn masks, are written next to it.
        name: name of the data set, at the start of every id; without it, that of `dataset`.
        folds: number of cross-validation folds.
        seed: seed of the folds, and of a phantom.
        allow_missing: leave out missing or broken files with a note, instead of refusing.
        keep_leaks: keep copies of test photographs, and of patients in the test, in training instead of removing them.
        follow_links: read symbolic links that lead out of `root`; the manifest names the files that they lead to.
        check: also write and print the check of the data: counts, sizes, lesion shares, copies, masks to look at.
        consensus: diaretdb1: mean confidence of the experts from which a pixel belongs to a lesion.
        images: folder: sub-folder of the photographs.
        masks: folder: lesions and their sub-folders, MA=masks/ma,EX=masks/ex.
        indexed_masks: folder: sub-folder of masks that hold all lesions as indices.
        indices: folder: meaning of these indices, EX=1,HE=2.
        mask_min: folder: grey level from which a pixel of a mask belongs to the lesion.
        outlined: folder: with masks and grades, those searched for lesions, all or masked (those with a mask).
        grades: folder: CSV file of the grades.
        table: folder: CSV file of splits, patients and further columns, if it is not that of the grades.
        name_column: folder: the column of names in these files.
        grade_column: folder: the column of grades.
        split_column: folder: the column of train and test.
        patient_column: folder: the column of patients, whose photographs stay in one fold and one split.
        patient_pattern: folder: instead, a pattern whose first group is the patient in a file name, (.+)_(left|right).
        columns: folder: further columns to keep, such as site,camera, by whose values an evaluation can score.
        same_patients: joined: the same id of a patient in two data sets is the same patient.
    """
    path = Path(out)
    if path.is_dir():
        raise ValueError(f"expected --out to name a file, got the folder {out}")
    options: dict[str, Any] = dict(
        consensus=consensus, images=images, masks=masks, indexed_masks=indexed_masks, indices=indices,
        mask_min=mask_min, outlined=outlined, grades=grades, table=table, name_column=name_column,
        grade_column=grade_column, split_column=split_column, patient_column=patient_column,
        patient_pattern=patient_pattern, columns=columns,
    )  # fmt: skip
    if dataset == "joined":
        _refuse_options_of_readers({**options, "follow_links": follow_links or None})
        manifests = [load_manifest(manifest.strip()) for manifest in root.split(",")]
        manifest = join(name or path.stem, manifests, folds, seed, keep_leaks, bool(same_patients))
    else:
        if dataset == "phantom" and not (Path(root).is_dir() and any(Path(root).iterdir())):
            write_phantom(root, seed=seed)
        photographs, notes = read(dataset, root, allow_missing=allow_missing, same_patients=same_patients, **options)
        manifest = build_manifest(
            name or dataset, photographs, root, drawn_root=path.with_suffix(".masks"), folds=folds, seed=seed,
            notes=notes, allow_missing=allow_missing, keep_leaks=keep_leaks, follow_links=follow_links,
        )  # fmt: skip
    _write(manifest, path, check)


def _refuse_options_of_readers(options: Mapping[str, Any]) -> None:
    """Refuse options that joining cannot honour: the manifests are made."""
    if given := [name for name, value in options.items() if value is not None]:
        raise ValueError(
            f"--{given[0]} is no option of --dataset joined, which has --same_patients; give it where the data sets "
            f"themselves are prepared"
        )


def _write(manifest: Manifest, path: Path, check: bool) -> None:
    """Write a manifest, its copies and, if wanted, its check; print what is in it, and the names of the files."""
    save_manifest(manifest, path)
    written = [path, *write_copies(manifest, path.with_suffix(""))]
    if check:
        written.append(path.with_suffix(".check.html"))
        write_check(manifest, written[-1])
    print(check_text(manifest) if check else summary_text(manifest))
    print("\n".join(f"wrote {file}" for file in written))
    say(after_prepare, manifest, path)
    print(in_one_line(counts(manifest.notes)))


if __name__ == "__main__":
    main(prepare)
