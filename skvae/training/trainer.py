"""Optimizer steps: the variables of training and the graph that updates them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from skvae.architecture import FIXED_NOISE_VARIANCE, Architecture
from skvae.network import objective
from skvae.network.backend import keras, tf
from skvae.training.compiled import Network, leased
from skvae.training.execution import ContextExecution, SessionExecution, is_on_cpu
from skvae.training.gradient import batch_gradient
from skvae.training.plan import TrainingState
from skvae.training.replicas import STRATEGIES, Replicas
from skvae.training.threads import Split, split_of_batch

# The gradient of the loss in nats per pixel is clipped to this global norm.
GRADIENT_CLIP_NORM = 10.0

# Momentum of the moving average of the weights. In the first steps it is lower, as in
# TensorFlow's ExponentialMovingAverage; otherwise the initial weights would count too
# much. Averaged weights give held-out images 1 to 3% more nats: digits 1.2, 300 or
# 3,000 clothes 10, patches of 32 x 32 pixels 9. A momentum of 0.99 gains as much, 0.95
# less.
_AVERAGE_MOMENTUM = 0.98

# Initial loss scale of float16, which keeps gradients within its range. Keras's default
# of 2^15 is for losses that are means over pixels; with sums the first steps would
# overflow and be skipped.
FLOAT16_LOSS_SCALE = 1.0


def _is_number(variable: Any) -> bool:
    return len(variable.shape) == 0 and variable.dtype == "float32"


class Trainer:
    """Variables, optimizer and training graph of one network, for one fit at a time.

    Keras optimizers need variables on TensorFlow. A fit loads them, trains, and copies
    them out.

    Parameters
    ----------
    network : Network
    optimizer : str
    strategy : tf.distribute.Strategy
        Shares the work among its replicas.
    split : Split
        Parts of a batch, and the threads that compute them.
    """

    def __init__(
        self, network: Network, optimizer: str, strategy: Any, split: Split
    ) -> None:
        self._network = network
        self.replicas = Replicas(strategy)
        self._gradient = batch_gradient(network, split, self.replicas)
        self._execution: ContextExecution | SessionExecution = (
            SessionExecution(split.n_session_threads)
            if split.n_session_threads
            else ContextExecution()
        )
        with self._execution.scope():
            self._make_variables(optimizer)
        self._new_optimizer = self._execution.read(self._optimizer_variables)
        self._steps = self._execution.function(
            self._train,
            network.architecture.image_shape,
            tf.TensorSpec((8,), tf.float64),
            tf.TensorSpec((4,), tf.int64),
        )

    def _make_variables(self, optimizer: str) -> None:
        architecture = self._network.architecture
        # Zeros by an initializer: a session's graph would contain an array.
        self._weights = keras.Variable(
            "zeros", (architecture.n_weights,), dtype="float32", name="weights"
        )
        self._average = tf.Variable(tf.zeros(architecture.n_weights))
        self._noise_variance = tf.Variable(FIXED_NOISE_VARIANCE, dtype=tf.float32)
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
        if architecture.dtype_policy == "mixed_float16":
            self._optimizer = keras.optimizers.LossScaleOptimizer(
                self._optimizer, initial_scale=FLOAT16_LOSS_SCALE
            )
        self._optimizer.build([self._weights])
        # In Keras's order, as their names depend on the host's name scopes. Versions of
        # Keras put nadam's number before or after the others.
        variables = list(self._optimizer.variables)
        if optimizer == "nadam":
            variables.sort(key=_is_number)
        self._optimizer_variables = [variable.value for variable in variables]

    @property
    def compute_dtype(self) -> str:
        """Dtype that layers compute in."""
        return keras.DTypePolicy(self._network.policy).compute_dtype

    def load(self, state: TrainingState, learning_rate: float) -> None:
        """Set all variables; without optimizer arrays to those of a new optimizer."""
        self._execution.assign(
            [*self._variables_of_state(), self._learning_rate],
            [
                state.weights,
                state.last_weights,
                state.noise_variance,
                *(state.optimizer_arrays or self._new_optimizer),
                learning_rate,
            ],
        )

    def state(self, seed: int, n_epochs: int) -> TrainingState:
        """Copy all variables.

        Parameters
        ----------
        seed, n_epochs : int
            Seed of the training, and its epochs so far.
        """
        n_steps, weights, last_weights, noise_variance, *optimizer_arrays = (
            self._execution.read(
                [self._optimizer.iterations.value, *self._variables_of_state()]
            )
        )
        return TrainingState(
            seed=seed,
            n_epochs=n_epochs,
            n_steps=int(n_steps),
            weights=weights,
            last_weights=last_weights,
            noise_variance=float(noise_variance),
            optimizer_arrays=optimizer_arrays,
        )

    def _variables_of_state(self) -> list[Any]:
        return [
            self._average,
            self._weights.value,
            self._noise_variance,
            *self._optimizer_variables,
        ]

    def train_steps(
        self,
        images: np.ndarray,
        low: float,
        span: float,
        *,
        kl_weight: float,
        free_bits: float,
        noise_factor: float,
        batch_size: int,
        noise_seed: int,
        first_step: int,
        n_images: int,
        sums: np.ndarray,
    ) -> np.ndarray:
        """Take one optimizer step for each batch of images, in order.

        Parameters
        ----------
        images : (n, H, W, C)
            In the caller's units: the part of each batch that this process trains on.
        low, span : float
            The interval [low, low + span] that the network sees as [0, 1].
        kl_weight : float
            Weight of the KL in the loss.
        free_bits : float
            Nats of the KL of each latent dimension that are not penalised.
        noise_factor : float
            Noise variance of the loss, as a multiple of the running one.
        batch_size : int
            Images a step; the last batch may be shorter.
        noise_seed, first_step : int
            Step i of the call draws its noise from noise_seed and first_step + i.
        n_images : int
            Number of images, including those of other processes.
        sums : (3,)
            Loss, reconstruction term and KL of the images before these, summed.

        Returns
        -------
        (3,)
            The sums including these images, with terms as before each batch's step.
        """
        # Two arrays are converted faster than twelve numbers.
        floats = [low, span, kl_weight, free_bits, noise_factor, *sums]
        integers = [batch_size, noise_seed, first_step, n_images]
        with self.replicas.lost_worker_named():
            return self._steps(images, floats, integers)

    def _train(self, images: Any, floats: Any, integers: Any) -> Any:
        low, span = tf.unstack(floats[:2])
        kl_weight, free_bits, noise_factor = tf.unstack(
            tf.cast(floats[2:5], tf.float32)
        )
        batch_size, noise_seed, first_step, n_images = tf.unstack(integers)
        sums = floats[5:]
        start, stop = self.replicas.rows_here(batch_size)
        n_here = stop - start

        def step(i: Any, sums: Any) -> tuple[Any, Any]:
            n_batch = tf.minimum(batch_size, n_images - i * batch_size)
            start, stop = self.replicas.rows_here(n_batch)
            batch = images[i * n_here : i * n_here + stop - start]
            seed = tf.stack([noise_seed, first_step + i])
            terms = self._step(
                *(batch, n_batch, start, seed, low, span),
                *(kl_weight, free_bits, noise_factor),
            )
            return i + 1, sums + tf.cast(terms, tf.float64)

        _, sums = tf.while_loop(
            lambda i, _: i * batch_size < n_images,
            step,
            (tf.constant(0, tf.int64), sums),
            parallel_iterations=1,
        )
        return sums

    def _step(
        self,
        batch: Any,
        n_batch: Any,
        first_row: Any,
        seed: Any,
        low: Any,
        span: Any,
        kl_weight: Any,
        free_bits: Any,
        noise_factor: Any,
    ) -> Any:
        """Take one step; return [loss, reconstruction, KL] summed over the batch.

        The batch has n_batch images, of which `batch` (b, H, W, C) are in this process,
        from first_row on.
        """
        architecture = self._network.architecture
        arguments = (
            *(batch, n_batch, first_row, seed, low, span),
            *(kl_weight, free_bits, noise_factor),
            self._optimizer.scale_loss(tf.ones(())),
            tf.convert_to_tensor(self._weights.value),
            self._noise_variance.read_value(),
            tf.cast(self._optimizer.iterations.value, tf.int64),
        )
        gradient, means, noise_variance = self.replicas.run(
            lambda: self._gradient(*arguments)
        )
        self._noise_variance.assign(noise_variance)
        self._optimizer.apply([gradient], [self._weights])
        self._move_average()
        noise_variance *= noise_factor  # that of the loss
        reconstruction, kl = means[0] / (2.0 * noise_variance), means[1:]
        # Kingma et al. (2016), https://arxiv.org/abs/1606.04934, equation 15.
        floored_kl = tf.reduce_sum(tf.maximum(kl, free_bits))
        if architecture.likelihood == "gaussian":
            reconstruction += objective.normaliser(architecture, noise_variance)
        loss = reconstruction + kl_weight * floored_kl
        terms = tf.stack([loss, reconstruction, tf.reduce_sum(kl)])
        return terms * tf.cast(n_batch, tf.float32)

    def _move_average(self) -> None:
        """Move the average of the weights towards those after the newest step.

        Also after a step that float16 skips.
        """
        n_steps = tf.cast(self._optimizer.iterations.value, tf.float32)
        momentum = tf.minimum(_AVERAGE_MOMENTUM, (1.0 + n_steps) / (10.0 + n_steps))
        change = tf.convert_to_tensor(self._weights.value) - self._average
        self._average.assign_add((1.0 - momentum) * change)


@contextmanager
def leased_trainer(
    architecture: Architecture, optimizer: str, batch_size: int, strategy: Any
) -> Iterator[Trainer]:
    """Lease a trainer of that architecture and optimizer.

    Parameters
    ----------
    architecture : Architecture
    optimizer : str
    batch_size : int
        Determines into how many parts the trainer splits a batch.
    strategy : tf.distribute.Strategy
        Shares the work among its replicas.
    """
    can_use_session = not isinstance(strategy, STRATEGIES) and is_on_cpu()
    n_rows = math.ceil(batch_size / strategy.num_replicas_in_sync)
    split = split_of_batch(architecture, n_rows, can_use_session=can_use_session)
    kind = (optimizer, strategy, split)
    with leased(architecture, kind, lambda network: Trainer(network, *kind)) as trainer:
        yield trainer
