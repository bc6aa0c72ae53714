"""Random streams: everything random is a function of one seed and of what it is for.

The latent draws behind a score are also functions of the row that is scored, so that
its score does not depend on its neighbours, its position, the batch or the call.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

import numpy as np

# The largest seed that numpy and scikit-learn take.
MAX_SEED = 2**32 - 1

# How far a row's pixels carry its draws around the unit circle: rows that differ by a
# hundredth of the value range in one pixel are ten turns apart, while float32
# rounding of the same row moves its draws by some 1e-4 of a turn.
_TURNS = 1024.0

# More draws than this take the same points again, turned further, so that memory stays
# bounded.
_MAX_POINTS = 4096


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


class RowDraws(NamedTuple):
    """How a row x (n_pixels,) gets its standard normal draws.

    Draw k in latent dimension j is the normal quantile of
    u = points[k % P, j] + (k // P) turn[j] + x . projection[:, j] + offset[j], modulo
    1, where P is the number of points.
    """

    points: np.ndarray  # (P, latent_dim), in [0, 1)
    turn: np.ndarray  # (latent_dim,), in [0, 1)
    projection: np.ndarray  # (n_pixels, latent_dim)
    offset: np.ndarray  # (latent_dim,), in [0, 1)


def row_draws(seed: int, n_draws: int, n_pixels: int, latent_dim: int) -> RowDraws:
    """Make the row draws of a seed.

    The points are a Latin hypercube (McKay, Beckman and Conover 1979), rotated for
    each row (Cranley and Patterson 1976): each u is uniform on [0, 1), so that the
    importance weights stay unbiased, and in each latent dimension the draws spread
    evenly, which lowers their variance against independent draws.
    """
    rng = stream(seed, Stream.ROW_DRAWS)
    offset, turn = rng.random((2, latent_dim))
    projection = _TURNS * rng.standard_normal((n_pixels, latent_dim))
    n_points = min(n_draws, _MAX_POINTS)
    strata = np.tile(np.arange(n_points), (latent_dim, 1))
    points = stream(seed, Stream.ROW_DRAWS, n_points).permuted(strata, axis=1).T
    return RowDraws(points / n_points, turn, projection, offset)
