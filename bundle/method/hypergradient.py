"""The exact gradient of a meta loss with respect to soft labels, without double backward.

The training loss is linear in the soft label ``u``: ``L_C = mean_{n,c} w_n u_nc l_nc(theta)``. After one
plain gradient step ``theta+ = theta - eps * grad L(theta)``, the chain rule gives, with
``v = grad L_meta(theta+)``,

    dL_meta(theta+)/du_nc = - eps * beta / (N C) * w_n * <v, grad l_nc(theta)>

and the inner products are one Jacobian-vector product of the class losses along ``v``: forward mode,
no graph of the step is kept (MAXL, Liu et al., NeurIPS 2019, keeps it and differentiates twice).
"""

# flake8: noqa: N803, N806, N815

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

Parameters = Mapping[str, Tensor]
Average = Callable[[Sequence[Tensor]], Sequence[Tensor]]


class Tangents(NamedTuple):
    """Result of one virtual step for the labels.

    Attributes:
        inner_NC: ``<v, grad l_nc(theta)>`` for every image and class.
        meta_loss: ``L_meta(theta+)``.
        direct_NC: derivative of ``L_meta`` by the labels at fixed ``theta+``; None if they do not occur in it.
    """

    inner_NC: Tensor
    meta_loss: Tensor
    direct_NC: Tensor | None


def call_with(module: nn.Module, parameters: Parameters, image: Tensor) -> Any:  # noqa: ANN401
    """Call a module with other parameters, in float32; batch norm updates clones of its buffers.

    Example:
        >>> layer = nn.Linear(2, 1, bias=False)
        >>> call_with(layer, {"weight": torch.tensor([[1.0, 2.0]])}, torch.ones(1, 2))
        tensor([[3.]])
    """
    buffers = {name: value.clone() for name, value in module.named_buffers()}
    with torch.autocast(image.device.type, enabled=False):
        return functional_call(module, {**dict(parameters), **buffers}, (image,))


def loss_gradients(loss: Tensor, parameters: Parameters, average: Average = list) -> dict[str, Tensor]:
    """Return the gradients by name; they are zero for parameters that the loss does not use. ``.grad`` stays as it is.

    Args:
        loss: ``()``, with a graph.
        parameters: parameters to differentiate by.
        average: averages gradients over the processes of a distributed training, each with a part of the batch.

    Example:
        >>> parameters = {"a": torch.tensor(3.0, requires_grad=True), "b": torch.tensor(1.0, requires_grad=True)}
        >>> loss_gradients(parameters["a"] ** 2, parameters)
        {'a': tensor(6.), 'b': tensor(0.)}
    """
    gradients = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
    pairs = zip(gradients, parameters.values(), strict=True)
    filled = [torch.zeros_like(value) if gradient is None else gradient for gradient, value in pairs]
    return dict(zip(parameters, average(filled), strict=True))


def virtual_step(
    gradients: Parameters, parameters: Parameters, virtual_lr: float, learned: Collection[str]
) -> dict[str, Tensor]:
    """Return ``theta - virtual_lr * gradient`` as fresh leaves; only those named in ``learned`` require a gradient.

    Example:
        >>> step = virtual_step({"a": torch.tensor(6.0)}, {"a": torch.tensor(3.0)}, virtual_lr=0.5, learned=["a"])
        >>> step["a"]
        tensor(0., requires_grad=True)
    """
    return {
        name: (value.detach() - virtual_lr * gradients[name]).requires_grad_(name in learned)
        for name, value in parameters.items()
    }


def label_tangents(
    gradients: Parameters,
    meta_loss: Callable[[Parameters], tuple[Tensor, Tensor | None]],
    class_losses: Callable[[Parameters], Tensor],
    parameters: Parameters,
    label_parameters: Parameters,
    virtual_lr: float,
    average: Average = list,
) -> Tangents:
    """Return ``<v, grad l_nc(theta)>`` for every image and class, and the meta loss at ``theta+``.

    ``v`` is needed for the label parameters alone, so the others are constants at ``theta+``: no gradients are computed
    and no activations are kept for them.

    Args:
        gradients: of the training loss ``L(theta)``, with the current labels held fixed, by name.
        meta_loss: ``L_meta(theta+)`` with the labels held fixed, and its derivative by the labels or None.
        class_losses: ``l_nc(theta)``, ``(N, C)``; may read ``label_parameters`` only.
        parameters: ``theta``, by name.
        label_parameters: the part of ``theta`` that ``class_losses`` reads.
        virtual_lr: ``eps``.
        average: averages gradients over processes, as in :func:`loss_gradients`; ``gradients`` are averages already.

    Raises:
        ValueError: if ``virtual_lr`` is not positive, or the label parameters are not among the parameters.

    Shape:
        - output: ``(N, C)`` and ``()``, without a graph.

    Example:
        >>> theta = {"a": torch.tensor(1.0)}
        >>> class_losses = lambda primal: torch.stack([primal["a"], primal["a"] ** 2])[None]
        >>> meta_loss = lambda stepped: (3 * stepped["a"], None)
        >>> label_tangents({"a": torch.tensor(2.0)}, meta_loss, class_losses, theta, theta, virtual_lr=0.25)
        Tangents(inner_NC=tensor([[3., 6.]]), meta_loss=tensor(1.5000), direct_NC=None)
    """
    if not virtual_lr > 0:
        raise ValueError(f"expected virtual_lr > 0, got {virtual_lr}")
    if not set(label_parameters) <= set(parameters):
        unknown = sorted(set(label_parameters) - set(parameters))[:3]
        raise ValueError(f"expected label parameters out of the parameters, got also {unknown}")
    with torch.enable_grad():
        stepped = virtual_step(gradients, parameters, virtual_lr, set(label_parameters))
        loss, direct_NC = meta_loss(stepped)
        direction = loss_gradients(loss, {name: stepped[name] for name in label_parameters}, average)
    del stepped
    with torch.no_grad():
        primal = {name: value.detach() for name, value in label_parameters.items()}
        inner_NC = torch.func.jvp(class_losses, (primal,), (direction,))[1]
    return Tangents(inner_NC.detach(), loss.detach(), None if direct_NC is None else direct_NC.detach())


def label_gradient(inner_NC: Tensor, weight: Tensor, beta: float, virtual_lr: float) -> Tensor:
    """Return ``dL_meta(theta+)/du_nc = - virtual_lr * beta / (N C) * w_n * inner_nc``.

    Shape:
        - inner_NC, output: ``(N, C)``.
        - weight: ``(N,)``.

    Example:
        >>> label_gradient(torch.tensor([[3.0, 6.0]]), torch.ones(1), beta=1.0, virtual_lr=0.5)  # -0.5 * 3 / 2, ...
        tensor([[-0.7500, -1.5000]])
    """
    return -virtual_lr * beta / inner_NC.numel() * weight.unsqueeze(1) * inner_NC
