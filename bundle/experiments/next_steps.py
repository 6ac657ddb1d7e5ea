"""What a stage says at its end: where its results are, and the command that comes next, with the paths of this run."""

import os
import re
import shlex
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from bundle.distributed import is_main, local_device
from bundle.experiments.pipeline import CONFIGS, stacked
from bundle.handlers.tracking import where_to_look
from bundle.manifest import Manifest, Photograph
from bundle.method.evidence import Thresholds
from bundle.networks.ensembles import Paths, is_fused, listed
from bundle.networks.graders import EARLIER_STRIDE, LAST_STRIDE
from bundle.options import typed_words
from bundle.predict import WEIGHTS
from bundle.refusals import command_line

PASSED_ON = ("device", "num_workers", "multiprocessing_context", "track", "tracking_uri", "cache_dir")
"""Options of the machine: typed for one stage, they hold for the next too."""

LIGHT = {"experiment": "light", "architectures": "tf_efficientnet_lite0,tf_efficientnet_lite2"}
"""What ``fundus pipeline`` needs to end within hours on a machine without a GPU."""

PLAIN = re.compile(r"[\w./:=,+@%-]+")
"""A word that no shell changes."""

Where = str | os.PathLike


def say(after: Callable[..., str], *run: object) -> None:
    """Print what a stage says at its end; of several processes, the first alone does.

    Args:
        after: one of the functions below.
        run: its arguments, which tell of this run.
    """
    if is_main():
        sys.stdout.write(f"{after(*run)}\n")


def ended(results: Iterable[Where], following: str) -> str:
    """Write where the results are, those that exist, and what comes next.

    Example:
        >>> ended(["/dev/null", "/nowhere/metrics.json"], "fundus predict eye.jpg").splitlines()
        ['results: /dev/null', 'next: fundus predict eye.jpg']
    """
    there = ", ".join(shown(path) for path in results if Path(path).exists())
    return f"results: {there}\nnext: {following}"


def after_prepare(manifest: Manifest, path: Where) -> str:
    """Name the training that a manifest has photographs for, or the evaluation of the weights in ``models/``."""
    outlined, graded = _has_outlined(manifest), _has_graded(manifest)
    light, output_dir = local_device().type == "cpu", Path("outputs") / manifest.name
    run, experiments = partial(bundle_run, manifest=path, output_dir=output_dir), ["light"] * light
    if outlined and graded:
        return f"next: {script('pipeline', manifest=path, output_dir=output_dir, **(LIGHT if light else {}))}"
    if outlined:
        return f"next: {run(['train'], [*experiments, 'segmentation_only'])}"
    if graded:
        return f"next: {run(['pretrain'], experiments)}"
    return f"next: {run(['train', 'evaluate'], checkpoint=WEIGHTS)}"


def after_pretrain(manifest: Manifest, path: Where, output_dir: Where, image_size: int) -> str:
    """Name the pseudo-labels that a grader makes, or, without outlined photographs, its evaluation."""
    weights = Path(output_dir) / "model.pt"
    results = [weights, *(weights.with_name(f"{name}.png") for name in ("confusion", "reliability"))]
    if not _has_outlined(manifest):
        return ended(results, bundle_run(["pretrain", "evaluate_grader"], manifest=path, output_dir=output_dir))
    return ended(results, _pseudo_label([weights], path, image_size))


def _pseudo_label(graders: Sequence[Path], manifest: Where, image_size: int) -> str:
    is_coarse = image_size // LAST_STRIDE < Thresholds().grid_min
    return bundle_run(
        ["pseudo_label"], experiments_running(), manifest=manifest, graders=list(graders),
        output_dir=graders[0].parent.parent / "pseudo", image_size=image_size,
        **({"heat_map_stride": EARLIER_STRIDE} if is_coarse else {}),
    )  # fmt: skip


def after_pseudo_label(path: Where, output_dir: Where) -> str:
    """Name the training of the multi-task network."""
    folder = Path(output_dir)
    labels = folder / "pseudo_labels.json"
    training = bundle_run(
        ["train"], experiments_running(), manifest=path, pseudo_labels=labels, output_dir=folder.parent / "train"
    )
    return ended([folder / "decisions.html", labels, labels.with_suffix(".csv")], training)


def after_train(manifest: Manifest, path: Where, output_dir: Where, fold: int | None) -> str:
    """Name the evaluation, or, where nothing was held out and there is no test, the prediction on a photograph."""
    weights = Path(output_dir) / "model.pt"
    results = [weights, weights.with_name("labels.csv")]
    tested = [row for row in manifest.photographs if row.split == "test" and (row.outlined or row.grade is not None)]
    if fold is None and not tested:
        return ended(results, _use(weights, manifest.path(manifest.photographs[0].image)))
    return ended(results, bundle_run(["train", "evaluate"], manifest=path, output_dir=output_dir))


def after_calibrate(path: Where, calibrated: Where, output_dir: Where) -> str:
    """Name the evaluation with the areas that were fitted."""
    scores = bundle_run(["train", "evaluate"], manifest=path, checkpoint=calibrated, output_dir=output_dir)
    return ended([calibrated], scores)


def after_teach_grades(path: Where, taught: Where, output_dir: Where) -> str:
    """Name the calibration of the head that was fitted: its sets of likely grades are not known yet."""
    stages = ["train", "evaluate", "calibrate"]
    fitting = bundle_run(stages, manifest=path, checkpoint=taught, output_dir=output_dir, calibrated=taught)
    return ended([taught], fitting)


def after_evaluate(manifest: Manifest, rows: Sequence[Photograph], checkpoint: Paths, output_dir: Where) -> str:
    """Name the prediction on one of the photographs that were scored."""
    return ended([Path(output_dir) / "metrics.json"], _use(checkpoint, manifest.path(rows[0].image)))


def after_evaluate_grader(
    manifest: Manifest, path: Where, checkpoint: Where | Sequence[Where], output_dir: Where, image_size: int
) -> str:
    """Name the pseudo-labels that the graders make, or, without outlined photographs, the preparation of some."""
    graders = [Path(one) for one in ([checkpoint] if isinstance(checkpoint, Where) else checkpoint)]
    labels = _pseudo_label(graders, path, image_size)
    needed = "prepare a data set with outlined lesions (docs/data.md); these graders can grade it"
    return ended([Path(output_dir) / "metrics.json"], labels if _has_outlined(manifest) else needed)


def after_inference(output_dir: Where) -> str:
    """Name what to look at."""
    results = [Path(output_dir) / name for name in ("report.html", "predictions.csv", "masks")]
    there = [path for path in results if path.exists()]
    return ended(there, f"open {shown(there[0])}" if there else "see what could not be read")


def after_pipeline(photographs: Where, output_dir: Path, is_whole: bool) -> str:
    """Name the prediction with the weights of a pipeline, or, if it did not run to its end, the rest of it."""
    rest = "the same command without --until"
    return f"next: {_use(output_dir / 'train' / 'model.pt', photographs) if is_whole else rest}"


def after_sweep(suite: str, output_dir: Path, tracked: bool) -> str:
    """Name the comparison, which needs the record in MLflow."""
    table = script("compare", suite=suite, sweep=output_dir, out=output_dir / "compared")
    untold = "nothing was recorded in MLflow, where `fundus compare` reads; each metrics.json has the scores of its run"
    return ended([output_dir], table if tracked else untold)


def after_compare(tracking_uri: str) -> str:
    """Name the store, which has every run of a table."""
    return f"next: the single runs; {where_to_look(tracking_uri)}"


def after_export() -> str:
    """Name the page that says what the file takes and gives."""
    return "next: load it in another program; docs/export.md says what it takes and gives"


def after_package(zipped: Path) -> str:
    """Name the unpacking of a package."""
    return f"next: {_python()} -m zipfile -e {quoted(shown(zipped))} {quoted(shown(zipped.parent))}"


def _use(checkpoint: Paths, photographs: Where) -> str:
    """Return the command that predicts on photographs; inference takes no fused lesions, but export does."""
    weights = ",".join(map(str, listed(checkpoint)))
    if is_fused(checkpoint):
        return script("export", checkpoint=weights, format="torchscript")
    return script("predict", photographs, checkpoint=weights)


def _has_outlined(manifest: Manifest) -> bool:
    return any(row.outlined for row in _trainable(manifest))


def _has_graded(manifest: Manifest) -> bool:
    """Return whether graders have photographs to learn from: graded ones without an outlined copy."""
    outlined = {row.group for row in manifest.photographs if row.outlined}
    return any(row.grade is not None and row.group not in outlined for row in _trainable(manifest))


def _trainable(manifest: Manifest) -> list[Photograph]:
    return [row for row in manifest.photographs if row.split == "train" and not row.left_out]


def experiments_running() -> list[str]:
    """Return the folders of ``configs/experiments`` whose overlays the running command stacks."""
    named = re.findall(r"experiments[/\\]+(\w+)[/\\]", str(typed_words(command_line()).get("config_file", "")))
    return [name for name in dict.fromkeys(named) if (CONFIGS / "experiments" / name).is_dir()]


def bundle_run(bases: Sequence[str], experiments: Sequence[str] = (), **options: object) -> str:
    r"""Write the command that runs configs, with the options of the machine that the running command has.

    Example:
        >>> bundle_run(["train", "evaluate"], manifest="my eyes.json").partition("configs/evaluate.yaml")[2]
        '\']" --manifest "my eyes.json"'
    """
    files = [CONFIGS / name for name in stacked(bases, ",".join(experiments) or None)]
    typed = typed_words(command_line())
    passed_on = {name: typed[name] for name in PASSED_ON if name in typed and not _has_password(typed[name])}
    config_file = files[0] if len(files) == 1 else files
    return f"{_python()} -m monai.bundle run{_options({'config_file': config_file, **options, **passed_on})}"


def _has_password(word: str | bool) -> bool:
    """Return whether a word is the address of a store with a password in it, which is not to be printed."""
    return isinstance(word, str) and urlsplit(word).password is not None


def script(name: str, *words: Where, **options: object) -> str:
    """Write the command of a script, by the console command if that is installed.

    Example:
        >>> script("predict", "a.jpg", checkpoint="model.pt")[-35:]
        'predict a.jpg --checkpoint model.pt'
    """
    program = "fundus " if shutil.which("fundus") else f"{_python()} -m scripts."
    return " ".join([f"{program}{name}", *(quoted(shown(word)) for word in words)]) + _options(options)


def _options(options: Mapping[str, object]) -> str:
    return "".join(f" --{name} {quoted(_word(value))}" for name, value in options.items())


def _word(value: object) -> str:
    if isinstance(value, list):
        return f"[{','.join(repr(shown(one)) for one in value)}]"
    return shown(value) if isinstance(value, Where) else str(value)


def quoted(word: str) -> str:
    r"""Write a word so that shells read it whole, in double quotes if need be, which Windows takes too.

    Example:
        >>> quoted("idrid.json"), quoted("my eyes.json"), quoted("$HOME/it's")
        ('idrid.json', '"my eyes.json"', '\'$HOME/it\'"\'"\'s\'')
    """
    if PLAIN.fullmatch(word):
        return word
    return shlex.quote(word) if set(word) & set('"$`\\!') else f'"{word}"'


def shown(path: Where) -> str:
    """Write a path from the current folder if it lies below it; a relative path stays as it was typed."""
    here = Path.cwd()
    if os.path.isabs(path) and Path(path).is_relative_to(here):
        return Path(path).relative_to(here).as_posix()
    return os.fspath(path) if isinstance(path, str) else Path(path).as_posix()


def _python() -> str:
    """Return ``python`` if that is the running one, else its path."""
    found = shutil.which("python")
    return "python" if found and Path(found).parent == Path(sys.executable).parent else quoted(sys.executable)
