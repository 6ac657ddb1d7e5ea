"""Trivial predictors: their names, and how the keys of their scores end."""

BASELINES = {
    "_predicting_nothing": "predicting no lesion",
    "_predicting_everywhere": "this lesion everywhere",
    "_random": "random scores",
    "_majority": "always the most frequent grade",
    "_training_majority": "always the most frequent grade in training",
    "_dealt": "the same grades, dealt out at random",
}
"""Trivial predictors by the ending of their score's key."""


def split_ending(key: str) -> tuple[str, str] | None:
    """Split the key of a trivial score into the score and its predictor; None for the score of a network.

    Example:
        >>> split_ending("test/lesions/dice_EX_predicting_nothing"), split_ending("grade/accuracy_training_majority")
        (('test/lesions/dice_EX', 'predicting_nothing'), ('grade/accuracy', 'training_majority'))
        >>> split_ending("grade/accuracy") is None
        True
    """
    endings = [ending for ending in BASELINES if key.endswith(ending)]
    if not endings:
        return None
    longest = max(endings, key=len)
    return key.removesuffix(longest), longest.removeprefix("_")
