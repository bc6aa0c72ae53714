"""Fitted networks: ONNX Runtime sessions, with scaling of inputs and outputs."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import numpy as np

from skvae.architecture import Architecture
from skvae.data.read_only import is_read_only
from skvae.data.value_range import check_finite, to_network_units
from skvae.serving.batches import Rows, in_batches
from skvae.serving.graphs import Session, decoder_graph, encoder_graph
from skvae.serving.row_draws import RowDraws, row_draws

# Upper bound of pixel values in the network's units, with headroom for the layers to
# multiply them. Outputs do not reveal every overflow: a relu can turn it into zero.
LARGEST_PIXEL = 1e18

# Approximate size of a layer's output for one batch: it fits in the processor's cache,
# and the batch takes long compared with the overhead of a call.
_LAYER_BYTES = 2**22

# Limits of the cache of fitted networks: their number and total memory. The least
# recently used is evicted first; the newest is always kept.
MAX_NETWORKS = 64
MAX_BYTES = 2**28


class OutputOverflowError(ValueError):
    """Error for network outputs that are not finite."""


class FittedNetwork:
    """Encoder and decoder with fixed weights, for images in the caller's units.

    Sessions and the latent draws for scores are created on first use.

    Parameters
    ----------
    architecture : Architecture
    weights : mapping of str to ndarray
        Weights by Keras path.
    value_range : (float, float)
        Interval of pixel values that is scaled to [0, 1].
    seed : int
        Seed of the latent draws for scores.
    """

    def __init__(
        self,
        architecture: Architecture,
        weights: Mapping[str, np.ndarray],
        value_range: tuple[float, float],
        seed: int,
    ) -> None:
        self.architecture = architecture
        self.weights = weights
        self.value_range = value_range
        self._seed = seed
        self._largest_layer = architecture.largest_layer
        self._lock = threading.Lock()
        self._sessions: dict[str, Session] = {}
        self._draws: tuple[int, RowDraws] | None = None

    def encode(self, images: Rows) -> tuple[np.ndarray, np.ndarray]:
        """Encode images.

        Parameters
        ----------
        images : array-like of shape (n, H, W, C)

        Returns
        -------
        z_mean, z_log_var : ndarray of shape (n, latent_dim), float32
        """
        shape = (len(images), self.architecture.latent_dim)
        z_mean, z_log_var = np.empty(shape, np.float32), np.empty(shape, np.float32)
        self._in_batches(self._encode_batch, images, [z_mean, z_log_var])
        return z_mean, z_log_var

    def encode_to_mean(self, images: Rows, z_mean: Any = None) -> Any:
        """Encode images to z_mean only, stored in the given array, if any."""
        if z_mean is None:
            z_mean = np.empty((len(images), self.architecture.latent_dim), np.float32)
        self._in_batches(lambda batch: self._encode_batch(batch)[:1], images, [z_mean])
        return z_mean

    def decode(
        self, z: np.ndarray, shape: tuple[int, ...], images: Any = None
    ) -> np.ndarray:
        """Decode latents to pixel means.

        Parameters
        ----------
        z : ndarray of shape (n, latent_dim)
        shape : tuple of int
            Shape of one decoded image.
        images : array-like of shape (n, *shape), default=None
            Array in which the decoded images are stored. None creates one of float32.

        Returns
        -------
        array-like of shape (n, *shape)
        """
        low, high = self.value_range

        def decode_batch(batch: np.ndarray) -> list[np.ndarray]:
            (means,) = self._session("decoder")(batch)
            means *= np.float32(high - low)
            means += np.float32(low)
            self.check_finite(means)
            return [means.reshape(len(batch), *shape)]

        if images is None:
            images = np.empty((len(z), *shape), np.float32)
        self._in_batches(decode_batch, z, [images])
        return images

    # Methods for scores, in the network's units.

    def scaled(self, images: np.ndarray) -> np.ndarray:
        """Scale images from the caller's units to the network's, as float32.

        Raises
        ------
        OutputOverflowError
            If values are so large that the network would overflow.
        ValueError
            If values are not finite.
        """
        is_clipped = self.architecture.likelihood == "bernoulli"
        scaled = to_network_units(images, self.value_range, is_clipped=is_clipped)
        if not max(scaled.max(), -scaled.min()) < LARGEST_PIXEL:
            check_finite(images)
            raise self._overflow()
        return scaled

    def encode_scaled(self, images: np.ndarray) -> list[np.ndarray]:
        """Encode scaled images (n, H, W, C) to z_mean and z_log_var."""
        parts = self._session("encoder")(images)
        for part in parts:
            self.check_finite(part)
        return parts

    def decode_to_outputs(self, z: np.ndarray) -> np.ndarray:
        """Decode latents (n, latent_dim) to the parameters of the likelihood.

        Returns
        -------
        ndarray of shape (n, H, W, C), float32
            Logits for bernoulli, else means.
        """
        is_bernoulli = self.architecture.likelihood == "bernoulli"
        (outputs,) = self._session("logits" if is_bernoulli else "decoder")(z)
        return outputs

    def draws(self, n_draws: int) -> RowDraws:
        """Latent draws for a score. Those of the last `n_draws` are cached."""
        with self._lock:
            if self._draws is None or self._draws[0] != n_draws:
                n_pixels = self.architecture.n_pixels
                latent_dim = self.architecture.latent_dim
                newest = row_draws(self._seed, n_draws, n_pixels, latent_dim)
                self._draws = n_draws, newest
            return self._draws[1]

    @property
    def images_at_once(self) -> int:
        """Number of images in a batch."""
        return max(1, _LAYER_BYTES // (4 * self._largest_layer))

    @property
    def n_bytes(self) -> int:
        """Approximate memory use: weights, their copy in each session, and draws."""
        n_weight_bytes = sum(weight.nbytes for weight in self.weights.values())
        draws = self._draws
        n_draw_bytes = draws[1].n_bytes if draws else 0
        return n_weight_bytes * (1 + len(self._sessions)) + n_draw_bytes

    def check_finite(self, outputs: np.ndarray) -> None:
        """Check that outputs are finite.

        Raises
        ------
        OutputOverflowError
            If they are not.
        """
        if not np.isfinite(outputs).all():
            raise self._overflow()

    def _overflow(self) -> OutputOverflowError:
        return OutputOverflowError(
            f"The network's outputs overflow float32: values of the input are too "
            f"large, or training has nearly diverged. The estimator was fitted with "
            f"value_range_={self.value_range}."
        )

    def _encode_batch(self, batch: np.ndarray) -> list[np.ndarray]:
        return self.encode_scaled(self.scaled(batch))

    def _in_batches(self, function: Any, rows: Rows, outputs: list[Any]) -> None:
        in_batches(function, rows, outputs, self.images_at_once)

    def _session(self, kind: str) -> Session:
        session = self._sessions.get(kind)
        if session is None:
            with self._lock:
                session = self._sessions.get(kind)
                if session is None:
                    session = self._graph(kind).to_session()
                    self._sessions[kind] = session
        return session

    def _graph(self, kind: str) -> Any:
        if kind == "encoder":
            return encoder_graph(self.architecture, self.weights)
        is_activated = kind == "decoder"
        return decoder_graph(self.architecture, self.weights, is_activated=is_activated)


# Cache of fitted networks. Its keys contain the id of each weight, which stays unique
# because a network keeps its weights alive.
_networks: OrderedDict[tuple[Any, ...], FittedNetwork] = OrderedDict()
_lock = threading.Lock()


def fitted_network(
    architecture: Architecture,
    weights: Mapping[str, np.ndarray],
    value_range: tuple[float, float],
    seed: int,
) -> FittedNetwork:
    """Return the fitted network of these weights, from the cache if it is there.

    A network is not cached if one of its weights is writeable.
    """
    weights = dict(weights)  # another thread may replace entries
    arrays = weights.values()
    if not all(isinstance(a, np.ndarray) and is_read_only(a) for a in arrays):
        return FittedNetwork(architecture, weights, value_range, seed)
    key = (architecture, value_range, seed, *weights, *map(id, arrays))
    with _lock:
        network = _networks.get(key)
        if network is None:
            network = FittedNetwork(architecture, weights, value_range, seed)
            _networks[key] = network
        _networks.move_to_end(key)
        _keep_to_bounds()
    return network


def _keep_to_bounds() -> None:
    n_bytes = sum(network.n_bytes for network in _networks.values())
    while len(_networks) > 1 and (len(_networks) > MAX_NETWORKS or n_bytes > MAX_BYTES):
        _, oldest = _networks.popitem(last=False)
        n_bytes -= oldest.n_bytes


def _forget() -> None:
    """Clear the cache of a forked process: a lost thread may have held the lock."""
    global _lock, _networks
    _lock, _networks = threading.Lock(), OrderedDict()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_forget)
