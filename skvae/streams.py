"""Random streams, each determined by a seed and a purpose."""

from __future__ import annotations

from enum import IntEnum

import numpy as np

# Largest seed that numpy and scikit-learn accept.
MAX_SEED = 2**32 - 1


class Stream(IntEnum):
    """Purpose of a random stream. The results of a seed depend on these numbers."""

    INITIAL_WEIGHTS = 0
    VALIDATION_SPLIT = 1
    PERMUTATION = 2
    NOISE = 3
    ROW_DRAWS = 4
    SAMPLES = 5
    SAMPLER = 6


def stream(seed: int, purpose: Stream, index: int = 0) -> np.random.Generator:
    """Create the random generator of a seed for one purpose.

    Parameters
    ----------
    seed : int
    purpose : Stream
    index : int, default=0
        Epoch or number of points, for a purpose that has one stream for each.
    """
    return np.random.default_rng((seed, purpose, index))
