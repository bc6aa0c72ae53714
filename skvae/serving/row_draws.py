"""The latent draws behind a score: functions of a seed and of the row that is scored.

So a row's score does not depend on its neighbours, its position, the batch or the call.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri

from skvae.serving.sums import sum_last_axis
from skvae.streams import Stream, stream

# How far a row's pixels carry its draws around the unit circle: rows that differ by a
# hundredth of the value range in one pixel are ten turns apart, while float32
# rounding of the same row moves its draws by some 1e-4 of a turn.
_TURNS = 1024.0

# More draws than this take the same points again, turned further, so that memory stays
# bounded.
_MAX_POINTS = 4096


@dataclass(frozen=True)
class RowDraws:
    """Standard normal draws of rows x (n_pixels,).

    Draw k in latent dimension j is the normal quantile of
    u = points[k % P, j] + (k // P) turn[j] + x . projection[j] + offset[j], modulo 1,
    where P is the number of points. The points are a Latin hypercube (McKay, Beckman
    and Conover 1979), shifted for each row (Cranley and Patterson 1976): each u is
    uniform on [0, 1), so that importance weights stay unbiased, and in each latent
    dimension the draws spread evenly, which lowers their variance against independent
    draws.

    Attributes
    ----------
    points : (P, latent_dim), in [0, 1)
    turn : (latent_dim,), in [0, 1)
    projection : (latent_dim, n_pixels)
    offset : (latent_dim,), in [0, 1)
    """

    points: np.ndarray
    turn: np.ndarray
    projection: np.ndarray
    offset: np.ndarray

    def shift(self, rows: np.ndarray) -> np.ndarray:
        """How far rows (n, n_pixels) of float64 shift the points: (n, latent_dim)."""
        # One latent at a time: there may be many, of large images.
        shifts = [sum_last_axis(rows * pixels) for pixels in self.projection]
        return np.stack(shifts, axis=1) + self.offset

    def normal(self, shift: np.ndarray, draws: range) -> np.ndarray:
        """Draws of rows with these shifts: (n, len(draws), latent_dim)."""
        turns, places = np.divmod(np.arange(draws.start, draws.stop), len(self.points))
        turned = self.points[places] + turns[:, None] * self.turn
        uniform = (turned + shift[:, None, :]) % 1.0
        # 0 and 1 have no finite quantile.
        return ndtri(np.clip(uniform, 1e-16, 1 - 1e-16))

    @property
    def n_bytes(self) -> int:
        """Memory that it takes."""
        return self.points.nbytes + self.projection.nbytes


def row_draws(seed: int, n_draws: int, n_pixels: int, latent_dim: int) -> RowDraws:
    """Make the row draws of a seed."""
    rng = stream(seed, Stream.ROW_DRAWS)
    offset, turn = rng.random((2, latent_dim))
    projection = _TURNS * rng.standard_normal((n_pixels, latent_dim))
    n_points = min(n_draws, _MAX_POINTS)
    strata = np.tile(np.arange(n_points), (latent_dim, 1))
    points = stream(seed, Stream.ROW_DRAWS, n_points).permuted(strata, axis=1).T
    return RowDraws(points / n_points, turn, np.ascontiguousarray(projection.T), offset)
