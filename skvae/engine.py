"""The engine: compiled networks, shared by all estimators, and the calls that run them.

The first module to import TensorFlow, itself imported on first use. It knows arrays and
architectures, not estimators.

All weights of a network travel as one vector: one conversion a call, and one variable
for the optimizer to update, where a variable a layer would cost small networks half
their time in overhead. Inference functions take that vector as an argument, so that
one trace serves every estimator of an architecture.
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any
from weakref import WeakSet

import keras
import numpy as np
import tensorflow as tf

from skvae import forward, network, objective, threads
from skvae.architecture import Architecture
from skvae.draws import RowDraws
from skvae.forks import check_not_forked

if keras.backend.backend() != "tensorflow":
    msg = (
        "skvae runs on Keras's TensorFlow backend, but Keras was loaded with "
        f"{keras.backend.backend()!r}. Set the environment variable "
        "KERAS_BACKEND=tensorflow before Keras is first imported."
    )
    raise ImportError(msg)

threads.limit_worker()

# Bounds of a latent's log-variance: its exponential stays finite in float32, whatever
# images are encoded.
Z_LOG_VAR_BOUNDS = (-30.0, 30.0)

# Images are encoded if their values, in the network's units, are smaller than this: its
# layers have room to multiply them before float32 overflows.
LARGEST_PIXEL = 1e18

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
_VECTOR = tf.TensorSpec((None,), tf.float32)
INTEGER = tf.TensorSpec((), tf.int64)
_DRAWS = RowDraws(
    points=tf.TensorSpec((None, None), tf.float64),
    turn=tf.TensorSpec((None,), tf.float64),
    projection=tf.TensorSpec((None, None), tf.float64),
    offset=tf.TensorSpec((None,), tf.float64),
)


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
    """One architecture, built once, with the functions that need no variables.

    Images enter every function in the caller's units, with the interval
    [low, low + span] of them that the network sees as [0, 1].
    """

    def __init__(self, architecture: Architecture) -> None:
        self.architecture = architecture
        self._shapes = list(architecture.weight_shapes.values())
        self._sizes = [math.prod(shape) for shape in self._shapes]
        self.n_weights = sum(self._sizes)
        self._n_encoder_weights = sum(
            path.startswith("encoder") for path in architecture.weight_shapes
        )
        # What `trainer` leases, the last that came back last, and those that are with a
        # fit. A fit that Ctrl-C ends in an unlucky moment gives none back; it is then
        # nobody's.
        self.idle_trainers: list[Any] = []
        self.leased_trainers: WeakSet[Any] = WeakSet()
        # What its trainers have in common, by the number of parts of a batch. It stays
        # when they go: there are few numbers of parts.
        self.gradients: dict[int, GraphFunction] = {}
        image_shape = architecture.image_shape
        units = (SCALAR, SCALAR)
        self.encode = GraphFunction(self._encode, image_shape, _VECTOR, *units)
        self.decode = GraphFunction(self._decode, (architecture.latent_dim,), _VECTOR)
        self.elbo_terms = GraphFunction(
            self._elbo_terms, image_shape, _VECTOR, *units, *_DRAWS
        )
        self.score = GraphFunction(
            self._score, image_shape, _VECTOR, *units, SCALAR, INTEGER, *_DRAWS
        )

    @property
    def n_kept(self) -> int:
        """How many times it counts among those that are kept."""
        return max(1, len(self.idle_trainers) + len(self.leased_trainers))

    # The parts of the graph, shared with `gradient`.

    def layers(self, weights: Any) -> list[Any]:
        """Split the weights (n_weights,) into the tensors of `weight_shapes`."""
        parts = tf.split(weights, self._sizes)
        return [
            tf.reshape(part, shape)
            for part, shape in zip(parts, self._shapes, strict=True)
        ]

    def encoder(
        self, layers: list[Any], row_multiple: int = 1
    ) -> Callable[[Any], tuple[Any, Any]]:
        """Images (n, H, W, C) to z_mean and z_log_var, each (n, latent_dim)."""
        layers = layers[: self._n_encoder_weights]
        encode = forward.encoder(self.architecture, layers, row_multiple)

        def bounded_encode(images: Any) -> tuple[Any, Any]:
            z_mean, z_log_var = encode(images)
            return z_mean, tf.clip_by_value(z_log_var, *Z_LOG_VAR_BOUNDS)

        return bounded_encode

    def decoder(self, layers: list[Any]) -> Callable[[Any], Any]:
        """Latents to what enters the last activation, (n, H, W, C)."""
        return forward.decoder(self.architecture, layers[self._n_encoder_weights :])

    def scale(self, images: Any, low: Any, span: Any) -> Any:
        """Bring images from the caller's units and dtype to the network's, float32.

        float64 is scaled before it is cast, so that small differences at a large
        offset survive. The span is an input of the graph: TensorFlow turns division
        by a constant into a product with its reciprocal, which rounds otherwise.
        """
        working = tf.float64 if images.dtype == tf.float64 else tf.float32
        images = tf.cast(images, working) - tf.cast(low, working)
        images = tf.cast(images / tf.cast(span, working), tf.float32)
        if self.architecture.likelihood == "bernoulli":
            images = tf.clip_by_value(images, 0.0, 1.0)
        return images

    def pixel_error(self, images: Any, outputs: Any) -> Any:
        """`objective.pixel_error` of each image (n,), summed in float64."""
        return objective.pixel_error(
            self.architecture,
            tf.cast(images, tf.float64),
            tf.cast(outputs, tf.float64),
        )

    # The bodies of the graph functions.

    def _encode(self, images: Any, weights: Any, low: Any, span: Any) -> Any:
        images = self.scale(images, low, span)
        encode = self.encoder(self.layers(weights), forward.WHOLE_TILES)
        z_mean, z_log_var = encode(images)
        # A relu would turn what overflows before it into a plain zero.
        is_bounded = tf.reduce_all(tf.abs(images) < LARGEST_PIXEL, axis=(1, 2, 3))
        return tf.where(is_bounded[:, None], z_mean, np.nan), z_log_var

    def _decode(self, z: Any, weights: Any) -> Any:
        """Latents to the likelihood's mean, in the network's units."""
        outputs = self.decoder(self.layers(weights))(z)
        return objective.decoder_mean(self.architecture, outputs)

    def _elbo_terms(
        self, images: Any, weights: Any, low: Any, span: Any, *row_draws: Any
    ) -> tuple[Any, Any]:
        """Pixel error at the one draw and KL of each image, (n,) each, float64."""
        layers = self.layers(weights)
        encode, decode = self.encoder(layers), self.decoder(layers)
        draws = RowDraws(*row_draws)
        images = self.scale(images, low, span)
        z_mean, z_log_var = encode(images)
        epsilon = _normal_draws(draws.points, _shift(images, draws))
        epsilon = tf.cast(epsilon[:, 0], tf.float32)  # (n, latent_dim)
        z = z_mean + tf.exp(0.5 * z_log_var) * epsilon
        kl = tf.reduce_sum(objective.kl_divergence(z_mean, z_log_var), axis=1)
        errors = self.pixel_error(images, decode(z))
        return errors, tf.cast(kl, tf.float64)

    def _score(
        self,
        images: Any,
        weights: Any,
        low: Any,
        span: Any,
        noise_variance: Any,
        n_draws: Any,
        *row_draws: Any,
    ) -> Any:
        """Importance-weighted estimate of log p(x) of each image, (n,) float64.

        Burda, Grosse and Salakhutdinov (2016), equation 8: the log of the mean of
        p(x | z) p(z) / q(z | x) over draws z from q(z | x). One row at a time with all
        its draws, so that no bit of a row's score depends on its neighbours.
        """
        layers = self.layers(weights)
        encode, decode = self.encoder(layers), self.decoder(layers)
        draws = RowDraws(*row_draws)
        n_points = tf.shape(draws.points, tf.int64)[0]
        # Memory is bounded, whatever the number of draws: a quarter of what a batch may
        # take, which is faster than all of it (see benchmarks/README.md).
        chunk = tf.constant(max(1, self.architecture.images_at_once // 4), tf.int64)
        normaliser = objective.normaliser(self.architecture, noise_variance)

        def score_row(image: Any) -> Any:
            image = self.scale(image[None], low, span)  # (1, H, W, C)
            z_mean, z_log_var = encode(image)
            z_mean = tf.cast(z_mean, tf.float64)
            z_log_var = tf.cast(z_log_var, tf.float64)
            shift = _shift(image, draws)

            def add_chunk(start: Any, log_sum: Any) -> tuple[Any, Any]:
                # Beyond the last point they come round again, turned further.
                first = start % n_points
                stop = first + tf.minimum(chunk, n_draws - start)
                points = draws.points[first:stop]
                turns = tf.cast(start // n_points, tf.float64)
                epsilon = _normal_draws(points, shift + turns * draws.turn)[0]
                z = z_mean + tf.exp(0.5 * z_log_var) * epsilon  # (chunk, latent_dim)
                outputs = decode(tf.cast(z, tf.float32))
                errors = self.pixel_error(image, outputs)
                # log p(z) - log q(z | x): the 2 pi of both densities cancel.
                log_ratio = 0.5 * tf.reduce_sum(
                    tf.square(epsilon) + z_log_var - tf.square(z), axis=1
                )
                log_weights = log_ratio - errors / (2.0 * noise_variance)
                log_sum = tf.reduce_logsumexp(tf.concat([[log_sum], log_weights], 0))
                return start + tf.shape(points, tf.int64)[0], log_sum

            _, log_sum = tf.while_loop(
                lambda start, _: start < n_draws,
                add_chunk,
                (tf.constant(0, tf.int64), tf.constant(-np.inf, tf.float64)),
                parallel_iterations=1,
            )
            return log_sum - tf.math.log(tf.cast(n_draws, tf.float64)) - normaliser

        return tf.map_fn(score_row, images, fn_output_signature=tf.float64)


def _shift(images: Any, draws: RowDraws) -> Any:
    """How far each row moves the points of its draws: (n, H, W, C) -> (n, L)."""
    rows = tf.reshape(images, (tf.shape(images)[0], -1))
    return tf.cast(rows, tf.float64) @ draws.projection + draws.offset


def _normal_draws(points: Any, shift: Any) -> Any:
    """Standard normal draws: points (k, L) and shifts (n, L) -> (n, k, L)."""
    uniform = tf.math.floormod(points + shift[:, None, :], 1.0)
    # 0 and 1 have no finite quantile.
    return tf.math.ndtri(tf.clip_by_value(uniform, 1e-16, 1 - 1e-16))


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
            _networks[architecture] = Network(architecture)
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
