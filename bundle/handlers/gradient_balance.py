"""Whether the two tasks pull the shared encoder the same way: the paper's motive, as a curve."""

import torch
from bundle.engines import Batch, called_with, to_device
from bundle.hypergradient import loss_gradients
from bundle.losses import CategoricalFocalLoss
from ignite.engine import Engine, Events
from monai.networks.utils import train_mode
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity


class GradientBalance:
    """After some epochs, compare the gradients of both tasks on the encoder, on the batch that came last.

    With ``g_S = grad L_S`` and ``g_C = grad L_C`` by the encoder's parameters, ``balance/cosine`` is
    ``<g_S, g_C> / (|g_S| |g_C|)``, below 0 where the tasks pull against each other, and ``balance/norm_ratio`` is
    ``beta |g_C| / |g_S|``. The grading loss is against the initial labels, so that the curve is the same thing with and
    without updates of the labels. In float32; the network and its gradients are left as they are. An average over
    processes is not taken: it is the main process's batch.

    Args:
        tasks: the multi-task network, bare.
        loss: of both tasks.
        beta: weight of the grading loss.
        every: epochs from one value to the next.

    Reference:
        Du et al., "Adapting Auxiliary Losses Using Gradient Similarity", 2018, for the cosine.
    """

    def __init__(self, tasks: nn.Module, loss: CategoricalFocalLoss, beta: float, every: int = 1) -> None:
        self.tasks, self.loss, self.beta, self.every = tasks, loss, beta, every

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.EPOCH_COMPLETED(every=self.every), self)

    def __call__(self, engine: Engine) -> None:
        """Put both numbers into ``engine.state.metrics``."""
        lesions, grade = self.gradients(to_device(engine.state.batch, engine.state.device))
        engine.state.metrics["balance/cosine"] = cosine_similarity(lesions, grade, dim=0).item()
        engine.state.metrics["balance/norm_ratio"] = (self.beta * grade.norm() / lesions.norm()).item()

    def gradients(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return ``g_S`` and ``g_C``, each as one vector."""
        parameters = dict(self.tasks.named_parameters())
        encoder = {name: value for name, value in parameters.items() if name.startswith("network.encoder.")}
        found = []
        for task, label, weight in (("lesions", "lesions", None), ("grade", "initial", batch["weight"])):
            with train_mode(self.tasks), torch.enable_grad():
                logits = called_with(self.tasks, parameters, batch["image"], amp=False)[task]
                gradients = loss_gradients(self.loss(logits, batch[label], weight), encoder)
                found.append(torch.cat([gradient.flatten() for gradient in gradients.values()]))
        return found[0], found[1]
