"""The end of a grader's training: its temperature, which is stored in its weights file, and plots of its grades."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from bundle.handlers.scores import ScoreGrades
from bundle.handlers.training_state import validate_last_weights
from bundle.metrics.calibration import Calibration, as_logits, calibrate
from bundle.metrics.grading import grading_scores
from bundle.networks.graders import NO_SHIFT, prior_shift
from ignite.engine import Engine, Events

SCORES = ("accuracy", "accuracy_majority", "quadratic_kappa", "auroc")

Confusion = Callable[[Path, np.ndarray, np.ndarray], None]
Reliability = Callable[[Path, np.ndarray, np.ndarray, float, Sequence[float]], None]


class FitTemperature:
    """Handler that fits one temperature on the validation fold when training has finished (Guo et al., ICML 2017).

    The fold is used neither for training nor for testing. It is evaluated again if the last validation did not use the
    weights of the last epoch. Without a held-out fold, the temperature stays 1 and ``calibration`` None.

    Args:
        validator: engine that evaluates the fold.
        scorer: attached to the validator.
        class_weights: the five class weights of the loss; their logarithm is subtracted from the logits, as in stage 1
            (:func:`bundle.networks.graders.prior_shift`). None if all classes had the same weight.

    Raises:
        ValueError: if there are not five class weights, or one is negative or not finite.

    Example:
        >>> fitted = FitTemperature(Engine(lambda engine, batch: None), ScoreGrades(ids=[]))
        >>> fitted.facts()  # before the end of the training, and where nothing is held out
        {'temperature': 1.0, 'calibration_images': 0}
    """

    def __init__(self, validator: Engine, scorer: ScoreGrades, class_weights: Sequence[float] | None = None) -> None:
        self.validator, self.scorer = validator, scorer
        self.prior_shift = NO_SHIFT if class_weights is None else prior_shift(class_weights)
        self.calibration: Calibration | None = None

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        if not self.scorer.ids:
            engine.logger.info("no fold is held out: no temperature was fitted, it stays 1")
            return
        validate_last_weights(self.validator, engine)
        probabilities, grades = self.scorer.arrays()
        self.calibration = calibrate(as_logits(probabilities), grades, self.prior_shift)
        engine.state.metrics.update({f"calibration/{name}": v for name, v in self.calibration._asdict().items()})

    @property
    def temperature(self) -> float:
        """The fitted temperature, or 1."""
        return 1.0 if self.calibration is None else self.calibration.temperature

    def facts(self) -> dict[str, float | None]:
        """Return temperature and scores of the fold for the weights file; ``calibration_images`` is 0 without a fold.

        ``validation_*`` scores the network's own output, ``calibration_*`` the output that stage 1 uses, without the
        class weights. ``calibration_ece_scaled`` and ``calibration_nll_scaled`` are out of sample
        (:class:`bundle.metrics.calibration.Calibration`), and None if the fold is too small.
        """
        found = {"images": 0} if self.calibration is None else self.calibration._asdict()
        rest = {f"calibration_{name}": value for name, value in found.items() if name != "temperature"}
        return {"temperature": self.temperature, **rest, **self._scores()}

    def _scores(self) -> dict[str, float]:
        """Return the scores of the last weights on the fold, with the accuracy of its most frequent grade."""
        scores = {} if self.calibration is None else grading_scores(*self.scorer.arrays())
        return {f"validation_{name}": scores[f"grade/{name}"] for name in SCORES if scores}


class DrawGrades:
    """Handler that plots the last weights' grades of the validation fold; attach it after :class:`FitTemperature`.

    It writes ``confusion.png`` and ``reliability.png``, or nothing if no fold is held out.

    Args:
        fitted: provides the temperature and the scorer of the fold.
        output_dir: folder of the plots.
        confusion: plots probabilities and true grades to a file.
        reliability: plots the same, and the effect of the temperature after the class weights are removed.
    """

    def __init__(self, fitted: FitTemperature, output_dir: str, confusion: Confusion, reliability: Reliability) -> None:
        self.fitted, self.output_dir = fitted, Path(output_dir)
        self.confusion, self.reliability = confusion, reliability

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        if self.fitted.calibration is None:
            return
        probabilities, grades = self.fitted.scorer.arrays()
        self.confusion(self.output_dir / "confusion.png", probabilities, grades)
        heard = self.fitted.temperature, self.fitted.prior_shift
        self.reliability(self.output_dir / "reliability.png", probabilities, grades, *heard)
