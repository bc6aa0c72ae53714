"""The gradient of a batch's loss: what a training step computes before it steps.

It needs no variables, so that all trainers of a network have its graph in common: the
gradient takes most of the time that tracing training takes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from skvae import objective
from skvae.engine import INTEGER, SCALAR, GraphFunction, Network
from skvae.replicas import Replicas

_NUMBER = tf.TensorSpec((), tf.float32)


def batch_gradient(
    network: Network, n_parts: int, replicas: Replicas
) -> Callable[..., tuple[Any, Any, Any]]:
    """What `BatchGradient` computes, to be called in a trainer's graph."""
    gradient = BatchGradient(network, n_parts, replicas)
    # A strategy wants what its replicas do in the graph that runs them.
    if replicas.are_of_strategy:
        return gradient
    return network.gradients.setdefault(n_parts, gradient.as_graph())


class BatchGradient:
    """The gradient of a batch's loss, as a function of the weights.

    Parameters
    ----------
    network : Network
    n_parts : int
        Into how many parts a batch is split that are computed side by side.
    replicas : Replicas
        Those that share the batch.
    """

    def __init__(self, network: Network, n_parts: int, replicas: Replicas) -> None:
        self._network = network
        self._n_parts = n_parts
        self._replicas = replicas

    def __call__(
        self,
        batch: Any,
        n_batch: Any,
        first_row: Any,
        seed: Any,
        low: Any,
        span: Any,
        kl_weight: Any,
        free_bits: Any,
        loss_scale: Any,
        weights: Any,
        noise_variance: Any,
        noise_variance_rate: Any,
    ) -> tuple[Any, Any, Any]:
        """On one replica: gradient, mean terms and noise variance of the whole batch.

        Parameters
        ----------
        batch : (b, H, W, C)
            Of the n_batch images of the batch those that are in this process, from
            first_row on, in the caller's units.
        seed : (2,)
            Of the draws of the latents.
        low, span, kl_weight, free_bits
            As in `Trainer.train_steps`.
        loss_scale
            What the loss is multiplied by.
        weights : (n_weights,)
        noise_variance
            As the batch before left it.
        noise_variance_rate
            Weight of this batch in the noise variance.

        Returns
        -------
        gradient : (n_weights,)
            Of the mean loss of an image, in nats, multiplied by `loss_scale`.
        means : (1 + latent_dim,)
            Pixel error and KL of each latent dimension, means over the batch.
        noise_variance
            With this batch.
        """
        network = self._network
        n_images = tf.cast(n_batch, tf.float32)
        images = self._replicas.own_rows(batch, first_row, n_batch)
        images = network.scale(images, low, span)
        # The same draws, whatever the number of replicas.
        epsilon = tf.random.stateless_normal(
            (n_batch, network.architecture.latent_dim), seed
        )
        epsilon = self._replicas.own_rows(epsilon, 0, n_batch)
        parts = zip(self._split(images), self._split(epsilon), strict=True)
        with tf.GradientTape() as tape:
            tape.watch(weights)
            layers = network.layers(weights)
            coders = network.encoder(layers), network.decoder(layers)
            terms = [self._elbo_terms(*coders, *part) for part in parts]
            errors, kl = (
                tf.concat(term, axis=0)[: tf.shape(images)[0]]
                for term in zip(*terms, strict=True)
            )
            # Of the batch: (1 + latent_dim,)
            sums = tf.concat(
                [[tf.reduce_sum(errors)], tf.reduce_sum(kl, axis=0)], axis=0
            )
            means = self._replicas.total(tf.stop_gradient(sums)) / n_images
            noise_variance = self._updated_noise_variance(
                noise_variance, noise_variance_rate, means[0]
            )
            # A KL below the floor has no gradient.
            is_counted = tf.cast(means[1:] >= free_bits, tf.float32)
            loss = sums[0] / (2.0 * noise_variance)
            loss += kl_weight * tf.reduce_sum(sums[1:] * is_counted)
            scaled_loss = loss / n_images * loss_scale
        gradient = tape.gradient(scaled_loss, weights)
        return self._replicas.total(gradient), means, noise_variance

    def as_graph(self) -> GraphFunction:
        """A graph of its own, for others to call from theirs."""
        return GraphFunction(
            self,
            self._network.architecture.image_shape,
            INTEGER,  # n_batch
            INTEGER,  # first_row
            tf.TensorSpec((2,), tf.int64),  # seed
            SCALAR,  # low
            SCALAR,  # span
            _NUMBER,  # kl_weight
            _NUMBER,  # free_bits
            _NUMBER,  # loss_scale
            tf.TensorSpec((self._network.n_weights,), tf.float32),
            _NUMBER,  # noise_variance
            _NUMBER,  # noise_variance_rate
        )

    def _split(self, rows: Any) -> list[Any]:
        """Parts of a batch that are computed side by side, of the same size.

        There may be rows of zeros at the end: some operations fail on no rows at all.
        """
        if self._n_parts == self._replicas.n == 1:
            return [rows]
        n_rows = tf.shape(rows)[0]
        n_missing = tf.where(n_rows == 0, self._n_parts, -n_rows % self._n_parts)
        rows = tf.pad(rows, [[0, n_missing], *[[0, 0]] * (len(rows.shape) - 1)])
        return tf.split(rows, self._n_parts)

    def _elbo_terms(
        self, encode: Any, decode: Any, images: Any, epsilon: Any
    ) -> tuple[Any, Any]:
        """Pixel error (n,) and KL (n, latent_dim) of each image."""
        z_mean, z_log_var = encode(images)
        z = z_mean + tf.exp(0.5 * z_log_var) * epsilon  # (n, latent_dim)
        errors = objective.pixel_error(self._network.architecture, images, decode(z))
        return errors, objective.kl_divergence(z_mean, z_log_var)

    def _updated_noise_variance(
        self, noise_variance: Any, rate: Any, mean_error: Any
    ) -> Any:
        """The noise variance that takes a batch's mean error into account.

        The variance that maximises the likelihood is the mean squared error (Rybkin,
        Daniilidis and Levine 2021, equation 6), here its running mean over batches.
        """
        if self._network.architecture.likelihood != "gaussian":
            return noise_variance
        newest = mean_error / self._network.architecture.n_pixels
        mean = noise_variance + rate * (newest - noise_variance)
        return tf.maximum(mean, objective.MIN_NOISE_VARIANCE)
