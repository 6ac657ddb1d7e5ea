"""What is fitted after training: temperature, thresholds, areas, sets of grades, what is unlike it, a grade head."""

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from bundle.handlers.joint_scores import largest_found_px
from bundle.handlers.scores import ScoreGrades, ScoreLesions, Scorer, graded_images
from bundle.handlers.training_state import validate_last_weights
from bundle.labels import GRADES, LEAST_PPM, LESIONS
from bundle.metrics.calibration import Calibration, as_logits, calibrate
from bundle.metrics.grade_sets import check_coverage, fit_quantiles, grades_fitted_together
from bundle.metrics.grading import grading_scores
from bundle.metrics.likeness import PHOTOGRAPHS_MIN, Likeness, fit_likeness
from bundle.metrics.presence import areas_that_count_ppm
from bundle.networks.grade_head import GradeHead, fit_grade_head
from bundle.networks.graders import NO_SHIFT, prior_shift
from ignite.engine import Engine, Events
from torch import Tensor

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
        if self.calibration is None:
            return {"temperature": self.temperature, "calibration_images": 0}
        effect = {f"calibration_{name}": value for name, value in self.calibration._asdict().items()}
        del effect["calibration_temperature"]
        scores = grading_scores(*self.scorer.arrays())
        of_fold = {f"validation_{name}": scores[f"grade/{name}"] for name in SCORES}
        return {"temperature": self.temperature, **effect, **of_fold}


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
        temperature, prior_shift = self.fitted.temperature, self.fitted.prior_shift
        self.reliability(self.output_dir / "reliability.png", probabilities, grades, temperature, prior_shift)


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


FITTED_ON = ("fold", "train")
"""First words of the subsets that may be used for fitting; a test set used for fitting is no longer a test set."""


def refuse_test(subset: str, what: str) -> None:
    """Refuse to fit on a subset that is or contains a test set.

    Example:
        >>> refuse_test("fold 0", "areas")
        >>> refuse_test("test", "areas")
        Traceback (most recent call last):
            ...
        ValueError: expected a held-out fold or a training part to fit areas on, got test; leave the test for scores
    """
    if not subset.startswith(FITTED_ON):
        raise ValueError(
            f"expected a held-out fold or a training part to fit {what} on, got {subset}; leave the test for scores"
        )


class FitPresence(Scorer):
    """Scorer that fits the smallest area at which each lesion is present (:func:`areas_that_count_ppm`).

    A network trained only on outlined photographs has seen no healthy eye, and finds lesions on each one. These
    findings are small; the grades of held-out photographs, which are cheap, show how small.

    Args:
        ids: graded photographs that count.
        subset: name of their subset, as returned by :func:`bundle.datasets.splits.scored`.
        thresholds: thresholds of the lesions (:func:`lesion_decision`); None: the most probable class decides.
        least_ppm: area below which nothing counts, in millionths of the field of view.

    Raises:
        ValueError: if the subset is or contains a test set; at the end of the evaluation, if no photograph was graded.

    Example:
        >>> FitPresence(["7"], subset="test")
        Traceback (most recent call last):
            ...
        ValueError: expected a held-out fold or a training part to fit areas on, got test; leave the test for scores
    """

    def __init__(
        self, ids: Sequence[str], subset: str, thresholds: Sequence[float] | None = None, least_ppm: float = LEAST_PPM
    ) -> None:
        refuse_test(subset, "areas")
        self.ids, self.subset, self.thresholds, self.least_ppm = set(ids), subset, thresholds, least_ppm
        self.reset()

    def reset(self) -> None:
        """Forget the images of an earlier evaluation."""
        self.largest_ppm: list[list[float]] = []
        self.grades: list[int] = []
        self.areas_ppm: dict[str, float] = {}

    def update(self, engine: Engine) -> None:
        """Measure the largest component of each lesion on each photograph of a batch."""
        batch, lesions = engine.state.batch, engine.state.output["lesions"]
        for index, grade in graded_images(batch, self.ids):
            areas_px = largest_found_px(lesions[index], self.thresholds, batch["geometry"][index])
            field_px = float(batch["field_px"][index])
            self.largest_ppm.append([1e6 * areas_px[lesion] / field_px for lesion in LESIONS])
            self.grades.append(grade)

    def compute(self, engine: Engine) -> None:
        """Fit the areas and write them to ``engine.state.metrics``."""
        if not self.grades:
            raise ValueError(f"expected graded photographs in {self.subset} to fit areas on, found none")
        self.areas_ppm = areas_that_count_ppm(np.array(self.largest_ppm), self.grades, least_ppm=self.least_ppm)
        engine.state.metrics.update({f"presence/min_area_ppm_{lesion}": a for lesion, a in self.areas_ppm.items()})

    def intervals(self) -> dict[str, tuple[float, float]]:
        """Return no intervals: the areas are settings, not scores."""
        return {}

    def facts(self) -> dict[str, Any]:
        """Return the areas for the weights file; a lesion that no grade in the subset rules out keeps ``least_ppm``."""
        areas_ppm = {lesion: self.areas_ppm.get(lesion, self.least_ppm) for lesion in LESIONS}
        return {"min_area_ppm": areas_ppm, "min_area_fitted_on": f"{len(self.grades)} photographs of {self.subset}"}


class FitGradeSets(ScoreGrades):
    """Scorer that fits the limits of the sets of likely grades (:func:`bundle.metrics.grade_sets.fit_quantiles`).

    The sets are about the probabilities of the grade head, which inference reports as they are.

    Args:
        ids: graded photographs that count.
        subset: name of their subset, as returned by :func:`bundle.datasets.splits.scored`.
        coverage: how often a set must contain the true grade, between 0 and 1.

    Raises:
        ValueError: if the subset is or contains a test set, or the coverage is not between 0 and 1; at the end of the
            evaluation, if no photograph was graded.

    Example:
        >>> import torch
        >>> engine = Engine(lambda engine, batch: {"grade": torch.tensor([[0.5, 0.25, 0.25, 0.0, 0.0]] * 2)})
        >>> fit = FitGradeSets(["7", "8"], subset="fold 0", coverage=0.5)
        >>> fit.attach(engine)
        >>> _ = engine.run([{"id": ["7", "8"], "grade": torch.tensor([0, 1])}])
        >>> fit.facts()["grade_sets"]["quantiles"]  # both sets have the true grade if they take 1 too
        [0.5, 0.5, 0.5, 0.5, 0.5]
    """

    def __init__(self, ids: Sequence[str], subset: str, coverage: float = 0.9) -> None:
        refuse_test(subset, "sets of grades")
        check_coverage(coverage)
        super().__init__(ids)
        self.subset, self.coverage = subset, coverage
        self.quantiles: tuple[float, ...] = ()

    def compute(self, engine: Engine) -> None:
        """Fit the limits and write them to ``engine.state.metrics``."""
        if not self.grades:
            raise ValueError(f"expected graded photographs in {self.subset} to fit sets of grades on, found none")
        self.quantiles = fit_quantiles(*self.arrays(), self.coverage)
        engine.state.metrics.update({f"grade_sets/quantile_{grade}": q for grade, q in enumerate(self.quantiles)})

    def intervals(self) -> dict[str, tuple[float, float]]:
        """Return no intervals: the limits are settings, not scores."""
        return {}

    def facts(self) -> dict[str, Any]:
        """Return the limits for the weights file, the grades that share one, and what they were fitted on."""
        counts = [self.grades.count(grade) for grade in GRADES]
        together = [list(group) for group in grades_fitted_together(counts, self.coverage)]
        fitted_on = f"{len(self.grades)} photographs of {self.subset}"
        sets = {"coverage": self.coverage, "quantiles": list(self.quantiles), "fitted_together": together}
        return {"grade_sets": {**sets, "fitted_on": fitted_on}}


class FitLikeness(Scorer):
    """Scorer that fits which photographs are unlike the training ones, from their features (:func:`fit_likeness`).

    Args:
        training: ids of the training photographs, to which others are compared.
        held_out: ids of other photographs, on which the limit rests too; may be empty.

    Example:
        >>> from torch import randn
        >>> fit = FitLikeness(training=[str(number) for number in range(40)], held_out=[])
        >>> engine = Engine(lambda engine, batch: {"features": randn(1, 3)})
        >>> fit.attach(engine)
        >>> _ = engine.run([{"id": [str(number)]} for number in range(41)])
        >>> fit.facts()["likeness_fitted_on"]
        '40 training photographs'
    """

    def __init__(self, training: Sequence[str], held_out: Sequence[str]) -> None:
        self.training, self.held_out = set(training), set(held_out)
        self.reset()

    def reset(self) -> None:
        """Forget the images of an earlier evaluation."""
        self.features: dict[str, np.ndarray] = {}
        self.likeness: Likeness | None = None

    def update(self, engine: Engine) -> None:
        """Keep the features of the photographs of a batch."""
        features_ND = engine.state.output["features"].float().cpu().numpy()
        self.features |= dict(zip(engine.state.batch["id"], features_ND, strict=True))

    def compute(self, engine: Engine) -> None:
        """Fit the likeness, if there are enough training photographs, and write its limit to the engine's metrics."""
        training, others = self._of(self.training), self._of(self.held_out)
        if len(training) < PHOTOGRAPHS_MIN:
            engine.logger.info(f"{len(training)} training photographs: too few to say what is unlike them")
            return
        self.likeness = fit_likeness(training, others if len(others) else None)
        engine.state.metrics["likeness/limit"] = self.likeness.limit

    def intervals(self) -> dict[str, tuple[float, float]]:
        """Return no intervals: the likeness is a setting, not a score."""
        return {}

    def facts(self) -> dict[str, Any]:
        """Return the likeness for the weights file, and what it was fitted on; None if nothing was fitted."""
        if self.likeness is None:
            return {"likeness": None, "likeness_fitted_on": None}
        held_out = f", its limit also on {len(self._of(self.held_out))} held-out ones" if self.held_out else ""
        fitted_on = f"{len(self._of(self.training))} training photographs{held_out}"
        return {"likeness": self.likeness.facts(), "likeness_fitted_on": fitted_on}

    def _of(self, ids: Collection[str]) -> np.ndarray:
        return np.array([features for name, features in self.features.items() if name in ids])


class FitGradeHead(Scorer):
    """Scorer that fits another grade head to the features of graded photographs (:func:`fit_grade_head`).

    Args:
        fold_of: fold of each photograph that is fitted to, by id.
        inputs: number of features that the head takes, the last of :func:`bundle.networks.explained.pooled_features`.

    Raises:
        ValueError: at the end of the evaluation, as :func:`fit_grade_head`.

    Example:
        >>> from torch import eye, tensor
        >>> fit = FitGradeHead(fold_of={"a": 0, "b": 1, "c": 0, "d": 1}, inputs=2)
        >>> engine = Engine(lambda engine, batch: {"features": eye(5)[:4]})
        >>> fit.attach(engine)
        >>> _ = engine.run([{"id": ["a", "c", "b", "d"], "grade": tensor([0, 2, 0, 2])}])
        >>> fit.tensors()["grade_head.weight"].shape, fit.facts()["grade_head"]["photographs"]
        (torch.Size([5, 2]), 4)
    """

    def __init__(self, fold_of: Mapping[str, int], inputs: int) -> None:
        self.fold_of, self.inputs = dict(fold_of), inputs
        self.reset()

    def reset(self) -> None:
        """Forget the images of an earlier evaluation."""
        self.features: list[np.ndarray] = []
        self.grades: list[int] = []
        self.folds: list[int] = []
        self.head: GradeHead | None = None

    def update(self, engine: Engine) -> None:
        """Keep features and grades of the photographs of a batch."""
        batch = engine.state.batch
        features_ND = engine.state.output["features"][:, -self.inputs :].float().cpu().numpy()
        for index, grade in graded_images(batch, self.fold_of):
            self.features.append(features_ND[index])
            self.grades.append(grade)
            self.folds.append(self.fold_of[batch["id"][index]])

    def compute(self, engine: Engine) -> None:
        """Fit the head, and write its loss on left-out photographs to the engine's metrics."""
        self.head = fit_grade_head(np.array(self.features), self.grades, self.folds)
        engine.state.metrics["grade_head/log_loss"] = self.head.log_loss

    def intervals(self) -> dict[str, tuple[float, float]]:
        """Return no intervals: the head is fitted, not scored."""
        return {}

    def tensors(self) -> dict[str, Tensor]:
        """Return the layer for the weights file (:meth:`GradeHead.tensors`)."""
        return self._fitted().tensors()

    def facts(self) -> dict[str, Any]:
        """Return how the head was fitted, for the weights file."""
        head = self._fitted()
        how = {"photographs": len(self.grades), "strength": head.strength, "left_out_log_loss": head.log_loss}
        return {"grade_head": how}

    def _fitted(self) -> GradeHead:
        if self.head is None:
            raise ValueError("expected an evaluation of graded photographs before their grade head, got none; run it")
        return self.head
