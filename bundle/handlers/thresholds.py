"""The end of multi-task training: a threshold for each lesion, which is stored in the weights file."""

from typing import Any

from bundle.handlers.scores import ScoreLesions
from bundle.handlers.training_state import validate_last_weights
from ignite.engine import Engine, Events

UNFITTED = 0.5
"""Threshold of a lesion that is missing from the held-out fold, if others were fitted."""


class FitThresholds:
    """Handler that fits each lesion's threshold for the best pooled Dice on the validation fold after training.

    Dice is computed at native size (:meth:`LesionScores.best_thresholds`). The fold is evaluated again if the last
    validation did not use the weights of the last epoch. A lesion that is missing from the fold keeps 0.5, and is named
    in the log. Nothing is fitted if no fold is held out, or if the fold is also the test set: ``thresholds`` is then
    None, and the most probable class decides.

    Args:
        validator: engine that evaluates the fold.
        scorer: attached to the validator.
        fold_is_test: whether the network will be tested on the fold because there is no test split.

    Example:
        >>> from bundle.manifest import Manifest
        >>> manifest = Manifest(name="clinic", roots={}, folds=2, seed=0, photographs=())
        >>> FitThresholds(Engine(lambda engine, batch: None), ScoreLesions(manifest, rows=[])).facts()
        {'lesion_thresholds': None, 'lesion_threshold_images': None}
    """

    def __init__(self, validator: Engine, scorer: ScoreLesions, fold_is_test: bool = False) -> None:
        self.validator, self.scorer, self.fold_is_test = validator, scorer, fold_is_test
        self.thresholds: dict[str, float] | None = None
        self.images: dict[str, int] | None = None

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        if self.fold_is_test or not self.scorer.rows:
            why = "the held-out fold is also the test" if self.fold_is_test else "no fold is held out"
            engine.logger.info(f"{why}: no lesion thresholds were fitted, the most probable class decides")
            return
        validate_last_weights(self.validator, engine)
        classes, fitted = self.scorer.scores.classes, self.scorer.scores.best_thresholds()
        self.thresholds = {lesion: fitted.get(lesion, UNFITTED) for lesion in classes}
        self.images = {lesion: int(self.validator.state.metrics[f"lesions/images_{lesion}"]) for lesion in classes}
        engine.state.metrics.update({f"lesions/threshold_{lesion}": value for lesion, value in fitted.items()})
        if unfitted := [lesion for lesion in classes if lesion not in fitted]:
            engine.logger.info(f"the fold has no {', '.join(unfitted)}: not fitted, the threshold stays {UNFITTED}")

    def facts(self) -> dict[str, Any]:
        """Return facts for the weights file: the thresholds, and the number of photographs with each lesion."""
        return {"lesion_thresholds": self.thresholds, "lesion_threshold_images": self.images}
