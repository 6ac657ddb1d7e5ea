"""A moving average of a network's weights over training steps, saved in place of the last weights."""

from collections.abc import Mapping
from typing import Any

from ignite.engine import Engine, Events
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


class WeightAverage:
    """Exponential moving average of weights and batch norm statistics over training steps.

    ``mean_t = decay mean_{t-1} + (1 - decay) theta_t``, starting at ``mean_1 = theta_1``. Training itself continues
    with ``theta``. Validation, the values fitted on it and the weights file use :attr:`kept`.

    Args:
        tasks: the network in training.
        decay: in (0, 1); the average covers about ``1 / (1 - decay)`` steps. None keeps the last weights, not averaged.

    Attributes:
        kept: the network whose weights are saved: the average, or ``tasks`` itself.

    Raises:
        ValueError: if the decay is not in (0, 1).

    Example:
        >>> layer = nn.Linear(1, 1, bias=False)
        >>> average = WeightAverage(layer, decay=0.9)
        >>> for value in (2.0, 4.0):
        ...     _ = nn.init.constant_(layer.weight, value), average.update()
        >>> average.kept.weight.item(), WeightAverage(layer, decay=None).kept.weight.item()  # 0.9 2 + 0.1 4
        (2.200000047683716, 4.0)

    Reference:
        Polyak & Juditsky, "Acceleration of stochastic approximation by averaging", SIAM J. Control Optim. 1992.
    """

    def __init__(self, tasks: nn.Module, decay: float | None) -> None:
        if decay is not None and not 0 < decay < 1:
            raise ValueError(f"expected average_decay above 0 and below 1, or null for no average, got {decay}")
        self.tasks = tasks
        self._mean: AveragedModel | None = None
        if decay is not None:
            mean = AveragedModel(tasks, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)
            self._mean = mean.requires_grad_(False)
        self.kept: nn.Module = tasks if self._mean is None else self._mean.module

    def update(self) -> None:
        """Add the current weights to the average."""
        if self._mean is not None:
            self._mean.update_parameters(self.tasks)

    def state_dict(self) -> dict[str, Any]:
        """Return the state that a resumed run needs."""
        return {} if self._mean is None else self._mean.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the state from :meth:`state_dict`."""
        if self._mean is not None:
            self._mean.load_state_dict(dict(state))


class AverageWeights:
    """Handler that adds the weights to their average after every training step.

    Args:
        average: the average.

    Example:
        >>> average, engine = WeightAverage(nn.Linear(1, 1), decay=0.9), Engine(lambda engine, batch: None)
        >>> AverageWeights(average).attach(engine)
        >>> _ = engine.run([0, 0])
        >>> average.state_dict()["n_averaged"]
        tensor(2)
    """

    def __init__(self, average: WeightAverage) -> None:
        self.average = average

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.average.update)
