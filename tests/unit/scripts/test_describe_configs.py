"""The page of options has the default and the comment of each id, and the keys that each overlay sets."""

import pytest
from bundle import ROOT
from scripts.describe_configs import describe, describe_configs, ids_of

TRAIN = """\
# Stage 2: train the network, on few photographs.
#   python -m monai.bundle run --config_file configs/train.yaml \\
#     --output_dir outputs/train
imports:
- $import bundle  # not an option

# ---- options
output_dir: out  # '#' is no comment in 'a#b'
name: 'a # b'                       # of the run: one | two
fold: 0
sizes: [$@fold + 1,
  2]                                # computed
every:
- 3

# ---- parts
data: $load(@name)
loss:                               # of both tasks
  _target_: torch.nn.MSELoss
  reduction: '@size'
  weight: 2.0                       # of the rest
train:
  step: {_target_: bundle.Step, loss: '@loss'}  # one pass
  late:                             # a part in a block
    _target_: bundle.Late
  handlers::first::path: null       # of the first
  handlers:
  - '@loss'
late: 3
later: '@late'
quoted: 'a b'
"""


def test_options_have_their_default_and_comment_and_a_flat_plain_id_is_one_wherever_it_stands():
    assert [one for one in ids_of(TRAIN) if "#" not in one[0]] == [
        ("output_dir", "out", "'#' is no comment in 'a#b'"),
        ("name", "'a # b'", "of the run: one | two"),
        ("fold", "0", ""),
        ("sizes", "[$@fold + 1, 2]", "computed"),
        ("loss", "...", "of both tasks"),
        ("late", "3", ""),
        ("quoted", "'a b'", ""),
    ]


def test_arguments_of_parts_are_listed_if_they_have_a_comment():
    assert [one for one in ids_of(TRAIN) if "#" in one[0]] == [
        ("loss#weight", "2.0", "of the rest"),
        ("train#step", "{_target_: bundle.Step, loss: '@loss'}", "one pass"),
        ("train#late", "...", "a part in a block"),
        ("train#handlers#first#path", "null", "of the first"),
    ]


def test_without_a_heading_every_flat_id_of_the_top_is_an_option_and_a_block_is_listed_by_its_comment():
    text = "imports:\n- $import a\ncheckpoint: $@out + 'b'  # weights\npart:  # made\n  _target_: c\nlate: $@part"
    assert list(ids_of(text)) == [
        ("checkpoint", "$@out + 'b'", "weights"),
        ("part", "...", "made"),
        ("late", "$@part", ""),
    ]


@pytest.fixture
def configs(tmp_path):
    (tmp_path / "experiments" / "small").mkdir(parents=True)
    (tmp_path / "train.yaml").write_text(TRAIN)
    (tmp_path / "more.yaml").write_text("# On top of train.yaml.\ntrain::step::loss: null\n")
    (tmp_path / "experiments" / "small" / "train.yaml").write_text("# How small\n# can it be?\nfold: 1\nloss: null\n")
    return tmp_path


def test_the_page_lists_the_options_of_each_stage_and_what_overlays_set(configs):
    page = describe(configs)
    headings = [line for line in page.splitlines() if line.startswith(("##", "```"))]
    assert headings == ["## more.yaml", "```sh", "```", "## train.yaml", "```sh", "```", "## Overlays"]
    assert "## more.yaml\n\n```sh\n# On top of train.yaml.\n```\n\n- `train#step#loss: null`\n\n## train.yaml\n" in page
    assert "\n- `name: 'a # b'` of the run: one | two\n- `fold: 0`\n" in page
    assert page.endswith("- `experiments/small/train.yaml` sets `fold, loss`: How small can it be?\n")


def test_the_command_of_a_stage_stands_below_its_first_line_as_it_is_typed(configs):
    command = "python -m monai.bundle run --config_file configs/train.yaml \\\n  --output_dir outputs/train\n"
    assert f"\n```sh\n# Stage 2: train the network, on few photographs.\n{command}```\n" in describe(configs)


def test_the_page_is_that_of_this_bundles_configs(run_script, tmp_path):
    code, printed, _ = run_script(describe_configs, "describe_configs", "--out", tmp_path / "configs.md")
    assert (code, printed) == (0, f"wrote {tmp_path / 'configs.md'}\n")
    page = (tmp_path / "configs.md").read_text(encoding="utf-8")
    assert page == describe(ROOT / "configs")
    assert "- `virtual_lr: null` size of the virtual step; null: the optimiser's learning rate\n" in page
