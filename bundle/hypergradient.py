"""The exact gradient of a meta loss with respect to soft labels, without double backward.

The training loss is linear in the soft label ``u``: ``L_C = mean_{n,c} w_n u_nc l_nc(theta)``. After one
plain gradient step ``theta+ = theta - eps * grad L(theta)``, the chain rule gives, with
``v = grad L_meta(theta+)``,

    dL_meta(theta+)/du_nc = - eps * beta / (N C) * w_n * <v, grad l_nc(theta)>

and the inner products are one Jacobian-vector product of the class losses along ``v``: forward mode,
no graph of the step is kept (MAXL, Liu et al., NeurIPS 2019, keeps it and differentiates twice).
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

Parameters = Mapping[str, Tensor]
Average = Callable[[Sequence[Tensor]], Sequence[Tensor]]


def virtual_step(loss: Tensor, parameters: Parameters, virtual_lr: float, average: Average = list) -> dict[str, Tensor]:
    """Return ``theta - virtual_lr * dloss/dtheta`` as fresh leaves; ``theta`` and its ``.grad`` stay as they are."""
    gradients = average(_gradients(loss, parameters))
    return {
        name: (value.detach() - virtual_lr * gradient).requires_grad_()
        for (name, value), gradient in zip(parameters.items(), gradients, strict=True)
    }


def _gradients(loss: Tensor, parameters: Parameters) -> list[Tensor]:
    """Differentiate; a parameter that the loss does not read has gradient zero."""
    found = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
    pairs = zip(found, parameters.values(), strict=True)
    return [torch.zeros_like(value) if gradient is None else gradient for gradient, value in pairs]


def label_tangents(
    training_loss: Callable[[Parameters], Tensor],
    meta_loss: Callable[[Parameters], Tensor],
    class_losses: Callable[[Parameters], Tensor],
    parameters: Parameters,
    label_parameters: Parameters,
    virtual_lr: float,
    average: Average = list,
) -> tuple[Tensor, Tensor]:
    """Return ``<v, grad l_nc(theta)>`` for every image and class, and the meta loss at ``theta+``.

    Args:
        training_loss: ``L(theta)`` with the current labels held fixed.
        meta_loss: ``L_meta(theta+)``; must not depend on the labels.
        class_losses: ``l_nc(theta)``, ``(N, C)``; may read ``label_parameters`` only.
        parameters: ``theta``, by name.
        label_parameters: the part of ``theta`` that ``class_losses`` reads.
        virtual_lr: ``eps``.
        average: of gradients over the processes of a distributed training, where each has a part of the batch.

    Raises:
        ValueError: if ``virtual_lr`` is not positive or the label parameters are no part of the parameters.

    Shape:
        - output: ``(N, C)`` and ``()``, both without a graph.
    """
    if not virtual_lr > 0:
        raise ValueError(f"expected virtual_lr > 0, got {virtual_lr}")
    if not set(label_parameters) <= set(parameters):
        strangers = sorted(set(label_parameters) - set(parameters))[:3]
        raise ValueError(f"expected label parameters out of the parameters, got also {strangers}")
    with torch.enable_grad():
        stepped = virtual_step(training_loss(parameters), parameters, virtual_lr, average)
        loss = meta_loss(stepped)
        gradients = _gradients(loss, {name: stepped[name] for name in label_parameters})
    direction = dict(zip(label_parameters, average(gradients), strict=True))
    with torch.no_grad():
        primal = {name: value.detach() for name, value in label_parameters.items()}
        tangents = torch.func.jvp(class_losses, (primal,), (direction,))[1]
    return tangents.detach(), loss.detach()


def label_objective(labels: Tensor, tangents: Tensor, weight: Tensor, beta: float, virtual_lr: float) -> Tensor:
    """Return a scalar whose gradient through ``labels`` is ``dL_meta(theta+)/dlabels``.

    ``- virtual_lr * beta * mean_{n,c} w_n u_nc tangent_nc``; its value means nothing, its gradient is exact.

    Shape:
        - labels, tangents: ``(N, C)``.
        - weight: ``(N,)``.
        - output: ``()``.
    """
    return -virtual_lr * beta * (weight.unsqueeze(1) * labels * tangents).mean()
