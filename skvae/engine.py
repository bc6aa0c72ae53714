"""The engine: compiled networks, shared by all estimators, and the calls that run them.

The first module to import TensorFlow, itself imported on first use. It knows arrays and
architectures, not estimators.

All weights of a network travel as one vector: one conversion a call, and one variable
for the optimizer to update, where a variable a layer would cost small networks half
their time in overhead. Inference functions take that vector as an argument, so that
one trace serves every estimator of an architecture. Training needs variables, because
a Keras optimizer cannot run without them on TensorFlow; they live in a `Trainer`,
which a fit leases, fills and hands back.
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from skvae import forward, network, objective, threads
from skvae.architecture import Architecture
from skvae.draws import RowDraws

if keras.backend.backend() != "tensorflow":
    msg = (
        "skvae runs on Keras's TensorFlow backend, but Keras was loaded with "
        f"{keras.backend.backend()!r}. Set the environment variable "
        "KERAS_BACKEND=tensorflow before Keras is first imported."
    )
    raise ImportError(msg)

threads.limit_worker()

# The gradient of the loss in nats per pixel is clipped to this global norm.
GRADIENT_CLIP_NORM = 10.0

# What float16's loss is multiplied by at first, so that gradients stay in its range.
# Keras's own 2^15 is for losses that are means over pixels: the first steps of sums
# would overflow, and be left out.
FLOAT16_LOSS_SCALE = 1.0

# The smallest noise variance, in the network's units: a standard deviation of a
# thousandth of the value range.
MIN_NOISE_VARIANCE = 1e-6

# The learned noise variance is a running mean of the batches' mean squared error, in
# which the newest batch weighs at least this much: about the last 20 steps count.
NOISE_VARIANCE_MIN_RATE = 0.05

# Bounds of a latent's log-variance: its exponential stays finite in float32, whatever
# images are encoded.
Z_LOG_VAR_BOUNDS = (-30.0, 30.0)

# Images are encoded if their values, in the network's units, are smaller than this: its
# layers have room to multiply them before float32 overflows.
LARGEST_PIXEL = 1e18

# How many architectures stay compiled; the least recently used goes first, and one
# that a fit has leased stays.
MAX_NETWORKS = 16

# Building and tracing are for one thread at a time; so is the cache.
_lock = threading.RLock()

_SCALAR = tf.TensorSpec((), tf.float64)
_VECTOR = tf.TensorSpec((None,), tf.float32)
_INTEGER = tf.TensorSpec((), tf.int64)
_DRAWS = RowDraws(
    points=tf.TensorSpec((None, None), tf.float64),
    turn=tf.TensorSpec((None,), tf.float64),
    projection=tf.TensorSpec((None, None), tf.float64),
    offset=tf.TensorSpec((None,), tf.float64),
)


class _GraphFunction:
    """A body that is traced once for each dtype of its first argument.

    Only the length of that argument's first axis varies from call to call.
    """

    def __init__(
        self, body: Callable[..., Any], row_shape: tuple[int, ...], *signature: Any
    ) -> None:
        self._body = body
        self._row_shape = row_shape
        self._signature = signature
        self._traced: dict[np.dtype, Callable[..., Any]] = {}

    def __call__(self, rows: np.ndarray, *args: Any) -> Any:
        if rows.dtype not in self._traced:
            with _lock:
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
        self._n_encoder_weights = sum(
            path.startswith("encoder") for path in architecture.weight_shapes
        )
        self.n_weights = sum(self._sizes)
        self.idle_trainers: defaultdict[tuple[str, int], list[Trainer]]
        self.idle_trainers = defaultdict(list)
        self.n_leased = 0
        image_shape = architecture.image_shape
        units = (_SCALAR, _SCALAR)
        self.encode = _GraphFunction(self._encode, image_shape, _VECTOR, *units)
        self.decode = _GraphFunction(self._decode, (architecture.latent_dim,), _VECTOR)
        self.elbo_terms = _GraphFunction(
            self._elbo_terms, image_shape, _VECTOR, *units, *_DRAWS
        )
        self.score = _GraphFunction(
            self._score, image_shape, _VECTOR, *units, _SCALAR, _INTEGER, *_DRAWS
        )

    # The parts of the graph, shared with `Trainer`.

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
        # Memory does not grow with the number of draws.
        chunk = tf.constant(self.architecture.images_at_once, tf.int64)
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


class Trainer:
    """Variables, optimizer and training graph of one network, for one fit at a time."""

    def __init__(self, network: Network, optimizer: str, n_parts: int) -> None:
        architecture = network.architecture
        self._network = network
        self._n_parts = n_parts
        self._weights = keras.Variable(
            np.zeros(network.n_weights), dtype="float32", name="weights"
        )
        self._noise_variance = tf.Variable(
            objective.FIXED_NOISE_VARIANCE, dtype=tf.float32
        )
        # A variable of our own: Keras's has the dtype that the host has set as floatx.
        self._learning_rate = tf.Variable(0.0, dtype=tf.float32)
        self._optimizer = keras.optimizers.get(
            {
                "class_name": optimizer,
                "config": {
                    "learning_rate": self._learning_rate.read_value,
                    "global_clipnorm": GRADIENT_CLIP_NORM * architecture.n_pixels,
                },
            }
        )
        if architecture.layer_dtype == "float16":
            self._optimizer = keras.optimizers.LossScaleOptimizer(
                self._optimizer, initial_scale=FLOAT16_LOSS_SCALE
            )
        self._optimizer.build([self._weights])
        self._new_optimizer = self._optimizer_arrays()
        self._steps = _GraphFunction(
            self._train,
            architecture.image_shape,
            _SCALAR,  # low
            _SCALAR,  # span
            tf.TensorSpec((), tf.float32),  # kl_weight
            tf.TensorSpec((), tf.float32),  # free_bits
            _INTEGER,  # batch_size
            _INTEGER,  # noise_seed
            _INTEGER,  # first_step
        )

    def load(
        self,
        weights: np.ndarray,
        noise_variance: float,
        optimizer_arrays: list[np.ndarray],
        learning_rate: float,
    ) -> None:
        """Set all variables; no optimizer arrays stand for those of a new one."""
        self._weights.assign(weights)
        self._noise_variance.assign(noise_variance)
        arrays = optimizer_arrays or self._new_optimizer
        for variable, array in zip(self._optimizer.variables, arrays, strict=True):
            variable.assign(array)
        self._learning_rate.assign(learning_rate)

    def state(self) -> tuple[np.ndarray, float, list[np.ndarray]]:
        """Copy weights, noise variance and the optimizer's variables."""
        return (
            self._weights.numpy().copy(),
            float(self._noise_variance),
            self._optimizer_arrays(),
        )

    def train_steps(
        self,
        images: np.ndarray,
        low: float,
        span: float,
        *,
        kl_weight: float,
        free_bits: float,
        batch_size: int,
        noise_seed: int,
        first_step: int,
    ) -> np.ndarray:
        """Take one optimizer step for each batch of images, in order.

        Parameters
        ----------
        images : (n, H, W, C)
            In the caller's units.
        low, span : float
            The interval [low, low + span] that the network sees as [0, 1].
        kl_weight : float
            Weight of the KL in the loss.
        free_bits : float
            Nats of a latent dimension's KL that cost nothing.
        batch_size : int
            Images a step; the last batch may be shorter.
        noise_seed, first_step : int
            Step i of the call draws its noise from noise_seed and first_step + i.

        Returns
        -------
        (3,)
            Loss, reconstruction term and KL, summed over the images, each
            batch's as it was before its step.
        """
        return self._steps(
            images,
            low,
            span,
            kl_weight,
            free_bits,
            batch_size,
            noise_seed,
            first_step,
        ).numpy()

    def _optimizer_arrays(self) -> list[np.ndarray]:
        # In Keras's order: their names depend on the host's name scopes.
        return [np.array(variable.numpy()) for variable in self._optimizer.variables]

    def _train(
        self,
        images: Any,
        low: Any,
        span: Any,
        kl_weight: Any,
        free_bits: Any,
        batch_size: Any,
        noise_seed: Any,
        first_step: Any,
    ) -> Any:
        n_images = tf.shape(images, tf.int64)[0]

        def step(i: Any, sums: Any) -> tuple[Any, Any]:
            batch = images[i * batch_size : (i + 1) * batch_size]
            batch = self._network.scale(batch, low, span)
            seed = tf.stack([noise_seed, first_step + i])
            terms = self._step(batch, kl_weight, free_bits, seed)
            return i + 1, sums + tf.cast(terms, tf.float64)

        start = (tf.constant(0, tf.int64), tf.zeros(3, tf.float64))
        _, sums = tf.while_loop(
            lambda i, _: i * batch_size < n_images, step, start, parallel_iterations=1
        )
        return sums

    def _step(self, batch: Any, kl_weight: Any, free_bits: Any, seed: Any) -> Any:
        """One step on a batch (b, H, W, C): its summed [loss, reconstruction, KL]."""
        architecture = self._network.architecture
        n_images = tf.shape(batch)[0]
        epsilon = tf.random.stateless_normal((n_images, architecture.latent_dim), seed)
        parts = zip(self._split(batch), self._split(epsilon), strict=True)
        with tf.GradientTape() as tape:
            layers = self._network.layers(self._weights.value)
            coders = self._network.encoder(layers), self._network.decoder(layers)
            terms = [self._elbo_terms(*coders, *part) for part in parts]
            errors, kl = (
                tf.concat(term, axis=0)[:n_images] for term in zip(*terms, strict=True)
            )
            noise_variance = self._updated_noise_variance(errors)
            reconstruction = tf.reduce_mean(errors) / (2.0 * noise_variance)
            kl = tf.reduce_mean(kl, axis=0)
            # Kingma et al. (2016), https://arxiv.org/abs/1606.04934, equation 15.
            floored_kl = tf.reduce_sum(tf.maximum(kl, free_bits))
            loss = reconstruction + kl_weight * floored_kl
            scaled_loss = self._optimizer.scale_loss(loss)
        gradient = tape.gradient(scaled_loss, self._weights.value)
        self._optimizer.apply([gradient], [self._weights])
        if architecture.likelihood == "gaussian":
            normaliser = objective.normaliser(architecture, noise_variance)
            reconstruction, loss = reconstruction + normaliser, loss + normaliser
        means = tf.stack([loss, reconstruction, tf.reduce_sum(kl)])
        return means * tf.cast(n_images, tf.float32)

    def _split(self, rows: Any) -> list[Any]:
        """Parts of a batch that are computed side by side, of the same size.

        The last row may come again: some operations fail on no rows at all.
        """
        if self._n_parts == 1:
            return [rows]
        n_missing = -tf.shape(rows)[0] % self._n_parts
        filler = tf.repeat(rows[-1:], n_missing, axis=0)
        return tf.split(tf.concat([rows, filler], axis=0), self._n_parts)

    def _elbo_terms(
        self, encode: Any, decode: Any, images: Any, epsilon: Any
    ) -> tuple[Any, Any]:
        """Pixel error (n,) and KL (n, latent_dim) of each image."""
        z_mean, z_log_var = encode(images)
        z = z_mean + tf.exp(0.5 * z_log_var) * epsilon  # (n, latent_dim)
        errors = objective.pixel_error(self._network.architecture, images, decode(z))
        return errors, objective.kl_divergence(z_mean, z_log_var)

    def _updated_noise_variance(self, errors: Any) -> Any:
        """Take a batch's squared errors (b,) into account; the noise variance.

        The variance that maximises the likelihood is the mean squared error (Rybkin,
        Daniilidis and Levine 2021, equation 6), here its running mean over batches.
        """
        if self._network.architecture.likelihood != "gaussian":
            return self._noise_variance.read_value()
        n_pixels = self._network.architecture.n_pixels
        newest = tf.stop_gradient(tf.reduce_mean(errors)) / n_pixels
        n_steps = tf.cast(self._optimizer.iterations.value, tf.float32)
        rate = tf.maximum(1.0 / (n_steps + 1.0), NOISE_VARIANCE_MIN_RATE)
        mean = self._noise_variance + rate * (newest - self._noise_variance)
        return self._noise_variance.assign(tf.maximum(mean, MIN_NOISE_VARIANCE))


_networks: OrderedDict[Architecture, Network] = OrderedDict()


def shared_network(architecture: Architecture) -> Network:
    """The network of an architecture, built at its first use."""
    with _lock:
        if architecture not in _networks:
            _networks[architecture] = Network(architecture)
        _networks.move_to_end(architecture)
        network = _networks[architecture]
        idle = [key for key, kept in _networks.items() if not kept.n_leased]
        for key in idle[: max(0, len(_networks) - MAX_NETWORKS)]:
            del _networks[key]
        return network


@contextmanager
def leased_trainer(
    architecture: Architecture, optimizer: str, batch_size: int
) -> Iterator[Trainer]:
    """A trainer of that architecture and optimizer, for the caller alone.

    The batch size says into how many parts the trainer splits a batch.

    Raises
    ------
    RuntimeError
        Within the scope of a distribution strategy: its variables would be shared
        with fits outside of it.
    """
    if tf.distribute.has_strategy():
        msg = "ConvVAE trains on one device: call fit outside of strategy.scope()."
        raise RuntimeError(msg)
    with _lock:
        network = shared_network(architecture)
        n_parts = threads.n_parts(architecture, batch_size)
        idle = network.idle_trainers[optimizer, n_parts]
        trainer = idle.pop() if idle else Trainer(network, optimizer, n_parts)
        network.n_leased += 1
    try:
        yield trainer
    finally:
        with _lock:
            network.n_leased -= 1
            idle.append(trainer)


def keras_models(
    architecture: Architecture, weights: dict[str, np.ndarray], seed: int
) -> network.KerasModels:
    """New Keras models with these weights."""
    with _lock:
        return network.build_models(architecture, weights, seed)


def start_devices() -> None:
    """Make TensorFlow look for its devices now, as its first operation would."""
    tf.zeros(())
