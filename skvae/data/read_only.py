"""Read-only arrays, whose derived results can be cached."""

from __future__ import annotations

import numpy as np


def is_read_only(array: np.ndarray) -> bool:
    """Check that an array, and every array that it is a view of, is read-only."""
    viewed: object = array
    while isinstance(viewed, np.ndarray):
        if viewed.flags.writeable:
            return False
        viewed = viewed.base
    return True


def read_only(array: np.ndarray) -> np.ndarray:
    """Return the array itself if it is read-only, else a read-only copy."""
    if is_read_only(array):
        return array
    copy = np.array(array)
    copy.flags.writeable = False
    return copy
