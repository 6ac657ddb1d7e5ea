"""Play a newcomer's first hour: clone, install, type every documented command in order, and make some mistakes.

    IDRID_ROOT=/path/to/IDRiD python3 tests/integration/first_hour.py FOLDER

It needs Python 3.11, make and git. For each command it prints seconds, exit code and the last line on the screen; the
exit code is 1 if something failed that should work. It is no test of `make test`, because it takes an hour.

What would train for hours is typed with an overlay of small numbers, and the changed line is printed below the one of
the page. What is not typed is printed with the reason. --few N takes N photographs of each part of IDRiD and of each
grade; --venv DIR saves the installation; --skip and --only choose among the commands by a regular expression.
"""

import argparse
import csv
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.documented import BEGINNING, FENCED, INDENTED, PAGES, options_of, with_overlay  # noqa: E402
from tests.mistakes import MISTAKES  # noqa: E402

LEFT_OUT = {
    r"make (demo \w|faults)": "the demo again, on IDRiD or with a results page; an hour of faults",
    r"make (test|check)": ".ci/run types it",
    r"pip |hf ": "downloads",
    r"(cp|python -m zipfile) .*BUNDLE|\./runtests": "needs a checkout of the Model Zoo",
    r"\.venv/bin/pre-commit": "changes the checkout's hooks",
    r"python -m pytest": "tests, for minutes to an hour",
    r"fundus benchmark|fundus figures|fundus sweep .*--(external|experiment|encoder_weights)": "measures for hours",
    r"fundus compare .*outputs/tables": "of a sweep of hours",
    r".*two_cores": "trains for hours at 512 px; its overlays are those of other lines",
    r"fundus prepare --dataset (ddr|diaretdb1)": "that data set is not here",
    r"torchrun .*\.\.\.|.*X\.X": "is no whole line",
    r"fundus export .*--precision int8": "refuses the weights of one epoch that models/README.md's commands leave here",
}
"""Commands that are not typed, and why."""

STAND_INS = [
    (r"(--dataset idrid +--root) DIR", r"\1 IDRID"),
    (r"(--dataset folder +--root) DIR", r"\1 clinic"),
    (r"idrid\.json,diaretdb1\.json", "idrid.json,my.json"),
    (r"DIR_OR_FILE|(?<=predict )FOLDER", "docs/examples"),
    (r"--nproc_per_node=N", "--nproc_per_node=2"),
    (r"--folds 5 --executor local", "--folds 1 --rows unet,pldmlt --experiment smoke --executor local"),
    (r"^(fundus pipeline .*)--experiment light", r"\1--experiment light,first_hour"),
    (r"^(fundus pipeline --manifest \S+ --output_dir \S+)$", r"\1 --experiment smoke --architectures resnext50_32x4d"),
    (r"^(fundus pipeline .*)--experiment graders", r"\1--experiment smoke --architectures resnext50_32x4d"),
]
"""What a newcomer puts in place of words in capitals, and how long runs of scripts are made short."""

SMALL = {
    "pretrain": {"image_size": 64, "batch_size": 4, "num_workers": 0, "max_epochs": 1},
    "pseudo_label": {"image_size": 64, "num_workers": 0, "thresholds::grid_min": 2},
    "train": {"image_size": 64, "batch_size": 4, "num_workers": 0, "max_epochs": 1, "val_interval": 1},
}
"""Overlays `first_hour`: an experiment of a page at 64 px and for one epoch. Without an experiment, `smoke` is used."""

LENGTH = ("image_size", "batch_size", "max_epochs", "val_interval", "meta_every")
LOOP = re.compile(r"^(?:\w+=.*\n)*for .*\n(?:.*\n)*?done$", re.MULTILINE)
ACTIVATION = ". .venv/bin/activate"
FUNDUS = '#!/bin/sh\nexec python -m scripts.fundus "$@"\n'
PORT = 5099
LINES_MAX = 3


class Typed(NamedTuple):
    """What came of one line."""

    code: int
    seconds: float
    lines: list[str]


def texts_of(page: Path) -> Iterator[str]:
    """Yield what a page says to type, in its order; a loop of the shell is one text."""
    text = page.read_text(encoding="utf-8")
    for block in [*FENCED.findall(text), *INDENTED.findall(FENCED.sub("", text))]:
        block = block.replace("\\\n", " ")
        loops = LOOP.findall(block)
        for line in LOOP.sub("LOOP", block).splitlines():
            if line == "LOOP":
                yield loops.pop(0)
            elif BEGINNING.match(line):
                yield line


def bare(text: str) -> str:
    """Return a text without its comment and with single spaces, to know it again."""
    return " ".join(re.sub(r"\s#\s.*", "", text).split())


def shortened(text: str) -> str:
    """Return what is typed in place of a text: names that a newcomer has, and small numbers."""
    for pattern, replacement in STAND_INS:
        text = re.sub(pattern, replacement, text)
    words = shlex.split(text) if "monai.bundle run" in text and "\n" not in text else []
    configs = options_of(words).get("config_file", "")
    if re.search(r"(pretrain|pseudo_label|train)\.yaml", configs) and not re.search(r"evaluate|calibrate", configs):
        experiment = "first_hour" if "experiments" in configs else "smoke"
        words = with_overlay(words, experiment)
        for name in LENGTH:
            if f"--{name}" in words:
                at = words.index(f"--{name}")
                del words[at : at + 2]
        text = shlex.join(words)
    return text


class Hour:
    """A clone, and a shell in it."""

    def __init__(self, folder: Path, venv: Path | None) -> None:
        self.clone, self.venv = folder / "clone", venv
        self.environment = {**os.environ, "TORCH_HOME": str(folder / "torch")}
        self.done: dict[str, str] = {}
        self.failed: list[str] = []
        self.counts: Counter[str] = Counter()

    def begin(self) -> None:
        """Clone and install, or put a venv that is here in the clone's place for one."""
        self.must(f"git clone --quiet {shlex.quote(str(ROOT))} {shlex.quote(str(self.clone))}", self.clone.parent)
        if self.venv is None:
            self.must("make install", self.clone)
        else:
            self.borrow(self.venv)

    def borrow(self, venv: Path) -> None:
        """Make a `.venv` of links to another, which has the packages; the sources are the clone's."""
        here = self.clone / ".venv"
        (here / "bin").mkdir(parents=True)
        own = {"bin/activate": f'export PATH="{here}/bin:$PATH"\n', "bin/fundus": FUNDUS, ".installed": ""}
        for path in [*venv.iterdir(), *(venv / "bin").iterdir()]:
            name = path.relative_to(venv).as_posix()
            if name != "bin" and name not in own:
                (here / name).symlink_to(path)
        for name, text in own.items():
            (here / name).write_text(text)
        (here / "bin/fundus").chmod(0o755)
        self.environment["PYTHONPATH"] = str(self.clone)
        print(f"not installed: the packages are those of {venv}")

    def must(self, text: str, folder: Path) -> None:
        """Do what all else needs."""
        done = self.shell(text, folder)
        self.say("begin", text, done)
        if done.code:
            sys.exit("nothing else can be tried")

    def shell(self, text: str, folder: Path | None = None, timeout_s: float = 3600) -> Typed:
        """Run a text in bash as it is; what it prints goes to one place, as on a terminal."""
        began_s = time.monotonic()
        try:
            done = subprocess.run(
                ["bash", "-c", text], cwd=folder or self.clone, env=self.environment, stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", timeout=timeout_s,
                check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return Typed(124, timeout_s, [f"not finished after {timeout_s:.0f} s"])
        lines = [line for line in re.split(r"[\r\n]+", done.stdout) if line.strip()]
        return Typed(done.returncode, time.monotonic() - began_s, lines)

    def say(self, page: str, text: str, done: Typed, *, typed: str = "", is_right: bool | None = None) -> None:
        """Print a row, and count it."""
        right = done.code == 0 if is_right is None else is_right
        self.counts["as expected" if right else "NOT AS EXPECTED"] += 1
        if not right:
            self.failed.append(f"{page}: {text}")
        print(f"{'  ' if right else '! '}{done.seconds:7.1f} s  code {done.code}  {page}: {text}")
        if typed and typed != text:
            print(f"             typed: {typed}")
        print(f"             last:  {(done.lines or ['(nothing)'])[-1][:300]}", flush=True)
        if not right:
            print("\n".join(f"             | {line[:300]}" for line in done.lines[-15:-1]))

    def pass_over(self, page: str, text: str, reason: str) -> None:
        self.counts["not typed"] += 1
        print(f"          not typed  {page}: {text}\n             {reason}", flush=True)

    def page(self, path: Path, skip: str, only: str) -> None:
        """Type a page from its top to its end, in a new shell: it has to say how `.venv` is activated."""
        name, opening = path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8").partition("```")[0]
        before = f"{ACTIVATION} && " if f"`{ACTIVATION}`" in opening else ""  # said in a sentence, not as a command
        for text in texts_of(path):
            line = bare(text) if "\n" not in text else text
            reason = next((why for pattern, why in LEFT_OUT.items() if re.match(pattern, line)), "")
            if line == ACTIVATION:
                before = f"{ACTIVATION} && "
            elif line in self.done:
                self.pass_over(name, line, f"as in {self.done[line]}")
            elif reason or (skip and re.search(skip, line)) or not re.search(only, line):
                self.pass_over(name, line, reason or "by --skip or --only")
            else:
                self.done[line] = name
                typed = shortened(line)
                self.say(name, line, self.shell(before + typed), typed=typed)

    def serve(self) -> None:
        """Look at the curves, as README and docs/comparing.md say."""
        store = "sqlite:///outputs/mlflow.db"
        text = f"mlflow ui --backend-store-uri {store}"
        began_s = time.monotonic()
        server = subprocess.Popen(
            ["bash", "-c", f"{ACTIVATION} && exec {text} --port {PORT}"], cwd=self.clone, env=self.environment,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        answer = "no answer"
        while time.monotonic() - began_s < 90 and answer == "no answer" and server.poll() is None:
            time.sleep(1)
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/", timeout=5) as page:
                    answer = f"the page answers with {page.status}"
            except OSError:
                pass
        os.killpg(server.pid, signal.SIGTERM)
        server.wait()
        done = Typed(int(answer == "no answer"), time.monotonic() - began_s, [answer])
        self.say("docs/comparing.md", text, done, typed=f"{text} --port {PORT}, stopped after its first page")

    def mistakes(self) -> None:
        """Mistype: one sentence, at most three lines, exit code 2, or 1 of MONAI's own command."""
        for one in MISTAKES:
            if one.anywhere:
                done = self.shell(f"{ACTIVATION} && {one.line}")
                code = 2 if one.line.startswith("fundus") else 1
                right = done.code == code and len(done.lines) <= LINES_MAX and one.says in done.lines[-1]
                self.say("mistake", one.line, done, is_right=right)


def few(root: Path, target: Path, number: int) -> None:
    """Copy a part of IDRiD: of each split the first photographs with outlines, and the first of each grade."""
    for original in sorted((root / "A. Segmentation/1. Original Images").iterdir()):
        for path in sorted(original.glob("*.jpg"))[:number]:
            found = root.glob(f"A. Segmentation/2. All Segmentation Groundtruths/{original.name}/*/{path.stem}_*.tif")
            for one in [path, *found]:
                copy(one, target / one.relative_to(root))
    for table in sorted((root / "B. Disease Grading/2. Groundtruths").glob("*.csv")):
        with table.open(newline="", encoding="utf-8-sig") as file:
            head, *rows = [row for row in csv.reader(file) if row and row[0].strip()]
        of_grade = {grade: [row for row in rows if row[1].strip() == grade] for grade in "01234"}
        kept = [row for grade in of_grade.values() for row in grade[:number]]
        (place := target / table.relative_to(root)).parent.mkdir(parents=True, exist_ok=True)
        place.write_text("".join(",".join(row) + "\n" for row in [head, *kept]), encoding="utf-8")
        original = next((root / "B. Disease Grading/1. Original Images").glob(f"{table.name[:2]}*"))
        for row in kept:
            path = original / f"{row[0].strip()}.jpg"
            copy(path, target / path.relative_to(root))


def copy(path: Path, place: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, place)


OWN = """
from pathlib import Path
from PIL import Image, ImageDraw
for path in sorted(Path("docs/examples").glob("*.jpg")):
    image = Image.open(path)
    image.reduce(max(1, image.width // 1000)).save(Path("clinic/images") / path.name)
    for lesion in ("ma", "ex"):
        mask = Image.new("L", Image.open(Path("clinic/images") / path.name).size)
        ImageDraw.Draw(mask).ellipse((400, 300, 420, 316), fill=255)
        mask.save(Path("clinic/masks") / lesion / f"{path.stem}.png")
"""
"""A clinic's folder out of the examples; its outlines are drawn, and of nothing."""


def own_folder(clone: Path, shell: Hour) -> None:
    """Make the folder that docs/data.md reads with --dataset folder, and the photographs that pages name."""
    for name in ("images", "masks/ma", "masks/ex"):
        (clone / "clinic" / name).mkdir(parents=True)
    names = sorted(path.name for path in (clone / "docs/examples").glob("*.jpg"))
    rows = [f"{name},{number % 5},{'test' if number == 0 else 'train'}" for number, name in enumerate(names)]
    (clone / "clinic" / "grades.csv").write_text("\n".join(["image,grade,split", *rows]) + "\n")
    for name in ("photo.jpg", "eye.jpg"):
        shutil.copyfile(clone / "docs/examples/grading_test_029.jpg", clone / name)
    done = shell.shell(f"{ACTIVATION} && python -c {shlex.quote(OWN)}")
    shell.say("begin", "a clinic's folder out of docs/examples", done)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--venv", type=Path)
    parser.add_argument("--few", type=int)
    parser.add_argument("--skip", default="")
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    folder = options.folder.resolve()
    folder.mkdir(parents=True)
    idrid = Path(os.environ["IDRID_ROOT"]).resolve()
    hour = Hour(folder, options.venv and options.venv.resolve())
    hour.begin()
    if options.few:
        few(idrid, folder / "idrid", options.few)
        print(f"IDRiD in part: of each split {options.few} outlined photographs, and {options.few} of each grade")
        idrid = folder / "idrid"
    STAND_INS.insert(0, (r"/path/to/IDRiD", str(idrid)))
    STAND_INS.append((r"--root IDRID", f"--root {shlex.quote(str(idrid))}"))
    for stage, content in SMALL.items():
        place = hour.clone / "configs/experiments/first_hour" / f"{stage}.yaml"
        place.parent.mkdir(exist_ok=True)
        place.write_text("".join(f"{name}: {value}\n" for name, value in content.items()))
        print(f"configs/experiments/first_hour/{stage}.yaml: {content}")
    own_folder(hour.clone, hour)
    for path in [*PAGES, ROOT / "docs/examples/README.md"]:
        hour.page(path, options.skip, options.only)
    hour.serve()
    hour.mistakes()
    print(", ".join(f"{count} {kind}" for kind, count in hour.counts.items()))
    print("\n".join(f"failed: {one}" for one in hour.failed))
    return int(bool(hour.failed))


if __name__ == "__main__":
    sys.exit(main())
