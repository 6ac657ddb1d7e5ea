"""Weights files of this bundle: they say which network they belong to, and load into no other."""

import copy
import importlib
import inspect
import os
import pkgutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from bundle.files import file_sha256
from bundle.label_maps import check_thresholds
from bundle.labels import LEAST_PPM, LESIONS, smallest_areas_ppm
from bundle.networks.bare_weights import read_description, without_folders
from bundle.networks.graded_network import GradedNetwork
from bundle.networks.graders import NO_SHIFT, Grader, prior_shift
from bundle.networks.multitask_unet import MultiTaskUNet
from bundle.networks.pretrained import read_weights
from bundle.networks.segmenters import GradedSegmenter
from bundle.networks.torch_file import save_whole
from torch import Tensor, nn

NEEDED = {
    MultiTaskUNet.__name__: ("width", "batch_norm", "decoder_norm"),
    GradedSegmenter.__name__: ("architecture", "encoder_name"),
}
"""Settings without which there is no telling what was trained; the others were not yet to be chosen in old files."""


def save_weights(path: str | os.PathLike, network: nn.Module, facts: Mapping[str, Any]) -> None:
    """Write ``{"model": state dict, "network": class name, "facts": facts}``.

    The settings of a :class:`GradedNetwork` stand among the facts, so that the file builds it again.

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
    """Write a weights file again with its kernels in 16 bits, half as large, to hand it on.

    Vectors (biases, batch norm and its statistics) stay in 32 bits. Loading widens the kernels again. A path among the
    facts is shortened to its name.

    Raises:
        ValueError: if there is no such file, it is no weights file, or a weight is beyond what 16 bits hold (65504).

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


def say_also(source: str | os.PathLike, target: str | os.PathLike, facts: Mapping[str, Any]) -> None:
    """Write a weights file again with further facts: what was fitted for weights that are trained already.

    Raises:
        ValueError: if there is no such file, or it is no weights file.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_weights(f"{folder}/model.pt", nn.Linear(2, 3), {"image_size": 512})
        ...     say_also(f"{folder}/model.pt", f"{folder}/model.pt", {"min_area_ppm": 3.0})
        ...     facts_of(f"{folder}/model.pt")
        {'image_size': 512, 'min_area_ppm': 3.0}
    """
    content = _read(source)
    save_whole(target, {**content, "facts": {**content["facts"], **facts}})


def load_weights(
    network: nn.Module, path: str | os.PathLike, expected: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Fill a network from a file of :func:`save_weights` and return the facts that stand in it.

    Args:
        network: to fill.
        path: of the file.
        expected: facts that must stand in it, such as the manifest's hash.

    Raises:
        ValueError: if the file is missing, is no weights file, belongs to another network, or says another fact.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_weights(f"{folder}/model.pt", nn.Linear(2, 3), {"image_size": 512})
        ...     load_weights(nn.Linear(2, 3), f"{folder}/model.pt")
        {'image_size': 512}
    """
    return _fill(network, _read(path), path, expected)


def filled(network: nn.Module, path: str | os.PathLike, expected: Mapping[str, Any] | None = None) -> nn.Module:
    """Return a network after :func:`load_weights`: what a config calls where another part takes the network.

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
    """Build the network that a weights file names, by the settings among its facts, and fill it.

    It is in evaluation mode and does not learn. Its class is one of ``bundle/networks/``; for no other is anything
    imported.

    Raises:
        ValueError: if the file is missing, is no weights file, names another class, does not say a setting, or says one
            that the class refuses or that its tensors do not fit.

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
    build, facts = _class_named(content["network"], path), content["facts"]  # refuses a name that is none
    if missing := [setting for setting in NEEDED.get(content["network"], ()) if setting not in facts]:
        raise ValueError(
            f"expected {path} to say its {missing[0]}, found nothing: the file is older than that; train it again"
        )
    with torch.device("meta"):  # so that a file that names a width without bounds takes no memory
        _check_sizes(_built(build, facts, path), content["model"], path)
    network = _built(build, facts, path)
    _fill(network, content, path, {})
    return network.eval().requires_grad_(False)


def _class_named(name: object, path: str | os.PathLike) -> Callable[..., GradedNetwork]:
    """Find a class of this room; its files are imported if none that is loaded has it."""
    name = name if isinstance(name, str) else repr(name)
    if name not in _classes():
        for module in pkgutil.iter_modules([str(Path(__file__).parent)]):
            importlib.import_module(f"{__package__}.{module.name}")
    known = _classes()
    if name not in known:
        raise ValueError(f"expected weights of a network among {sorted(known)} in {path}, got weights of {name!r}")
    return known[name]


def _classes() -> dict[str, Callable[..., GradedNetwork]]:
    kinds = _subclasses(GradedNetwork)
    return {kind.__name__: kind for kind in kinds if kind.__module__.startswith(f"{__package__}.")}


def _subclasses(kind: type[Any]) -> Iterator[type[Any]]:
    below: list[type[Any]] = kind.__subclasses__()
    for one in below:
        yield one
        yield from _subclasses(one)


def _built(build: Callable[..., GradedNetwork], facts: Mapping[str, Any], path: str | os.PathLike) -> GradedNetwork:
    known = set(inspect.signature(build).parameters) - {"pretrained"}
    settings = {name: value for name, value in facts.items() if name in known}
    if facts.get("fuse"):
        settings.setdefault("lesion_classes", 1)  # older files say only that the lesions were fused
    try:
        return build(pretrained=False, **settings)
    except (ValueError, TypeError, ArithmeticError, RuntimeError) as error:  # the last for sizes beyond 64 bits
        name = getattr(build, "__name__", "a network")
        raise ValueError(f"expected settings of {name} in {path}, got {settings}: {error}") from error


def _check_sizes(network: nn.Module, state: Mapping[str, Tensor], path: str | os.PathLike) -> None:
    expected, found = (
        {name: list(value.shape) for name, value in one.items()} for one in (network.state_dict(), state)
    )
    for name in {**expected, **found}:
        if expected.get(name) != found.get(name):
            raise ValueError(
                f"expected weights of the {type(network).__name__} that {path} names, with {name} of shape "
                f"{expected.get(name)}, got {found.get(name)}; its facts belong to other weights"
            )


def load_teacher(network: nn.Module, path: str | os.PathLike, expected: Mapping[str, Any] | None = None) -> nn.Module:
    """Return a copy of a network that is filled from a file and does not learn; the network stays as it is.

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
            f"give the settings that they were trained with: {content['facts']}"
        ) from error
    return content["facts"]


def check_facts(path: str | os.PathLike, facts: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Refuse weights that were made under other facts than they are used under.

    A switch that a file does not name was off.

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
    """Refuse weights of one fused lesion class where the four lesions are needed apart.

    Raises:
        ValueError: if the file is missing, is no weights file, or its lesions were fused.
    """
    if _read(path)["facts"].get("fuse"):
        raise ValueError(
            f"expected weights that tell the four lesions apart in {path}, got weights trained with fuse: true: the "
            f"report and the rules need the lesions apart. Such weights can only be evaluated; train with fuse: false"
        )


def load_grader(
    path: str | os.PathLike, expected: Mapping[str, Any] | None = None, heat_map_stride: int = 32
) -> Grader:
    """Build the grader that a weights file of stage 1 belongs to, with its temperature and the shift of its prior.

    Args:
        path: of the file.
        expected: facts that must stand in it.
        heat_map_stride: where Grad-CAM is to look (:class:`bundle.networks.graders.Grader`).

    Raises:
        ValueError: if the file is missing, is no weights file, holds no grader of five grades, says another fact,
            names a temperature or class weights that are none, or is of a network that is not cut at that stride.
    """
    content = _read(path)
    architecture = content["facts"].get("architecture")
    if content["network"] != Grader.__name__ or architecture is None:
        raise ValueError(f"expected weights of a grader in {path}, got weights of {content['network']}")
    grader = Grader(architecture, pretrained=False, heat_map_stride=heat_map_stride)
    grader.temperature, grader.prior_shift = temperature_and_shift(_fill(grader, content, path, expected), path)
    return grader


def temperature_and_shift(facts: Mapping[str, Any], path: str | os.PathLike) -> tuple[float, tuple[float, ...]]:
    """Return what makes probabilities of a grader's logits: ``softmax(z / T - shift)``.

    A file that names no temperature was never calibrated, one that names no class weights was trained without.

    Args:
        facts: of the grader's weights file.
        path: of that file, for the message.

    Raises:
        ValueError: if the temperature or the class weights are none.

    Example:
        >>> temperature_and_shift({"temperature": 1.5, "class_weights": [1.0, 1.0, 0.5, 1.0, 2.0]}, "model.pt")
        (1.5, (0.0, 0.0, -0.6931471805599453, 0.0, 0.6931471805599453))
        >>> temperature_and_shift({}, "model.pt")
        (1.0, (0.0, 0.0, 0.0, 0.0, 0.0))
    """
    return _temperature(facts, path), _shift(facts, path)


def _shift(facts: Mapping[str, Any], path: str | os.PathLike) -> tuple[float, ...]:
    found = facts.get("class_weights")
    if found is None:
        return NO_SHIFT
    try:
        return prior_shift(found if isinstance(found, (list, tuple)) else [found])
    except ValueError as error:
        raise ValueError(f"{error} in {path}; train this grader anew") from None


def _temperature(facts: Mapping[str, Any], path: str | os.PathLike) -> float:
    found = facts.get("temperature", 1.0)
    if not isinstance(found, (int, float)) or not 0 < found <= sys.float_info.max:  # NaN fails as well
        raise ValueError(f"expected a temperature above 0 in {path}, got {found!r}; train this grader anew")
    return float(found)


def lesion_thresholds(path: str | os.PathLike | None) -> tuple[float, ...] | None:
    """Return the threshold of each lesion, in the order of the network's channels, that was fitted for these weights.

    Returns:
        One number for each of ``LESIONS``, or one where the lesions were fused; None where none was fitted, as in files
        that say nothing of it, or there is no file: the most probable class decides.

    Raises:
        ValueError: if the file is missing, is no weights file, or names thresholds that are none.

    Example:
        >>> import tempfile
        >>> facts = {"lesion_thresholds": {"MA": 0.2, "HE": 0.35, "EX": 0.45, "SE": 0.5}}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_weights(f"{folder}/model.pt", nn.Linear(2, 3), facts)
        ...     lesion_thresholds(f"{folder}/model.pt")
        (0.2, 0.35, 0.45, 0.5)
    """
    found = None if path is None else _read(path)["facts"].get("lesion_thresholds")
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
    """Return from which area on each lesion counts as present that these weights find, in millionths of the field.

    Returns:
        What was fitted for these weights; ``LEAST_PPM`` for each lesion where nothing was.

    Raises:
        ValueError: if the file is missing, is no weights file, or names areas that are none.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_weights(f"{folder}/model.pt", nn.Linear(2, 3), {})
        ...     min_area_ppm(f"{folder}/model.pt")
        {'MA': 3.0, 'HE': 3.0, 'EX': 3.0, 'SE': 3.0}
    """
    found = _read(path)["facts"].get("min_area_ppm", LEAST_PPM)
    try:
        return smallest_areas_ppm(found)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


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
    """Build every grader of a list of weights files, each as :func:`load_grader`.

    Raises:
        ValueError: if the list is empty, or for one of the files, as :func:`load_grader`.

    Example:
        >>> load_graders([])
        Traceback (most recent call last):
            ...
        ValueError: expected --graders "['outputs/pretrain/model.pt']": one or more weights of stage 1, got none
    """
    return nn.ModuleList(load_grader(path, expected, heat_map_stride) for path in _listed(paths))


def provenance(path: str | os.PathLike) -> dict[str, Any]:
    """Return what a reader needs to tell which weights these are: path, hash, network and facts."""
    content = _read(path)
    return {"path": str(path), "sha256": file_sha256(path), "network": content["network"], **content["facts"]}


def provenances(paths: Sequence[str | os.PathLike] | str) -> list[dict[str, Any]]:
    """Return the provenance of each of several weights files."""
    return [provenance(path) for path in _listed(paths)]


def _listed(paths: Sequence[str | os.PathLike] | str) -> list[str | os.PathLike]:
    """One file may be given without a list; none is refused, whoever asks for the graders first."""
    if not paths:
        raise ValueError(
            "expected --graders \"['outputs/pretrain/model.pt']\": one or more weights of stage 1, got none"
        )
    return [paths] if isinstance(paths, str) else list(paths)


def facts_of(path: str | os.PathLike) -> dict[str, Any]:
    """Return all facts that stand in a weights file."""
    return _read(path)["facts"]


def fact(path: str | os.PathLike, name: str, otherwise: object = None) -> Any:  # noqa: ANN401  (whatever stands there)
    """Return one fact that stands in a weights file, or ``otherwise`` where it says nothing of it.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_weights(f"{folder}/model.pt", nn.Linear(2, 3), {"taught_grades": [2, 3, 4]})
        ...     fact(f"{folder}/model.pt", "taught_grades"), fact(f"{folder}/model.pt", "fuse", False)
        ([2, 3, 4], False)
    """
    return _read(path)["facts"].get(name, otherwise)


def shared_fact(paths: Sequence[str | os.PathLike] | str, name: str) -> Any:  # noqa: ANN401  (whatever stands there)
    """Return one fact that stands in each of several weights files.

    Raises:
        ValueError: if they do not say the same, or there is none.

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
    """Name the architectures of one weights file or several of stage 1, joined by plus signs.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_weights(f"{folder}/a.pt", nn.Linear(2, 3), {"architecture": "resnext50_32x4d"})
        ...     architectures([f"{folder}/a.pt", f"{folder}/a.pt"])
        'resnext50_32x4d+resnext50_32x4d'
    """
    return "+".join(str(fact(path, "architecture")) for path in _listed(paths))


def image_size(path: str | os.PathLike) -> int:
    """Return the side of the square that a network saw in training.

    Raises:
        ValueError: if the file is missing, is no weights file, or does not say it.

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
    """Name a weights file for a reader: its folder, its name, and the beginning of its hash.

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
