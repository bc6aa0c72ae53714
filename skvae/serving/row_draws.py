"""Latent draws for scores, determined by a seed and the scored row.

A row's score therefore does not depend on other rows, its position, the batch or the
call.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri

from skvae.serving.sums import sum_last_axis
from skvae.streams import Stream, stream

# Scale of the shift of a row's draws by its pixels, in turns of the unit circle. A
# difference of a hundredth of the value range in one pixel shifts them by ten turns,
# float32 rounding of the same row by about 1e-4 of a turn.
_TURNS = 1024.0

# Bounds memory: further draws reuse the points, shifted by another turn.
_MAX_POINTS = 4096


@dataclass(frozen=True)
class RowDraws:
    """Standard normal draws for rows x of shape (n_pixels,).

    Draw k in latent dimension j is the normal quantile of
    u = points[k % P, j] + (k // P) turn[j] + x . projection[j] + offset[j], modulo 1,
    where P is the number of points. The points are a Latin hypercube (McKay, Beckman
    and Conover 1979), shifted for each row (Cranley and Patterson 1976). Each u is
    uniform on [0, 1), so importance weights are unbiased. The draws are stratified in
    each latent dimension, so their variance is lower than that of independent draws.

    Attributes
    ----------
    points : ndarray of shape (P, latent_dim)
        In [0, 1).
    turn : ndarray of shape (latent_dim,)
        In [0, 1).
    projection : ndarray of shape (latent_dim, n_pixels)
    offset : ndarray of shape (latent_dim,)
        In [0, 1).
    """

    points: np.ndarray
    turn: np.ndarray
    projection: np.ndarray
    offset: np.ndarray

    def shift(self, rows: np.ndarray) -> np.ndarray:
        """Compute the shift of the points for each row.

        Parameters
        ----------
        rows : ndarray of shape (n, n_pixels), float64

        Returns
        -------
        ndarray of shape (n, latent_dim)
        """
        # One latent at a time, to bound memory.
        shifts = [sum_last_axis(rows * pixels) for pixels in self.projection]
        return np.stack(shifts, axis=1) + self.offset

    def normal(self, shift: np.ndarray, draws: range) -> np.ndarray:
        """Compute draws for rows with the given shifts.

        Parameters
        ----------
        shift : ndarray of shape (n, latent_dim)
        draws : range
            Indices of the draws.

        Returns
        -------
        ndarray of shape (n, len(draws), latent_dim)
        """
        turns, places = np.divmod(np.arange(draws.start, draws.stop), len(self.points))
        turned = self.points[places] + turns[:, None] * self.turn
        uniform = (turned + shift[:, None, :]) % 1.0
        # 0 and 1 have no finite quantile.
        return ndtri(np.clip(uniform, 1e-16, 1 - 1e-16))

    @property
    def n_bytes(self) -> int:
        """Memory use, in bytes."""
        return self.points.nbytes + self.projection.nbytes


def row_draws(seed: int, n_draws: int, n_pixels: int, latent_dim: int) -> RowDraws:
    """Create the row draws of a seed."""
    rng = stream(seed, Stream.ROW_DRAWS)
    offset, turn = rng.random((2, latent_dim))
    projection = _TURNS * rng.standard_normal((n_pixels, latent_dim))
    n_points = min(n_draws, _MAX_POINTS)
    strata = np.tile(np.arange(n_points), (latent_dim, 1))
    points = stream(seed, Stream.ROW_DRAWS, n_points).permuted(strata, axis=1).T
    return RowDraws(points / n_points, turn, np.ascontiguousarray(projection.T), offset)
