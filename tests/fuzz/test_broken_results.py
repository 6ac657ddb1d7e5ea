"""A broken result, run or option of a config is refused in one sentence, and no text of a data file is evaluated."""

import math
from types import SimpleNamespace

import pytest
from bundle.experiments import runs
from bundle.experiments.runs import Repeat, read_runs
from bundle.files import load_json
from hypothesis import strategies as st
from monai.bundle.workflows import ConfigWorkflow

from tests.fuzz.broken import broken_json, broken_tree, given_files, judged, junk, written

METRICS = {"lesions": {"dice_mean": 0.5, "dice_mean_interval": [0.4, None]}, "counts": {"lesions": 7}, "weights": {}}
RUN = {
    "tags": {"suite": "table1", "row": "plain", "stage": "evaluate", "fold": "0", "seed": "7", "commit": "c"},
    "metrics": {"test/lesions/dice_mean": 0.5, "fold 0/grade/accuracy": 0.25},
    "params": {"facts.manifest_sha256": "aa", "pretrained": "False"},
    "status": "FINISHED", "start": 1000, "end": 2000,
}  # fmt: skip
TRAINING = RUN | {"tags": RUN["tags"] | {"stage": "train"}, "metrics": {"train/labels/accuracy": 0.5}, "start": 500}
CONFIG = """
imports:
- $import bundle.workflow as workflow
bundle_root: .
max_epochs: 3
output_dir: out
network: {_target_: torch.nn.Linear, in_features: '@max_epochs', out_features: 2}
path: $@output_dir + '/model.pt'
initialize:
- $workflow.check_options()
run:
- $print(@path, @network)
"""
text = st.text(max_size=6) | st.sampled_from(
    ["", "0", "9" * 5000, "test/a/b", "a/b", "/", "//", "finished", "evaluate"]
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("results")


def stored_run(content, number):
    """Lay a run out as MLflow's client does: names and values of tags and parameters are text, metrics numbers."""
    info = SimpleNamespace(
        status=content["status"], start_time=content["start"], end_time=content["end"], run_id=str(number)
    )
    parts = {name: content[name] for name in ("tags", "metrics", "params")}
    return SimpleNamespace(info=info, data=SimpleNamespace(**parts))


def as_a_store_holds_it(content):
    found = {**content, "tags": content["tags"] | {"suite": "table1"}, "params": content["params"]}
    found["metrics"] = {name: value for name, value in content["metrics"].items() if isinstance(value, float)}
    return found


@st.composite
def broken_run(draw, valid):
    """Change a run within the types that a store has."""
    run = {**valid, **{name: dict(valid[name]) for name in ("tags", "metrics", "params")}}
    for _ in range(draw(st.integers(1, 3))):
        part = draw(st.sampled_from(["tags", "metrics", "params"]))
        name = draw(st.sampled_from(sorted(run[part])) | text) if run[part] else draw(text)
        run[part][name] = draw(st.floats() if part == "metrics" else text)
        if draw(st.booleans()):
            del run[part][name]
    run["status"] = draw(st.sampled_from(["FINISHED", "FINISHED", "RUNNING", "FAILED"]))
    run["end"] = draw(st.sampled_from([2000, None]))
    return as_a_store_holds_it(run)


@given_files(content=broken_json(METRICS))
def test_broken_json_is_refused_by_name_or_read(folder, content):
    path = written(folder / "metrics.json", content)
    judged("JSON", lambda: load_json(path), "metrics.json")


@given_files(found=st.lists(broken_run(RUN) | broken_run(TRAINING), max_size=4))
def test_broken_runs_of_a_store_are_refused_or_read(found):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "_search", lambda *which: [stored_run(run, number) for number, run in enumerate(found)])
        read = judged(
            "MLflow runs", lambda: read_runs("store", "table1", {"plain": {"table1"}, "": {"table1"}}), "store"
        )
    for run in read.runs if read else ():
        assert isinstance(run.repeat, Repeat)
        assert not math.isnan(run.duration_s)


options = st.dictionaries(
    st.sampled_from(["max_epochs", "output_dir", "network", "max_epoch", "Network", "finalise"])
    | st.text("abz_@%$~+ ", min_size=1, max_size=6),
    junk.filter(lambda value: not (isinstance(value, str) and value.startswith(("$", "@", "%", "_")))),
    max_size=3,
)
"""Names as a command line has them.

Without ``#`` and ``::``, by which MONAI finds what lies deeper, and without expressions, which are code.
"""


@pytest.fixture(scope="module")
def config(folder):
    (folder / "config.yaml").write_text(CONFIG)
    return str(folder / "config.yaml")


@given_files(given_options=options)
def test_options_are_refused_or_have_an_effect(config, given_options):
    def run():
        workflow = ConfigWorkflow(
            config, meta_file=[], logging_file=False, initialize=["$workflow.check_options()"], **given_options
        )
        try:
            workflow.initialize()
        except RuntimeError as error:  # MONAI puts its own error around that of an expression
            raise error.__cause__ or error from None
        return workflow

    workflow = judged("options", run)
    known = {"imports", "bundle_root", "max_epochs", "output_dir", "network", "path", "initialize", "run", "_meta_"}
    names = set(workflow.parser.get() if workflow else {})
    assert names <= known | {"finalize", "dataset_dir"}


def test_the_examples_are_whole_before_they_are_broken(config):
    workflow = ConfigWorkflow(config, meta_file=[], logging_file=False, max_epochs=4)
    workflow.initialize()
    assert workflow.parser.get_parsed_content("network").in_features == 4
    assert broken_tree(METRICS) is not None
