"""Manifest rows as items for MONAI data sets, their grades and labels by id, and the items of an epoch of stage 2."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from bundle.datasets.patients import patients_in_names, pseudonym, stated_in_headers
from bundle.datasets.readers.files import OF_THE_SYSTEM, names
from bundle.grade_rules import lesions_ruled_out
from bundle.labels import GRADES, LESIONS
from bundle.manifest import Manifest, Photograph
from bundle.method.initial_labels import InitialLabel
from bundle.transforms.decode import PHOTOGRAPH_SUFFIXES, is_photograph
from bundle.transforms.dicom import Identity, has_suffix
from torch.utils.data import DistributedSampler

UNKNOWN_GRADE = -1

NO_VALUE = "(none)"
"""Value of the photographs that have none in a column."""

VALUES_MAX = 30
"""Most values of a column that is scored by: more are names or dates, and their scores would say little."""

ARCHIVES = (".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".7z", ".rar")
"""Suffixes of files that hold others; none of ``.nii.gz``, which is a photograph by its whole ending."""


def items(manifest: Manifest, rows: Sequence[Photograph]) -> list[dict[str, Any]]:
    """Return an item for each photograph: its files, and the id and hash that the cache is keyed by."""
    return [
        {
            "id": row.id,
            "image": str(manifest.path(row.image)),
            "masks": {lesion: str(manifest.path(mask)) for lesion, mask in row.masks.items()},
            "annotated": tuple(row.annotated),
            "optic_disc": str(manifest.path(row.optic_disc)) if row.optic_disc else "",
            "files": {role: str(path) for role, path in manifest.files(row).items()},
            "sha256": row.sha256,
        }
        for row in rows
    ]


def file_items(
    sources: str | Path | Sequence[str | Path] | None,
    output_dir: str | Path | None = None,
    patient_pattern: str | None = None,
) -> list[dict[str, Any]]:
    """Make items from a file, from all photographs in a folder, sorted by name, or from a list of these.

    Files in a folder are skipped if they are hidden (a name begins with a dot), or have another suffix and are no
    DICOM; :func:`passed_over` lists the latter. If patients are known, their photographs stand next to each other, in
    the order in which the patients appear.

    The patient of a DICOM file is the pseudonym of the id in its header, unless a pattern is given.

    Args:
        sources: files and folders.
        output_dir: folder for results. It must not lie in a folder of photographs, or results would be read as such,
            and photographs must not lie in a folder below it, or they might be replaced.
        patient_pattern: pattern of the patient in a photograph's path below its folder, without the suffix
            (:func:`bundle.datasets.patients.patients_in_names`).

    Returns:
        For each photograph its ``id``, ``image``, ``path`` and, if the patient is known, ``patient``.

    Raises:
        ValueError: if no source is given, a source does not exist or contains no photograph, two photographs would
            have the same name, ``output_dir`` is not separate, or the pattern is wrong or matches no name.
    """
    if not sources:
        raise ValueError("expected --input DIR_OR_FILE: the photographs to look at")
    listed = [sources] if isinstance(sources, (str, Path)) else sources
    for source in listed if output_dir is not None else ():
        _check_apart(Path(source), Path(output_dir or ""))
    photographs = [item for source in listed for item in _file_items(Path(source))]
    _check_distinct(photographs)
    stated = stated_in_headers(paths(photographs))
    eyes = {name: identity.laterality for name, identity in stated.items() if identity.laterality}
    photographs = [{**item, "eye": eyes[item["id"]]} if item["id"] in eyes else item for item in photographs]
    return _by_patient(photographs, _patients(photographs, stated, patient_pattern))


def _patients(
    photographs: Sequence[Mapping[str, Any]], stated: Mapping[str, Identity], patient_pattern: str | None
) -> dict[str, str]:
    """Map the id of each photograph to its patient, where the pattern, or without one its DICOM header, states it."""
    if patient_pattern is None:
        return {name: pseudonym(one.patient_id) for name, one in stated.items() if one.patient_id}
    stems = {item["id"]: _without_suffix(item["id"]) for item in photographs}
    known = patients_in_names(stems.values(), patient_pattern)
    return {name: known[stem] for name, stem in stems.items() if stem in known}


def _by_patient(photographs: Sequence[dict[str, Any]], patients: Mapping[str, str]) -> list[dict[str, Any]]:
    """Add the patient to the photographs that have one, and put those of a patient next to each other."""
    together: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for item in photographs:
        if patient := patients.get(item["id"]):
            together["patient", patient].append({**item, "patient": patient})
        else:
            together["photograph", item["id"]].append(item)
    return [item for listed in together.values() for item in listed]


def _without_suffix(path: str) -> str:
    """Remove the suffix of a photograph, or any other; a UID has none.

    Example:
        >>> _without_suffix("2024/7_left.nii.gz"), _without_suffix("2024/7.left.JPG"), _without_suffix("1.2.840.7")
        ('2024/7_left', '2024/7.left', '1.2.840.7')
    """
    known = [suffix for suffix in PHOTOGRAPH_SUFFIXES if path.lower().endswith(suffix)]
    if known:
        return path[: -len(max(known, key=len))]
    return str(PurePosixPath(path).with_suffix("")) if has_suffix(path) else path


def passed_over(sources: str | Path | Sequence[str | Path]) -> list[str]:
    """List the files in the folders of :func:`file_items` that are no photographs by their names, sorted.

    A file without a suffix, or named after a UID, is no photograph unless it is DICOM.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for name in ("eye.jpg", "notes.txt", "Thumbs.db", ".hidden"):
        ...         Path(folder, name).touch()
        ...     passed_over(folder)
        ['notes.txt']
    """
    folders = [Path(source) for source in ([sources] if isinstance(sources, (str, Path)) else sources)]
    return [
        path.relative_to(folder).as_posix()
        for folder in folders
        for path in _listed(folder)
        if not is_photograph(path) and path.name.lower() not in OF_THE_SYSTEM
    ]


def _file_items(source: Path) -> list[dict[str, Any]]:
    wanted = "expected a photograph or a folder of photographs"
    if not source.exists():
        raise ValueError(f"{wanted}, found nothing at {source}{_way_out(source)}")
    if source.is_file() and source.suffix.lower() in ARCHIVES and not is_photograph(source):
        raise ValueError(f"{wanted}, got the archive {source}: unpack it, and name the folder")
    paths = list(filter(is_photograph, _listed(source))) if source.is_dir() else [source]
    if not paths:
        raise ValueError(
            f"expected photographs ({', '.join(PHOTOGRAPH_SUFFIXES)}) in {source}, found {names(passed_over(source))}"
        )
    base = source if source.is_dir() else source.parent
    return [{"id": path.relative_to(base).as_posix(), "image": str(path), "path": str(path)} for path in paths]


def _way_out(source: Path) -> str:
    """Say how to name what was meant by a path at which there is nothing."""
    if str(source).startswith("~"):
        return "; ~ is your home folder only without quotes"
    if any(Path(part).exists() for part in str(source).split(",")):
        return "; several are a list in quotes, \"['a.jpg', 'b.jpg']\", or words apart for `fundus predict`"
    return ""


def _listed(folder: Path) -> list[Path]:
    """List the files of a folder and its sub-folders, sorted, without hidden ones."""
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return [path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts)]


def _check_distinct(listed: Iterable[Mapping[str, Any]]) -> None:
    seen: dict[str, str] = {}
    for item in listed:
        if item["id"] in seen:
            raise ValueError(
                f"expected photographs of different names, got {item['id']!r} twice: {seen[item['id']]} and "
                f"{item['image']}; give a folder that holds both"
            )
        seen[item["id"]] = item["image"]


def _check_apart(source: Path, output_dir: Path) -> None:
    source, output_dir = source.resolve(), output_dir.resolve()
    folder = source if source.is_dir() else source.parent
    if (source.is_dir() and output_dir.is_relative_to(source)) or output_dir in folder.parents:
        raise ValueError(f"expected --output_dir apart from --input, got {output_dir} and {source}; name another")


def true_grades(manifest: Manifest, rows: Iterable[Photograph]) -> dict[str, dict[str, Any]]:
    """Map each id to its grade, even if only a copy is graded; -1 if the grade is unknown."""
    known = manifest.known_grades()
    return {row.id: {"grade": known.get(row.group, UNKNOWN_GRADE)} for row in rows}


def measured_grades(manifest: Manifest, rows: Iterable[Photograph]) -> dict[str, dict[str, Any]]:
    """Map each id to the grade for scoring: the grade of its own file, or if that has none, of its copies."""
    rows = list(rows)
    own = {row.id: {"grade": row.grade} for row in rows if row.grade is not None}
    return true_grades(manifest, rows) | own


def initial_labels(
    manifest: Manifest, rows: Iterable[Photograph], labels: Mapping[str, InitialLabel]
) -> dict[str, dict[str, Any]]:
    """Map each id to its initial label as tensors, and to its true grade, if known, for scoring only.

    Raises:
        ValueError: if a photograph has no initial label.
    """
    rows = list(rows)
    missing = [row.id for row in rows if row.id not in labels]
    if missing:
        raise ValueError(f"expected a pseudo-label for every lesion image, {len(missing)} have none: {missing[:3]}")
    return {name: {**facts, **_tensors(labels[name])} for name, facts in true_grades(manifest, rows).items()}


def taught_labels(
    manifest: Manifest,
    outlined: Sequence[Photograph],
    labels: Mapping[str, InitialLabel],
    graded: Sequence[Photograph],
    absent_by_grade: bool = True,
) -> dict[str, dict[str, Any]]:
    """Map each id to the grade label that stage 2 trains on, and to the lesions that were looked for on it.

    An outlined photograph has its initial label. A graded one has its true grade with probability 1, as the only
    feasible grade. Its lesions were not outlined, but the lesions that its grade rules out (:func:`lesions_ruled_out`)
    are known to be absent, and so count as looked for.

    Args:
        manifest: source of both kinds of photographs.
        outlined: photographs with an initial label each.
        labels: initial labels by id.
        graded: photographs of known grade.
        absent_by_grade: if False, no lesion counts as looked for on a graded photograph, whatever its grade.

    Raises:
        ValueError: if an outlined photograph has no initial label.
    """
    known = manifest.known_grades()
    grade_of = {row.id: known[row.group] for row in graded}
    certain = {name: _certain(grade) for name, grade in grade_of.items()}
    taught = initial_labels(manifest, [*outlined, *graded], {**labels, **certain})
    looked_for = {name: lesions_ruled_out(grade) if absent_by_grade else () for name, grade in grade_of.items()}
    looked_for |= {row.id: row.annotated for row in outlined}
    return {
        name: {**facts, "looked_for": torch.tensor([lesion in looked_for[name] for lesion in LESIONS])}
        for name, facts in taught.items()
    }


def taught_grades(table: Mapping[str, Mapping[str, Any]]) -> list[int]:
    """List the grades that are feasible for at least one photograph whose label has a positive weight.

    Example:
        >>> may = torch.tensor([False, False, True, True, True])
        >>> taught_grades({"7": {"feasible": may, "weight": torch.tensor(0.4)}})
        [2, 3, 4]
    """
    taught = [row["feasible"] for row in table.values() if row["weight"] > 0]
    return torch.stack(taught).any(dim=0).nonzero().flatten().tolist() if taught else []


def _certain(grade: int) -> InitialLabel:
    only = tuple(grade == one for one in GRADES)
    return InitialLabel(soft=tuple(map(float, only)), feasible=only, weight=1.0)


def _tensors(label: InitialLabel) -> dict[str, torch.Tensor]:
    return {
        "initial": torch.tensor(label.soft, dtype=torch.float32),
        "feasible": torch.tensor(label.feasible),
        "weight": torch.tensor(label.weight, dtype=torch.float32),
    }


def paths(listed: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Map the id of each item to its photograph."""
    return {item["id"]: item["image"] for item in listed}


def patients(rows: Iterable[Photograph]) -> dict[str, str]:
    """Map the id of each photograph whose patient is known to that patient."""
    return {row.id: row.patient for row in rows if row.patient is not None}


def patients_shown(listed: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Map the id of each item whose patient is known to that patient, as the table and the report show it."""
    return {item["id"]: item["patient"] for item in listed if "patient" in item}


def eyes_shown(listed: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Map the id of each item whose DICOM header states the eye to ``left`` or ``right``, likewise."""
    return {item["id"]: item["eye"] for item in listed if "eye" in item}


def count_patients(rows: Iterable[Photograph]) -> int:
    """Count the known patients."""
    return len(set(patients(rows).values()))


def ids(rows: Iterable[Photograph]) -> list[str]:
    """List the ids of the photographs."""
    return [row.id for row in rows]


def column_values(manifest: Manifest, rows: Iterable[Photograph], column: str | None) -> dict[str, str]:
    """Map the id of each photograph to its value in a further column, or to ``NO_VALUE``; nothing without a column.

    Raises:
        ValueError: if none of the photographs has a value in it, or they have more than ``VALUES_MAX``.

    Example:
        >>> manifest = Manifest(name="clinic", roots={}, folds=2, seed=0, photographs=())
        >>> column_values(manifest, [], None)
        {}
        >>> column_values(manifest, [], "camera")  # doctest: +NORMALIZE_WHITESPACE
        Traceback (most recent call last):
            ...
        ValueError: manifest 'clinic': expected --score_by out of its columns (none), got 'camera'; prepare it
            with --columns
    """
    if column is None:
        return {}
    rows = list(rows)
    known = sorted({name for row in rows for name in row.columns})
    if column not in known:
        raise ValueError(
            f"manifest {manifest.name!r}: expected --score_by out of its columns ({', '.join(known) or 'none'}), got "
            f"{column!r}; prepare it with --columns"
        )
    values = {row.id: row.columns.get(column, NO_VALUE) for row in rows}
    if len(set(values.values())) > VALUES_MAX:
        raise ValueError(
            f"manifest {manifest.name!r}: expected --score_by as a column of at most {VALUES_MAX} values, got "
            f"{column!r}, which has {len(set(values.values()))}"
        )
    return values


def grades(rows: Iterable[Photograph]) -> list[int]:
    """List the grades that the data set gives for these files."""
    return [row.grade for row in rows if row.grade is not None]


def folds(rows: Iterable[Photograph]) -> dict[str, int]:
    """Map each training photograph to its fold."""
    return {row.id: row.fold for row in rows if row.fold is not None}


def union(*groups: Iterable[Photograph]) -> list[Photograph]:
    """Join groups of photographs; a photograph in several groups is listed once."""
    return list({row.id: row for group in groups for row in group}.values())


class OutlinedAndGraded(DistributedSampler):
    """Sampler that draws every outlined photograph once per epoch, and enough graded ones to make up a share of it.

    For ``n`` outlined photographs and a share ``s``, each epoch draws ``round(n s / (1 - s))`` graded ones at random,
    none twice before all were drawn. If the share is 0, all photographs are drawn once. An epoch's order depends only
    on the seed and its number, so that several processes divide the same order, and a resumed run repeats it.

    Args:
        dataset: the outlined photographs, then the graded ones.
        num_outlined: number of outlined photographs.
        share: fraction of the epoch that is graded, in [0, 1).
        seed: seed of the order.
        num_replicas: number of processes that divide an epoch.
        rank: index of this process.

    Raises:
        ValueError: if the share is not in [0, 1), or there are no graded photographs for it.

    Example:
        >>> sampler = OutlinedAndGraded(range(6), num_outlined=2, share=0.5, seed=0)
        >>> shown = list(sampler)
        >>> len(shown), sorted(one for one in shown if one < 2)
        (4, [0, 1])
    """

    def __init__(
        self, dataset: Sized, num_outlined: int, share: float, seed: int, num_replicas: int = 1, rank: int = 0
    ) -> None:
        super().__init__(dataset, num_replicas=num_replicas, rank=rank, shuffle=True, seed=seed)  # type: ignore[arg-type]
        if not 0 <= share < 1:
            raise ValueError(f"expected a graded_share in [0, 1), got {share}")
        num_graded = len(dataset) - num_outlined
        if share > 0 and num_graded < 1:
            raise ValueError(f"expected graded photographs for a graded_share of {share}, found none in the manifest")
        self.num_outlined, self.num_graded = num_outlined, num_graded
        self.num_drawn = round(num_outlined * share / (1 - share)) if share > 0 else num_graded
        self.num_samples = -(-(num_outlined + self.num_drawn) // num_replicas)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        rounds = -(-self.num_drawn // max(self.num_graded, 1))
        graded = [torch.randperm(self.num_graded, generator=generator) for _ in range(rounds)]
        drawn = torch.cat(graded)[: self.num_drawn] + self.num_outlined if graded else torch.zeros(0, dtype=torch.long)
        shown = torch.cat([torch.arange(self.num_outlined), drawn])
        order = shown[torch.randperm(len(shown), generator=generator)].tolist()
        missing = self.num_samples * self.num_replicas - len(order)  # so that all processes draw the same number
        return iter((order + order[:missing])[self.rank :: self.num_replicas])
