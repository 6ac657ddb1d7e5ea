"""Run the steps of the Dockerfile where no builder is at hand, and then commands in what they made; Linux, as root.

debootstrap --variant=minbase --include=python3,python3-pip,ca-certificates bookworm IMAGE
python tests/integration/dockerfile.py build IMAGE [TORCH_INDEX=https://...]
python tests/integration/dockerfile.py run IMAGE [--shm_mb 64] [--mount HERE:THERE] [--network none] -- predict eyes

IMAGE stands in for python:3.11-slim: a Debian with Python 3.11 and pip, and neither a compiler nor git. Steps run in it
by chroot, in the order of the file: FROM checks Python's version, COPY obeys .dockerignore, RUN has the image's
environment alone. A run has a shared memory of its own, of 64 MB as in Docker, and with --network none no network.
"""

import argparse
import fnmatch
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = "image.json"
"""In a folder beside the image: the environment, user, folder, entry point and default words that a run begins with."""

BASE = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "PIP_BREAK_SYSTEM_PACKAGES": "1"}
"""Environment of the image that stands in; Debian's pip asks for the second before it installs anything."""


def instructions(text: str) -> list[tuple[str, str]]:
    r"""Return each instruction of a Dockerfile and its words, without comments, one line each.

    Example:
        >>> instructions("# comment\nFROM a\nRUN b \\\n && c\n")
        [('FROM', 'a'), ('RUN', 'b   && c')]
    """
    lines = re.sub(r"^#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ").splitlines()
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in lines if line.strip()]


def patterns(text: str) -> list[str]:
    """Return the patterns of a .dockerignore."""
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def is_sent(path: str, ignored: Sequence[str]) -> bool:
    """Return whether a file gets to the builder; the last pattern that matches it, or a folder of it, decides.

    Example:
        >>> ignored = ["*", "!bundle", "**/__pycache__"]
        >>> [is_sent(path, ignored) for path in ("eye.jpg", "bundle/a.py", "bundle/__pycache__/a.pyc")]
        [False, True, False]
    """
    names = [path, *map(str, PurePosixPath(path).parents)]
    found = [one for one in ignored if any(fnmatch.fnmatchcase(name, one.removeprefix("!")) for name in names)]
    return not found or found[-1].startswith("!")


def context(root: Path, ignored: Sequence[str]) -> Iterator[str]:
    """Yield the files of a folder that get to the builder."""
    kept = {one[1:].partition("/")[0] for one in ignored if one.startswith("!")}
    for top in sorted(root.iterdir()):
        if top.name not in kept and not is_sent(top.name, ignored):
            continue  # such as .venv, with a hundred thousand files
        for path in [top] if not top.is_dir() else sorted(top.rglob("*")):
            name = path.relative_to(root).as_posix()
            if not path.is_dir() and is_sent(name, ignored):
                yield name


class Image:
    """A root file system, and what later steps and runs begin with."""

    def __init__(self, root: Path, arguments: dict[str, str]) -> None:
        self.root, self.given = root, arguments
        self.environment, self.arguments = dict(BASE), {}
        self.folder, self.user = "/", "root"
        self.entry, self.words = [], []

    def step(self, keyword: str, text: str) -> None:
        """Do what an instruction says."""
        print(f"{keyword} {text}", flush=True)
        getattr(self, f"do_{keyword.lower()}")(text)

    def do_from(self, text: str) -> None:
        wanted = re.fullmatch(r"python:(\d+\.\d+)-slim", text)
        assert wanted, f"expected python:N.N-slim, got {text}"
        self.shell("ln -sf python3 /usr/bin/python", "/")
        found = self.shell("python -c 'import sys; print(sys.version)'", "/")
        assert found.startswith(f"{wanted[1]}."), f"expected Python {wanted[1]} in {self.root}, got {found}"

    def do_arg(self, text: str) -> None:
        name, _, default = text.partition("=")
        self.arguments[name] = self.given.get(name, default)

    def do_workdir(self, text: str) -> None:
        self.folder = text
        self.inside(text).mkdir(parents=True, exist_ok=True)

    def do_copy(self, text: str) -> None:
        *sources, target = text.split()
        ignored = patterns((ROOT / ".dockerignore").read_text(encoding="utf-8"))
        for name in context(ROOT, ignored):
            if any(source == "." or PurePosixPath(name).is_relative_to(source) for source in sources):
                place = self.inside(f"{self.folder}/{target}/{name}")
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, place, follow_symlinks=False)

    def do_run(self, text: str) -> None:
        self.shell(text, self.folder)

    def do_env(self, text: str) -> None:
        self.environment |= dict(word.split("=", 1) for word in text.split())

    def do_user(self, text: str) -> None:
        self.user = text

    def do_entrypoint(self, text: str) -> None:
        self.entry = json.loads(text)

    def do_cmd(self, text: str) -> None:
        self.words = json.loads(text)

    def inside(self, path: str) -> Path:
        """Return where a path of the image is out here."""
        return self.root / path.lstrip("/")

    def shell(self, text: str, folder: str) -> str:
        """Run a line in the image as root, as a builder does; a step that fails ends the build."""
        words = ["sh", "-c", f'cd "{folder}" && {text}']
        done = self.call(words, user="root", environment=self.environment | self.arguments)
        if done.returncode:
            raise SystemExit(f"exit code {done.returncode} of: {text}")
        return done.stdout

    def call(
        self, words: Sequence[str], *, user: str, environment: dict[str, str], before: str = "", unshared: str = "",
        shm_mb: int = 64,
    ) -> subprocess.CompletedProcess:  # fmt: skip
        """Run words in the image; mounts are its own and end with it."""
        mounts = f"""
            mount -t proc proc {self.root}/proc && mount --bind /dev {self.root}/dev &&
            mount -t tmpfs -o size={shm_mb}m tmpfs {self.root}/dev/shm &&
            mount -t tmpfs -o mode=1777 tmpfs {self.root}/tmp && {before or "true"} &&
            exec chroot --userspec={user} {self.root} env -i "$@"
        """
        variables = [f"{name}={value}" for name, value in environment.items()]
        command = ["unshare", "--mount", *unshared.split(), "sh", "-c", mounts, "sh", *variables, *words]
        return subprocess.run(command, stdout=subprocess.PIPE if user == "root" else None, text=True, check=False)


def build(root: Path, given: Sequence[str]) -> None:
    """Do every instruction, and leave beside the image how to run it."""
    image = Image(root, dict(word.split("=", 1) for word in given))
    for place in ("etc/resolv.conf", "etc/ssl/certs/ca-certificates.crt"):  # a builder brings its network along
        shutil.copy(f"/{place}", image.inside(place))
    for keyword, text in instructions((ROOT / "Dockerfile").read_text(encoding="utf-8")):
        image.step(keyword, text)
    kept = {name: getattr(image, name) for name in ("environment", "folder", "user", "entry", "words")}
    root.with_name(f"{root.name}.{SETTINGS}").write_text(json.dumps(kept), encoding="utf-8")


def run(root: Path, options: argparse.Namespace, given: Sequence[str]) -> int:
    """Run words as `docker run` does."""
    image = Image(root, {})
    vars(image).update(json.loads(root.with_name(f"{root.name}.{SETTINGS}").read_text(encoding="utf-8")))
    mounts = []
    for here, there in (mount.split(":") for mount in options.mount):
        image.inside(there).mkdir(parents=True, exist_ok=True)
        mounts.append(f'mount --bind "{Path(here).resolve()}" "{image.inside(there)}"')
    words = [*(options.entrypoint.split() if options.entrypoint else image.entry), *(given or image.words)]
    line = ["sh", "-c", f'cd {image.folder} && exec "$@"', "sh", *words]
    unshared = "--net" if options.network == "none" else ""
    done = image.call(
        line, user=options.user or image.user, environment=image.environment, before=" && ".join(mounts),
        unshared=unshared, shm_mb=options.shm_mb,
    )  # fmt: skip
    return done.returncode


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    doing = parser.add_subparsers(dest="doing", required=True)
    builder, runner = doing.add_parser("build"), doing.add_parser("run")
    for one in (builder, runner):
        one.add_argument("image", type=Path)
    builder.add_argument("given", nargs="*", metavar="NAME=VALUE", help="as docker build --build-arg")
    runner.add_argument("--shm_mb", type=int, default=64)
    runner.add_argument("--mount", action="append", default=[], metavar="HERE:THERE")
    runner.add_argument("--network", choices=["none"])
    runner.add_argument("--user")
    runner.add_argument("--entrypoint")
    at = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    options = parser.parse_args(sys.argv[1:at])
    if options.doing == "run":
        return run(options.image.resolve(), options, sys.argv[at + 1 :])
    build(options.image.resolve(), options.given)
    return 0


if __name__ == "__main__":
    sys.exit(main())
