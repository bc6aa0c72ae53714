"""Fitted networks at work on arrays of any length: batches in, numpy arrays out."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from skvae import engine, threads
from skvae.architecture import Architecture
from skvae.draws import RowDraws, row_draws
from skvae.images import to_graph_dtype
from skvae.interrupts import Call, UninterruptedThreads
from skvae.storage import Selection, StoredImages, check_file

# What can be cut into batches.
Rows = np.ndarray | StoredImages | Selection


class OutputOverflowError(ValueError):
    """What a network gives is not finite."""


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
    is_uninterrupted : bool
        Whether even a single batch is for another thread, for what `interrupts` says:
        to start one takes longer than a small batch.
    """

    architecture: Architecture
    weights: np.ndarray
    value_range: tuple[float, float]
    seed: int
    is_uninterrupted: bool = False

    def encode(self, images: Rows) -> tuple[np.ndarray, np.ndarray]:
        """Images (n, H, W, C) to z_mean and z_log_var, each (n, latent_dim) float32."""
        shape = (len(images), self.architecture.latent_dim)
        z_mean, z_log_var = np.empty(shape, np.float32), np.empty(shape, np.float32)
        self._in_batches(self._encode_batch, images, [z_mean, z_log_var])
        return z_mean, z_log_var

    def encode_to_mean(self, images: Rows, z_mean: Any = None) -> Any:
        """As `encode`, z_mean alone. An array for it may be given."""
        if z_mean is None:
            z_mean = np.empty((len(images), self.architecture.latent_dim), np.float32)

        def encode_batch(batch: np.ndarray) -> list[np.ndarray]:
            return self._encode_batch(batch)[:1]

        self._in_batches(encode_batch, images, [z_mean])
        return z_mean

    def decode(
        self, z: np.ndarray, shape: tuple[int, ...], images: Any = None
    ) -> np.ndarray:
        """Latents (n, latent_dim) to the pixels' means (n, *shape) float32.

        An array for the images may be given.
        """
        network = engine.shared_network(self.architecture)
        low, span = map(np.float32, self._units)
        if images is None:
            images = np.empty((len(z), *shape), np.float32)

        def decode_batch(batch: np.ndarray) -> list[np.ndarray]:
            (means,) = _arrays([network.decode(batch, self.weights)])
            with np.errstate(over="ignore"):
                means = means * span + low
            return [means.reshape(len(batch), *shape)]

        self._in_batches(decode_batch, z, [images])
        return images

    def elbo_terms(self, images: Rows) -> tuple[np.ndarray, np.ndarray]:
        """Pixel error at one draw, and KL, of each image, (n,) float64.

        In the network's units; with them and a noise variance v the evidence lower
        bound is -(error / (2 v) + `objective.normaliser` + KL + `log_span`).
        """
        network = engine.shared_network(self.architecture)
        arguments = (self.weights, *self._units, *self._row_draws(1))

        def run_batch(batch: np.ndarray) -> list[np.ndarray]:
            return _arrays(network.elbo_terms(to_graph_dtype(batch), *arguments))

        errors, kl = np.empty((2, len(images)))
        self._in_batches(run_batch, images, [errors, kl])
        return errors, kl

    def score(self, images: Rows, noise_variance: float, n_draws: int) -> np.ndarray:
        """Importance-weighted estimate of log p(x), (n,) float64, in nats.

        The noise variance is in the network's units.
        """
        network = engine.shared_network(self.architecture)
        draws = self._row_draws(n_draws)
        arguments = (self.weights, *self._units, noise_variance, n_draws, *draws)

        def run_batch(batch: np.ndarray) -> list[np.ndarray]:
            return _arrays([network.score(to_graph_dtype(batch), *arguments)])

        values = np.empty(len(images))
        self._in_batches(run_batch, images, [values])
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

    def _encode_batch(self, batch: np.ndarray) -> list[np.ndarray]:
        network = engine.shared_network(self.architecture)
        batch = to_graph_dtype(batch)
        return _arrays(network.encode(batch, self.weights, *self._units))

    @property
    def _units(self) -> tuple[float, float]:
        low, high = self.value_range
        return low, high - low

    def _row_draws(self, n_draws: int) -> RowDraws:
        n_pixels, latent_dim = self.architecture.n_pixels, self.architecture.latent_dim
        return row_draws(self.seed, n_draws, n_pixels, latent_dim)

    def _in_batches(
        self,
        function: Callable[[np.ndarray], list[np.ndarray]],
        rows: Rows,
        outputs: list[Any],
    ) -> None:
        """Put what a function gives for the rows into arrays, one for each result."""
        size = self.architecture.images_at_once

        def run_batch(start: int) -> list[np.ndarray]:
            results = function(rows[start : start + size])
            for result in results:
                self._check_finite(result)
            return results

        def store(start: int, results: list[np.ndarray]) -> None:
            for result, output in zip(results, outputs, strict=True):
                check_file(output)
                output[start : start + len(result)] = result

        starts = range(0, len(rows), size)
        if len(starts) == 1 and not self.is_uninterrupted:
            store(0, run_batch(0))
            return
        # Stored here, one after the other: not every storage can take two at a time.
        # No more are computed than are about to be stored: it may be slow.
        n_calls = min(threads.n_calls(), len(starts))
        under_way: deque[tuple[int, Call[list[np.ndarray]]]] = deque()
        with UninterruptedThreads(n_calls) as pool:
            for start in starts:
                under_way.append((start, pool.submit(run_batch, start)))
                if len(under_way) > n_calls:
                    first, results = under_way.popleft()
                    store(first, results.result())
            for first, results in under_way:
                store(first, results.result())

    def _check_finite(self, output: np.ndarray) -> None:
        if not np.isfinite(output).all():
            msg = (
                f"The network's outputs overflow float32: the input has values that "
                f"are too large, or training has all but diverged. Images were fitted "
                f"with value_range_={self.value_range}."
            )
            raise OutputOverflowError(msg)


def _arrays(tensors: Iterable[Any]) -> list[np.ndarray]:
    return [tensor.numpy() for tensor in tensors]
