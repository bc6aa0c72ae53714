"""Fitted networks at work on arrays of any length: batches in, numpy arrays out."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from skvae import engine, objective
from skvae.architecture import Architecture
from skvae.draws import row_draws
from skvae.images import to_graph_dtype

# A graph call has about this many pixels, which bounds what its layers hold.
_BATCH_PIXELS = 2**20


@dataclass(frozen=True)
class FittedNetwork:
    """A network with its weights, for images in the caller's units.

    Attributes
    ----------
    architecture : Architecture
    weights : (n_weights,)
    value_range : (low, high)
        The interval of pixel values that the network sees as [0, 1].
    noise_variance : float
        In the network's units.
    seed : int
        What the draws behind scores depend on, besides the rows.
    """

    architecture: Architecture
    weights: np.ndarray
    value_range: tuple[float, float]
    noise_variance: float
    seed: int

    def encode(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Images (n, H, W, C) to z_mean and z_log_var, each (n, latent_dim) float32."""
        network = engine.shared_network(self.architecture)

        def encode_batch(batch: np.ndarray) -> Any:
            return network.encode(to_graph_dtype(batch), self.weights, *self._units)

        z_mean, z_log_var = self._in_batches(encode_batch, images)
        return z_mean, z_log_var

    def latent_kl(self, images: np.ndarray) -> np.ndarray:
        """KL from the prior to each image's posterior, (n, latent_dim), in nats."""
        return np.asarray(objective.kl_divergence(*self.encode(images)))

    def decode(self, z: np.ndarray) -> np.ndarray:
        """Latents (n, latent_dim) to the pixels' means (n, H, W, C) float32."""
        network = engine.shared_network(self.architecture)

        def decode_batch(batch: np.ndarray) -> Any:
            return (network.decode(batch, self.weights),)

        (images,) = self._in_batches(decode_batch, z)
        low, span = self._units
        with np.errstate(over="ignore"):
            images *= np.float32(span)
            images += np.float32(low)
        self._check_finite(images)
        return images

    def elbo(self, images: np.ndarray, n_draws: int) -> np.ndarray:
        """Evidence lower bound of each image, (n,) float64, in nats."""
        network = engine.shared_network(self.architecture)
        return self._log_density(network.elbo, images, n_draws)

    def score(self, images: np.ndarray, n_draws: int) -> np.ndarray:
        """Importance-weighted estimate of log p(x), (n,) float64, in nats."""
        network = engine.shared_network(self.architecture)
        return self._log_density(network.score, images, n_draws)

    @property
    def log_span(self) -> float:
        """What a log density loses from the network's units to the caller's.

        Stretching each of an image's pixels divides the density. Bernoulli
        probabilities have no units.
        """
        if self.architecture.likelihood == "bernoulli":
            return 0.0
        return self.architecture.n_pixels * math.log(self._units[1])

    @property
    def _units(self) -> tuple[float, float]:
        low, high = self.value_range
        return low, high - low

    def _log_density(
        self, function: Callable[..., Any], images: np.ndarray, n_draws: int
    ) -> np.ndarray:
        draws = row_draws(
            self.seed,
            n_draws,
            self.architecture.n_pixels,
            self.architecture.latent_dim,
        )
        arguments = (self.weights, *self._units, self.noise_variance, *draws)

        def run_batch(batch: np.ndarray) -> Any:
            return (function(to_graph_dtype(batch), *arguments),)

        (values,) = self._in_batches(run_batch, images)
        return values - self.log_span

    def _in_batches(
        self, function: Callable[[np.ndarray], Any], rows: np.ndarray
    ) -> list[np.ndarray]:
        """Apply a function that gives tensors of rows; join each over the batches."""
        size = max(1, _BATCH_PIXELS // self.architecture.n_pixels)
        batches = [
            [output.numpy() for output in function(rows[start : start + size])]
            for start in range(0, len(rows), size)
        ]
        joined = [np.concatenate(outputs) for outputs in zip(*batches, strict=True)]
        for output in joined:
            self._check_finite(output)
        return joined

    def _check_finite(self, output: np.ndarray) -> None:
        if not np.isfinite(output).all():
            msg = (
                f"The input has values so large that the network's outputs overflow "
                f"float32. Images were fitted with value_range_={self.value_range}."
            )
            raise ValueError(msg)
