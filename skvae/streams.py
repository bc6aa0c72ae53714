"""Random streams: everything random is a function of one seed and of what it is for."""

from __future__ import annotations

from enum import IntEnum

import numpy as np

# The largest seed that numpy and scikit-learn take.
MAX_SEED = 2**32 - 1


class Stream(IntEnum):
    """What a random stream is for. The numbers are part of what a seed means."""

    INITIAL_WEIGHTS = 0
    VALIDATION_SPLIT = 1
    PERMUTATION = 2
    NOISE = 3
    ROW_DRAWS = 4
    SAMPLES = 5
    SAMPLER = 6


def stream(seed: int, purpose: Stream, index: int = 0) -> np.random.Generator:
    """Random generator for one purpose (and epoch, or number of points) of a seed."""
    return np.random.default_rng((seed, purpose, index))
