"""A table is laid out as tasks before anything runs; what a task needs stands before it."""

import subprocess
import sys

import pytest
from bundle import ROOT
from bundle.experiments.suites import SUITES, Row, Suite
from bundle.experiments.sweep import Sweep, lay_out
from bundle.files import write_json_whole
from bundle.manifest import Manifest, save_manifest

GRADERS = ["lite0/fold0_seed0", "lite2/fold0_seed0"]
LABELS = "pseudo_label/fold0_seed0"
TAUGHT = Row(
    name="taught", title="taught", overlays=["experiments/fused/train.yaml"], options={"beta": 0.2},
    teacher="segmentation_only",
)  # fmt: skip


@pytest.fixture(autouse=True)
def _no_store_from_outside(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture
def manifest(tmp_path):
    """Write a manifest of three folds; the layout looks at nothing else."""
    whole = Manifest(name="none", roots={"a": tmp_path}, folds=3, seed=0, photographs=())
    save_manifest(whole, tmp_path / "m.json")
    return tmp_path / "m.json"


@pytest.fixture
def laid_out(manifest, monkeypatch):
    """Lay out a suite of one row with a teacher, or another one."""
    suites = {**SUITES, "toy": Suite(title="toy", baseline="taught", rows=[TAUGHT])}
    monkeypatch.setattr("bundle.experiments.suites.SUITES", suites)

    def laid_out(suite="toy", parent_run=None, **changes):
        fields = {"manifest": manifest, "output_dir": manifest.parent / "out", "folds": 1, "seeds": 1}
        return {task.name: task for task in lay_out(Sweep(suite=suite, **(fields | changes)), parent_run)}

    return laid_out


def stages(task):
    return [stage.name for stage in task.stages]


def test_a_row_needs_the_labels_and_these_need_both_graders(laid_out):
    tasks = laid_out("table3", rows=["pldmlt"])
    assert list(tasks) == [*GRADERS, LABELS, "pldmlt/fold0_seed0"]
    assert [list(task.needs) for task in tasks.values()] == [[], [], GRADERS, [LABELS]]
    assert [stages(task) for task in tasks.values()] == [
        ["pretrain"], ["pretrain"], ["pseudo_label"], ["train", "evaluate"],
    ]  # fmt: skip


@pytest.mark.parametrize("suite", SUITES)
def test_every_suite_is_laid_out_in_an_order_in_which_it_can_run(laid_out, suite):
    tasks = list(laid_out(suite, folds=2, seeds=2).values())
    names = [task.name for task in tasks]
    assert len({task.output_dir for task in tasks}) == len(tasks)
    assert all(set(task.needs) <= set(names[:place]) for place, task in enumerate(tasks))
    shown = {row.name for row in SUITES[suite].rows}
    assert {task.name.split("/")[0] for task in tasks if stages(task)[-1] == "evaluate"} == shown


def test_each_fold_and_seed_has_graders_labels_and_teachers_of_its_own(laid_out):
    tasks = laid_out(folds=2, seeds=3)
    assert len(tasks) == 6 * 5
    assert list(tasks["taught/fold1_seed2"].needs) == ["pseudo_label/fold1_seed2", "segmentation_only/fold1_seed2"]
    of_a_pair = [stage for name, task in tasks.items() if name.endswith("fold1_seed2") for stage in task.stages]
    assert {(stage.options.get("fold", 1), stage.options["seed"]) for stage in of_a_pair} == {(1, 2)}


def test_a_grader_is_scored_only_where_the_table_shows_it(laid_out):
    tasks = laid_out("table1", rows=["lite0", "pldmlt"])
    assert stages(tasks[GRADERS[0]]) == ["pretrain", "evaluate"]
    assert stages(tasks[GRADERS[1]]) == ["pretrain"]


def test_graders_alone_need_no_labels(laid_out):
    tasks = laid_out("graders", rows=["densenet201"], experiment="light")
    assert list(tasks) == ["densenet201/fold0_seed0"]
    pretrain, evaluate = tasks["densenet201/fold0_seed0"].stages
    assert list(pretrain.configs) == ["pretrain.yaml", "experiments/light/pretrain.yaml"]
    assert list(evaluate.configs) == ["pretrain.yaml", "evaluate_grader.yaml", "experiments/light/pretrain.yaml"]
    assert pretrain.options["architecture"] == "densenet201"  # not the experiment's, because options go on top


def test_both_graders_together_train_nothing_and_are_scored_as_one(laid_out, manifest):
    tasks = laid_out("table1", rows=["both_graders"])
    assert list(tasks) == [*GRADERS, "both_graders/fold0_seed0"]
    both = tasks["both_graders/fold0_seed0"]
    assert (stages(both), list(both.needs)) == (["evaluate"], GRADERS)
    weights = [str(manifest.parent / "out" / name / "model.pt") for name in GRADERS]
    assert both.stages[0].options["checkpoint"] == weights
    assert [str(path) for path in both.stages[0].inputs[1:]] == weights


def test_experiments_are_stacked_in_their_order(laid_out):
    train, _ = laid_out(experiment="light,tables")["taught/fold0_seed0"].stages
    over = ["experiments/fused/train.yaml", "experiments/light/train.yaml", "experiments/tables/train.yaml"]
    assert list(train.configs) == ["train.yaml", *over]


def test_the_size_of_an_experiment_goes_on_top_of_a_row(laid_out):
    train, evaluate = laid_out(experiment="smoke")["taught/fold0_seed0"].stages
    over = ["experiments/fused/train.yaml", "experiments/smoke/train.yaml"]
    assert list(train.configs) == ["train.yaml", *over]
    assert list(evaluate.configs) == ["train.yaml", "evaluate.yaml", *over]


def test_networks_that_outline_lesions_are_scored_on_another_data_set_too(laid_out, manifest, tmp_path):
    save_manifest(Manifest(name="clinic", roots={"b": tmp_path}, folds=2, seed=0, photographs=()), tmp_path / "b.json")
    tasks = laid_out("table1", rows=["lite0", "unet"], external=tmp_path / "b.json")
    assert stages(tasks["lite0/fold0_seed0"]) == ["pretrain", "evaluate"]
    assert stages(tasks["unet/fold0_seed0"]) == ["train", "evaluate", "external"]
    external = tasks["unet/fold0_seed0"].stages[-1]
    weights = manifest.parent / "out/unet/fold0_seed0/model.pt"
    assert (external.output_dir, external.inputs) == (weights.parent / "external", [tmp_path / "b.json", weights])
    assert (external.options["manifest"], external.options["checkpoint"]) == (tmp_path / "b.json", weights)
    assert external.options["tags"]["external"] == "clinic"
    assert "fold" not in external.options  # it has none that was held out


def test_a_stage_is_told_its_place_and_what_it_reads(laid_out, manifest):
    tasks, out = laid_out(options={"pretrained": "false"}), manifest.parent / "out"
    train, evaluate = tasks["taught/fold0_seed0"].stages
    teacher, labels = out / "segmentation_only/fold0_seed0/model.pt", out / LABELS / "pseudo_labels.json"
    tags = {"suite": "toy", "row": "taught", "fold": "0", "seed": "0"}
    assert train.options == {
        "manifest": manifest, "beta": 0.2, "pseudo_labels": labels, "teacher": teacher, "tags": tags,
        "cache_dir": out / "cache", "tracking_uri": f"sqlite:///{out / 'mlflow.db'}", "pretrained": "false",
        "fold": 0, "seed": 0,
    }  # fmt: skip
    assert train.inputs == [manifest, labels, teacher]
    assert evaluate.options == {k: v for k, v in train.options.items() if k not in ("teacher", "pseudo_labels")}
    (label,) = tasks[LABELS].stages
    assert label.options["graders"] == [str(out / name / "model.pt") for name in GRADERS]
    assert "fold" not in label.options  # pseudo_label.yaml has no such option


def test_weights_of_the_encoder_are_for_stage_2_alone(laid_out, tmp_path):
    tasks = laid_out(
        "table1", rows=["lite0", "unet_vgg16"], encoder_weights=tmp_path / "vgg16.pth", options={"pretrained": "true"}
    )
    assert tasks["unet_vgg16/fold0_seed0"].stages[0].options["pretrained"] == tmp_path / "vgg16.pth"
    assert tasks[GRADERS[0]].stages[0].options["pretrained"] == "true"


def test_the_run_that_it_hangs_below_does_not_make_another_run_of_a_task(laid_out):
    tasks, hung = laid_out().values(), laid_out(parent_run="abc").values()
    assert {stage.options["tags"]["mlflow.parentRunId"] for task in hung for stage in task.stages} == {"abc"}
    assert [stage.key() for task in hung for stage in task.stages] == [s.key() for task in tasks for s in task.stages]


def test_another_seed_or_row_makes_another_run(laid_out):
    tasks = laid_out("table3", seeds=2)
    keys = [task.stages[0].key() for name, task in tasks.items() if not name.startswith("pseudo_label")]
    assert len(set(keys)) == len(keys) == 12


def test_a_finished_stage_is_known_by_what_it_was_made_of(laid_out):
    (stage,) = laid_out()[GRADERS[0]].stages
    assert not stage.is_finished()
    write_json_whole(stage.marker, {"key": stage.key()})
    (stage.output_dir / "model.pt").write_bytes(b"weights")
    assert stage.is_finished()
    (other,) = laid_out(options={"pretrained": "false"})[GRADERS[0]].stages
    assert not other.is_finished()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"suite": "table9"}, r"expected --suite out of \['beta', .*\], got 'table9'"),
        ({"rows": ["taught", "untaught"]}, r"expected --rows out of \['taught'\], got \['untaught'\]"),
        ({"experiment": "smok"}, r"expected --experiment out of \['crops', .*\], got 'smok'"),
        ({"folds": 4}, r"expected --folds in 1-3, the folds of .*m\.json, got 4"),
        ({"folds": 0}, "expected --folds in 1-3"),
        ({"seeds": 0}, "expected --seeds of at least 1, got 0"),
        ({"options": {"epochs": 3}}, r"expected options that some stage has, got also \['epochs'\]"),
    ],
)
def test_refuses_what_is_not_there(laid_out, changes, message):
    with pytest.raises(ValueError, match=message):
        laid_out(**changes)


def typed(manifest, *words):
    return subprocess.run(
        [sys.executable, "-m", "scripts.sweep", "--suite", "table3", "--manifest", manifest, *words],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_a_list_of_the_runs_is_all_that_a_dry_run_leaves(manifest):
    out = manifest.parent / "out"
    done = typed(manifest, "--output_dir", out, "--folds", "1", "--rows", "pldmlt", "--only_list", "true")
    assert done.stdout.splitlines() == [
        "lite0/fold0_seed0: pretrain",
        "lite2/fold0_seed0: pretrain",
        "pseudo_label/fold0_seed0: pseudo_label; needs lite0/fold0_seed0, lite2/fold0_seed0",
        "pldmlt/fold0_seed0: train, evaluate; needs pseudo_label/fold0_seed0",
    ]
    assert not out.exists()


def test_a_wrong_value_takes_one_line_and_exit_code_2(manifest):
    done = typed(manifest, "--executor", "slurm")
    assert (done.returncode, done.stderr) == (2, "error: expected --executor out of ['local', 'ray'], got 'slurm'\n")
