"""The page of options tells of each id its default and the comment beside it, and which options have none."""

import pytest
from bundle.reporting.config_tables import Id, describe, ids_of, unexplained

TRAIN = """\
# Stage 2: train the network, on few photographs.
#   python -m monai.bundle run --config_file configs/train.yaml \\
#     --output_dir outputs/train
imports:
- $import bundle

# ---- options
output_dir: out  # '#' is no comment in 'a#b'
name: 'a # b'                       # of the run: one | two
fold: 0
size: $@fold + 1                    # computed

# ---- parts
data: $load(@name)
loss:                               # of both tasks
  _target_: torch.nn.MSELoss
  reduction: '@size'
  weight: 2.0                       # of the rest
train:
  step: {_target_: bundle.Step, loss: '@loss'}  # one pass
  handlers:
  - {_target_: a.First, path: '@train#step'}
  - '@loss'
every: 3
run:
- $@train#step.run()
"""


def found(text):
    return {one.name: one for one in ids_of(text)}


def test_an_option_has_its_default_and_the_comment_beside_it():
    assert found(TRAIN)["name"] == Id("name", "a # b", "of the run: one | two", True)
    assert found(TRAIN)["output_dir"].comment == "'#' is no comment in 'a#b'"
    assert found(TRAIN)["size"] == Id("size", "$@fold + 1", "computed", True)
    assert found(TRAIN)["every"] == Id("every", "3", "", True)


def test_a_part_has_what_makes_it_and_a_list_of_parts_what_makes_each():
    assert found(TRAIN)["loss"] == Id("loss", "torch.nn.MSELoss", "of both tasks", False)
    assert found(TRAIN)["train#step"] == Id("train#step", "bundle.Step", "one pass", False)
    assert found(TRAIN)["train#handlers"] == Id("train#handlers", "a.First, @loss", "", False)
    assert found(TRAIN)["data"] == Id("data", "$load(@name)", "", False)


def test_of_a_part_only_arguments_with_a_comment_are_told():
    assert found(TRAIN)["loss#weight"] == Id("loss#weight", "2.0", "of the rest", False)
    assert not {"loss#reduction", "loss#_target_", "train#step#loss", "imports", "run"} & set(found(TRAIN))


def test_options_come_first_each_kind_in_the_order_of_the_file():
    assert list(found(TRAIN)) == [
        "output_dir", "name", "fold", "size", "every", "data", "loss", "loss#weight", "train", "train#step",
        "train#handlers",
    ]  # fmt: skip


def test_without_headings_the_options_are_what_stands_before_the_first_part():
    text = "imports:\n- $import a\ncheckpoint: $@out + 'b'  # weights\npart:  # made\n  _target_: c\nlate: $@part\n"
    assert [one.name for one in ids_of(text) if one.is_option] == ["checkpoint"]


def test_an_option_without_a_comment_is_named_unless_its_name_says_all():
    assert unexplained(TRAIN) == ["fold", "every"]
    assert unexplained("# ---- options\nseed: 0\nbatch_size: 2\n# ---- data\nx: $@seed\n") == []


@pytest.fixture
def configs(tmp_path):
    (tmp_path / "experiments" / "small").mkdir(parents=True)
    (tmp_path / "train.yaml").write_text(TRAIN)
    (tmp_path / "another.yaml").write_text("# On top of train.yaml.\ntrain::step::loss: null\n")
    (tmp_path / "experiments" / "small" / "train.yaml").write_text("# How small | can it be?\nfold: 1\n")
    return tmp_path


def test_the_page_has_a_table_for_each_stage_and_one_for_each_folder_of_overlays(configs):
    page = describe(configs)
    headings = [line for line in page.splitlines() if line.startswith("#")]
    assert headings == ["# Every option of every config", "## train.yaml", "## another.yaml", "## experiments/"]
    assert "Stage 2: train the network, on few photographs." in page
    assert "\npython -m monai.bundle run --config_file configs/train.yaml --output_dir outputs/train\n" in page
    assert "| `name` | `a # b` | of the run: one \\| two |" in page
    assert "| `train#step#loss` | `null` |  |" in page
    assert "| `small` | `train` | How small \\| can it be? |" in page


def test_every_row_of_a_table_has_the_columns_of_its_head(configs):
    rows = [line.replace("\\|", "") for line in describe(configs).splitlines() if line.startswith("|")]
    assert {row.count("|") for row in rows} == {4}
