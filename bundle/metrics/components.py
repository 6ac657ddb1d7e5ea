"""Connected components of a lesion, and how many of them a predicted mask finds."""

# flake8: noqa: N803, N806

import cv2
import numpy as np


def components(outline_HW: np.ndarray) -> tuple[int, np.ndarray]:
    """Count the connected components (8 neighbours) of a bool mask and number their pixels ``(H, W)``, from 1.

    Example:
        >>> count, numbers = components(np.array([[1, 0, 0, 1], [0, 1, 0, 1]], dtype=bool))
        >>> count, numbers.tolist()
        (2, [[1, 0, 0, 2], [0, 1, 0, 2]])
    """
    count, numbers_HW = cv2.connectedComponents(np.ascontiguousarray(outline_HW).view(np.uint8), connectivity=8)
    return count - 1, numbers_HW


def touched_components(predicted_HW: np.ndarray, outline_HW: np.ndarray) -> tuple[int, int]:
    """Return how many outlined components the prediction touches, and the total number of components.

    A component (8 neighbours) is touched if at least one of its pixels is predicted as the lesion. One predicted region
    may touch several, and pixels that it covers outside of them do not count against it.

    Args:
        predicted_HW: bool.
        outline_HW: bool.

    Example:
        >>> outline = np.array([[1, 0, 0, 1], [0, 1, 0, 1]], dtype=bool)  # two components: one is diagonal
        >>> touched_components(np.array([[0, 0, 1, 1], [0, 0, 0, 0]], dtype=bool), outline)
        (1, 2)
    """
    count, numbers_HW = components(outline_HW)
    return len(np.unique(numbers_HW[predicted_HW & outline_HW])), count
