"""Terms of the evidence lower bound in numpy float64, for fitted networks.

`skvae.network.objective` has the same formulas for training. All terms are in nats and
in the network's units. D is the number of pixels.
"""

from __future__ import annotations

import math

import numpy as np

from skvae.architecture import Architecture
from skvae.serving.sums import sum_last_axis


def kl_divergence(z_mean: np.ndarray, z_log_var: np.ndarray) -> np.ndarray:
    """KL(N(z_mean, exp(z_log_var)) || N(0, 1)) of each latent dimension, in nats.

    Kingma and Welling (2014), appendix B. `skvae.network.objective.kl_divergence` is
    the same for training.

    Parameters
    ----------
    z_mean, z_log_var : ndarray of shape (n, latent_dim)

    Returns
    -------
    ndarray of shape (n, latent_dim), float64
    """
    z_mean, z_log_var = z_mean.astype(np.float64), z_log_var.astype(np.float64)
    # exp(v) - 1 would lose the KL of a barely used latent to rounding.
    return 0.5 * (np.square(z_mean) + (np.expm1(z_log_var) - z_log_var))


def pixel_errors(
    architecture: Architecture,
    images: np.ndarray,
    outputs: np.ndarray,
    noise_variance: float | np.ndarray,
) -> np.ndarray:
    """Pixel error of k decoded outputs of each image.

    `skvae.network.objective.pixel_error` is the same for training, with a noise
    variance of 1/2.

    Parameters
    ----------
    architecture : Architecture
    images : ndarray of shape (n, D), float64
    outputs : ndarray of shape (n, k, D)
        Logits for bernoulli, else means.
    noise_variance : float or ndarray of shape (D,)
        Of all pixels, or of each. Not used for bernoulli.

    Returns
    -------
    ndarray of shape (n, k), float64
        Cross-entropy for bernoulli, else sum of squared errors over twice the noise
        variance: -log p(x | z) without `normaliser`.
    """
    images = images[:, None]
    if architecture.likelihood != "bernoulli":
        squares = np.square(images - outputs)
        if np.ndim(noise_variance) == 0:  # fewer divisions
            return sum_last_axis(squares) / (2.0 * noise_variance)
        return sum_last_axis(squares / (2.0 * noise_variance))
    logits = outputs.astype(np.float64)
    # softplus(y) - x y, where softplus(y) = log(1 + exp(y)).
    softplus = np.maximum(logits, 0.0) + np.log1p(np.exp(-np.abs(logits)))
    return sum_last_axis(softplus - images * logits)


def normaliser(architecture: Architecture, noise_variance: float | np.ndarray) -> float:
    """Normalising constant D/2 log(2 pi v) of -log p(x | z); 0 for bernoulli.

    With a noise variance v of each pixel, (D,), it has the mean of their logarithms.
    `skvae.network.objective.normaliser` is the same for training.
    """
    if architecture.likelihood == "bernoulli":
        return 0.0
    mean_log = float(np.mean(np.log(2.0 * math.pi * noise_variance)))
    return 0.5 * architecture.n_pixels * mean_log


def log_span(architecture: Architecture, value_range: tuple[float, float]) -> float:
    """Log density in the network's units minus log density in the caller's.

    Scaling the pixels of an image divides its density. Bernoulli probabilities have no
    units, so the difference is 0.
    """
    if architecture.likelihood == "bernoulli":
        return 0.0
    low, high = value_range
    return architecture.n_pixels * math.log(high - low)
