"""Steps of one iteration: callables for the ``iteration_update`` of MONAI's trainer and evaluator."""

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

import torch
from bundle.method.heat_maps import NonFiniteLogits, grade_maps
from bundle.method.losses import CategoricalFocalLoss, GradeWeight, LesionLoss
from bundle.networks.explained import resized_maps
from bundle.networks.graders import Grader
from bundle.networks.precision import depthwise_convolutions, kept_in_float32
from bundle.transforms.lesion_decision import lesion_decision, most_probable_class
from bundle.transforms.prepare import SIDE_MULTIPLE
from monai.engines.utils import IterationEvents
from monai.networks.utils import eval_mode
from torch import Tensor, nn

P = ParamSpec("P")
R = TypeVar("R")
Owner = TypeVar("Owner")


Batch = Mapping[str, Any]


def to_device(batch: Batch, device: torch.device) -> dict[str, Any]:
    """Move the tensors of a batch and convert them for networks and losses; the batch itself is not modified.

    Batches are moved as uint8, a quarter of the size of float32. Images of uint8 are scaled to [0, 1], channels last,
    which is faster for convolutions; label maps become int64.

    Example:
        >>> batch = {"image": torch.full((1, 3, 2, 4), 51, dtype=torch.uint8), "id": ["7"]}
        >>> moved = to_device(batch, torch.device("cpu"))
        >>> moved["image"][0, 0, 0], moved["id"]  # 51 / 255
        (tensor([0.2000, 0.2000, 0.2000, 0.2000]), ['7'])
    """
    moved = {key: value.to(device) if isinstance(value, Tensor) else value for key, value in batch.items()}
    image = moved["image"].contiguous(memory_format=torch.channels_last)
    lesions = {"lesions": moved["lesions"].long()} if "lesions" in moved else {}
    return {**moved, **lesions, "image": image.float().div_(255) if image.dtype == torch.uint8 else image}


def has_bfloat16(device: torch.device) -> bool:
    """Return whether the device computes in bfloat16 natively; emulation would be slower than float32.

    Example:
        >>> has_bfloat16(torch.device("mps"))
        False
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def placed(network: nn.Module | None, device: torch.device) -> nn.Module | None:
    """Move a network to a device, channels last; None, for a network that is switched off, stays None.

    Example:
        >>> layer = placed(nn.Conv2d(3, 4, 3), torch.device("cpu"))
        >>> layer.weight.is_contiguous(memory_format=torch.channels_last), placed(None, torch.device("cpu"))
        (True, None)
    """
    return None if network is None else network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def mixed_precision(device: torch.device, amp: bool) -> torch.autocast:
    """Return autocast to bfloat16 if ``amp`` is set; its range is float32's, so no gradient scaler is needed.

    Example:
        >>> with mixed_precision(torch.device("cpu"), amp=True):
        ...     (torch.ones(2, 3) @ torch.ones(3, 2)).dtype
        torch.bfloat16
    """
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=amp)


@contextmanager
def learning_precision(network: nn.Module, device: torch.device, amp: bool) -> Iterator[None]:
    """Run the forward pass of a training step in :func:`mixed_precision`, but on a CPU depthwise layers in float32.

    Their backward pass is that much slower in bfloat16: a step of a network on EfficientNet-Lite0 takes 1.4 times as
    long with it.
    """
    slow = depthwise_convolutions(network) if amp and device.type == "cpu" else []
    with mixed_precision(device, amp), kept_in_float32(slow, device.type):
        yield


def _learn(engine: Any, loss: Tensor) -> None:  # noqa: ANN401  (MONAI's Trainer sets its attributes at run time)
    engine.fire_event(IterationEvents.LOSS_COMPLETED)
    engine.optimizer.zero_grad(set_to_none=True)
    loss.backward()
    engine.fire_event(IterationEvents.BACKWARD_COMPLETED)
    engine.optimizer.step()
    engine.fire_event(IterationEvents.MODEL_COMPLETED)


def explain_out_of_memory(
    step: Callable[Concatenate[Owner, Any, Mapping[str, Any], P], R],
) -> Callable[Concatenate[Owner, Any, Mapping[str, Any], P], R]:
    """Make a method ``(engine, batch, ...)`` name its batch and the settings to lower when memory runs out.

    Raises:
        RuntimeError: instead of ``torch.OutOfMemoryError``, which is kept as its cause.
    """

    @functools.wraps(step)
    def wrapped(self: Owner, engine: Any, batch: Mapping[str, Any], *args: P.args, **kw: P.kwargs) -> R:  # noqa: ANN401
        try:
            return step(self, engine, batch, *args, **kw)
        except torch.OutOfMemoryError as error:
            count, _, height, width = batch["image"].shape
            asked = " ".join(str(error).split("\n")[0].split())
            raise RuntimeError(
                f"expected {engine.state.device} to hold a step of {count} photographs of {width}x{height} px, got: "
                f"{asked} Lower batch_size or image_size, set amp to true, or take a smaller width"
            ) from error

    return wrapped


class GradingStep:
    """Stage 1: one optimiser step of a grader on true grades.

    Args:
        loss: loss of logits ``(N, 5)`` and grades ``(N,)``.
        amp: bfloat16 in the forward pass.
    """

    def __init__(self, loss: nn.Module, amp: bool = False) -> None:
        self.loss, self.amp = loss, amp

    @explain_out_of_memory
    def __call__(self, engine: Any, batch: Batch) -> dict[str, Tensor]:  # noqa: ANN401
        batch = to_device(batch, engine.state.device)
        engine.network.train()
        with learning_precision(engine.network, engine.state.device, self.amp):
            logits = engine.network(batch["image"])
        engine.fire_event(IterationEvents.FORWARD_COMPLETED)
        loss = self.loss.to(logits.device)(logits.float(), batch["grade"])
        _learn(engine, loss)
        correct = (logits.argmax(dim=1) == batch["grade"]).float().mean()
        return {"loss": loss.detach(), "accuracy": correct}


class Labels(Protocol):
    """Soft grade labels that a network is trained on."""

    def of(self, ids: Sequence[str]) -> Tensor:
        """Return the labels of the given photographs, ``(N, 5)``."""


class MultiTaskStep:
    """Stage 2: one optimiser step of ``L = L_S + beta L_C`` with the current labels (eq. 3 of the paper).

    Args:
        lesion_loss: loss of the outlines.
        grade_loss: loss of the soft grades.
        beta: weight of the grading loss.
        labels: source of the label of each photograph; None takes the initial label from the batch.
        amp: bfloat16 in the forward pass.
        teacher: a trained network that labels photographs on which no lesions were looked for: self-training, as in
            MTUnet for missing masks.
        teacher_thresholds: thresholds of its decision (:func:`lesion_decision`); None takes the most probable class.

    Raises:
        ValueError: if beta is negative.

    Example:
        >>> MultiTaskStep(LesionLoss(), CategoricalFocalLoss(), beta=-0.8)
        Traceback (most recent call last):
            ...
        ValueError: expected beta >= 0, got -0.8
    """

    def __init__(
        self,
        lesion_loss: LesionLoss,
        grade_loss: CategoricalFocalLoss,
        beta: float | GradeWeight,
        labels: Labels | None = None,
        amp: bool = False,
        teacher: nn.Module | None = None,
        teacher_thresholds: Sequence[float] | None = None,
    ) -> None:
        if float(beta) < 0:
            raise ValueError(f"expected beta >= 0, got {beta}")
        self.lesion_loss, self.grade_loss, self.beta = lesion_loss, grade_loss, beta
        self.labels, self.amp, self.teacher, self.teacher_thresholds = labels, amp, teacher, teacher_thresholds

    @explain_out_of_memory
    def __call__(self, engine: Any, batch: Batch) -> dict[str, Tensor]:  # noqa: ANN401
        batch = to_device(batch, engine.state.device)
        engine.network.train()
        with learning_precision(engine.network, engine.state.device, self.amp):
            lesions, looked_for = self._lesions(batch)
            tasks = engine.network(batch["image"])
        engine.fire_event(IterationEvents.FORWARD_COMPLETED)
        lesion_loss = self.lesion_loss(tasks["lesions"], lesions, looked_for)
        labels = batch["initial"] if self.labels is None else self.labels.of(batch["id"]).to(batch["image"].device)
        grade_loss = self.grade_loss(tasks["grade"], labels, batch["weight"])
        loss = lesion_loss + float(self.beta) * grade_loss
        _learn(engine, loss)
        return {"loss": loss.detach(), "lesion_loss": lesion_loss.detach(), "grade_loss": grade_loss.detach()}

    def _lesions(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the label map of each photograph, and the lesions that were looked for on it."""
        outlined = batch["looked_for"].any(dim=1)  # (N,)
        if self.teacher is None or bool(outlined.all()):
            return batch["lesions"], batch["looked_for"]
        lesions = torch.where(outlined.view(-1, 1, 1, 1), batch["lesions"], self.drawn(batch["image"]))
        return lesions, batch["looked_for"] | ~outlined.unsqueeze(1)

    def drawn(self, image: Tensor) -> Tensor:
        """Return the label map that the teacher predicts, ``(N, 1, H, W)``."""
        assert self.teacher is not None
        with torch.no_grad(), eval_mode(self.teacher):
            probabilities = self.teacher(image).float().softmax(dim=1)
        return most_probable_class(lesion_decision(probabilities, self.teacher_thresholds), dim=1)[:, None]


def refuse_idle_teacher(step: MultiTaskStep, photographs: Iterable[Batch], device: torch.device) -> None:
    """Refuse a teacher that predicts no lesions: it would teach that graded photographs have none.

    Args:
        step: step with the teacher; a step without a teacher is never refused.
        photographs: batches of outlined training photographs, which have lesions.
        device: device to run on.

    Raises:
        ValueError: if the teacher predicts no lesion on any of the photographs.
    """
    if step.teacher is None or any(bool(step.drawn(to_device(batch, device)["image"]).any()) for batch in photographs):
        return
    raise ValueError(
        "expected a --teacher that outlines lesions, got one that outlines none on any of the outlined training "
        "photographs: it would teach that graded photographs have none; train it longer, or leave it out"
    )


def refuse_crops_of_grades(crop_px: int | None, beta: float, image_size: int) -> None:
    """Refuse crops if grades are learned: a part of a photograph does not show its grade.

    Args:
        crop_px: side of the crops; None means no crops and is never refused.
        beta: weight of the grading loss.
        image_size: side of the images that the crops are cut from.

    Raises:
        ValueError: if grades are learned, or the side of the crops is not a multiple of 32 up to ``image_size``.

    Example:
        >>> refuse_crops_of_grades(512, beta=0.0, image_size=1440)
        >>> refuse_crops_of_grades(512, beta=0.8, image_size=1440)
        Traceback (most recent call last):
            ...
        ValueError: expected beta 0 with crop_px 512, got 0.8: a crop does not show the grade of its photograph
    """
    if crop_px is None:
        return
    if beta != 0:
        raise ValueError(
            f"expected beta 0 with crop_px {crop_px}, got {beta}: a crop does not show the grade of its photograph"
        )
    if not 0 < crop_px <= image_size or crop_px % SIDE_MULTIPLE:
        raise ValueError(
            f"expected crop_px as a multiple of {SIDE_MULTIPLE} up to image_size {image_size}, got {crop_px}"
        )


class EvaluationStep:
    """Probabilities of all tasks of the network, in evaluation mode and without a graph.

    Example:
        >>> from types import SimpleNamespace as Some
        >>> network = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        >>> engine = Some(network=network, state=Some(device=torch.device("cpu")), fire_event=lambda event: None)
        >>> EvaluationStep()(engine, {"image": torch.zeros(1, 3, 32, 48)})
        {'grade': tensor([[0.3333, 0.3333, 0.3333]])}
    """

    def __init__(self, amp: bool = False) -> None:
        self.amp = amp

    @explain_out_of_memory
    def __call__(self, engine: Any, batch: Batch) -> dict[str, Tensor]:  # noqa: ANN401
        image = to_device(batch, engine.state.device)["image"]
        with eval_mode(engine.network), mixed_precision(image.device, self.amp):
            output = engine.network(image)
        tasks = output if isinstance(output, dict) else {"grade": output}
        engine.fire_event(IterationEvents.FORWARD_COMPLETED)
        engine.fire_event(IterationEvents.MODEL_COMPLETED)
        return {task: logits.float().softmax(dim=1) for task, logits in tasks.items()}


class ExplainedStep:
    """Like :class:`EvaluationStep` for the multi-task network, with Grad-CAM of all five grades and pooled features.

    The engine's network is a :class:`bundle.networks.explained.ExplainedNetwork` or a backend
    (:func:`bundle.deploy.runtimes.load`), whose precision it takes. Maps are in float32 and have the size of the
    images.

    Raises:
        NonFiniteLogits: if a logit of a grade is not finite.

    Example:
        >>> from types import SimpleNamespace as Some
        >>> from bundle.networks.explained import ExplainedNetwork
        >>> from bundle.networks.multitask_unet import MultiTaskUNet
        >>> network = ExplainedNetwork(MultiTaskUNet(pretrained=False, width=1 / 16))
        >>> engine = Some(network=network, state=Some(device=torch.device("cpu")), fire_event=lambda event: None)
        >>> output = ExplainedStep()(engine, {"image": torch.rand(1, 3, 64, 96)})
        >>> {name: tuple(value.shape) for name, value in output.items()}
        {'lesions': (1, 5, 64, 96), 'grade': (1, 5), 'maps': (1, 5, 64, 96), 'features': (1, 36)}
    """

    @explain_out_of_memory
    def __call__(self, engine: Any, batch: Batch) -> dict[str, Tensor]:  # noqa: ANN401
        image = to_device(batch, engine.state.device)["image"]
        network = engine.network
        with eval_mode(network):
            output = {name: value.float() for name, value in network(image).items()}
        engine.fire_event(IterationEvents.FORWARD_COMPLETED)
        engine.fire_event(IterationEvents.MODEL_COMPLETED)
        if broken := (~output["grade"].isfinite().all(dim=1)).nonzero().flatten().tolist():
            raise NonFiniteLogits(network, broken)
        tasks = {task: output[task].softmax(dim=1) for task in ("lesions", "grade")}
        return {**output, **tasks, "maps": resized_maps(output["maps"], image.shape[-2:])}


class ProposalStep:
    """Stage 1: probabilities of every grader for a batch, with the heat maps of all five grades.

    Returns ``probabilities (N, G, 5)`` and ``maps (N, G, 5, H, W)`` for ``G`` graders. A grader's probabilities are
    ``softmax(logits / T - log w)`` with its fitted temperature ``T`` and the class weights ``w`` of its training
    (:func:`bundle.networks.graders.prior_shift`); its maps are of the logits themselves. ``grids`` lists the height and
    width of the activations that each grader's maps were computed on.
    """

    def __init__(self, graders: Sequence[Grader]) -> None:
        self.graders = list(graders)

    @explain_out_of_memory
    def __call__(self, engine: Any, batch: Batch) -> dict[str, Any]:  # noqa: ANN401
        image = to_device(batch, engine.state.device)["image"]
        probabilities, maps, grids = [], [], []
        for grader in self.graders:
            with eval_mode(grader):
                explained = grade_maps(grader.to(image.device), image)
            logits = explained.logits / grader.temperature - torch.tensor(grader.prior_shift)
            probabilities.append(logits.softmax(dim=1))
            maps.append(explained.maps)
            grids.append(explained.grid_hw)
        engine.fire_event(IterationEvents.MODEL_COMPLETED)
        return {"probabilities": torch.stack(probabilities, dim=1), "maps": torch.stack(maps, dim=1), "grids": grids}
