"""Random streams, each determined by a seed and a purpose."""

from __future__ import annotations

from enum import IntEnum
from numbers import Integral

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
    CALIBRATION_SPLIT = 7


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


def draw_seed(random_state: int | np.random.RandomState | None) -> int:
    """A seed from `random_state`.

    None takes it from the operating system: numpy's global generator is the host's.
    """
    if random_state is None:
        return int(np.random.SeedSequence().generate_state(1)[0])
    if isinstance(random_state, np.random.RandomState):
        return int(random_state.randint(2**31 - 1))
    if not isinstance(random_state, Integral) or not 0 <= random_state <= MAX_SEED:
        msg = (
            f"random_state must be an integer from 0 to {MAX_SEED}, a RandomState "
            f"instance or None, got {random_state!r}."
        )
        raise ValueError(msg)
    return int(random_state)
