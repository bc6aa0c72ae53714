"""Arrays that nothing can change, so that what is made of them may be kept."""

from __future__ import annotations

import numpy as np


def is_read_only(array: np.ndarray) -> bool:
    """Whether neither an array nor one that it is a view of can be written to."""
    viewed: object = array
    while isinstance(viewed, np.ndarray):
        if viewed.flags.writeable:
            return False
        viewed = viewed.base
    return True


def read_only(array: np.ndarray) -> np.ndarray:
    """The array itself if it is read-only, else a read-only copy."""
    if is_read_only(array):
        return array
    copy = np.array(array)
    copy.flags.writeable = False
    return copy
