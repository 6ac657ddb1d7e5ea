"""The bundle as one zip that the MONAI Model Zoo accepts: code, configs that match the weights, and the weights."""

import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from bundle import ROOT
from bundle.deploy.runtimes import INT8_SUFFIXES, check_int8_file, int8_file
from bundle.files import file_sha256, load_json, written_whole
from bundle.networks.multitask_unet import MultiTaskUNet
from bundle.networks.trained_on import trained_on
from bundle.networks.weights import facts_of, image_size, network_of, refuse_fused, write_bare
from bundle.refusals import say_refusals_alone
from bundle.workflow import running_workflow

NAME = "fundus_dr_multitask"
HELD = {
    "bundle": {".py", ".html"},
    "configs": {".yaml", ".conf", ".json"},
    "docs": {".md", ".txt", ".csv", ".png", ".jpg"},
    "scripts": {".py"},
}
"""Source files of a package; anything else in these folders is refused, because it may be patient data."""

METADATA = "configs/metadata.json"
ZOO_LIMIT_BYTES = 25_000_000
"""Largest file that the zoo accepts in a pull request; ``large_files.yml`` lists the addresses of larger files."""

MEASURED_ON = ("subset", "counts", "trained_on", "scored_on")
"""Facts that accompany scores, so that scores on drawings are not mistaken for scores on photographs."""

DEBUG_RECORDS = (".debug_pkl", "/.data/serialization_id")

IMPORT, CHECK_HOME = "$import bundle.deploy.packaging as packaging", "$packaging.check_home()"
HEAD = "# Made from configs/inference.yaml of the source, to run from any folder; docs/configs.md explains options.\n"
FITTING = re.compile(r"(.*^imports:\n)(.*)^initialize:\n((?:[-# ][^\n]*\n)*)run:\n(.*)", re.DOTALL | re.MULTILINE)


class Package(NamedTuple):
    """The zip, and the names of files in it above the zoo's limit."""

    path: Path
    large: list[str]

    def __str__(self) -> str:
        return f"{self.path}, sha256 {hashlib.sha256(self.path.read_bytes()).hexdigest()}"


def write_package(checkpoint: str | Path, out: str | Path, weights_url: str | None = None) -> Package:
    """Write ``fundus_dr_multitask_v<version>.zip``; the same sources and weights give the same bytes.

    Args:
        checkpoint: weights of ``configs/train.yaml``. int8 files beside it are packaged too. If ``metrics.json`` next
            to it has the scores of exactly these weights, they become the ``eval_metrics`` of the metadata; otherwise
            these are empty. The training data is always in the metadata, as ``trained_on``.
        out: folder for the zip.
        weights_url: address of the folder where files above the zoo's limit will be found.

    Raises:
        ValueError: if the file is missing, its weights are not of this network, have one fused lesion class or do not
            match the settings stored with them, an int8 file beside it is of other weights, or the source folders
            contain other files.
    """
    network = _packed(checkpoint)
    files = _fitted_sources(checkpoint)
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / NAME
        for name, content in files.items():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            (tree / name).write_bytes(content)
        write_bare(tree / "models" / "model.pt", network.state_dict(), type(network).__name__, facts_of(checkpoint))
        copy_int8(checkpoint, tree / "models" / "model.pt")
        _write_torchscript(tree)
        paths = sorted(path for path in tree.rglob("*") if path.is_file())
        large = [path.relative_to(tree).as_posix() for path in paths if path.stat().st_size > ZOO_LIMIT_BYTES]
        if large and weights_url:
            (tree / "large_files.yml").write_bytes(_large_files(tree, large, weights_url))
        out = Path(out) / f"{NAME}_v{json.loads(files[METADATA])['version']}.zip"
        names = {p.relative_to(tree.parent).as_posix(): p for p in sorted(tree.rglob("*")) if p.is_file()}
        with written_whole(out) as beside:
            beside.write_bytes(_zipped({name: path.read_bytes() for name, path in names.items()}))
    return Package(out, large)


def _packed(checkpoint: str | Path) -> MultiTaskUNet:
    """Build the network before anything is written, because TorchScript and the metadata require this class."""
    refuse_fused(checkpoint)
    image_size(checkpoint)
    network = network_of(checkpoint)
    if not isinstance(network, MultiTaskUNet):
        raise ValueError(f"expected weights of MultiTaskUNet in {checkpoint}, got weights of {type(network).__name__}")
    return network


def copy_int8(checkpoint: str | Path, packed: Path) -> None:
    """Copy the int8 files that lie beside the weights, if they were made from them."""
    for backend, suffixes in INT8_SUFFIXES.items():
        if int8_file(checkpoint, backend).is_file():
            check_int8_file(backend, checkpoint)
            for suffix in suffixes:
                shutil.copyfile(Path(checkpoint).with_suffix(suffix), packed.with_suffix(suffix))


def _fitted_sources(checkpoint: str | Path) -> dict[str, bytes]:
    """Return the sources by name, with configs and metadata that match these weights."""
    files = dict(source_files(ROOT))
    found = {"trained_on": trained_on(checkpoint), "eval_metrics": measured(checkpoint, file_sha256(checkpoint))}
    inference = HEAD + fitted_config(files["configs/inference.yaml"].decode())
    return {
        **files,
        METADATA: _json({**json.loads(files[METADATA]), **found}),
        "configs/inference.yaml": inference.encode(),
        "configs/inference.json": _json(
            yaml.safe_load(inference)
        ),  # the only config that `monai.bundle.load` looks for
    }


def source_files(root: Path) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of every source file of a package.

    Raises:
        ValueError: if a part is missing, or a file is not a source file.
    """
    if missing := [part for part in [*HELD, "LICENSE"] if not (root / part).exists()]:
        raise ValueError(f"expected the bundle's sources in {root}, found no {', '.join(missing)}; run it from there")
    yield "LICENSE", (root / "LICENSE").read_bytes()
    for folder, suffixes in HELD.items():
        for path in sorted((root / folder).rglob("*")):
            name = path.relative_to(root).as_posix()
            if path.is_dir() or "__pycache__" in path.parts:
                continue
            other_json = path.suffix == ".json" and name != METADATA  # manifests and pseudo-labels name photographs
            if path.is_symlink() or path.suffix not in suffixes or other_json:
                raise ValueError(f"expected only {', '.join(sorted(suffixes))} in {folder}/, got {name}; move it away")
            yield name, path.read_bytes()


def fitted_config(text: str) -> str:
    r"""Return the text of ``inference.yaml`` for a package, which runs from any folder; options and comments stay.

    The lines of ``initialize`` move to the beginning of ``run``, because MONAI puts the bundle's folder on Python's
    path only before ``run``.

    Raises:
        ValueError: if it is another config, such as one that is already packaged.

    Example:
        >>> source = "imports:\n- $import bundle\nwidth: 1  # of all\ninitialize:\n- $check()\nrun:\n- $go()\n"
        >>> print(fitted_config(source).partition("width")[2])
        : 1  # of all
        run:
        - $packaging.check_home()
        - $check()
        - $go()
        <BLANKLINE>
    """
    parts = FITTING.fullmatch(text)
    if parts is None:
        raise ValueError(
            f"expected a config with imports, and run right after initialize, got one with "
            f"{', '.join(yaml.safe_load(text) or ['nothing'])}"
        )
    head, options, initialize, run = parts.groups()
    return f"{head}- {IMPORT}\n{options}run:\n- {CHECK_HOME}\n{initialize}{run}"


def measured(checkpoint: str | Path, sha256: str) -> dict[str, Any]:
    """Return the scores in ``metrics.json`` next to a checkpoint and the facts about them; empty for other weights."""
    path = Path(checkpoint).with_name("metrics.json")
    found = load_json(path) if path.is_file() else {}
    weights = found.get("weights")  # a list where several files were scored together
    if not isinstance(weights, dict) or weights.get("sha256") != sha256:
        return {}
    return {**found["scores"], **{name: found[name] for name in MEASURED_ON if name in found}}


def _write_torchscript(tree: Path) -> None:
    """Write ``models/model.ts``, without the source paths of this machine and the hash of them."""
    _export_torchscript(tree)
    path = tree / "models" / "model.ts"
    with zipfile.ZipFile(path) as archive:
        kept = {name: archive.read(name) for name in archive.namelist() if not name.endswith(DEBUG_RECORDS)}
    path.write_bytes(_zipped(kept))


def _export_torchscript(tree: Path) -> None:
    """Run the command with which the zoo checks a bundle, using only the tree.

    It runs in a separate process with fixed hashes, because TorchScript numbers the modules of a process and writes
    the constants of a module in the order of a set.
    """
    words = ["-m", "monai.bundle", "ckpt_export", "--config_file", "configs/inference.yaml"]
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONHASHSEED": "0"}
    done = subprocess.run([sys.executable, *words], cwd=tree, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)} failed: {done.stderr[-2000:]}")


def _large_files(tree: Path, names: list[str], url: str) -> bytes:
    listed = [
        {
            "path": name,
            "url": f"{url.rstrip('/')}/{Path(name).name}",
            "hash_val": hashlib.sha256((tree / name).read_bytes()).hexdigest(),
            "hash_type": "sha256",
        }
        for name in names
    ]
    return yaml.safe_dump({"large_files": listed}, sort_keys=False).encode()


def _zipped(files: Mapping[str, bytes]) -> bytes:
    """Pack without compression, dates and owners, which differ between machines."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, content in files.items():
            entry = zipfile.ZipInfo(name)  # dated 1980-01-01
            entry.create_system, entry.external_attr = 3, 0o644 << 16
            archive.writestr(entry, content)
    return buffer.getvalue()


def _json(content: object) -> bytes:
    return (json.dumps(content, indent=4) + "\n").encode()


def check_home() -> None:
    """Refuse to run a packaged config with the code, and so the weights, of another copy of this package.

    Raises:
        ValueError: naming both folders.
    """
    say_refusals_alone()
    home = Path(running_workflow().config_root_path).resolve().parent
    if home != ROOT:
        raise ValueError(
            f"expected the Python package `bundle` of these configs, in {home}, got the one in {ROOT}; leave that "
            f"folder, or say `PYTHONPATH={home}`"
        )
