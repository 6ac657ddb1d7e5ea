"""The exact gradient of a meta loss with respect to soft labels, without double backward.

The training loss is linear in the soft label ``u``: ``L_C = mean_{n,c} w_n u_nc l_nc(theta)``. After one
plain gradient step ``theta+ = theta - eps * grad L(theta)``, the chain rule gives, with
``v = grad L_meta(theta+)``,

    dL_meta(theta+)/du_nc = - eps * beta / (N C) * w_n * <v, grad l_nc(theta)>

and the inner products are one Jacobian-vector product of the class losses along ``v``: forward mode,
no graph of the step is kept (design section 5; MAXL, Liu et al., NeurIPS 2019, keeps it).
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

Parameters = Mapping[str, Tensor]


def virtual_step(loss: Tensor, parameters: Parameters, virtual_lr: float) -> dict[str, Tensor]:
    """Return ``theta - virtual_lr * dloss/dtheta`` as fresh leaves; ``theta`` and its ``.grad`` stay as they are."""
    gradients = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
    stepped = {}
    for (name, value), gradient in zip(parameters.items(), gradients, strict=True):
        moved = value.detach() if gradient is None else value.detach() - virtual_lr * gradient
        stepped[name] = moved.requires_grad_()
    return stepped


def label_tangents(
    training_loss: Callable[[Parameters], Tensor],
    meta_loss: Callable[[Parameters], Tensor],
    class_losses: Callable[[Parameters], Tensor],
    parameters: Parameters,
    label_parameters: Parameters,
    virtual_lr: float,
) -> tuple[Tensor, Tensor]:
    """Return ``<v, grad l_nc(theta)>`` for every image and class, and the meta loss at ``theta+``.

    Args:
        training_loss: ``L(theta)`` with the current labels held fixed.
        meta_loss: ``L_meta(theta+)``; must not depend on the labels.
        class_losses: ``l_nc(theta)``, ``(N, C)``; may read ``label_parameters`` only.
        parameters: ``theta``, by name.
        label_parameters: the part of ``theta`` that ``class_losses`` reads.
        virtual_lr: ``eps``.

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
        stepped = virtual_step(training_loss(parameters), parameters, virtual_lr)
        loss = meta_loss(stepped)
        names = list(label_parameters)
        gradients = torch.autograd.grad(loss, [stepped[name] for name in names], allow_unused=True)
    direction = {
        name: torch.zeros_like(stepped[name]) if gradient is None else gradient
        for name, gradient in zip(names, gradients, strict=True)
    }
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
