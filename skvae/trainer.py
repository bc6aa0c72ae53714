"""Training: the variables of a network, and the graph that takes steps with them.

Training needs variables, because a Keras optimizer cannot run without them on
TensorFlow. They live in a `Trainer`, which a fit leases, fills and hands back.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from skvae import engine, objective, threads
from skvae.architecture import Architecture
from skvae.backend import keras, tf
from skvae.engine import INTEGER, SCALAR, SCALAR32, GraphFunction, Network
from skvae.forks import check_not_forked
from skvae.gradient import batch_gradient
from skvae.interrupts import UninterruptedThreads
from skvae.replicas import Replicas, current_strategy

# The gradient of the loss in nats per pixel is clipped to this global norm.
GRADIENT_CLIP_NORM = 10.0

# What float16's loss is multiplied by at first, so that gradients stay in its range.
# Keras's own 2^15 is for losses that are means over pixels: the first steps of sums
# would overflow, and be left out.
FLOAT16_LOSS_SCALE = 1.0


def _is_number(variable: Any) -> bool:
    return len(variable.shape) == 0 and variable.dtype == "float32"


class Trainer:
    """Variables, optimizer and training graph of one network, for one fit at a time."""

    def __init__(
        self, network: Network, optimizer: str, n_parts: int, strategy: Any
    ) -> None:
        self.kind = (optimizer, n_parts, strategy)
        architecture = network.architecture
        self._network = network
        self.replicas = Replicas(strategy)
        self._gradient = batch_gradient(network, n_parts, self.replicas)
        self._weights = keras.Variable(
            np.zeros(architecture.n_weights), dtype="float32", name="weights"
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
        if architecture.dtype_policy == "mixed_float16":
            self._optimizer = keras.optimizers.LossScaleOptimizer(
                self._optimizer, initial_scale=FLOAT16_LOSS_SCALE
            )
        self._optimizer.build([self._weights])
        # In Keras's order: their names depend on the host's name scopes. Versions put
        # nadam's one number before or after the rest.
        self._optimizer_variables = list(self._optimizer.variables)
        if optimizer == "nadam":
            self._optimizer_variables.sort(key=_is_number)
        self._new_optimizer = self._optimizer_arrays()
        self._steps = GraphFunction(
            self._train,
            architecture.image_shape,
            SCALAR,  # low
            SCALAR,  # span
            SCALAR32,  # kl_weight
            SCALAR32,  # free_bits
            INTEGER,  # batch_size
            INTEGER,  # noise_seed
            INTEGER,  # first_step
            INTEGER,  # n_images
            tf.TensorSpec((3,), tf.float64),  # sums
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
        for variable, array in zip(self._optimizer_variables, arrays, strict=True):
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
        n_images: int,
        sums: np.ndarray,
    ) -> np.ndarray:
        """Take one optimizer step for each batch of images, in order.

        Parameters
        ----------
        images : (n, H, W, C)
            In the caller's units: those of each batch that are for this process.
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
        n_images : int
            How many images there are, with those of other processes.
        sums : (3,)
            Loss, reconstruction term and KL of the images before these, summed.

        Returns
        -------
        (3,)
            The sums with these images, each batch's terms as they were before its step.
        """
        with self.replicas.lost_worker_named():
            return self._steps(
                images,
                low,
                span,
                kl_weight,
                free_bits,
                batch_size,
                noise_seed,
                first_step,
                n_images,
                sums,
            ).numpy()

    def _optimizer_arrays(self) -> list[np.ndarray]:
        return [np.array(variable.numpy()) for variable in self._optimizer_variables]

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
        n_images: Any,
        sums: Any,
    ) -> Any:
        start, stop = self.replicas.rows_here(batch_size)
        n_here = stop - start

        def step(i: Any, sums: Any) -> tuple[Any, Any]:
            n_batch = tf.minimum(batch_size, n_images - i * batch_size)
            start, stop = self.replicas.rows_here(n_batch)
            batch = images[i * n_here : i * n_here + stop - start]
            seed = tf.stack([noise_seed, first_step + i])
            terms = self._step(
                batch, n_batch, start, seed, low, span, kl_weight, free_bits
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
    ) -> Any:
        """One step: the summed [loss, reconstruction, KL] of a batch of n_batch images.

        Of these `batch` (b, H, W, C) are here, from first_row on.
        """
        architecture = self._network.architecture
        arguments = (
            *(batch, n_batch, first_row, seed, low, span, kl_weight, free_bits),
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
        reconstruction, kl = means[0] / (2.0 * noise_variance), means[1:]
        # Kingma et al. (2016), https://arxiv.org/abs/1606.04934, equation 15.
        floored_kl = tf.reduce_sum(tf.maximum(kl, free_bits))
        if architecture.likelihood == "gaussian":
            reconstruction += objective.normaliser(architecture, noise_variance)
        loss = reconstruction + kl_weight * floored_kl
        terms = tf.stack([loss, reconstruction, tf.reduce_sum(kl)])
        return terms * tf.cast(n_batch, tf.float32)


@contextmanager
def leased_trainer(
    architecture: Architecture, optimizer: str, batch_size: int
) -> Iterator[Trainer]:
    """A trainer of that architecture and optimizer, for the caller alone.

    The batch size says into how many parts the trainer splits a batch.

    In the scope of a distribution strategy it shares the work among its replicas.

    Raises
    ------
    RuntimeError
        In the scope of a strategy that is not supported, or in a process that
        TensorFlow cannot work in: see `forks`.
    """
    check_not_forked()
    strategy = current_strategy()
    with engine.lock, UninterruptedThreads(1) as thread:
        network = engine.shared_network(architecture)
        n_rows = math.ceil(batch_size / strategy.num_replicas_in_sync)
        n_parts = thread.submit(threads.n_parts, architecture, n_rows).result()
        kind = (optimizer, n_parts, strategy)
        idle = network.idle_trainers
        if not any(trainer.kind == kind for trainer in idle):
            # Its variables are no strategy's: the thread is outside of all scopes.
            idle.append(thread.submit(Trainer, network, *kind).result())
        trainer = next(each for each in reversed(idle) if each.kind == kind)
        idle.remove(trainer)
        network.leased_trainers.add(trainer)
    is_at_rest = True
    try:
        yield trainer
    except BaseException as error:
        # After Ctrl-C a call may still be under way in it.
        is_at_rest = isinstance(error, Exception)
        raise
    finally:
        with engine.lock:
            network.leased_trainers.discard(trainer)
            if is_at_rest:
                idle.append(trainer)
            engine.keep_to_bounds()
