"""The gradient of a batch's loss: what a training step computes before it steps.

It needs no variables, so that all trainers of a network have its graph in common: the
gradient takes most of the time that tracing training takes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from skvae.network import objective
from skvae.network.backend import tf
from skvae.training.compiled import INTEGER, SCALAR, SCALAR32, GraphFunction, Network
from skvae.training.replicas import Replicas

# The learned noise variance is a running mean of the batches' mean squared error, in
# which the newest batch weighs at least this much: about the last 20 steps count.
NOISE_VARIANCE_MIN_RATE = 0.05


def batch_gradient(
    network: Network, n_parts: int, replicas: Replicas
) -> Callable[..., tuple[Any, Any, Any]]:
    """What `BatchGradient` computes, to be called in a trainer's graph.

    Without a strategy, the graph that all trainers of the network share; the caller
    holds `compiled.lock`.
    """
    gradient = BatchGradient(network, n_parts, replicas)
    # Replicas can only add up in the graph that their strategy runs, and a graph keeps
    # the device that it was traced for.
    if replicas.has_strategy:
        return gradient
    if n_parts not in network.gradients:
        network.gradients[n_parts] = gradient.as_graph()
    return network.gradients[n_parts]


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
        n_steps: Any,
    ) -> tuple[Any, Any, Any]:
        """On one replica: gradient, mean terms and noise variance of the whole batch.

        Parameters
        ----------
        batch : (b, H, W, C)
            The images of the batch that are in this process, in the caller's units.
        n_batch
            How many images the whole batch has.
        first_row
            Which of them is the first in this process.
        seed : (2,)
            Of the draws of the latents.
        low, span
            The interval [low, low + span] that the network sees as [0, 1].
        kl_weight
            Weight of the KL in the loss.
        free_bits
            Nats of a latent dimension's KL that cost nothing.
        loss_scale
            What the loss is multiplied by.
        weights : (n_weights,)
        noise_variance
            As the step before left it.
        n_steps
            How many steps there were before.

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
            split = network.split(weights)
            terms = [self._elbo_terms(split, *part) for part in parts]
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
                noise_variance, n_steps, means[0]
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
            SCALAR32,  # kl_weight
            SCALAR32,  # free_bits
            SCALAR32,  # loss_scale
            tf.TensorSpec((self._network.n_weights,), tf.float32),
            SCALAR32,  # noise_variance
            INTEGER,  # n_steps
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
        self, weights: list[Any], images: Any, epsilon: Any
    ) -> tuple[Any, Any]:
        """Pixel error (n,) and KL (n, latent_dim) of each image."""
        network = self._network
        z_mean, z_log_var = network.encode(weights, images)
        z = z_mean + tf.exp(0.5 * z_log_var) * epsilon  # (n, latent_dim)
        outputs = network.decode(weights, z)
        errors = objective.pixel_error(network.architecture, images, outputs)
        return errors, objective.kl_divergence(z_mean, z_log_var)

    def _updated_noise_variance(
        self, noise_variance: Any, n_steps: Any, mean_error: Any
    ) -> Any:
        """The noise variance that takes a batch's mean error into account.

        The variance that maximises the likelihood is the mean squared error (Rybkin,
        Daniilidis and Levine 2021, equation 6), here its running mean over batches.
        """
        if self._network.architecture.likelihood != "gaussian":
            return noise_variance
        newest = mean_error / self._network.architecture.n_pixels
        n_steps = tf.cast(n_steps, tf.float32)
        rate = tf.maximum(1.0 / (n_steps + 1.0), NOISE_VARIANCE_MIN_RATE)
        mean = noise_variance + rate * (newest - noise_variance)
        return tf.maximum(mean, objective.MIN_NOISE_VARIANCE)
