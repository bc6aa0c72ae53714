"""Fitted networks at work on arrays of any length: batches in, numpy arrays out."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from skvae import engine, objective
from skvae.architecture import Architecture
from skvae.draws import row_draws
from skvae.images import to_graph_dtype

# A graph call has about this many pixels, which bounds what its layers hold.
_BATCH_PIXELS = 2**20


class Model(NamedTuple):
    """A fitted network."""

    architecture: Architecture
    weights: np.ndarray  # (n_weights,)
    value_range: tuple[float, float]
    noise_variance: float  # in the network's units
    seed: int


def encode(model: Model, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Images (n, H, W, C) to z_mean and z_log_var, each (n, latent_dim) float32."""
    network = engine.shared_network(model.architecture)
    low, high = model.value_range

    def encode_batch(batch: np.ndarray) -> Any:
        return network.encode(to_graph_dtype(batch), model.weights, low, high - low)

    z_mean, z_log_var = _in_batches(encode_batch, images, model.architecture.n_pixels)
    return z_mean, z_log_var


def latent_kl(model: Model, images: np.ndarray) -> np.ndarray:
    """KL from the prior to each image's posterior, (n, latent_dim), in nats."""
    return np.asarray(objective.kl_divergence(*encode(model, images)))


def decode(model: Model, z: np.ndarray) -> np.ndarray:
    """Latents (n, latent_dim) to images (n, H, W, C) float32 in the caller's units."""
    network = engine.shared_network(model.architecture)
    low, high = model.value_range

    def decode_batch(batch: np.ndarray) -> Any:
        return (network.decode(batch, model.weights),)

    (images,) = _in_batches(decode_batch, z, model.architecture.n_pixels)
    images *= np.float32(high - low)
    images += np.float32(low)
    return images


def elbo(model: Model, images: np.ndarray, n_draws: int) -> np.ndarray:
    """Evidence lower bound of each image, (n,) float64 nats in the caller's units."""
    network = engine.shared_network(model.architecture)
    return _log_density(model, network.elbo, images, n_draws)


def score(model: Model, images: np.ndarray, n_draws: int) -> np.ndarray:
    """Estimate log p(x) of each image, (n,) float64 nats in the caller's units."""
    network = engine.shared_network(model.architecture)
    return _log_density(model, network.score, images, n_draws)


def log_span(architecture: Architecture, value_range: tuple[float, float]) -> float:
    """What a log density loses from the network's units to the caller's.

    Stretching each of an image's pixels divides the density. Bernoulli probabilities
    have no units.
    """
    if architecture.likelihood == "bernoulli":
        return 0.0
    low, high = value_range
    return architecture.n_pixels * math.log(high - low)


def _log_density(
    model: Model, function: Callable[..., Any], images: np.ndarray, n_draws: int
) -> np.ndarray:
    architecture = model.architecture
    low, high = model.value_range
    arguments = (
        model.weights,
        low,
        high - low,
        model.noise_variance,
        *row_draws(
            model.seed, n_draws, architecture.n_pixels, architecture.latent_dim
        ),
    )

    def run_batch(batch: np.ndarray) -> Any:
        return (function(to_graph_dtype(batch), *arguments),)

    (values,) = _in_batches(run_batch, images, architecture.n_pixels)
    return values - log_span(architecture, model.value_range)


def _in_batches(
    function: Callable[[np.ndarray], Any], rows: np.ndarray, n_pixels: int
) -> list[np.ndarray]:
    """Apply a function of rows that gives some tensors; join each over the batches."""
    size = max(1, _BATCH_PIXELS // n_pixels)
    batches = [
        [output.numpy() for output in function(rows[start : start + size])]
        for start in range(0, len(rows), size)
    ]
    return [np.concatenate(outputs) for outputs in zip(*batches, strict=True)]
