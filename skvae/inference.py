"""Fitted networks at work on arrays of any length: batches in, numpy arrays out."""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from skvae import engine, threads
from skvae.architecture import Architecture
from skvae.draws import RowDraws, row_draws
from skvae.images import to_graph_dtype


@dataclass(frozen=True)
class FittedNetwork:
    """A network with its weights, for images in the caller's units.

    Attributes
    ----------
    architecture : Architecture
    weights : (n_weights,)
    value_range : (low, high)
        The interval of pixel values that the network sees as [0, 1].
    seed : int
        What the draws behind scores depend on, besides the rows.
    """

    architecture: Architecture
    weights: np.ndarray
    value_range: tuple[float, float]
    seed: int

    def encode(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Images (n, H, W, C) to z_mean and z_log_var, each (n, latent_dim) float32."""
        network = engine.shared_network(self.architecture)

        def encode_batch(batch: np.ndarray) -> Any:
            return network.encode(to_graph_dtype(batch), self.weights, *self._units)

        z_mean, z_log_var = self._in_batches(encode_batch, images)
        return z_mean, z_log_var

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

    def elbo_terms(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pixel error at one draw, and KL, of each image, (n,) float64.

        In the network's units; with them and a noise variance v the evidence lower
        bound is -(error / (2 v) + `objective.normaliser` + KL + `log_span`).
        """
        network = engine.shared_network(self.architecture)
        arguments = (self.weights, *self._units, *self._row_draws(1))

        def run_batch(batch: np.ndarray) -> Any:
            return network.elbo_terms(to_graph_dtype(batch), *arguments)

        errors, kl = self._in_batches(run_batch, images)
        return errors, kl

    def score(
        self, images: np.ndarray, noise_variance: float, n_draws: int
    ) -> np.ndarray:
        """Importance-weighted estimate of log p(x), (n,) float64, in nats.

        The noise variance is in the network's units.
        """
        network = engine.shared_network(self.architecture)
        draws = self._row_draws(n_draws)
        arguments = (self.weights, *self._units, noise_variance, n_draws, *draws)

        def run_batch(batch: np.ndarray) -> Any:
            return (network.score(to_graph_dtype(batch), *arguments),)

        (values,) = self._in_batches(run_batch, images)
        return values - self.log_span

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

    def _row_draws(self, n_draws: int) -> RowDraws:
        n_pixels, latent_dim = self.architecture.n_pixels, self.architecture.latent_dim
        return row_draws(self.seed, n_draws, n_pixels, latent_dim)

    def _in_batches(
        self, function: Callable[[np.ndarray], Any], rows: np.ndarray
    ) -> list[np.ndarray]:
        """Apply a function that gives tensors of rows; join each over the batches."""
        size = self.architecture.images_at_once

        def run_batch(start: int) -> list[np.ndarray]:
            return [output.numpy() for output in function(rows[start : start + size])]

        starts = range(0, len(rows), size)
        if len(starts) == 1:
            batches = [run_batch(0)]
        else:
            with ThreadPoolExecutor(threads.n_calls()) as pool:
                batches = list(pool.map(run_batch, starts))
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
