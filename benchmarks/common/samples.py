"""Samples of fitted models, and their distance from real images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.spatial.distance import cdist

if TYPE_CHECKING:
    from sklearn.decomposition import PCA


def prior_samples(vae: Any, latent_dim: int, n: int, seed: int) -> np.ndarray:
    """Decode standard normal latents, the default of `sample`."""
    z = np.random.default_rng(seed).standard_normal((n, latent_dim))
    return vae.inverse_transform(z)


def ppca_samples(pca: PCA, n: int, seed: int) -> np.ndarray:
    """Sample from PPCA without pixel noise, as in ConvVAE."""
    scales = np.sqrt(pca.explained_variance_ - pca.noise_variance_)
    z = np.random.default_rng(seed).standard_normal((n, len(scales)))
    return pca.inverse_transform(z * scales)


def squared_mmd(first: np.ndarray, second: np.ndarray, bandwidth: float) -> float:
    """Compute the unbiased squared maximum mean discrepancy of two samples.

    Gretton et al. (2012), equation 3, with a Gaussian kernel. The expectation is 0 for
    samples of the same distribution.
    """

    def kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.exp(-cdist(a, b, "sqeuclidean") / (2 * bandwidth**2))

    def mean_off_diagonal(a: np.ndarray) -> float:
        return (kernel(a, a).sum() - len(a)) / (len(a) * (len(a) - 1))

    return (
        mean_off_diagonal(first)
        + mean_off_diagonal(second)
        - 2 * kernel(first, second).mean()
    )


def nearest_neighbour_accuracy(first: np.ndarray, second: np.ndarray) -> float:
    """Compute the accuracy of a 1-NN classifier that separates two samples.

    Lopez-Paz and Oquab (2017), with leave-one-out. The expectation is 0.5 for samples
    of the same distribution.
    """
    labels = np.repeat([0, 1], [len(first), len(second)])
    pooled = np.concatenate([first, second])
    distances = cdist(pooled, pooled)
    np.fill_diagonal(distances, np.inf)
    return (labels[distances.argmin(axis=1)] == labels).mean()
