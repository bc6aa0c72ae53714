"""The engine: compiled networks, shared by all fits of this process.

Imported on first use, as it loads TensorFlow. It knows arrays and architectures, not
estimators.

All weights of a network travel as one vector: one conversion a call, and one variable
for the optimizer to update, where a variable a layer would cost small networks half
their time in overhead.
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any
from weakref import WeakSet

import numpy as np

from skvae import network, threads
from skvae.architecture import Z_LOG_VAR_BOUNDS, Architecture
from skvae.backend import tf
from skvae.forks import check_not_forked
from skvae.interrupts import UninterruptedThreads
from skvae.precision import layer_policy

threads.limit_worker()

# How many networks stay compiled, and how many weights they have together: with Adam,
# 12 bytes each. One with several trainers counts once for each. The least recently used
# goes first; the newest, and those that a fit has leased, stay. TensorFlow keeps some
# 6 MB of each one that goes.
MAX_NETWORKS = 64
MAX_WEIGHTS_KEPT = 2**25

# Building and tracing are for one thread at a time; so is the cache. Reentrant, as a
# graph that is traced may have another traced for a part of it.
lock = threading.RLock()

SCALAR = tf.TensorSpec((), tf.float64)
SCALAR32 = tf.TensorSpec((), tf.float32)
INTEGER = tf.TensorSpec((), tf.int64)


class GraphFunction:
    """A body that is traced once for each dtype of its first argument.

    Only the length of that argument's first axis varies from call to call. Called with
    tensors while another graph is traced, it becomes a part of that one.
    """

    def __init__(
        self, body: Callable[..., Any], row_shape: tuple[int, ...], *signature: Any
    ) -> None:
        self._body = body
        self._row_shape = row_shape
        self._signature = signature
        self._traced: dict[Any, Callable[..., Any]] = {}

    def __call__(self, rows: Any, *args: Any) -> Any:
        """Run the graph on rows (n, *row_shape) and what the signature asks for."""
        if rows.dtype not in self._traced:
            with lock:
                if rows.dtype not in self._traced:
                    self._traced[rows.dtype] = tf.function(
                        self._body,
                        input_signature=(
                            tf.TensorSpec((None, *self._row_shape), rows.dtype),
                            *self._signature,
                        ),
                        autograph=False,
                    ).get_concrete_function()
        return self._traced[rows.dtype](
            tf.convert_to_tensor(rows),
            *(
                tf.convert_to_tensor(arg, spec.dtype)
                for arg, spec in zip(args, self._signature, strict=True)
            ),
        )


class Network:
    """One architecture, built once: Keras models that take their weights as arguments.

    Parameters
    ----------
    architecture : Architecture
    """

    def __init__(self, architecture: Architecture) -> None:
        self.architecture = architecture
        policy = layer_policy(architecture)
        self._encoder = network.build_encoder(architecture, network.FAST, policy)
        self._decoder = network.build_decoder(architecture, network.FAST, policy)
        self._shapes = list(architecture.weight_shapes.values())
        self._check_shapes()
        self._sizes = [math.prod(shape) for shape in self._shapes]
        self.n_weights = sum(self._sizes)
        # What `trainer` leases, the last that came back last, and those that are with a
        # fit. A fit that Ctrl-C ends in an unlucky moment gives none back; it is then
        # nobody's.
        self.idle_trainers: list[Any] = []
        self.leased_trainers: WeakSet[Any] = WeakSet()
        # What its trainers have in common, by the number of parts of a batch. It stays
        # when they go: there are few numbers of parts.
        self.gradients: dict[int, GraphFunction] = {}

    @property
    def n_kept(self) -> int:
        """How many times it counts among those that are kept."""
        return max(1, len(self.idle_trainers) + len(self.leased_trainers))

    # The parts of a graph.

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
        """Latents to what enters the last activation, (n, H, W, C)."""
        own = weights[len(self._encoder.trainable_variables) :]
        outputs, _ = self._decoder.stateless_call(own, [], z)
        return tf.cast(outputs, tf.float32)

    def scale(self, images: Any, low: Any, span: Any) -> Any:
        """Bring images from the caller's units and dtype to the network's, float32.

        As `images.to_network_units`. The span is an input of the graph: TensorFlow
        turns division by a constant into a product with its reciprocal, which rounds
        otherwise.
        """
        working = tf.float64 if images.dtype == tf.float64 else tf.float32
        images = tf.cast(images, working) - tf.cast(low, working)
        images = tf.cast(images / tf.cast(span, working), tf.float32)
        if self.architecture.likelihood == "bernoulli":
            images = tf.clip_by_value(images, 0.0, 1.0)
        return images

    def _check_shapes(self) -> None:
        """See that what files promise is what is built."""
        variables = (
            self._encoder.trainable_variables + self._decoder.trainable_variables
        )
        shapes = [tuple(variable.shape) for variable in variables]
        if shapes != self._shapes:
            msg = f"Built weights of shapes {shapes}, expected {self._shapes}."
            raise RuntimeError(msg)


_networks: OrderedDict[Architecture, Network] = OrderedDict()


def shared_network(architecture: Architecture) -> Network:
    """The network of an architecture, built at its first use.

    Raises
    ------
    RuntimeError
        In a process that TensorFlow cannot work in: see `forks`.
    """
    check_not_forked()
    with lock:
        if architecture not in _networks:
            # Its variables are no strategy's: the thread is outside of all scopes.
            with UninterruptedThreads(1) as thread:
                built = thread.submit(Network, architecture).result()
            _networks[architecture] = built
            keep_to_bounds()
        _networks.move_to_end(architecture)
        return _networks[architecture]


def keep_to_bounds() -> None:
    """Drop networks, and trainers of those that have several, beyond the bounds."""
    newest = next(reversed(_networks), None)
    for architecture, shared in list(_networks.items()):
        while shared.idle_trainers and shared.n_kept > 1 and _is_beyond_bounds():
            del shared.idle_trainers[0]
        is_in_use = architecture == newest or shared.leased_trainers
        if not is_in_use and _is_beyond_bounds():
            del _networks[architecture]


def _is_beyond_bounds() -> bool:
    kept = [(shared.n_kept, shared.n_weights) for shared in _networks.values()]
    return (
        sum(n_kept for n_kept, _ in kept) > MAX_NETWORKS
        or sum(n_kept * n_weights for n_kept, n_weights in kept) > MAX_WEIGHTS_KEPT
    )


def keras_models(
    architecture: Architecture, weights: dict[str, np.ndarray], seed: int
) -> network.KerasModels:
    """New Keras models with these weights.

    Raises
    ------
    RuntimeError
        As `shared_network`.
    """
    check_not_forked()
    with lock:
        return network.build_models(architecture, weights, seed)


def start_devices() -> None:
    """Make TensorFlow look for its devices now, as its first operation would."""
    tf.zeros(())
