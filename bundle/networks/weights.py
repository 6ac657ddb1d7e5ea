"""Weights files of this bundle: they name their network and load into no other."""

import copy
import hashlib
import importlib
import inspect
import json
import os
import pkgutil
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from bundle.files import file_sha256, load_json, write_text_whole, written_whole
from bundle.labels import LEAST_PPM, LESIONS, checked_quantiles, smallest_areas_ppm
from bundle.networks.graded_network import GradedNetwork
from bundle.networks.graders import NO_SHIFT, Grader, prior_shift
from bundle.networks.imagenet import read_weights
from bundle.networks.multitask_unet import MultiTaskUNet
from bundle.networks.segmenters import GradedSegmenter
from bundle.transforms.lesion_decision import check_thresholds
from torch import Tensor, nn


def save_whole(path: str | os.PathLike, content: Mapping[str, Any]) -> None:
    """Write a torch file to a temporary path next to it, then rename it; the same content gives the same bytes.

    Raises:
        OSError: if it cannot be written, for example on a full disk.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     one, other = Path(folder, "one.pt"), Path(folder, "other.pt")
        ...     for path in (one, other):
        ...         save_whole(path, {"weight": torch.ones(2)})
        ...     one.read_bytes() == other.read_bytes()
        True
    """
    # Given a path, torch would store the temporary name in the file, and would not mention a full disk in its error.
    with written_whole(path) as beside, beside.open("wb") as file:
        try:
            torch.save(dict(content), file)
        except RuntimeError as error:
            if not isinstance(error.__context__, OSError):
                raise
            raise OSError(
                f"cannot write {path}: {error.__context__.strerror}; make room there, and run the same command again"
            ) from error


def write_bare(path: str | os.PathLike, state: Mapping[str, Tensor], network: str, facts: Mapping[str, Any]) -> None:
    """Write a state dict, and ``{"network", "facts", "sha256"}`` to a ``.json`` file of the same name.

    The same tensors give the same bytes. Paths among the facts are shortened to the file name, because packages are
    passed on to others.

    Example:
        >>> import tempfile
        >>> import torch
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = f"{folder}/model.pt"
        ...     write_bare(path, {"weight": torch.ones(2)}, "MultiTaskUNet", facts={"teacher": "/home/me/old.pt"})
        ...     read_description(path)
        {'network': 'MultiTaskUNet', 'facts': {'teacher': 'old.pt'}}
    """
    save_whole(path, state)
    description = {"network": network, "facts": without_folders(facts), "sha256": file_sha256(path)}
    write_text_whole(_description(path), json.dumps(description, indent=4) + "\n")


def read_description(path: str | os.PathLike) -> dict[str, Any]:
    """Return ``{"network", "facts"}`` of a bare state dict.

    Raises:
        ValueError: if its description file is missing, is malformed, or was written for other weights.
    """
    beside = _description(path)
    if not beside.is_file():
        raise ValueError(
            f"expected weights that this bundle wrote in {path}, got a file without 'model' and 'network', and no "
            f"{beside.name} next to it that describes them"
        )
    description = load_json(beside)
    if not isinstance(description, dict) or not {"network", "facts", "sha256"} <= set(description):
        raise ValueError(f"expected 'network', 'facts' and 'sha256' in {beside}, got other things")
    if description["sha256"] != file_sha256(path):
        raise ValueError(f"expected the weights that {beside} was written for in {path}, got others")
    return {"network": description["network"], "facts": description["facts"]}


def _description(path: str | os.PathLike) -> Path:
    return Path(path).with_suffix(".json")


def without_folders(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Shorten each path among the facts to the file name, to keep local folders private.

    Example:
        >>> without_folders({"teacher": "/home/me/old.pt", "seed": 3})
        {'teacher': 'old.pt', 'seed': 3}
    """
    return {name: Path(fact).name if isinstance(fact, str) and os.sep in fact else fact for name, fact in facts.items()}


OTHER_LIMITS = "by other limits than those of the weights file: how often they include the true grade is not known"

PERCEPTUAL_HASHES = "perceptual_hashes"
"""The fact that lists the photographs trained on, one hash each."""

LIKENESS = "likeness"
"""The fact that tells photographs unlike those trained on (:class:`bundle.metrics.likeness.Likeness`)."""

LONG_FACTS = (PERCEPTUAL_HASHES, LIKENESS)
"""Facts that are too long for messages and records of runs."""

NEEDED = {
    MultiTaskUNet.__name__: ("width", "batch_norm", "decoder_norm"),
    GradedSegmenter.__name__: ("architecture", "encoder_name"),
}
"""Settings that every file must contain; old files may lack the others, which could not be chosen yet."""


def save_weights(path: str | os.PathLike, network: nn.Module, facts: Mapping[str, Any]) -> None:
    """Write ``{"model": state dict, "network": class name, "facts": facts}``.

    The settings of a :class:`GradedNetwork` are added to the facts, so that it can be rebuilt from the file.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_weights(f"{folder}/model.pt", MultiTaskUNet(pretrained=False, width=1 / 16), {"image_size": 512})
        ...     fact(f"{folder}/model.pt", "width"), fact(f"{folder}/model.pt", "image_size")
        (0.0625, 512)
    """
    settings = network.settings() if isinstance(network, GradedNetwork) else {}
    save_whole(path, {"model": network.state_dict(), "network": type(network).__name__, "facts": {**settings, **facts}})


def halve(source: str | os.PathLike, target: str | os.PathLike) -> None:
    """Write a copy of a weights file with kernels in 16 bits, half as large, for distribution.

    Vectors (biases, batch norm and its statistics) stay in 32 bits. Loading converts the kernels back to 32 bits. Paths
    among the facts are shortened to the file name.

    Raises:
        ValueError: if the file is missing, is not a weights file, or a weight exceeds the 16-bit range (65504).

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_weights(f"{folder}/model.pt", nn.Linear(64, 64), {"image_size": 512})
        ...     halve(f"{folder}/model.pt", f"{folder}/half.pt")
        ...     loaded = nn.Linear(64, 64)
        ...     load_weights(loaded, f"{folder}/half.pt"), loaded.weight.dtype
        ({'image_size': 512}, torch.float32)
    """
    content = _read(source)
    state = {name: value.half() if value.ndim > 1 else value for name, value in content["model"].items()}
    if broken := [name for name, value in state.items() if not torch.isfinite(value).all()]:
        raise ValueError(f"expected weights up to 65504 in {source}, got larger ones in {broken[0]}")
    save_whole(target, {**content, "model": state, "facts": without_folders(content["facts"])})


def say_also(
    source: str | os.PathLike,
    target: str | os.PathLike,
    facts: Mapping[str, Any],
    tensors: Mapping[str, Tensor] | None = None,
) -> None:
    """Write a copy of a weights file with additional facts, such as values fitted after training.

    Args:
        source: the file.
        target: the copy; may be the file itself.
        facts: by name; they replace those of the same name.
        tensors: by name, in place of those of the same name and shape; None replaces none.

    Raises:
        ValueError: if the file is missing, is not a weights file, or has no such tensor.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = f"{folder}/model.pt"
        ...     save_weights(path, nn.Linear(2, 3), {"image_size": 512})
        ...     say_also(path, path, {"min_area_ppm": 3.0}, {"bias": torch.ones(3)})
        ...     facts_of(path), filled(nn.Linear(2, 3), path).bias.tolist()
        ({'image_size': 512, 'min_area_ppm': 3.0}, [1.0, 1.0, 1.0])
    """
    content = _read(source)
    model = dict(content["model"])
    for name, value in (tensors or {}).items():
        if name not in model or model[name].shape != value.shape:
            found = tuple(model[name].shape) if name in model else "none"
            raise ValueError(f"expected a tensor {name} of {tuple(value.shape)} in {source}, got {found}")
        model[name] = value.to(model[name].dtype)
    save_whole(target, {**content, "model": model, "facts": {**content["facts"], **facts}})


def load_weights(
    network: nn.Module, path: str | os.PathLike, expected: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Load a file of :func:`save_weights` into a network and return its facts.

    Args:
        network: to fill.
        path: of the file.
        expected: facts that the file must contain, such as the manifest's hash.

    Raises:
        ValueError: if the file is missing, is not a weights file, belongs to another network, or a fact differs.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_weights(f"{folder}/model.pt", nn.Linear(2, 3), {"image_size": 512})
        ...     load_weights(nn.Linear(2, 3), f"{folder}/model.pt")
        {'image_size': 512}
    """
    return _fill(network, _read(path), path, expected)


def filled(network: nn.Module, path: str | os.PathLike, expected: Mapping[str, Any] | None = None) -> nn.Module:
    """Return a network after :func:`load_weights`; configs use this where another component takes the network.

    Raises:
        ValueError: as :func:`load_weights`.

    Example:
        >>> filled(nn.Linear(2, 3), "nowhere.pt")
        Traceback (most recent call last):
            ...
        ValueError: expected weights at nowhere.pt, found no such file
    """
    load_weights(network, path, expected)
    return network


def network_of(path: str | os.PathLike) -> GradedNetwork:
    """Build the network that a weights file names, with the settings among its facts, and fill it.

    The network is in evaluation mode and frozen. Its class must be in ``bundle/networks/``; nothing else is imported.

    Raises:
        ValueError: if the file is missing, is not a weights file, names another class, lacks a setting, or contains one
            that the class refuses or that does not fit the tensors.

    Example:
        >>> import tempfile
        >>> trained = MultiTaskUNet(pretrained=False, width=1 / 16)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_weights(f"{folder}/model.pt", trained, {"image_size": 512})
        ...     network = network_of(f"{folder}/model.pt")
        >>> type(network).__name__, network.settings() == trained.settings()
        ('MultiTaskUNet', True)
    """
    content = _read(path)
    build, facts = _class_named(content["network"], path), content["facts"]  # refuses unknown names
    if missing := [setting for setting in NEEDED.get(content["network"], ()) if setting not in facts]:
        raise ValueError(
            f"expected {missing[0]} among the facts of {path}, found none: the file is older than that; train it again"
        )
    with torch.device("meta"):  # so a file with a huge width allocates no memory
        _check_sizes(_built(build, facts, path), content["model"], path)
    network = _built(build, facts, path)
    _fill(network, content, path, {})
    return network.eval().requires_grad_(False)


def _class_named(name: object, path: str | os.PathLike) -> Callable[..., GradedNetwork]:
    """Find a class of this package by name; import the package's modules if no loaded one defines it."""
    name = name if isinstance(name, str) else repr(name)
    if name not in _classes(GradedNetwork):
        for module in pkgutil.iter_modules([str(Path(__file__).parent)]):
            importlib.import_module(f"{__package__}.{module.name}")
    known = _classes(GradedNetwork)
    if name not in known:
        raise ValueError(f"expected weights of a network among {sorted(known)} in {path}, got weights of {name!r}")
    return known[name]


def _classes(base: type[Any]) -> dict[str, Callable[..., GradedNetwork]]:
    """Return the subclasses of a class, and theirs, that are defined in this package, by name."""
    found: dict[str, Callable[..., GradedNetwork]] = {}
    for kind in base.__subclasses__():
        found |= {kind.__name__: kind} if kind.__module__.startswith(f"{__package__}.") else {}
        found |= _classes(kind)
    return found


def _built(build: Callable[..., GradedNetwork], facts: Mapping[str, Any], path: str | os.PathLike) -> GradedNetwork:
    known = set(inspect.signature(build).parameters) - {"pretrained"}
    settings = {name: value for name, value in facts.items() if name in known}
    if facts.get("fuse"):
        settings.setdefault("lesion_classes", 1)  # older files only record that the lesions were fused
    try:
        return build(pretrained=False, **settings)
    except (ValueError, TypeError, ArithmeticError, RuntimeError) as error:  # RuntimeError: sizes beyond 64 bits
        name = getattr(build, "__name__", "a network")
        raise ValueError(f"expected settings of {name} in {path}, got {settings}: {error}") from error


def _check_sizes(network: nn.Module, state: Mapping[str, Tensor], path: str | os.PathLike) -> None:
    expected, stored = (
        {name: list(value.shape) for name, value in tensors.items()} for tensors in (network.state_dict(), state)
    )
    for name in {**expected, **stored}:
        if expected.get(name) != stored.get(name):
            raise ValueError(
                f"expected weights of the {type(network).__name__} that {path} names, with {name} of shape "
                f"{expected.get(name)}, got {stored.get(name)}; its facts belong to other weights"
            )


def load_teacher(network: nn.Module, path: str | os.PathLike, expected: Mapping[str, Any] | None = None) -> nn.Module:
    """Return a frozen copy of a network, filled from a file; the network itself is not changed.

    Raises:
        ValueError: as :func:`load_weights`.

    Example:
        >>> import tempfile
        >>> network = nn.Linear(2, 3)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_weights(f"{folder}/model.pt", network, {})
        ...     teacher = load_teacher(network, f"{folder}/model.pt")
        >>> torch.equal(teacher.weight, network.weight), teacher.weight.requires_grad, network.weight.requires_grad
        (True, False, True)
    """
    return filled(copy.deepcopy(network), path, expected).eval().requires_grad_(False)


def _fill(
    network: nn.Module, content: Mapping[str, Any], path: str | os.PathLike, expected: Mapping[str, Any] | None
) -> dict[str, Any]:
    name = type(network).__name__
    if content["network"] != name:
        raise ValueError(f"expected weights of {name} in {path}, got weights of {content['network']}")
    check_facts(path, content["facts"], expected or {})
    try:
        network.load_state_dict(content["model"])
    except RuntimeError as error:
        first = str(error).splitlines()[-1].strip()
        raise ValueError(
            f"expected weights of this {name} in {path}, got those of another size ({first}); "
            f"give the settings that they were trained with: {_short(content['facts'])}"
        ) from error
    return content["facts"]


def check_facts(path: str | os.PathLike, facts: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Refuse weights whose facts differ from the expected ones.

    A missing boolean fact counts as False.

    Raises:
        ValueError: naming the first fact that differs.

    Example:
        >>> check_facts("model.pt", {"image_size": 512}, expected={"image_size": 512, "fuse": False})
        >>> check_facts("model.pt", {"image_size": 512}, expected={"image_size": 1024})
        Traceback (most recent call last):
            ...
        ValueError: expected weights of image_size 1024 in model.pt, got 512
    """
    for name, value in expected.items():
        found = facts.get(name, False if isinstance(value, bool) else None)
        if found != value:
            raise ValueError(f"expected weights of {name} {value!r} in {path}, got {found!r}")


def refuse_fused(path: str | os.PathLike) -> None:
    """Refuse weights of one fused lesion class where the four lesions are needed separately.

    Raises:
        ValueError: if the file is missing, is not a weights file, or its lesions were fused.
    """
    if fact(path, "fuse"):
        raise ValueError(
            f"expected weights that tell the four lesions apart in {path}, got weights trained with fuse: true: the "
            f"report and the rules need the lesions apart. Such weights can only be evaluated; train with fuse: false"
        )


def load_grader(
    path: str | os.PathLike, expected: Mapping[str, Any] | None = None, heat_map_stride: int = 32
) -> Grader:
    """Build the grader of a weights file of stage 1, with its temperature and prior shift.

    Args:
        path: of the file.
        expected: facts that the file must contain.
        heat_map_stride: of the features that Grad-CAM uses (:class:`bundle.networks.graders.Grader`).

    Raises:
        ValueError: if the file is missing, is not a weights file, does not contain a grader of five grades, a fact
            differs, the temperature or the class weights are invalid, or the network cannot be cut at that stride.
    """
    content = _read(path)
    architecture = content["facts"].get("architecture")
    if content["network"] != Grader.__name__ or architecture is None:
        raise ValueError(f"expected weights of a grader in {path}, got weights of {content['network']}")
    grader = Grader(architecture, pretrained=False, heat_map_stride=heat_map_stride)
    grader.temperature, grader.prior_shift = temperature_and_shift(_fill(grader, content, path, expected), path)
    return grader


def temperature_and_shift(facts: Mapping[str, Any], path: str | os.PathLike) -> tuple[float, tuple[float, ...]]:
    """Return the temperature and prior shift that turn a grader's logits into ``softmax(z / T - shift)``.

    A file without a temperature was never calibrated; one without class weights was trained without them.

    Args:
        facts: of the grader's weights file.
        path: of that file, for the error message.

    Raises:
        ValueError: if the temperature or the class weights are invalid.

    Example:
        >>> temperature_and_shift({"temperature": 1.5, "class_weights": [1.0, 1.0, 0.5, 1.0, 2.0]}, "model.pt")
        (1.5, (0.0, 0.0, -0.6931471805599453, 0.0, 0.6931471805599453))
        >>> temperature_and_shift({}, "model.pt")
        (1.0, (0.0, 0.0, 0.0, 0.0, 0.0))
    """
    temperature, class_weights = facts.get("temperature", 1.0), facts.get("class_weights")
    if not isinstance(temperature, (int, float)) or not 0 < temperature <= sys.float_info.max:  # NaN fails as well
        raise ValueError(f"expected a temperature above 0 in {path}, got {temperature!r}; train this grader again")
    if class_weights is None:
        return float(temperature), NO_SHIFT
    try:
        shift = prior_shift(class_weights if isinstance(class_weights, (list, tuple)) else [class_weights])
    except ValueError as error:
        raise ValueError(f"{error} in {path}; train this grader again") from None
    return float(temperature), shift


def lesion_thresholds(path: str | os.PathLike | None) -> tuple[float, ...] | None:
    """Return the fitted threshold of each lesion for these weights, in the order of the network's channels.

    Returns:
        One number for each of ``LESIONS``, or a single one if the lesions were fused. None if the file has no
        thresholds or ``path`` is None: the most probable class decides.

    Raises:
        ValueError: if the file is missing, is not a weights file, or its thresholds are invalid.

    Example:
        >>> import tempfile
        >>> facts = {"lesion_thresholds": {"MA": 0.2, "HE": 0.35, "EX": 0.45, "SE": 0.5}}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_weights(f"{folder}/model.pt", nn.Linear(2, 3), facts)
        ...     lesion_thresholds(f"{folder}/model.pt")
        (0.2, 0.35, 0.45, 0.5)
    """
    found = None if path is None else fact(path, "lesion_thresholds")
    if path is None or found is None:
        return None
    if not isinstance(found, dict) or (set(found) != set(LESIONS) and len(found) != 1):
        raise ValueError(f"expected lesion_thresholds of {list(LESIONS)} or of one class in {path}, got {found!r}")
    thresholds = tuple(found[name] for name in (LESIONS if len(found) > 1 else found))
    try:
        check_thresholds(thresholds, len(found))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return thresholds


def min_area_ppm(path: str | os.PathLike) -> dict[str, float]:
    """Return the smallest area at which each lesion in these weights' predictions counts as present.

    Returns:
        The fitted areas in millionths of the field of view; ``LEAST_PPM`` for each lesion if none were fitted.

    Raises:
        ValueError: if the file is missing, is not a weights file, or its areas are invalid.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_weights(f"{folder}/model.pt", nn.Linear(2, 3), {})
        ...     min_area_ppm(f"{folder}/model.pt")
        {'MA': 3.0, 'HE': 3.0, 'EX': 3.0, 'SE': 3.0}
    """
    try:
        return smallest_areas_ppm(fact(path, "min_area_ppm", LEAST_PPM))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def grade_set_quantiles(path: str | os.PathLike) -> tuple[float, ...] | None:
    """Return the fitted limits of the sets of likely grades for these weights, one for each grade.

    Returns:
        The limits (:func:`bundle.metrics.grade_sets.fit_quantiles`); None if the file has none: there are no sets.

    Raises:
        ValueError: if the file is missing, is not a weights file, or its sets are invalid.

    Example:
        >>> import tempfile
        >>> facts = {"coverage": 0.9, "quantiles": [0.7] * 5, "fitted_on": "76 photographs of fold 0"}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_weights(f"{folder}/model.pt", nn.Linear(2, 3), {"grade_sets": facts})
        ...     grade_set_quantiles(f"{folder}/model.pt")
        (0.7, 0.7, 0.7, 0.7, 0.7)
    """
    found = _grade_sets(path)
    return None if found is None else checked_quantiles(found["quantiles"])


def grade_sets_in_words(path: str | os.PathLike, quantiles: Sequence[float] | None) -> str:
    """Write what the sets of likely grades were fitted to do, for the head of the report.

    Args:
        path: of the weights file.
        quantiles: limits that decide; None: there are no sets.

    Raises:
        ValueError: as :func:`grade_set_quantiles`.

    Example:
        >>> import tempfile
        >>> facts = {"coverage": 0.9, "quantiles": [0.7] * 5, "fitted_on": "76 photographs of fold 0"}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_weights(f"{folder}/model.pt", nn.Linear(2, 3), {"grade_sets": facts})
        ...     grade_sets_in_words(f"{folder}/model.pt", [0.7] * 5)
        'fitted to include the true grade in 90 % of photographs like 76 photographs of fold 0; maybe fewer in others'
    """
    if quantiles is None:
        return "none"
    fitted = _grade_sets(path)
    if fitted is None or list(quantiles) != fitted["quantiles"]:
        return OTHER_LIMITS
    like = f"{100 * fitted['coverage']:g} % of photographs like {fitted['fitted_on']}"
    return f"fitted to include the true grade in {like}; maybe fewer in others"


def _grade_sets(path: str | os.PathLike) -> dict[str, Any] | None:
    """Return what a weights file says of its sets of likely grades, if it has what is needed of them."""
    found = fact(path, "grade_sets")
    if found is None:
        return None
    try:
        checked_quantiles(found["quantiles"])
        well_formed = 0 < found["coverage"] < 1 and isinstance(found["fitted_on"], str)
    except (KeyError, TypeError, ValueError):
        well_formed = False
    if not well_formed:
        raise ValueError(f"expected grade_sets of configs/calibrate.yaml in {path}, got {found!r}; run it again")
    return found


def _read(path: str | os.PathLike) -> dict[str, Any]:
    content = read_weights(Path(path))
    if not {"model", "network", "facts"} <= set(content):
        content = {"model": content, **read_description(path)}
    state, facts = content["model"], content["facts"]
    tensors = isinstance(state, dict) and all(isinstance(k, str) and torch.is_tensor(v) for k, v in state.items())
    if not tensors or not isinstance(facts, dict) or not all(isinstance(name, str) for name in facts):
        raise ValueError(
            f"expected tensors by name in 'model' and facts by name in 'facts' of {path}, got other things"
        )
    return content


def load_graders(
    paths: Sequence[str | os.PathLike] | str, expected: Mapping[str, Any] | None = None, heat_map_stride: int = 32
) -> nn.ModuleList:
    """Build the grader of each weights file in a list, as :func:`load_grader` does.

    Raises:
        ValueError: if the list is empty, or as :func:`load_grader` for any of the files.

    Example:
        >>> load_graders([])
        Traceback (most recent call last):
            ...
        ValueError: expected --graders "['outputs/pretrain/model.pt']": one or more weights of stage 1, got none
    """
    return nn.ModuleList(load_grader(path, expected, heat_map_stride) for path in _listed(paths))


def provenance(path: str | os.PathLike) -> dict[str, Any]:
    """Return the data that identify a weights file: path, hash, network, and facts other than long ones."""
    network, facts = _network_and_facts(path)
    return {"path": str(path), "sha256": file_sha256(path), "network": network, **_short(facts)}


def tensors_sha256(path: str | os.PathLike) -> str:
    """Hash the tensors of a weights file by name, as 32-bit floats: bare and packaged copies have the same hash.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_weights(f"{folder}/model.pt", nn.Linear(64, 64), {"image_size": 512})
        ...     halve(f"{folder}/model.pt", f"{folder}/half.pt")
        ...     tensors_sha256(f"{folder}/model.pt") == tensors_sha256(f"{folder}/half.pt")  # 16 bits are fewer than 32
        False
    """
    digest = hashlib.sha256()
    for name, value in sorted(_read(path)["model"].items()):
        digest.update(f"{name} {list(value.shape)} ".encode() + value.float().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _short(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in facts.items() if name not in LONG_FACTS}


def provenances(paths: Sequence[str | os.PathLike] | str) -> list[dict[str, Any]]:
    """Return the provenance of each weights file."""
    return [provenance(path) for path in _listed(paths)]


def _listed(paths: Sequence[str | os.PathLike] | str) -> list[str | os.PathLike]:
    """Return the paths as a list; a single path needs no list, and an empty list is refused."""
    if not paths:
        raise ValueError(
            "expected --graders \"['outputs/pretrain/model.pt']\": one or more weights of stage 1, got none"
        )
    return [paths] if isinstance(paths, str) else list(paths)


def facts_of(path: str | os.PathLike) -> dict[str, Any]:
    """Return all facts of a weights file."""
    return _network_and_facts(path)[1]


def _network_and_facts(path: str | os.PathLike) -> tuple[str, dict[str, Any]]:
    """Return what a weights file has beside the tensors; it is read again only if it or its description has changed."""
    path = Path(path)
    return copy.deepcopy(_read_facts(path, path.absolute(), _stamp(path), _stamp(_description(path))))


@lru_cache(maxsize=16)
def _read_facts(path: Path, whole_path: Path, *stamps: tuple[int, ...] | None) -> tuple[str, dict[str, Any]]:
    """Read the path as given, for the error messages; the other arguments tell when to read again."""
    content = _read(path)
    return content["network"], content["facts"]


def _stamp(path: Path) -> tuple[int, ...] | None:
    """Return what changes with a file; renaming another file to its name gives another inode."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size


def fact(path: str | os.PathLike, name: str, otherwise: object = None) -> Any:  # noqa: ANN401  (whatever stands there)
    """Return one fact of a weights file, or ``otherwise`` if the file does not contain it.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_weights(f"{folder}/model.pt", nn.Linear(2, 3), {"taught_grades": [2, 3, 4]})
        ...     fact(f"{folder}/model.pt", "taught_grades"), fact(f"{folder}/model.pt", "fuse", False)
        ([2, 3, 4], False)
    """
    return facts_of(path).get(name, otherwise)


def shared_fact(paths: Sequence[str | os.PathLike] | str, name: str) -> Any:  # noqa: ANN401  (whatever stands there)
    """Return a fact that several weights files have in common.

    Raises:
        ValueError: if the values differ, or no file is given.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     one, other = f"{folder}/one.pt", f"{folder}/other.pt"
        ...     for path, fold in ((one, 0), (other, 1)):
        ...         save_weights(path, nn.Linear(2, 3), {"image_size": 384, "fold": fold})
        ...     shared_fact([one, other], "image_size"), shared_fact(other, "fold")
        (384, 1)
    """
    first, *others = _listed(paths)
    value = fact(first, name)
    for path in others:
        check_facts(path, facts_of(path), {name: value})
    return value


def architectures(paths: Sequence[str | os.PathLike] | str) -> str:
    """Return the architectures of one or more weights files of stage 1, joined by plus signs.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_weights(f"{folder}/a.pt", nn.Linear(2, 3), {"architecture": "resnext50_32x4d"})
        ...     architectures([f"{folder}/a.pt", f"{folder}/a.pt"])
        'resnext50_32x4d+resnext50_32x4d'
    """
    return "+".join(str(fact(path, "architecture")) for path in _listed(paths))


def image_size(path: str | os.PathLike) -> int:
    """Return the side length of the square training images of a network.

    Raises:
        ValueError: if the file is missing, is not a weights file, or does not contain the size.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_weights(f"{folder}/model.pt", nn.Linear(2, 3), {"image_size": 512})
        ...     image_size(f"{folder}/model.pt")
        512
    """
    found = fact(path, "image_size")
    if isinstance(found, bool) or not isinstance(found, int) or found < 1:
        raise ValueError(f"expected an image_size in pixels in {path}, got {found!r}; train it again")
    return found


def short_name(path: str | os.PathLike) -> str:
    """Return a readable name of a weights file: its folder, its name, and the beginning of its hash.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Path(folder, "train").mkdir()
        ...     Path(folder, "train", "model.pt").touch()
        ...     name, sha256 = short_name(Path(folder, "train", "model.pt")).split(", sha256 ")
        >>> name, len(sha256)
        ('train/model.pt', 12)
    """
    path = Path(path)
    return f"{path.parent.name}/{path.name}, sha256 {file_sha256(path)[:12]}"
