"""What the training of a multi-task network ends with: a threshold for each lesion, which its weights file knows."""

from typing import Any

from bundle.handlers.scores import ScoreLesions
from bundle.handlers.training_state import validate_last_weights
from ignite.engine import Engine, Events

UNFITTED = 0.5
"""Threshold of a lesion that the held-out fold does not have, where others were fitted."""


class FitThresholds:
    """Choose for each lesion the threshold with the best pooled Dice on the validation fold, when training has ended.

    Dice is taken at the photographs' own size (:meth:`LesionScores.best_thresholds`). The fold is evaluated once more
    if the last validation was of other weights than the last epoch's. A lesion that the fold does not have keeps 0.5,
    and is named. Nothing is fitted where no fold is held out, or where the fold is the test as well: ``thresholds`` is
    None then, and the most probable class decides.

    Args:
        validator: evaluates the fold.
        scorer: attached to it.
        fold_is_test: the fold is what the network will be tested on, for want of a test split.

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
        """Return what a weights file says: the thresholds, and on how many photographs with the lesion each rests."""
        return {"lesion_thresholds": self.thresholds, "lesion_threshold_images": self.images}
