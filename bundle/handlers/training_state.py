"""Resumption of an interrupted training after its last complete epoch, with the same result."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from bundle.distributed import is_main, rank
from bundle.networks.weights import read_weights, save_weights, save_whole
from ignite.engine import Engine, Events
from monai.data import Dataset
from monai.transforms import Randomizable


class SeedEpochs:
    """Handler that seeds torch and the data set's random transforms from the run's seed and the epoch number.

    An epoch then draws the same numbers whether earlier epochs ran in this process or in one that was killed.

    Args:
        seed: seed of the run.
        dataset: data set with the random transforms.

    Example:
        >>> engine = Engine(lambda engine, batch: torch.rand(1).item())
        >>> SeedEpochs(0, Dataset([])).attach(engine)
        >>> engine.run([0], max_epochs=2).output == engine.run([0], max_epochs=2).output
        True
    """

    def __init__(self, seed: int, dataset: Dataset) -> None:
        self.seed, self.dataset = seed, dataset

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.EPOCH_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        seed = (self.seed * 1_000_003 + rank()) * 100_003 + engine.state.epoch
        torch.manual_seed(seed)
        if isinstance(self.dataset.transform, Randomizable):
            self.dataset.transform.set_random_state(seed=seed % 2**32)


class TrainingState:
    """Handler that saves the state after every epoch but the last to one file, and resumes from it.

    The state of the last epoch is the weights file itself; :class:`DropState` removes the state file at the end.

    Args:
        path: the state file.
        parts: objects with ``state_dict`` and ``load_state_dict``, by name; None for a part that is switched off.
        settings: settings that must be the same on resuming, such as the manifest's hash.
        resume: resume from the file if it exists.

    Raises:
        ValueError: on attaching, if the file was written with other settings or parts, or already has all epochs.

    Example:
        >>> import tempfile
        >>> parts = {"network": torch.nn.Linear(2, 3)}
        >>> engines = [Engine(lambda engine, batch: None) for _ in range(2)]
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for engine in engines:
        ...         engine.state.max_epochs = 3
        ...         TrainingState(f"{folder}/state.pt", parts, {"seed": 0}, resume=True).attach(engine)
        ...         print("after epoch", engine.state.epoch)
        ...         _ = engine.run([0])
        after epoch 0
        after epoch 2
    """

    def __init__(self, path: str, parts: Mapping[str, Any], settings: Mapping[str, Any], resume: bool) -> None:
        self.path, self.settings, self.resume = Path(path), dict(settings), resume
        self.parts = {name: part for name, part in parts.items() if part is not None}

    def attach(self, engine: Engine) -> None:
        if self.resume and self.path.is_file():
            self._restore(engine)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        if engine.state.epoch >= engine.state.max_epochs or not is_main():
            return
        states = {name: part.state_dict() for name, part in self.parts.items()}
        progress = {"epoch": engine.state.epoch, "iteration": engine.state.iteration}
        save_whole(self.path, {"settings": self.settings, "progress": progress, "parts": states})

    def _restore(self, engine: Engine) -> None:
        content = read_weights(self.path)
        self._check(content, engine.state.max_epochs)
        for name, part in self.parts.items():
            part.load_state_dict(content["parts"][name])
        engine.state.epoch = content["progress"]["epoch"]
        engine.state.iteration = content["progress"]["iteration"]
        engine.logger.info(f"going on after epoch {engine.state.epoch} of {self.path}")

    def _check(self, content: Mapping[str, Any], max_epochs: int) -> None:
        changed = _changed(content["settings"], self.settings)
        changed += sorted(set(self.parts) ^ set(content["parts"]))
        if changed:
            raise ValueError(
                f"{self.path} was written with other settings ({', '.join(changed)}); start again with "
                f"`--resume False`, or give the same settings"
            )
        # Ignite would treat such a run as finished, and train its weights again from the first epoch.
        if content["progress"]["epoch"] >= max_epochs:
            raise ValueError(
                f"expected max_epochs above the {content['progress']['epoch']} that {self.path} has, got {max_epochs}; "
                f"start again with `--resume False`, or give more epochs"
            )


def _changed(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Return the names of the settings that differ, including nested ones."""
    names = []
    for key in sorted({*old, *new}):
        if isinstance(old.get(key), Mapping) and isinstance(new.get(key), Mapping):
            names += _changed(old[key], new[key])
        elif old.get(key) != new.get(key):
            names.append(key)
    return names


def validate_last_weights(validator: Engine, trainer: Engine) -> None:
    """Run a validator again if its last validation did not use the trainer's current weights.

    Example:
        >>> trainer, validator = (Engine(lambda engine, batch: None) for _ in range(2))
        >>> trainer.state.epoch, validator.run = 7, lambda epoch: print("validated at epoch", epoch)
        >>> validate_last_weights(validator, trainer)
        validated at epoch 7
    """
    if validator.state.epoch != trainer.state.epoch:
        validator.run(trainer.state.epoch)


class Fitted(Protocol):
    """Interface of values that are fitted to the trained network before its weights are saved."""

    def attach(self, engine: Engine) -> None:
        """Fit when the given training engine has finished."""

    def facts(self) -> Mapping[str, Any]:
        """Return the facts for the weights file."""


class SaveWeights:
    """Handler that writes the weights file when training has finished.

    The weights are those of the last epoch, or their moving average: nothing is selected on a validation or test score.

    Args:
        path: the weights file.
        network: the network to save.
        facts: facts needed to build the network again.
        fitted: values fitted first when training has finished; their facts go into the file too.

    Example:
        >>> import tempfile
        >>> from bundle.networks.weights import load_weights
        >>> engine = Engine(lambda engine, batch: None)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     SaveWeights(f"{folder}/model.pt", torch.nn.Linear(2, 3), {"image_size": 512}).attach(engine)
        ...     _ = engine.run([0], max_epochs=2)
        ...     load_weights(torch.nn.Linear(2, 3), f"{folder}/model.pt")
        {'image_size': 512, 'epochs': 2, 'steps': 2}
    """

    def __init__(
        self, path: str, network: torch.nn.Module, facts: Mapping[str, Any], fitted: Sequence[Fitted] = ()
    ) -> None:
        self.path, self.network, self.facts, self.fitted = path, network, dict(facts), list(fitted)

    def attach(self, engine: Engine) -> None:
        for values in self.fitted:
            values.attach(engine)
        engine.add_event_handler(Events.COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        if is_main():
            fitted = {name: value for values in self.fitted for name, value in values.facts().items()}
            trained = {"epochs": engine.state.epoch, "steps": engine.state.iteration}
            save_weights(self.path, self.network, {**self.facts, **trained, **fitted})


class DropState:
    """Handler that removes the training state when training has finished.

    Attach it last, even after the record of the run: if that fails, only the last epoch has to be repeated.

    Args:
        path: the state file.
    """

    def __init__(self, path: str) -> None:
        self.path = Path(path)

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        if is_main():
            self.path.unlink(missing_ok=True)
