"""Several trained networks as one: the mean of their probabilities, and what their weights files say together.

Where a function takes weights files, one alone needs no list, and is read as by :mod:`bundle.networks.weights`.
"""

import operator
import os
from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Any, cast

import torch
from bundle.labels import GRADES, LESIONS
from bundle.networks import weights
from bundle.networks.explained import MultiTaskNetwork, resized_maps
from bundle.transforms.prepare import SIDE_MULTIPLE
from torch import Tensor, nn
from torch.nn import functional as F

Paths = Sequence[str | os.PathLike] | str | os.PathLike
"""One weights file, or a list of them."""


class Ensemble(MultiTaskNetwork):
    """Several networks whose probabilities are averaged, of each pixel's class and of the grade.

    ``p = mean_k softmax(z_k)`` is returned as ``log p``: its softmax is ``p`` again, so that whatever takes logits
    takes these. A map is the mean of the networks' maps, each between 0 and 1. In the grade and its maps, networks may
    have other shares than in the lesions.

    Networks that were trained at different sizes each see the eye at their own: the image is for the largest, and the
    others resize it, and their probabilities back.

    Args:
        networks: of any classes and encoders, with the same lesions; they keep their weights and modes.
        image_sizes: side of the square that each was trained on, in pixels.
        grade_shares: weight of each in the mean of the grade, which add up to 1; None for equal ones.

    Shape:
        - image: ``(N, 3, H, W)``, RGB in [0, 1], sides multiples of 32.
        - output: as :class:`MultiTaskNetwork`; ``maps`` at the size of the largest network's deepest features.

    Example:
        >>> from bundle.networks.multitask_unet import MultiTaskUNet
        >>> both = [MultiTaskUNet(pretrained=False, width=1 / 16).eval() for _ in range(2)]
        >>> image = torch.rand(1, 3, 64, 96)
        >>> found = Ensemble(both, image_sizes=[1024, 1024])(image).softmax(dim=1)
        >>> torch.allclose(found, (both[0](image).softmax(dim=1) + both[1](image).softmax(dim=1)) / 2, atol=1e-6)
        True
    """

    def __init__(
        self,
        networks: Sequence[MultiTaskNetwork],
        image_sizes: Sequence[int],
        grade_shares: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)
        self.image_sizes, self.largest = list(image_sizes), max(image_sizes)
        self.lesion_shares = [1 / len(networks)] * len(networks)
        self.grade_shares = self.lesion_shares if grade_shares is None else list(grade_shares)
        self.training = any(network.training for network in networks)

    def forward(self, image: Tensor) -> Tensor:
        return self._lesions(image, [network(seen) for network, seen in self._views(image)])

    def both_tasks(self, image: Tensor) -> dict[str, Tensor]:
        """Return the log of the mean probabilities of both tasks."""
        return self._tasks(image, [network.both_tasks(seen) for network, seen in self._views(image)])

    def explained(self, image: Tensor) -> dict[str, Tensor]:
        """Return the log of the mean probabilities of both tasks, the mean map of each grade, and all features."""
        found = [network.explained(seen) for network, seen in self._views(image)]
        grid_hw = found[self.image_sizes.index(self.largest)]["maps"].shape[-2:]
        maps = _mean([resized_maps(one["maps"], grid_hw) for one in found], self.grade_shares)
        features = torch.cat([one["features"] for one in found], dim=1)
        return {**self._tasks(image, found), "maps": maps, "features": features}

    def ends(self) -> list[nn.Module]:
        """Return the first and last modules of each network."""
        return [module for network in self.networks for module in cast(MultiTaskNetwork, network).ends()]

    def _views(self, image: Tensor) -> list[tuple[Any, Tensor]]:
        """Return each network with the image as it sees it."""
        views = (self._view(image, size) for size in self.image_sizes)
        return list(zip(self.networks, views, strict=True))

    def _view(self, image: Tensor, size: int) -> Tensor:
        """Resize an image by a cubic filter: the photograph was resized by a triangle, and a second would blur it."""
        if size == self.largest:
            return image
        size_hw = [seen_px(side_px, size, self.largest) for side_px in image.shape[-2:]]
        return F.interpolate(image, size_hw, mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)

    def _tasks(self, image: Tensor, found: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        grade = _log_mean([one["grade"].float().softmax(dim=1) for one in found], self.grade_shares)
        return {"lesions": self._lesions(image, [one["lesions"] for one in found]), "grade": grade}

    def _lesions(self, image: Tensor, logits: Sequence[Tensor]) -> Tensor:
        probabilities = [
            one if size == self.largest else F.interpolate(one, image.shape[-2:], mode="bilinear", align_corners=False)
            for one, size in zip((one.float().softmax(dim=1) for one in logits), self.image_sizes, strict=True)
        ]
        return _log_mean(probabilities, self.lesion_shares)


def _mean(values: Sequence[Tensor], shares: Sequence[float]) -> Tensor:
    """Return the weighted mean; NaN stays NaN, even where its share is 0: a broken network is not to be hidden."""
    return reduce(operator.add, map(operator.mul, values, shares))


def _log_mean(probabilities: Sequence[Tensor], shares: Sequence[float]) -> Tensor:
    """Return the log of the weighted mean, finite where the mean is 0."""
    return _mean(probabilities, shares).clamp_min(torch.finfo(torch.float32).tiny).log()


def seen_px(side_px: int, image_size: int, largest: int) -> int:
    """Return at which side a network sees an image that is made for the network of the largest ``image_size``.

    ``side_px * image_size / largest``, rounded up to a multiple of 32; of a whole photograph, its own ``image_size``.

    Example:
        >>> seen_px(1024, 896, 1024), seen_px(512, 896, 1024), seen_px(256, 896, 1024)
        (896, 448, 224)
    """
    # Whole numbers throughout, and no comparison: a trace keeps the rule, and not the number that it gave once.
    step = largest * SIDE_MULTIPLE
    return (side_px * image_size + step - 1) // step * SIDE_MULTIPLE


def listed(paths: Paths) -> list[str | os.PathLike]:
    """Return weights files as a list.

    Raises:
        ValueError: if there is none, or one of them twice.

    Example:
        >>> listed("model.pt")
        ['model.pt']
        >>> listed(["fold0/model.pt", "fold1/../fold0/model.pt"])  # doctest: +NORMALIZE_WHITESPACE
        Traceback (most recent call last):
            ...
        ValueError: expected each weights file once in --checkpoint, got fold0/model.pt and fold1/../fold0/model.pt,
            which are the same: it would count twice; leave one out
    """
    found = [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)
    if not found:
        raise ValueError("expected one weights file or more in --checkpoint, got an empty list; name one, or leave it")
    first: dict[str, str | os.PathLike] = {}
    for path in found:
        same = first.setdefault(os.path.realpath(path), path)
        if same is not path:
            raise ValueError(
                f"expected each weights file once in --checkpoint, got {same} and {path}, which are the same: it "
                f"would count twice; leave one out"
            )
    return found


def only(paths: Paths) -> str | os.PathLike | None:
    """Return the only weights file; None if there are several.

    Example:
        >>> only("model.pt"), only(["a.pt", "b.pt"])
        ('model.pt', None)
    """
    files = listed(paths)
    return files[0] if len(files) == 1 else None


def together(paths: Sequence[str | os.PathLike]) -> str:
    """Name weights files in a message."""
    return " + ".join(map(str, paths))


def network_of(paths: Paths) -> MultiTaskNetwork:
    """Build the network of a weights file, or of several together (:class:`Ensemble`), in evaluation mode and frozen.

    Raises:
        ValueError: as :func:`bundle.networks.weights.network_of` for any file, or if a file is of other lesion classes
            than the first.

    Example:
        >>> import tempfile
        >>> from bundle.networks.multitask_unet import MultiTaskUNet
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     paths = [f"{folder}/{name}.pt" for name in ("fold0", "fold1")]
        ...     for path in paths:
        ...         weights.save_weights(path, MultiTaskUNet(pretrained=False, width=1 / 16), {"image_size": 512})
        ...     type(network_of(paths)).__name__, type(network_of(paths[0])).__name__
        ('Ensemble', 'MultiTaskUNet')
    """
    files = listed(paths)
    networks = [weights.network_of(path) for path in files]
    classes = [network.settings().get("lesion_classes") for network in networks]
    for path, found in zip(files, classes, strict=True):
        if found != classes[0]:
            raise ValueError(f"expected {classes[0]} lesion_classes in {path}, as in {files[0]}, got {found}")
    if len(networks) == 1:
        return networks[0]
    sizes_px = [weights.image_size(path) for path in files]
    return Ensemble(networks, sizes_px, grade_shares(files)).requires_grad_(False)


def grade_shares(paths: Paths) -> list[float]:
    """Return the share of each file's network in the mean of the grade.

    A network that was never taught a grade gives it no probability, whatever it sees: of a healthy eye, the mean with a
    network that knows grades 2 to 4 alone would be moderate. So equal shares go to those that were taught every grade
    that any of them was taught, and none to the others, which count for the lesions. A file that does not say what was
    taught counts as taught all.

    Raises:
        ValueError: if no network was taught all of these grades, or a file has no grades among its ``taught_grades``.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for name, taught in (("a", [0, 1, 2, 3, 4]), ("b", [2, 3, 4])):
        ...         weights.save_weights(f"{folder}/{name}.pt", nn.Linear(2, 3), {"taught_grades": taught})
        ...     grade_shares([f"{folder}/a.pt", f"{folder}/b.pt"])
        [1.0, 0.0]
    """
    files = listed(paths)
    untaught = _untaught(files)
    if all(untaught):
        said = ", ".join(f"{_numbers(grades)} not in {path}" for path, grades in zip(files, untaught, strict=True))
        raise ValueError(
            f"expected one weights file or more that was taught every grade that the others were, got {said}; give "
            f"files that were taught the same grades"
        )
    return [0.0 if grades else 1 / untaught.count([]) for grades in untaught]


def _untaught(files: Sequence[str | os.PathLike]) -> list[list[int]]:
    """Return the grades that each file's network was not taught, but that of another file was."""
    taught = [_taught(path) for path in files]
    known = sorted({grade for grades in taught for grade in grades or ()})
    return [[] if grades is None else [grade for grade in known if grade not in grades] for grades in taught]


def _taught(path: str | os.PathLike) -> list[int] | None:
    found = weights.fact(path, "taught_grades")
    if found is not None and (not isinstance(found, list) or any(grade not in GRADES for grade in found)):
        raise ValueError(f"expected taught_grades as a list of grades in {path}, got {found!r}; train it again")
    return found


def _numbers(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))


def image_size(paths: Paths) -> int:
    """Return the side of the square that photographs are resized to: the largest of the files' ``image_size``.

    Raises:
        ValueError: as :func:`bundle.networks.weights.image_size` for any file.
    """
    return max(weights.image_size(path) for path in listed(paths))


def is_fused(paths: Paths) -> bool:
    """Return whether the lesions of any file were fused."""
    return any(bool(weights.fact(path, "fuse", False)) for path in listed(paths))


def refuse_fused(paths: Paths) -> None:
    """Refuse files of one fused lesion class (:func:`bundle.networks.weights.refuse_fused`)."""
    for path in listed(paths):
        weights.refuse_fused(path)


def check_facts(paths: Paths, expected: Mapping[str, Any]) -> None:
    """Refuse another ``image_size`` or ``fuse`` than that of the files together.

    Raises:
        ValueError: as :func:`bundle.networks.weights.check_facts`.
    """
    found = {"image_size": image_size(paths), "fuse": is_fused(paths)}
    weights.check_facts(together(listed(paths)), found, expected)


def lesion_thresholds(paths: Paths) -> tuple[float, ...] | None:
    """Return the mean of the files' thresholds of each lesion; None if no file has any.

    The mean is not fitted to the mean probabilities. It is the one choice that never overrules the networks where they
    agree: if each one's probability is above its own threshold, the mean probability is above the mean threshold; and
    if none is, it is not. An ensemble of folds leaves no photograph of its data set to fit on, because each was seen
    by all networks but one.

    Raises:
        ValueError: as :func:`bundle.networks.weights.lesion_thresholds` for any file, if some files have thresholds and
            others go by the most probable class, or they have different numbers of them.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for name, number in (("a", 0.25), ("b", 0.5)):
        ...         facts = {"lesion_thresholds": dict.fromkeys(LESIONS, number)}
        ...         weights.save_weights(f"{folder}/{name}.pt", nn.Linear(2, 3), facts)
        ...     lesion_thresholds([f"{folder}/a.pt", f"{folder}/b.pt"])
        (0.375, 0.375, 0.375, 0.375)
    """
    files = listed(paths)
    found = [weights.lesion_thresholds(path) for path in files]
    numbers = [None if one is None else len(one) for one in found]
    for path, number in zip(files, numbers, strict=True):
        if number != numbers[0]:
            raise ValueError(
                f"expected weights files that all have lesion thresholds, or none, got {numbers[0] or 'none'} in "
                f"{files[0]} and {number or 'none'} in {path}; give --lesion_thresholds"
            )
    fitted = [one for one in found if one is not None]
    return tuple(map(_mean_number, zip(*fitted, strict=True))) if fitted else None


def min_area_ppm(paths: Paths) -> dict[str, float]:
    """Return the mean of the areas from which each lesion counts as present in the files' own predictions.

    Like the thresholds, it is not fitted to the networks together.

    Raises:
        ValueError: as :func:`bundle.networks.weights.min_area_ppm` for any file.
    """
    areas = [weights.min_area_ppm(path) for path in listed(paths)]
    return {lesion: _mean_number([one[lesion] for one in areas]) for lesion in LESIONS}


def _mean_number(numbers: Sequence[float]) -> float:
    return sum(numbers) / len(numbers)


def grade_set_quantiles(paths: Paths) -> tuple[float, ...] | None:
    """Return the fitted limits of the sets of likely grades; None for several files, or if the only one has none.

    Limits hold for the probabilities that they were fitted on, and those of several networks together are others.

    Raises:
        ValueError: as :func:`bundle.networks.weights.grade_set_quantiles`.
    """
    path = only(paths)
    return None if path is None else weights.grade_set_quantiles(path)


def likeness_facts(paths: Paths) -> dict[str, Any] | None:
    """Return what tells photographs unlike those trained on; None for several files, or if the only one has none.

    As limits of likely grades do, it holds for the features of the network that it was fitted on.
    """
    path = only(paths)
    return None if path is None else weights.fact(path, weights.LIKENESS)


def grade_sets_in_words(paths: Paths, quantiles: Sequence[float] | None) -> str:
    """Write what the sets of likely grades were fitted to do (:func:`bundle.networks.weights.grade_sets_in_words`)."""
    files = listed(paths)
    of_one = len(files) == 1 or quantiles is None
    return weights.grade_sets_in_words(files[0], quantiles) if of_one else weights.OTHER_LIMITS


def taught_grades(paths: Paths) -> list[int] | None:
    """Return the grades that a training label of any file may have; None if a file does not say."""
    found = [_taught(path) for path in listed(paths)]
    return None if None in found else sorted({grade for one in found for grade in one or ()})


def provenance(paths: Paths) -> dict[str, Any] | list[dict[str, Any]]:
    """Return the provenance of a weights file, or a list with that of each of several."""
    found = weights.provenances(listed(paths))
    return found if len(found) > 1 else found[0]


def names(paths: Paths) -> str:
    """Return the readable name of a weights file, or how many there are and the names of all.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for name in "ab":
        ...         weights.save_weights(f"{folder}/{name}.pt", nn.Linear(2, 3), {})
        ...     found = names([f"{folder}/a.pt", f"{folder}/b.pt"])
        >>> found.split(": ")[0]
        '2 networks, whose probabilities are averaged'
    """
    files = listed(paths)
    found = [
        weights.short_name(path) + (f" (lesions alone: not taught grade {_numbers(grades)})" if grades else "")
        for path, grades in zip(files, _untaught(files), strict=True)
    ]
    said = f"{len(found)} networks, whose probabilities are averaged: " if len(found) > 1 else ""
    return said + "; ".join(found)


def sizes(paths: Paths, image_size: int) -> str:
    """Describe at which sides the networks see a photograph that is resized to ``image_size``.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for name, size in (("a", 896), ("b", 1024)):
        ...         weights.save_weights(f"{folder}/{name}.pt", nn.Linear(2, 3), {"image_size": size})
        ...     sizes([f"{folder}/a.pt", f"{folder}/b.pt"], 1024), sizes(f"{folder}/a.pt", 640)
        ('896 + 1024 px', '640 px')
    """
    if len(listed(paths)) == 1:
        return f"{image_size} px"
    trained = [weights.image_size(path) for path in listed(paths)]
    seen = dict.fromkeys(seen_px(image_size, size, max(trained)) for size in trained)
    return f"{' + '.join(map(str, seen))} px"


def refuse_several(paths: Paths) -> None:
    """Refuse several weights files where something is to be written into one.

    Example:
        >>> refuse_several(["a.pt", "b.pt"])
        Traceback (most recent call last):
            ...
        ValueError: expected one weights file in --checkpoint, to keep what is fitted, got a.pt + b.pt; fit each alone
    """
    if len(files := listed(paths)) > 1:
        raise ValueError(
            f"expected one weights file in --checkpoint, to keep what is fitted, got {together(files)}; fit each alone"
        )
