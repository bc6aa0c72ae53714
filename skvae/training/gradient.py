"""Gradient of a batch's loss, which a training step computes before its update.

It has no variables, so all trainers of a network can share its graph. This saves most
of the time of tracing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from skvae.network import objective
from skvae.network.backend import tf
from skvae.training.compiled import INTEGER, SCALAR, SCALAR32, GraphFunction, Network
from skvae.training.replicas import Replicas
from skvae.training.threads import Split


def batch_gradient(
    network: Network, split: Split, replicas: Replicas
) -> Callable[..., tuple[Any, Any, Any]]:
    """Return the gradient function of a network, to be called in a trainer's graph.

    Without a strategy, it is a graph that all trainers of the network share. The caller
    must hold `compiled.lock`.

    Parameters
    ----------
    network : Network
    split : Split
        Parts of a batch, and the threads that compute them.
    replicas : Replicas
        Replicas that share the batch.

    Returns
    -------
    callable
        With the parameters of `BatchGradient.__call__`.
    """
    gradient = BatchGradient(network, split.n_parts, replicas)
    # Replicas can only sum within the graph that their strategy runs, and a graph keeps
    # the device that it was traced for.
    if replicas.has_strategy:
        return gradient
    if split not in network.gradients:
        network.gradients[split] = gradient.as_graph()
    return network.gradients[split]


class BatchGradient:
    """Gradient of a batch's loss, as a function of the weights.

    Parameters
    ----------
    network : Network
    n_parts : int
        Number of parts of a batch to compute in parallel.
    replicas : Replicas
        Replicas that share the batch.
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
        noise_factor: Any,
        loss_scale: Any,
        weights: Any,
        noise_variance: Any,
        n_steps: Any,
    ) -> tuple[Any, Any, Any]:
        """Compute gradient, mean terms and noise variance of a batch, on one replica.

        Parameters
        ----------
        batch : tensor of shape (b, H, W, C)
            Images of the batch that are in this process, in the caller's units.
        n_batch : int
            Number of images in the whole batch.
        first_row : int
            Index in the whole batch of the first image in this process.
        seed : tensor of shape (2,), int64
            Seed of the latent draws.
        low, span : float
            Interval [low, low + span] of pixel values that is scaled to [0, 1].
        kl_weight : float
            Weight of the KL in the loss.
        free_bits : float
            KL of a latent dimension, in nats, up to which it has no gradient.
        noise_factor : float
            Noise variance of the loss, as a multiple of the running one.
        loss_scale : float
            Factor of the loss.
        weights : tensor of shape (n_weights,)
        noise_variance : float
            Running noise variance after the previous step, in the network's units.
        n_steps : int
            Number of steps before this one.

        Returns
        -------
        gradient : tensor of shape (n_weights,)
            Gradient of the mean loss of an image, in nats, times `loss_scale`.
        means : tensor of shape (1 + latent_dim,)
            Pixel error and KL of each latent dimension, as means over the batch.
        noise_variance : float
            Running noise variance after this step.
        """
        network = self._network
        n_images = tf.cast(n_batch, tf.float32)
        images = self._replicas.own_rows(batch, first_row, n_batch)
        images = network.scale(images, low, span)
        # The draws do not depend on the number of replicas.
        epsilon = tf.random.stateless_normal(
            (n_batch, network.architecture.latent_dim), seed
        )
        epsilon = self._replicas.own_rows(epsilon, 0, n_batch)
        parts = zip(self._split(images), self._split(epsilon), strict=True)
        with tf.GradientTape() as tape:
            tape.watch(weights)
            split = network.split(weights)
            terms = [self._elbo_terms(split, *part) for part in parts]
            errors, kl = (
                tf.concat(term, axis=0)[: tf.shape(images)[0]]
                for term in zip(*terms, strict=True)
            )
            # shape (1 + latent_dim,)
            sums = tf.concat(
                [[tf.reduce_sum(errors)], tf.reduce_sum(kl, axis=0)], axis=0
            )
            means = self._replicas.total(tf.stop_gradient(sums)) / n_images
            noise_variance = objective.updated_noise_variance(
                network.architecture, noise_variance, n_steps, means[0]
            )
            # A KL below the free bits has no gradient.
            is_counted = tf.cast(means[1:] >= free_bits, tf.float32)
            loss = sums[0] / (2.0 * noise_factor * noise_variance)
            loss += kl_weight * tf.reduce_sum(sums[1:] * is_counted)
            scaled_loss = loss / n_images * loss_scale
        gradient = tape.gradient(scaled_loss, weights)
        return self._replicas.total(gradient), means, noise_variance

    def as_graph(self) -> GraphFunction:
        """Return a graph function, which other graphs can call."""
        return GraphFunction(
            self,
            self._network.architecture.image_shape,
            INTEGER,  # n_batch
            INTEGER,  # first_row
            tf.TensorSpec((2,), tf.int64),  # seed
            SCALAR,  # low
            SCALAR,  # span
            SCALAR32,  # kl_weight
            SCALAR32,  # free_bits
            SCALAR32,  # noise_factor
            SCALAR32,  # loss_scale
            tf.TensorSpec((self._network.n_weights,), tf.float32),
            SCALAR32,  # noise_variance
            INTEGER,  # n_steps
        )

    def _split(self, rows: Any) -> list[Any]:
        """Split a batch into parts of equal size, to compute in parallel.

        Rows of zeros are added to fill all parts. An empty batch gets one row per part,
        because some operations fail on empty tensors.
        """
        if self._n_parts == self._replicas.n == 1:
            return [rows]
        n_rows = tf.shape(rows)[0]
        n_missing = tf.where(n_rows == 0, self._n_parts, -n_rows % self._n_parts)
        rows = tf.pad(rows, [[0, n_missing], *[[0, 0]] * (len(rows.shape) - 1)])
        return tf.split(rows, self._n_parts)

    def _elbo_terms(
        self, weights: list[Any], images: Any, epsilon: Any
    ) -> tuple[Any, Any]:
        """Pixel error (n,) and KL (n, latent_dim) of each image."""
        network = self._network
        z_mean, z_log_var = network.encode(weights, images)
        z = z_mean + tf.exp(0.5 * z_log_var) * epsilon  # (n, latent_dim)
        outputs = network.decode(weights, z)
        errors = objective.pixel_error(network.architecture, images, outputs)
        return errors, objective.kl_divergence(z_mean, z_log_var)
