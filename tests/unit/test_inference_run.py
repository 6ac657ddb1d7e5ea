"""Inference as a whole, on whatever lies in a folder: what is read is answered, what is not is named."""

import csv
import pickle
import sys
import warnings
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from bundle import ROOT
from bundle.datasets.patients import pseudonym
from bundle.networks.multitask_unet import MultiTaskUNet
from bundle.networks.segmenters import GradedSegmenter
from bundle.networks.weights import save_weights
from mlflow import MlflowClient
from monai.bundle import ConfigWorkflow
from PIL import Image, ImageDraw

from tests.conftest import eye

SIZE = 64


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "model.pt"
    network = MultiTaskUNet(pretrained=False, width=1 / 16, lesion_prior=None)
    torch.nn.init.normal_(network.grade_head.weight, std=0.1)  # from zero, every grade is alike
    save_weights(path, network, {"image_size": SIZE})
    return path


def whole(workflow):
    workflow.initialize()
    workflow.run()


def only_evaluate(workflow):
    """As with the packaged bundle, whose ``initialize`` has nothing to do."""
    workflow.parser["initialize"] = []
    workflow.initialize()
    workflow.evaluator.run()


@pytest.fixture
def infer(checkpoint, tmp_path):
    def run(source, steps=whole, **options):
        settings = {
            "input": str(source), "output_dir": str(tmp_path / "out"), "checkpoint": str(checkpoint),
            "num_workers": 0, "track": False, "report": False, **options,
        }  # fmt: skip
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            workflow = ConfigWorkflow(
                str(ROOT / "configs/inference.yaml"), workflow_type="infer", logging_file=False, **settings
            )
            steps(workflow)
        return Path(settings["output_dir"])

    return run


def rows_of(out):
    with (out / "predictions.csv").open(newline="", encoding="utf-8-sig") as file:
        return {row["file"]: row for row in csv.DictReader(file)}


def mask_of(out, name):
    return np.asarray(Image.open(out / "masks" / f"{name}.png"))


def fill(folder):
    """Write one eye in every form, and what is none."""
    pixels = eye(3, 150, 100)
    deep = eye(3, 150, 100)[..., 1].astype(np.uint16) * 257
    rotated = Image.Exif()
    rotated[0x0112] = 6
    Image.fromarray(pixels).save(folder / "plain.png")
    Image.fromarray(pixels).save(folder / "turned.jpg", exif=rotated, quality=95)
    Image.fromarray(pixels[..., 1]).save(folder / "grey.tif")
    Image.fromarray(deep).save(folder / "deep.png")
    Image.fromarray(pixels).convert("CMYK").save(folder / "cmyk.tif")
    Image.fromarray(eye(4, 50, 50)).save(folder / "tiny.png")
    nibabel.save(nibabel.Nifti1Image(np.ascontiguousarray(pixels.swapaxes(0, 1)), np.eye(4)), folder / "eye.nii.gz")
    nibabel.save(nibabel.Nifti1Image(np.ones((30, 20, 8), np.uint8), np.eye(4)), folder / "volume.nii")
    (folder / "cut.jpg").write_bytes((folder / "turned.jpg").read_bytes()[:900])
    Image.new("RGB", (90, 60)).save(folder / "black.png")
    (folder / "notes.txt").write_text("no photograph")


READ = {"plain.png", "turned.jpg", "grey.tif", "deep.png", "cmyk.tif", "tiny.png", "eye.nii.gz"}
UNREAD = {"volume.nii": "a volume of 30 x 20 x 8", "cut.jpg": "truncated", "black.png": "all but black"}


def test_an_evaluator_that_is_run_alone_has_the_weights(infer, tmp_path):
    Image.fromarray(eye(3, 150, 100)).save(tmp_path / "plain.png")
    run = [infer(tmp_path / "plain.png", output_dir=tmp_path / "run")]
    for seed in (1, 2):
        torch.manual_seed(seed)  # of what would be in the network otherwise
        run.append(infer(tmp_path / "plain.png", only_evaluate, output_dir=tmp_path / f"{seed}"))
    masks = [mask_of(out, "plain.png") for out in run]
    assert 0 < (masks[0] > 0).mean() < 1
    assert all(np.array_equal(mask, masks[0]) for mask in masks)


def test_one_photograph_of_any_suffix_is_the_same_and_the_rest_of_the_folder_is_told(infer, tmp_path, capsys):
    picture = Image.fromarray(eye(3, 150, 100))
    (tmp_path / "in").mkdir()
    kinds = {"a.bmp": "BMP", "b.webp": "WEBP", "c.TIF": "TIFF", "d.png": "PNG", "e.jfif": "JPEG", "f.jpe": "JPEG"}
    for name, kind in kinds.items():
        picture.save(tmp_path / "in" / name, kind, lossless=True, quality=95)
    for name in ("notes.txt", "IM0001", ".hidden", "Thumbs.db"):
        (tmp_path / "in" / name).write_bytes(b"no photograph")
    out = infer(tmp_path / "in", report=True, track=True, tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}")
    rows = rows_of(out)
    assert set(rows) == set(kinds)
    for name in ("a.bmp", "b.webp", "c.TIF"):
        assert np.array_equal(mask_of(out, name), mask_of(out, "d.png"))
        assert {**rows[name], "file": ""} == {**rows["d.png"], "file": ""}
    told = "2 passed over, not photographs by their suffix"
    doubtful = "6 doubtful (blurred) (a.bmp, b.webp, c.TIF, ...)"  # as its patches are smooth
    assert f"photographs: 6 read; {doubtful}; {told} (IM0001, notes.txt)\n" in capsys.readouterr().out
    assert told in (out / "report.html").read_text(encoding="utf-8")
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    (run,) = client.search_runs([one.experiment_id for one in client.search_experiments()])
    counted = {name: value for name, value in run.data.metrics.items() if name.startswith("inference/files/")}
    assert counted == {f"inference/files/{kind}": count for kind, count in COUNTS.items()}


COUNTS = {"read": 6, "left_out": 0, "doubtful": 6, "passed_over": 2, "changed": 0}


@pytest.mark.parametrize("batch_size", [1, 4])
def test_a_mixed_folder_is_answered_file_by_file_and_the_process_says_so(infer, tmp_path, capsys, batch_size):
    (tmp_path / "in").mkdir()
    fill(tmp_path / "in")
    with pytest.raises(SystemExit) as ended:
        infer(tmp_path / "in", nifti=True, batch_size=batch_size)
    assert ended.value.code == 3
    assert "could not read 3 of 10 photographs" in capsys.readouterr().err
    out = tmp_path / "out"
    rows = rows_of(out)
    assert set(rows) == READ | set(UNREAD)
    assert {name for name, row in rows.items() if not row["error"]} == READ
    assert all(UNREAD[name] in rows[name]["error"] for name in UNREAD)
    assert sum(float(rows["plain.png"][f"probability_{grade}"]) for grade in range(5)) == pytest.approx(1, abs=1e-5)
    assert {mask_of(out, name).shape for name in READ - {"tiny.png"}} == {(100, 150)}
    assert mask_of(out, "tiny.png").shape == (50, 50)
    assert not any((out / "masks" / f"{name}.png").exists() for name in UNREAD)


def test_one_eye_in_many_forms_is_one_eye(infer, tmp_path):
    (tmp_path / "in").mkdir()
    fill(tmp_path / "in")
    for name in UNREAD:
        (tmp_path / "in" / name).unlink()
    out = infer(tmp_path / "in", nifti=True)
    plain = mask_of(out, "plain.png")
    assert 0 < (plain > 0).mean() < 1
    assert np.array_equal(mask_of(out, "eye.nii.gz"), plain)
    assert np.array_equal(mask_of(out, "deep.png"), mask_of(out, "grey.tif"))
    assert np.array_equal(np.asarray(nibabel.load(out / "nifti/eye.nii.gz.nii.gz").dataobj)[..., 0].T, plain)
    assert np.allclose(nibabel.load(out / "nifti/eye.nii.gz.nii.gz").affine, np.eye(4))
    assert (mask_of(out, "turned.jpg") == plain).mean() > 0.9  # JPEG; in the frame of the stored pixels


@pytest.mark.parametrize("options", [{"flips": True}, {"window_px": 64}, {"window_px": 64, "lesion_size": 96}])
def test_other_ways_to_look_give_other_masks_of_the_same_size(infer, tmp_path, options):
    Image.fromarray(eye(3, 150, 100)).save(tmp_path / "a.png")
    plain = infer(tmp_path / "a.png", output_dir=str(tmp_path / "plain"))
    other = infer(tmp_path / "a.png", **options)
    assert mask_of(other, "a.png").shape == (100, 150)
    assert not np.array_equal(mask_of(other, "a.png"), mask_of(plain, "a.png"))
    same_grade = rows_of(plain)["a.png"]["confidence"] == rows_of(other)["a.png"]["confidence"]
    assert same_grade is ("flips" not in options)


def test_a_threshold_marks_the_grade_and_keeps_the_probabilities(infer, tmp_path):
    Image.fromarray(eye(3)).save(tmp_path / "a.png")
    row = rows_of(infer(tmp_path / "a.png", abstain_below=0.999))["a.png"]
    assert row["abstained"] == "True"
    assert 0.2 <= float(row["confidence"]) < 0.999


def test_a_dark_photograph_is_marked_and_its_neighbour_is_not_called_dark(infer, tmp_path):
    for name, light in (("dark.png", 0.2), ("light.png", 1.0)):
        Image.fromarray((light * eye(3, 150, 100)).astype(np.uint8)).save(tmp_path / name)
    (tmp_path / "broken.png").write_bytes(b"no picture")
    rows = rows_of(infer(tmp_path, only_evaluate, batch_size=3, output_dir=str(tmp_path.parent / "found")))
    assert "dark" in rows["dark.png"]["doubts"].split("; ")
    assert "dark" not in rows["light.png"]["doubts"].split("; ")
    assert float(rows["dark.png"]["brightness"]) == pytest.approx(float(rows["light.png"]["brightness"]) / 5, rel=0.1)
    assert (rows["dark.png"]["unlikeness"], rows["dark.png"]["grade"] != "") == ("", True)
    assert (rows["broken.png"]["doubts"], rows["broken.png"]["brightness"]) == ("", "")


THRESHOLDS = {"MA": 0.05, "HE": 0.9, "EX": 0.9, "SE": 0.9}


@pytest.mark.parametrize(
    ("options", "words", "found"),
    [
        ({}, "MA above 0.05, HE above 0.90, EX above 0.90, SE above 0.90", {1}),
        ({"lesion_thresholds": [0.9, 0.9, 0.05, 0.9]}, "MA above 0.90, HE above 0.90, EX above 0.05", {3}),
        ({"lesion_thresholds": None}, "the most probable class", None),
    ],
)
def test_masks_are_decided_by_the_thresholds_of_the_weights_and_the_report_says_so(
    infer, tmp_path, options, words, found
):
    torch.manual_seed(0)
    fitted = tmp_path / "fitted.pt"
    network = MultiTaskUNet(pretrained=False, width=1 / 16, lesion_prior=None)
    save_weights(fitted, network, {"image_size": SIZE, "lesion_thresholds": THRESHOLDS})
    Image.fromarray(eye(3, 150, 100)).save(tmp_path / "plain.png")
    out = infer(tmp_path / "plain.png", checkpoint=str(fitted), report=True, **options)
    assert f"<dt>lesions decided by</dt><dd>{words}" in (out / "report.html").read_text(encoding="utf-8")
    classes = set(np.unique(mask_of(out, "plain.png")).tolist())
    old = mask_of(infer(tmp_path / "plain.png", output_dir=str(tmp_path / "old")), "plain.png")
    assert classes - {0} == (set(np.unique(old).tolist()) - {0} if found is None else found)


def test_likely_grades_stand_in_the_table_and_in_words_in_the_report(infer, tmp_path):
    torch.manual_seed(0)
    network = MultiTaskUNet(pretrained=False, width=1 / 16)  # its head starts at zero: all grades alike, 0 the first
    sets = {"coverage": 0.9, "quantiles": [0.5, 0.5, 0.1, 0.1, 0.1], "fitted_on": "76 photographs of fold 0"}
    save_weights(tmp_path / "fitted.pt", network, {"image_size": SIZE, "grade_sets": sets})
    Image.fromarray(eye(3, 150, 100)).save(tmp_path / "a.png")
    out = infer(tmp_path / "a.png", checkpoint=str(tmp_path / "fitted.pt"), report=True)
    assert rows_of(out)["a.png"]["grade_set"] == "0 1"
    report = (out / "report.html").read_text(encoding="utf-8")
    assert '<p class="likely">Likely: no DR or mild</p>' in report
    assert "<dt>likely grades</dt><dd>fitted to include the true grade in 90 % of photographs like 76 photo" in report


def test_weights_without_sets_leave_the_column_empty_and_the_report_silent(infer, tmp_path):
    Image.fromarray(eye(3, 150, 100)).save(tmp_path / "a.png")
    out = infer(tmp_path / "a.png", report=True)
    assert rows_of(out)["a.png"]["grade_set"] == ""
    report = (out / "report.html").read_text(encoding="utf-8")
    assert "<dt>likely grades</dt><dd>none</dd>" in report
    assert "Likely:" not in report


def test_a_compared_segmenter_looks_by_its_file_alone_and_the_report_says_what_it_learned_from(infer, tmp_path):
    torch.manual_seed(0)
    data = {"phantom": {"outlined": 40, "graded": 0}, "ddr": {"outlined": 0, "graded": 9}}
    network = GradedSegmenter("linknet", "resnet18", pretrained=False, lesion_prior=None)
    save_weights(tmp_path / "linknet.pt", network, {"image_size": 96, "data": data})
    Image.fromarray(eye(3, 150, 100)).save(tmp_path / "plain.png")
    out = infer(tmp_path / "plain.png", checkpoint=str(tmp_path / "linknet.pt"), report=True)
    report = (out / "report.html").read_text(encoding="utf-8")
    words = "phantom (synthetic drawings), 40 outlined photographs; ddr, 9 graded photographs"
    assert f"<dt>trained on</dt><dd>{words}</dd>" in report
    assert "<dt>network size</dt><dd>96 px</dd>" in report
    assert mask_of(out, "plain.png").shape == (100, 150)


@pytest.mark.parametrize(
    ("network", "facts", "message"),
    [
        ("Grader", {"image_size": 64}, "expected weights of a network among ['GradedSegmenter', 'MultiTaskUNet'] in"),
        ("MultiTaskUNet", {"image_size": 64, "encoder": "lenet"}, "expected encoder in ['vgg16'"),
        ("MultiTaskUNet", {}, "expected an image_size in pixels in"),
    ],
)
def test_a_file_that_builds_no_network_is_refused(infer, tmp_path, network, facts, message):
    Image.fromarray(eye(3)).save(tmp_path / "a.png")
    small = MultiTaskUNet(pretrained=False, width=1 / 16)
    content = {"model": small.state_dict(), "network": network, "facts": {**small.settings(), **facts}}
    torch.save(content, tmp_path / "model.pt")
    with pytest.raises((ValueError, RuntimeError)) as refused:
        infer(tmp_path / "a.png", checkpoint=str(tmp_path / "model.pt"))
    assert message in "".join(map(str, causes(refused.value)))
    assert not (tmp_path / "out" / "masks").exists()


def test_results_among_the_photographs_are_refused(infer, tmp_path):
    Image.fromarray(eye(3)).save(tmp_path / "a.png")
    with pytest.raises((ValueError, RuntimeError)) as refused:
        infer(tmp_path)
    assert "expected --output_dir apart from --input" in "".join(map(str, causes(refused.value)))


def test_an_output_folder_that_is_a_file_is_refused_before_the_network_runs(infer, tmp_path, monkeypatch):
    Image.fromarray(eye(3)).save(tmp_path / "a.png")
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setattr("bundle.steps.ExplainedStep.__call__", lambda *_: pytest.fail("the network ran"))
    with pytest.raises((ValueError, RuntimeError)) as refused:
        infer(tmp_path / "a.png", output_dir=str(tmp_path / "file"))
    assert "expected an --output_dir that can be written" in "".join(map(str, causes(refused.value)))


class Payload:
    """Leaves a mark where it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


def test_a_checkpoint_that_would_run_code_is_refused_and_runs_none(infer, tmp_path):
    Image.fromarray(eye(3)).save(tmp_path / "a.png")
    mark, trap = tmp_path / "mark", tmp_path / "trap.pt"
    torch.save({"model": Payload(mark), "network": "MultiTaskUNet", "facts": {}}, trap)
    with pytest.raises((ValueError, RuntimeError)) as refused:
        infer(tmp_path / "a.png", checkpoint=str(trap))
    assert "trap.pt" in "".join(map(str, causes(refused.value)))
    assert not mark.exists()
    assert not (tmp_path / "out").exists()
    pickle.loads(pickle.dumps(Payload(mark)))
    assert mark.exists()  # so the trap does work


def causes(error):
    while error is not None:
        yield error
        error = error.__cause__


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_photograph_of_108_million_pixels_is_answered_at_its_own_size(infer, tmp_path):
    picture = Image.new("RGB", (12_000, 9_000))
    ImageDraw.Draw(picture).ellipse((1_700, 200, 10_300, 8_800), fill=(180, 90, 60))
    picture.save(tmp_path / "large.jpg")
    out = infer(tmp_path / "large.jpg", threads=1)
    assert (
        Image.open(out / "masks/large.jpg.png").size == Image.open(out / "overlays/large.jpg.jpg").size == picture.size
    )
    assert int(rows_of(out)["large.jpg"]["field_px"]) == pytest.approx(np.pi * 4_300**2, rel=0.05)


def test_both_eyes_of_a_patient_follow_each_other_in_table_and_report(infer, tmp_path):
    (tmp_path / "in").mkdir()
    for seed, name in enumerate(("L1", "L2", "R1", "R2")):
        Image.fromarray(eye(seed, 150, 100)).save(tmp_path / "in" / f"{name}.png")
    out = infer(tmp_path / "in", patient_pattern=r"[LR](\d+)", report=True)
    assert [(name, row["patient"]) for name, row in rows_of(out).items()] == [
        ("L1.png", "1"), ("R1.png", "1"), ("L2.png", "2"), ("R2.png", "2"),
    ]  # fmt: skip
    assert (out / "report.html").read_text(encoding="utf-8").count('<section class="patient"') == 2


def test_a_pattern_that_fits_no_photograph_is_refused_before_the_network_runs(infer, tmp_path):
    (tmp_path / "in").mkdir()
    Image.fromarray(eye(1, 150, 100)).save(tmp_path / "in" / "L1.png")
    with pytest.raises(Exception, match="patient_pattern") as refused:
        infer(tmp_path / "in", patient_pattern="(.+)_(left|right)")
    assert any("which matches none of 1: L1" in str(cause) for cause in causes(refused.value))
    assert not (tmp_path / "out").exists()


# DICOM


def fill_with_dicom(folder):
    """Write one eye as a picture, and as DICOM in lossless forms under names of every kind."""
    made = pytest.importorskip("tests.dicom_files", reason="the extra `dicom` is not installed")
    pixels = eye(3, 150, 100)
    folder.mkdir(exist_ok=True)
    made.save(folder / "plain.dcm", made.photograph(pixels, ImageLaterality="R"))
    made.save(folder / "2000.DCM", made.jpeg2000(pixels))
    made.save(folder / "1.2.840.113619.7", made.compressed(pixels, "1.2.840.10008.1.2.5"))
    made.save(folder / "IM0001", made.photograph(pixels.astype(np.uint16) * 16, bits_stored=12))
    made.save(folder / "DICOMDIR", made.photograph(pixels))
    (folder / "notes").write_text("no photograph")
    return made


def test_one_eye_as_dicom_and_as_a_picture_is_one_eye(infer, tmp_path):
    made = fill_with_dicom(tmp_path / "in")
    Image.fromarray(eye(3, 150, 100)).save(tmp_path / "in" / "plain.png")
    out = infer(tmp_path / "in")
    rows = rows_of(out)
    assert set(rows) == {"plain.dcm", "2000.DCM", "1.2.840.113619.7", "IM0001", "plain.png"}
    patients = {name: row.pop("patient") for name, row in rows.items()}
    assert patients == dict.fromkeys(rows, pseudonym(made.PATIENT_ID)) | {"plain.png": ""}
    eyes = {name: row.pop("eye") for name, row in rows.items()}
    assert eyes == dict.fromkeys(rows, "") | {"plain.dcm": "right"}
    assert len({tuple(value for name, value in row.items() if name != "file") for row in rows.values()}) == 1
    masks = {(out / "masks" / f"{name}.png").read_bytes() for name in rows}
    assert len(masks) == 1
    assert 0 < (mask_of(out, "plain.dcm") > 0).mean() < 1


def test_the_segmentation_has_every_pixel_of_the_mask_and_nothing_else_has_the_name(infer, tmp_path):
    made = fill_with_dicom(tmp_path / "in")
    highdicom = pytest.importorskip("highdicom")
    pytest.importorskip("mlflow")
    out = infer(tmp_path / "in", dicom_seg=True, report=True, nifti=True, track=True, tracking_uri=None)
    for name in rows_of(out):
        segmentation = highdicom.seg.segread(out / "dicom_seg" / f"{name}.dcm")
        (source,) = segmentation.ReferencedSeriesSequence[0].ReferencedInstanceSequence
        uids = [source.ReferencedSOPInstanceUID]
        found = segmentation.get_pixels_by_source_instance(uids, combine_segments=True)[0]
        assert np.array_equal(found, mask_of(out, name))
        assert segmentation.PatientName == made.PATIENT_NAME
    written = [path for path in tmp_path.rglob("*") if path.is_file() and not path.is_relative_to(tmp_path / "in")]
    assert {"report.html", "predictions.csv", "mlflow.db"} <= {path.name for path in written}
    family, given = made.PATIENT_NAME.encode().split(b"^")
    told = [path for path in written if family in path.read_bytes() or given in path.read_bytes()]
    assert {path.parent for path in told} == {out / "dicom_seg"}
    assert not any(made.PATIENT_ID.encode() in path.read_bytes() for path in written if path not in told)
    assert f"<h2>Patient {pseudonym(made.PATIENT_ID)}: " in (out / "report.html").read_text(encoding="utf-8")


def test_a_segmentation_of_a_picture_is_an_error_before_anything_is_written(infer, tmp_path):
    fill_with_dicom(tmp_path / "in")
    Image.fromarray(eye(3, 150, 100)).save(tmp_path / "in" / "plain.png")
    with pytest.raises(RuntimeError) as refused:
        infer(tmp_path / "in", dicom_seg=True)
    reasons = [str(cause) for cause in causes(refused.value)]
    assert any("expected DICOM photographs for --dicom_seg, got" in one and "plain.png" in one for one in reasons)
    assert not (tmp_path / "out").exists()


def test_without_pydicom_the_others_are_read_and_one_sentence_says_what_to_install(infer, tmp_path, monkeypatch):
    fill_with_dicom(tmp_path / "in")
    Image.fromarray(eye(3, 150, 100)).save(tmp_path / "in" / "plain.png")
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(SystemExit):
        infer(tmp_path / "in")
    errors = {name: row["error"] for name, row in rows_of(tmp_path / "out").items()}
    assert errors.pop("plain.png") == ""
    assert all("pip install 'fundus-dr-multitask[dicom]'" in error for error in errors.values())
    assert len(errors) == 4
