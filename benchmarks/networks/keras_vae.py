"""VAE written directly in Keras 3, with the network of ConvVAE.

The loss is the squared error summed over the pixels of an image, plus the KL
divergence.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

if TYPE_CHECKING:
    from collections.abc import Sequence


class Sampling(layers.Layer):
    """Draw z from a normal distribution, given its mean and log variance."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.seed_generator = keras.random.SeedGenerator(0)

    def call(self, inputs: Sequence[Any]) -> Any:
        z_mean, z_log_var = inputs
        epsilon = keras.random.normal(ops.shape(z_mean), seed=self.seed_generator)
        return z_mean + ops.exp(0.5 * z_log_var) * epsilon


def build_encoder(
    size: int, *, latent_dim: int, filters: int, hidden_layers: int, kernel_size: int
) -> keras.Model:
    """Build the encoder: images (n, size, size, 1) to z_mean, z_log_var and z."""
    inputs = keras.Input((size, size, 1), name="encoder_input")
    x = inputs
    for i in range(hidden_layers):
        x = layers.Conv2D(
            filters * 2**i,
            kernel_size,
            strides=2,
            padding="same",
            activation="relu",
            name=f"encoder_conv_{i}",
        )(x)
    x = layers.Flatten(name="encoder_flatten")(x)
    x = layers.Dense(
        latent_dim * 8, activation="relu", name="encoder_intermediate_layer"
    )(x)
    z_mean = layers.Dense(latent_dim, name="encoder_z_mean")(x)
    z_log_var = layers.Dense(latent_dim, name="encoder_z_log_var")(x)
    z = Sampling(name="encoder_z")([z_mean, z_log_var])
    return keras.Model(inputs, [z_mean, z_log_var, z], name="encoder")


def build_decoder(
    size: int, *, latent_dim: int, filters: int, hidden_layers: int, kernel_size: int
) -> keras.Model:
    """Build the decoder: latents (n, latent_dim) to images (n, size, size, 1)."""
    inputs = keras.Input((latent_dim,), name="decoder_sampled_input")
    width = size // 2**hidden_layers
    n_filters = filters * 2 ** (hidden_layers - 1)
    x = layers.Dense(
        width * width * n_filters, activation="relu", name="decoder_intermediate"
    )(inputs)
    x = layers.Reshape((width, width, n_filters), name="decoder_reshape")(x)
    for i in range(hidden_layers):
        x = layers.Conv2DTranspose(
            n_filters // 2**i,
            kernel_size,
            strides=2,
            padding="same",
            activation="relu",
            name=f"decoder_conv_{i}",
        )(x)
    outputs = layers.Conv2DTranspose(
        1, kernel_size, padding="same", activation="sigmoid", name="decoder_output"
    )(x)
    return keras.Model(inputs, outputs, name="decoder")


def load_weights(models: Sequence[keras.Model], weights: dict[str, np.ndarray]) -> None:
    """Set the weights of layers, given under "name/kernel" and "name/bias"."""
    for model in models:
        for layer in model.layers:
            if layer.trainable_weights:
                kinds = ("kernel", "bias")
                layer.set_weights([weights[f"{layer.name}/{kind}"] for kind in kinds])


def squared_error(images: Any, decoded: Any) -> Any:
    """Sum of squared errors over the pixels: two (n, H, W, 1) to (n,)."""
    return ops.sum(ops.square(images - decoded), axis=(1, 2, 3))


def kl_divergence(z_mean: Any, z_log_var: Any) -> Any:
    """KL divergence summed over the latents: two (n, latent_dim) to (n,)."""
    terms = 1.0 + z_log_var - ops.square(z_mean) - ops.exp(z_log_var)
    return -0.5 * ops.sum(terms, axis=-1)


class LossLayer(layers.Layer):
    """Add the loss to the model and return the decoded images."""

    def call(self, inputs: Sequence[Any]) -> Any:
        images, decoded, z_mean, z_log_var = inputs
        loss = squared_error(images, decoded) + kl_divergence(z_mean, z_log_var)
        self.add_loss(ops.mean(loss))
        return decoded


def with_added_loss(encoder: keras.Model, decoder: keras.Model) -> keras.Model:
    """Build a functional model whose loss is added by a layer."""
    images = encoder.inputs[0]
    z_mean, z_log_var, z = encoder(images)
    outputs = LossLayer()([images, decoder(z), z_mean, z_log_var])
    return keras.Model(images, outputs, name="vae")


class TrainStepVAE(keras.Model):
    """Subclassed model with a custom training step, as in the example of Keras."""

    def __init__(self, encoder: keras.Model, decoder: keras.Model) -> None:
        super().__init__(name="vae")
        self.encoder = encoder
        self.decoder = decoder
        self.loss_tracker = keras.metrics.Mean(name="loss")

    @property
    def metrics(self) -> list[Any]:
        return [self.loss_tracker]

    def train_step(self, images: Any) -> dict[str, Any]:
        with tf.GradientTape() as tape:
            z_mean, z_log_var, z = self.encoder(images)
            errors = squared_error(images, self.decoder(z))
            loss = ops.mean(errors + kl_divergence(z_mean, z_log_var))
        gradients = tape.gradient(loss, self.trainable_weights)
        self.optimizer.apply_gradients(
            zip(gradients, self.trainable_weights, strict=True)
        )
        self.loss_tracker.update_state(loss)
        return {"loss": self.loss_tracker.result()}
