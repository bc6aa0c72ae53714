"""Terms of the evidence lower bound in float64, for fitted networks.

The same formulas as in `objective`, which are for training: in nats and in the
network's units, with D pixels.
"""

from __future__ import annotations

import math

import numpy as np

from skvae.architecture import Architecture
from skvae.serving.sums import sum_last_axis


def kl_divergence(z_mean: np.ndarray, z_log_var: np.ndarray) -> np.ndarray:
    """KL(N(z_mean, exp(z_log_var)) || N(0, 1)) of each latent dimension.

    Kingma and Welling (2014), appendix B. (n, latent_dim) twice to (n, latent_dim).
    """
    z_mean, z_log_var = z_mean.astype(np.float64), z_log_var.astype(np.float64)
    # exp(v) - 1 would leave nothing but rounding of the KL of a latent hardly used.
    return 0.5 * (np.square(z_mean) + (np.expm1(z_log_var) - z_log_var))


def pixel_errors(
    architecture: Architecture, images: np.ndarray, outputs: np.ndarray
) -> np.ndarray:
    """Error of each of k decoded outputs of each image.

    Parameters
    ----------
    architecture : Architecture
    images : (n, D) of float64
    outputs : (n, k, D)
        Means; for bernoulli logits.

    Returns
    -------
    (n, k) of float64
        Sums of squared errors; for bernoulli cross-entropies.
    """
    images = images[:, None]
    if architecture.likelihood != "bernoulli":
        return sum_last_axis(np.square(images - outputs))
    logits = outputs.astype(np.float64)
    # softplus(y) - x y, where softplus(y) = log(1 + exp(y)).
    softplus = np.maximum(logits, 0.0) + np.log1p(np.exp(-np.abs(logits)))
    return sum_last_axis(softplus - images * logits)


def normaliser(architecture: Architecture, noise_variance: float) -> float:
    """D/2 log(2 pi v), what -log p(x | z) has besides the error; 0 for bernoulli."""
    if architecture.likelihood == "bernoulli":
        return 0.0
    return 0.5 * architecture.n_pixels * math.log(2.0 * math.pi * noise_variance)


def log_span(architecture: Architecture, value_range: tuple[float, float]) -> float:
    """What a log density loses from the network's units to the caller's.

    Stretching each of an image's pixels divides the density. Bernoulli probabilities
    have no units.
    """
    if architecture.likelihood == "bernoulli":
        return 0.0
    low, high = value_range
    return architecture.n_pixels * math.log(high - low)
