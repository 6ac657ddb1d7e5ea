"""Lesions, grade and heat map of photographs, and where the results are; the same as configs/inference.yaml.

fundus predict photo.jpg
fundus predict FOLDER --output_dir outputs/predict --checkpoint outputs/train/model.pt
"""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bundle.deploy.runtimes import way_in_words
from bundle.labels import LESIONS, grades_in_words
from bundle.predict import CONFIG, WEIGHTS, as_paths, check_weights, in_one_sentence
from monai.bundle.workflows import ConfigWorkflow
from scripts.cli import main


def predict(
    *photographs: str,
    output_dir: str = "outputs/predict",
    checkpoint: str | None = None,
    backend: str = "auto",
    precision: str | None = None,
    patient_pattern: str | None = None,
    track: bool = False,
) -> None:
    """Predict on photographs, or on all in a folder; exit with code 3 if one could not be read.

    Args:
        photographs: files and folders.
        output_dir: folder of masks, overlays, heat maps, tables and the report; those of an earlier run are replaced.
        checkpoint: weights of a training, such as outputs/train/model.pt; without it, models/model.pt of the bundle. Of
            several, a/model.pt,b/model.pt, the probabilities are averaged.
        backend: torch, openvino or onnxruntime; auto: the fastest checked one, see docs/export.md.
        precision: float32, bfloat16 or int8; without it, of the fastest backend.
        patient_pattern: (.+)_(left|right): the first group is the patient; the report shows both eyes side by side.
        track: true records the run in MLflow.
    """
    if not photographs:
        raise ValueError("expected a photograph or a folder, as in `fundus predict photo.jpg`, got none")
    weights = weights_files(checkpoint or str(WEIGHTS))
    check_weights(weights)
    with in_one_sentence():
        workflow = ConfigWorkflow(
            str(CONFIG), workflow_type="infer", logging_file=False, input=[Path(path) for path in photographs],
            output_dir=Path(output_dir), checkpoint=as_paths(weights), backend=backend,
            precision=precision, track=track, patient_pattern=patient_pattern,
            num_workers=int(len(photographs) > 1 or Path(photographs[0]).is_dir()),
        )  # fmt: skip
        workflow.initialize()
        workflow.evaluator.run()
    way, files = map(workflow.parser.get_parsed_content, ("way", "files"))
    print(way_in_words(way, backend, precision))
    print(describe(Path(output_dir)))
    print(files.summary())
    files.exit_if_unread()


def weights_files(words: str) -> list[str]:
    """Split the names of weights files at commas, unless it is the name of one file that has some.

    Example:
        >>> weights_files("fold0/model.pt,fold1/model.pt")
        ['fold0/model.pt', 'fold1/model.pt']
    """
    return [words] if Path(words).is_file() else [word.strip() for word in words.split(",")]


def describe(output_dir: Path) -> str:
    """Return the findings on one photograph, or the number of photographs read, and where the results are."""
    rows = [json.loads(line) for line in (output_dir / "predictions.jsonl").read_text(encoding="utf-8").splitlines()]
    places = {"report": "report.html", "table": "predictions.csv", "masks": "masks"}
    there = [f"{what}: {output_dir / name}" for what, name in places.items() if (output_dir / name).exists()]
    return "\n".join([_describe_rows(rows), *there])


def _describe_rows(rows: Sequence[Mapping[str, Any]]) -> str:
    read = [row for row in rows if not row["error"]]
    if len(rows) > 1 or not read:
        return f"{len(read)} of {len(rows)} photographs read"
    row = read[0]
    lesions = ", ".join(f"{lesion} {row[f'{lesion}_count']}" for lesion in LESIONS)
    likely = f", likely {grades_in_words([*map(int, row['grade_set'].split())])}" if row["grade_set"] else ""
    allowed = f" (the lesions allow {row['feasible']})" if row["contradiction"] else ""
    doubts = f"; a doubtful photograph: {row['doubts']}" if row["doubts"] else ""
    return (
        f"{row['file']}: grade {row['grade']}{allowed}, confidence {row['confidence']:.2f}{likely}, lesions: {lesions}"
        f"{doubts}"
    )


@contextmanager
def quiet(levels: Mapping[str, int]) -> Iterator[None]:
    """Keep loggers to these levels for a while.

    Example:
        >>> with quiet({"a library": logging.ERROR}):
        ...     logging.getLogger("a library").level == logging.ERROR
        True
        >>> logging.getLogger("a library").level == logging.NOTSET
        True
    """
    before = {name: logging.getLogger(name).level for name in levels}
    try:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
        yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)


if __name__ == "__main__":
    with quiet(
        {
            "monai.bundle.workflows": logging.ERROR,  # warns about every run without a logging file
            "ignite": logging.CRITICAL,  # what ends a run is said once, by main
        }
    ):
        main(predict)
