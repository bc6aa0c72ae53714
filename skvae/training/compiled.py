"""Compiled networks, shared by all fits of this process.

All weights of a network are one vector: one conversion per call, and one variable for
the optimizer to update. A variable per layer would cost small networks half their time.
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from skvae.architecture import Z_LOG_VAR_BOUNDS, Architecture
from skvae.network import models
from skvae.network.backend import tf
from skvae.network.precision import layer_policy

# Bounds of the cache: networks, and weights of all of them (with Adam, 16 bytes each).
# A network with several trainers counts once for each. The least recently used goes
# first; the newest and those in use stay. TensorFlow keeps some 9 MB of each that goes.
MAX_NETWORKS = 64
MAX_WEIGHTS_KEPT = 2**25

# Guards the cache, building and tracing, which are not thread-safe. Reentrant, because
# tracing a graph may trace another one.
lock = threading.RLock()

SCALAR = tf.TensorSpec((), tf.float64)
SCALAR32 = tf.TensorSpec((), tf.float32)
INTEGER = tf.TensorSpec((), tf.int64)


class GraphFunction:
    """Function that is traced once for each dtype of its first argument.

    Only the length of that argument's first axis varies from call to call. Called
    while another graph is built, it becomes a part of that graph.
    """

    def __init__(
        self, body: Callable[..., Any], row_shape: tuple[int, ...], *signature: Any
    ) -> None:
        self._body = body
        self._row_shape = row_shape
        self._signature = signature
        # Concrete functions and their settings.
        self._traced: dict[Any, tuple[Any, bytes]] = {}

    def __call__(self, rows: Any, *args: Any) -> Any:
        """Call with rows (n, *row_shape) and the arguments of the signature."""
        if rows.dtype not in self._traced:
            with lock:
                if rows.dtype not in self._traced:
                    self._traced[rows.dtype] = self._trace(rows.dtype)
        traced, config = self._traced[rows.dtype]
        if not tf.executing_eagerly():
            return traced(rows, *args)
        # Arrays, because an exception of a signal handler in TensorFlow's conversion of
        # numbers can end the process.
        arrays = [
            np.asarray(arg, spec.dtype.as_numpy_dtype)
            for arg, spec in zip(args, self._signature, strict=True)
        ]
        # `traced` would catch what a signal handler raises while it binds arguments.
        outputs = tf.raw_ops.StatefulPartitionedCall(
            args=[rows, *arrays, *traced.captured_inputs],
            Tout=[output.dtype for output in traced.outputs],
            f=traced.name,
            config_proto=config,
        )
        return tf.nest.pack_sequence_as(traced.structured_outputs, outputs)

    def _trace(self, dtype: Any) -> tuple[Any, bytes]:
        """Trace the function, and serialize the host's settings for its calls."""
        rows = tf.TensorSpec((None, *self._row_shape), dtype)
        function = tf.function(
            self._body, input_signature=(rows, *self._signature), autograph=False
        )
        config = tf.compat.v1.ConfigProto(
            allow_soft_placement=tf.config.get_soft_device_placement()
        )
        return function.get_concrete_function(), config.SerializeToString()


class Network:
    """Keras models of an architecture, called with weights as arguments.

    Parameters
    ----------
    architecture : Architecture
    """

    def __init__(self, architecture: Architecture) -> None:
        self.architecture = architecture
        self.policy = layer_policy(architecture)
        self._encoder = models.build_encoder(architecture, models.FAST, self.policy)
        self._decoder = models.build_decoder(architecture, models.FAST, self.policy)
        self._shapes = list(architecture.weight_shapes.values())
        self._check_shapes()
        self._sizes = [math.prod(shape) for shape in self._shapes]
        self.n_weights = sum(self._sizes)
        # Trainers that no fit uses, the last returned last, and the number of others.
        self.idle_trainers: list[Any] = []
        self.n_trainers_in_use = 0
        # Graphs of the gradient, which trainers with the same `Split` share. Those that
        # are traced for a session have no device.
        self.gradients: dict[Any, GraphFunction] = {}

    @property
    def n_kept(self) -> int:
        """Number of networks that this one counts for in the cache's bounds."""
        return max(1, len(self.idle_trainers) + self.n_trainers_in_use)

    def split(self, weights: Any) -> list[Any]:
        """Split the weights (n_weights,) into the tensors of `weight_shapes`."""
        parts = tf.split(weights, self._sizes)
        return [
            tf.reshape(part, shape)
            for part, shape in zip(parts, self._shapes, strict=True)
        ]

    def encode(self, weights: list[Any], images: Any) -> tuple[Any, Any]:
        """Images (n, H, W, C) to z_mean and z_log_var, each (n, latent_dim)."""
        own = weights[: len(self._encoder.trainable_variables)]
        (z_mean, z_log_var), _ = self._encoder.stateless_call(own, [], images)
        return z_mean, tf.clip_by_value(z_log_var, *Z_LOG_VAR_BOUNDS)

    def decode(self, weights: list[Any], z: Any) -> Any:
        """Latents to the inputs of the last activation, (n, H, W, C)."""
        own = weights[len(self._encoder.trainable_variables) :]
        outputs, _ = self._decoder.stateless_call(own, [], z)
        return tf.cast(outputs, tf.float32)

    def scale(self, images: Any, low: Any, span: Any) -> Any:
        """Scale images from the caller's units and dtype to the network's, float32.

        As `data.value_range.to_network_units`. The span is an input of the graph:
        TensorFlow turns a division by a constant into a product with its reciprocal,
        which rounds differently.
        """
        working = tf.float64 if images.dtype == tf.float64 else tf.float32
        images = tf.cast(images, working) - tf.cast(low, working)
        images = tf.cast(images / tf.cast(span, working), tf.float32)
        if self.architecture.likelihood == "bernoulli":
            images = tf.clip_by_value(images, 0.0, 1.0)
        return images

    def _check_shapes(self) -> None:
        """Check that the models have the weights that files promise."""
        variables = (
            self._encoder.trainable_variables + self._decoder.trainable_variables
        )
        shapes = [tuple(variable.shape) for variable in variables]
        if shapes != self._shapes:
            msg = f"Built weights of shapes {shapes}, expected {self._shapes}."
            raise RuntimeError(msg)


# By architecture and device: a graph keeps the device that it was traced for.
_networks: OrderedDict[tuple[Architecture, str], Network] = OrderedDict()


@contextmanager
def leased(
    architecture: Architecture,
    kind: Any,
    make_trainer: Callable[[Network], Any],
) -> Iterator[Any]:
    """Lease a trainer of an architecture, for the caller alone.

    Parameters
    ----------
    architecture : Architecture
    kind : hashable
        Trainers of a kind are interchangeable.
    make_trainer : callable
        Makes one for a network.
    """
    device = tf.zeros(()).device
    with lock:
        network = _networks.get((architecture, device))
        if network is None:
            network = _networks[architecture, device] = Network(architecture)
        _networks.move_to_end((architecture, device))
        matching = [t for t in network.idle_trainers if t.kind == kind]
        if matching:
            trainer = matching[-1]
            network.idle_trainers.remove(trainer)
        else:
            trainer = make_trainer(network)
            trainer.kind = kind
        network.n_trainers_in_use += 1
        _keep_to_bounds()
    try:
        yield trainer
    finally:
        with lock:
            network.n_trainers_in_use -= 1
            network.idle_trainers.append(trainer)
            _keep_to_bounds()


def _keep_to_bounds() -> None:
    """Drop networks, and trainers of those that have several, beyond the bounds."""
    newest = next(reversed(_networks))
    for key, network in list(_networks.items()):
        while network.idle_trainers and network.n_kept > 1 and _is_beyond_bounds():
            del network.idle_trainers[0]
        is_in_use = key == newest or network.n_trainers_in_use
        if not is_in_use and _is_beyond_bounds():
            del _networks[key]


def _is_beyond_bounds() -> bool:
    kept = [(network.n_kept, network.n_weights) for network in _networks.values()]
    return (
        sum(n_kept for n_kept, _ in kept) > MAX_NETWORKS
        or sum(n_kept * n_weights for n_kept, n_weights in kept) > MAX_WEIGHTS_KEPT
    )
