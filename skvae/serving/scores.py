"""Log-likelihoods of images under a fitted network, and terms of the ELBO."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from skvae.architecture import FIXED_NOISE_VARIANCE
from skvae.serving.batches import Rows, in_batches
from skvae.serving.densities import (
    kl_divergence,
    log_span,
    normaliser,
    pixel_errors,
)
from skvae.serving.row_draws import RowDraws
from skvae.serving.sessions import FittedNetwork
from skvae.serving.sums import sum_last_axis

# Number of batches of decoded images for which rows are read at once.
_READ_TOGETHER = 4


class _Encoded(NamedTuple):
    """Images, their posteriors and the shifts of their draws, in float64."""

    pixels: np.ndarray  # (n, n_pixels), in the network's units
    z_mean: np.ndarray  # (n, latent_dim)
    z_log_var: np.ndarray
    shift: np.ndarray


def elbo_terms(
    network: FittedNetwork, images: Rows, draws: RowDraws
) -> tuple[np.ndarray, np.ndarray]:
    """Pixel error at one draw, and KL, of each image.

    The evidence lower bound with noise variance v is
    -(error / (2 v) + `normaliser` + KL + `log_span`), where the last terms are those of
    `skvae.serving.densities`.

    Parameters
    ----------
    network : FittedNetwork
    images : array-like of shape (n, H, W, C)
        In the caller's units.
    draws : RowDraws

    Returns
    -------
    errors : ndarray of shape (n,), float64
        In the network's units.
    kl : ndarray of shape (n,), float64
        In nats.
    """

    def run_batch(batch: np.ndarray) -> list[np.ndarray]:
        encoded = _encode(network, batch, draws)
        outputs, _ = _decode(network, encoded, draws, range(1))
        errors = pixel_errors(
            network.architecture, encoded.pixels, outputs, FIXED_NOISE_VARIANCE
        )
        network.check_finite(errors)
        kl = kl_divergence(encoded.z_mean, encoded.z_log_var)
        return [errors[:, 0], sum_last_axis(kl)]

    errors, kl = np.empty((2, len(images)))
    in_batches(run_batch, images, [errors, kl], network.images_at_once)
    return errors, kl


def squared_errors(network: FittedNetwork, images: Rows, draws: RowDraws) -> np.ndarray:
    """Squared error of each pixel at one draw of each image.

    Parameters
    ----------
    network : FittedNetwork
        Not of bernoulli.
    images : array-like of shape (n, H, W, C)
        In the caller's units.
    draws : RowDraws

    Returns
    -------
    ndarray of shape (n, n_pixels), float64
        In the network's units.
    """

    def run_batch(batch: np.ndarray) -> list[np.ndarray]:
        encoded = _encode(network, batch, draws)
        outputs, _ = _decode(network, encoded, draws, range(1))
        squares = np.square(encoded.pixels - outputs[:, 0])
        network.check_finite(squares)
        return [squares]

    squares = np.empty((len(images), network.architecture.n_pixels))
    in_batches(run_batch, images, [squares], network.images_at_once)
    return squares


def log_likelihoods(
    network: FittedNetwork,
    images: Rows,
    noise_variance: float | np.ndarray,
    n_draws: int,
) -> np.ndarray:
    """Importance-weighted estimate of log p(x) of each image.

    Burda, Grosse and Salakhutdinov (2016), equation 8: the log of the mean of
    p(x | z) p(z) / q(z | x) over draws z from q(z | x).

    Parameters
    ----------
    network : FittedNetwork
    images : array-like of shape (n, H, W, C)
        In the caller's units.
    noise_variance : float or ndarray of shape (n_pixels,)
        Of all pixels, or of each, in the network's units.
    n_draws : int
        Number of draws for each image.

    Returns
    -------
    ndarray of shape (n,), float64
        In nats, for densities in the caller's units.
    """
    architecture, draws = network.architecture, network.draws(n_draws)
    # Draws are processed in chunks, to bound memory.
    n_together = network.images_at_once
    starts = np.arange(0, n_draws, n_together)

    def log_sums(encoded: _Encoded, start: int) -> np.ndarray:
        chunk = range(start, min(start + n_together, n_draws))
        outputs, log_ratio = _decode(network, encoded, draws, chunk)
        errors = pixel_errors(architecture, encoded.pixels, outputs, noise_variance)
        return _log_sum(log_ratio - errors)

    def of_batch(batch: np.ndarray) -> list[np.ndarray]:
        return [log_sums(_encode(network, batch, draws), 0)]

    def of_chunks(image: np.ndarray) -> float:
        encoded = _encode(network, image, draws)
        of_chunk = np.empty(len(starts))
        in_batches(
            lambda start: [log_sums(encoded, int(start[0]))], starts, [of_chunk], 1
        )
        return float(np.logaddexp.reduce(of_chunk))

    sums = np.empty(len(images))
    # Blocks are larger than batches, so that out-of-core rows are read in few reads.
    n_read = _READ_TOGETHER * n_together
    for first in range(0, len(images), n_read):
        block = images[first : first + n_read]
        part = sums[first : first + n_read]
        if len(starts) == 1:
            in_batches(of_batch, block, [part], max(1, n_together // n_draws))
            continue
        with np.errstate(all="ignore"):  # as in `in_batches`
            part[:] = [of_chunks(block[i : i + 1]) for i in range(len(block))]
    constant = math.log(n_draws) + normaliser(architecture, noise_variance)
    scores = sums - (constant + log_span(architecture, network.value_range))
    network.check_finite(scores)
    return scores


def _encode(network: FittedNetwork, batch: np.ndarray, draws: RowDraws) -> _Encoded:
    images = network.scaled(batch)
    z_mean, z_log_var = (
        part.astype(np.float64) for part in network.encode_scaled(images)
    )
    pixels = images.reshape(len(images), -1).astype(np.float64)
    return _Encoded(pixels, z_mean, z_log_var, draws.shift(pixels))


def _decode(
    network: FittedNetwork, encoded: _Encoded, draws: RowDraws, which: range
) -> tuple[np.ndarray, np.ndarray]:
    """Decode k draws z of each image.

    Returns
    -------
    outputs : ndarray of shape (n, k, n_pixels), float32
        Logits for bernoulli, else means.
    log_ratio : ndarray of shape (n, k), float64
        log p(z) - log q(z | x).
    """
    epsilon = draws.normal(encoded.shift, which)  # (n, k, latent_dim)
    z_mean, z_log_var = encoded.z_mean[:, None], encoded.z_log_var[:, None]
    z = z_mean + np.exp(0.5 * z_log_var) * epsilon
    n, k, latent_dim = z.shape
    outputs = network.decode_to_outputs(z.reshape(-1, latent_dim).astype(np.float32))
    # The constants of both densities cancel.
    log_ratio = 0.5 * sum_last_axis(np.square(epsilon) + z_log_var - np.square(z))
    return outputs.reshape(n, k, -1), log_ratio


def _log_sum(log_terms: np.ndarray) -> np.ndarray:
    """Logarithm of the sum of exponentials, (n, k) to (n,)."""
    largest = log_terms.max(axis=1)
    return largest + np.log(sum_last_axis(np.exp(log_terms - largest[:, None])))
