"""Importance-weighted scores, for libraries that do not provide scores."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

N_DRAWS = 64

# Variance of the Gaussian likelihood that corresponds to the loss.
VARIANCE = 0.5


def importance_scores(
    images: np.ndarray,
    encode: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]],
    decode: Callable[[np.ndarray], np.ndarray],
    batch_size: int,
) -> np.ndarray:
    """Compute importance-weighted estimates (n,) of log p(x): Burda et al. (2016).

    Parameters
    ----------
    images : ndarray of shape (n, ...)
        Images of dtype float32.
    encode : callable
        Maps images to z_mean and z_log_var.
    decode : callable
        Maps latents to images with the layout of `images`.
    batch_size : int
        Number of images that are decoded together.
    """
    rng = np.random.default_rng(0)
    n_rows = max(1, batch_size // N_DRAWS)
    scores = []
    for start in range(0, len(images), n_rows):
        x = images[start : start + n_rows]
        z_mean, z_log_var = (part[:, None] for part in encode(x))
        epsilon = rng.standard_normal((len(x), N_DRAWS, z_mean.shape[2]), np.float32)
        z = z_mean + np.exp(0.5 * z_log_var) * epsilon
        decoded = decode(z.reshape(-1, z.shape[2])).reshape(len(x), N_DRAWS, -1)
        errors = np.square(x.reshape(len(x), 1, -1) - decoded).sum(axis=2)
        log_ratio = 0.5 * (np.square(epsilon) + z_log_var - np.square(z)).sum(axis=2)
        log_weights = log_ratio - errors / (2 * VARIANCE)
        largest = log_weights.max(axis=1, keepdims=True)
        means = np.exp(log_weights - largest).mean(axis=1)
        scores.append(largest[:, 0] + np.log(means))
    n_pixels = images[0].size
    return np.concatenate(scores) - 0.5 * n_pixels * np.log(2 * np.pi * VARIANCE)
