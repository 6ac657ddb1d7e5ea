"""The Dockerfile installs the tested versions, nothing but sources gets into an image, and it runs as no superuser."""

import json
import re
import tomllib

import pytest
from bundle import ROOT
from bundle.deploy.packaging import source_files
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from tests.integration.dockerfile import context, instructions, is_sent, patterns

STEPS = instructions((ROOT / "Dockerfile").read_text(encoding="utf-8"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PINNED = {one.name: one for one in map(Requirement, re.findall(r"^\w.*", (ROOT / "constraints.txt").read_text(), re.M))}
IGNORED = patterns((ROOT / ".dockerignore").read_text(encoding="utf-8"))


def words_of(keyword):
    return [text for found, text in STEPS if found == keyword]


def test_python_is_the_oldest_that_the_project_takes():
    (base,) = words_of("FROM")
    assert base == "python:" + PROJECT["requires-python"].removeprefix(">=") + "-slim"


def test_every_installation_follows_constraints_and_names_no_version_of_its_own():
    installs = [text for text in " && ".join(words_of("RUN")).split("&&") if "pip install" in text]
    assert len(installs) == 3
    upgrades, *others = installs
    assert re.search(r'"(pip>=[\d.]+)"', upgrades)[1] in (ROOT / "Makefile").read_text(encoding="utf-8")
    for text in others:
        assert "--constraint constraints.txt" in text
        assert not re.search(r"[=<>~]=", text)
    (extras,) = re.findall(r'"\.\[([\w,]+)\]"', others[-1])
    assert set(extras.split(",")) <= set(PROJECT["optional-dependencies"])


@pytest.mark.parametrize("name", ["torch", "torchvision"])
def test_wheels_without_cuda_are_of_the_tested_version(name):
    (version,) = PINNED[name].specifier
    assert SpecifierSet(str(version)).contains(f"{version.version}+cpu")
    torch_line = next(text for text in words_of("RUN") if "TORCH_INDEX" in text)
    assert re.search(rf"--no-deps .*--index-url \"\$TORCH_INDEX\" .*\b{name}\b", torch_line)
    assert words_of("ARG") == ["TORCH_INDEX=https://download.pytorch.org/whl/cpu"]


def test_it_runs_the_command_as_a_user_without_rights():
    (user,) = words_of("USER")
    assert user != "root"
    assert f"useradd {user}" in " ".join(words_of("RUN"))
    (entry,) = words_of("ENTRYPOINT")
    assert json.loads(entry)[0] in PROJECT["scripts"]


def test_an_image_has_what_a_package_has_and_nothing_that_git_ignores():
    sent = set(context(ROOT, IGNORED))
    assert {name for name, _ in source_files(ROOT)} <= sent
    assert {"pyproject.toml", "constraints.txt", "README.md", "models/model.pt"} <= sent
    assert {name.partition("/")[0] for name in sent} == {one[1:].partition("/")[0] for one in IGNORED if one[0] == "!"}


@pytest.mark.parametrize(
    ("name", "sent"),
    [
        ("bundle/labels.py", True),
        ("models/model.pt", True),
        ("models/mine.pt", False),
        ("bundle/__pycache__/labels.pyc", False),
        ("photographs/eye.jpg", False),
        ("idrid.json", False),
        ("outputs/train/model.pt", False),
        (".git/config", False),
        ("tests/conftest.py", False),
    ],
)
def test_photographs_and_results_beside_the_sources_are_left_out(name, sent):
    assert is_sent(name, IGNORED) is sent


def test_the_last_pattern_decides():
    assert not is_sent("a/b.txt", ["*", "!a", "a/*.txt"])
    assert is_sent("a/b.txt", ["*", "a/*.txt", "!a"])


def test_steps_that_go_over_lines_are_one():
    assert instructions("# a\nFROM x\n\nRUN a \\\n && b\n# c\nCMD []\n") == [
        ("FROM", "x"), ("RUN", "a   && b"), ("CMD", "[]"),
    ]  # fmt: skip


def test_the_documentation_says_shared_memory_and_how_to_build():
    page = (ROOT / "docs" / "docker.md").read_text(encoding="utf-8")
    assert "--shm-size 2g" in page
    assert "docker build --tag fundus ." in page
    assert "--network none" in page
