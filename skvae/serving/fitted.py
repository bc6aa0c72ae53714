"""Fitted networks: sessions of ONNX Runtime, and what goes in and comes out of them."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import numpy as np

from skvae.architecture import Architecture
from skvae.data.read_only import is_read_only
from skvae.data.value_range import to_network_units
from skvae.serving.batches import Rows, in_batches
from skvae.serving.graphs import Session, decoder_graph, encoder_graph
from skvae.serving.row_draws import RowDraws, row_draws

# Images are encoded if their values, in the network's units, are smaller than this: its
# layers have room to multiply them before float32 overflows. A relu would turn what
# overflows before it into a plain zero.
LARGEST_PIXEL = 1e18

# What a layer gives for all images that are computed at once has about so many bytes:
# it stays in the processor's cache, and a batch takes long beside its start.
_LAYER_BYTES = 2**22

# How many fitted networks are kept, and how much memory they may take together. The
# least recently used goes first, the newest stays.
MAX_NETWORKS = 64
MAX_BYTES = 2**28


class OutputOverflowError(ValueError):
    """What a network gives is not finite."""


class FittedNetwork:
    """A network with its weights, for images in the caller's units.

    Its sessions, and the draws behind its scores, are made when they are first needed.

    Parameters
    ----------
    architecture : Architecture
    weights : dict of str to ndarray
    value_range : (low, high)
        The interval of pixel values that the network sees as [0, 1].
    seed : int
        What the draws behind scores depend on, besides the rows.
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
        """Images (n, H, W, C) to z_mean and z_log_var, each (n, latent_dim) float32."""
        shape = (len(images), self.architecture.latent_dim)
        z_mean, z_log_var = np.empty(shape, np.float32), np.empty(shape, np.float32)
        self._in_batches(self._encode_batch, images, [z_mean, z_log_var])
        return z_mean, z_log_var

    def encode_to_mean(self, images: Rows, z_mean: Any = None) -> Any:
        """As `encode`, z_mean alone. An array for it may be given."""
        if z_mean is None:
            z_mean = np.empty((len(images), self.architecture.latent_dim), np.float32)
        self._in_batches(lambda batch: self._encode_batch(batch)[:1], images, [z_mean])
        return z_mean

    def decode(
        self, z: np.ndarray, shape: tuple[int, ...], images: Any = None
    ) -> np.ndarray:
        """Latents (n, latent_dim) to the pixels' means (n, *shape) float32.

        An array for the images may be given.
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

    # For scores, in the network's units.

    def scaled(self, images: np.ndarray) -> np.ndarray:
        """Bring images from the caller's units and dtype to the network's, float32.

        Raises
        ------
        OutputOverflowError
            If values are so large that the network would overflow.
        """
        is_clipped = self.architecture.likelihood == "bernoulli"
        images = to_network_units(images, self.value_range, is_clipped=is_clipped)
        if not max(images.max(), -images.min()) < LARGEST_PIXEL:
            raise self._overflow()
        return images

    def encode_scaled(self, images: np.ndarray) -> list[np.ndarray]:
        """Scaled images (n, H, W, C) to z_mean and z_log_var."""
        parts = self._session("encoder")(images)
        for part in parts:
            self.check_finite(part)
        return parts

    def decode_to_outputs(self, z: np.ndarray) -> np.ndarray:
        """Latents to what a likelihood is computed from, (n, H, W, C) float32.

        Logits for bernoulli, else means.
        """
        is_bernoulli = self.architecture.likelihood == "bernoulli"
        (outputs,) = self._session("logits" if is_bernoulli else "decoder")(z)
        return outputs

    def draws(self, n_draws: int) -> RowDraws:
        """Draws behind a score, made once for each number of them in turn."""
        with self._lock:
            if self._draws is None or self._draws[0] != n_draws:
                n_pixels = self.architecture.n_pixels
                latent_dim = self.architecture.latent_dim
                newest = row_draws(self._seed, n_draws, n_pixels, latent_dim)
                self._draws = n_draws, newest
            return self._draws[1]

    @property
    def images_at_once(self) -> int:
        """How many images to compute together."""
        return max(1, _LAYER_BYTES // (4 * self._largest_layer))

    @property
    def n_bytes(self) -> int:
        """About how much memory it takes: weights, in each session, too, and draws."""
        n_weight_bytes = sum(weight.nbytes for weight in self.weights.values())
        draws = self._draws
        n_draw_bytes = draws[1].n_bytes if draws else 0
        return n_weight_bytes * (1 + len(self._sessions)) + n_draw_bytes

    def check_finite(self, outputs: np.ndarray) -> None:
        """See that outputs are finite.

        Raises
        ------
        OutputOverflowError
            If they are not.
        """
        if not np.isfinite(outputs).all():
            raise self._overflow()

    def _overflow(self) -> OutputOverflowError:
        return OutputOverflowError(
            f"The network's outputs overflow float32: the input has values that "
            f"are too large, or training has all but diverged. Images were fitted "
            f"with value_range_={self.value_range}."
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


# Fitted networks by what they were made of. As they keep their arrays, no other array
# can have the identity of one of these meanwhile.
_networks: OrderedDict[tuple[Any, ...], FittedNetwork] = OrderedDict()
_lock = threading.Lock()


def fitted_network(
    architecture: Architecture,
    weights: Mapping[str, np.ndarray],
    value_range: tuple[float, float],
    seed: int,
) -> FittedNetwork:
    """The fitted network of these arrays, made at its first use in this process.

    It is made anew each time if an array can be written to.
    """
    weights = dict(weights)  # whatever another thread replaces meanwhile
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
    """Forget all in a forked process: other threads may have been at work on it."""
    global _lock, _networks
    _lock, _networks = threading.Lock(), OrderedDict()


if hasattr(os, "register_at_fork"):  # Windows has no forks
    os.register_at_fork(after_in_child=_forget)
