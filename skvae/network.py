"""The network: the guide's encoder and decoder as Keras models.

Import this module before ``keras.saving.load_model`` reads a model that
`ConvVAE.to_keras` gave: it registers the one layer that is not Keras's own.
"""

from __future__ import annotations

import zlib
from typing import Any, NamedTuple

import keras
import numpy as np

from skvae.architecture import Architecture


@keras.saving.register_keras_serializable(package="skvae")
class Sampling(keras.layers.Layer):
    """Draw z from the posterior N(z_mean, exp(z_log_var)).

    The reparameterisation of Kingma and Welling (2014), section 2.4:
    z = z_mean + exp(z_log_var / 2) * epsilon with epsilon standard normal.

    Parameters
    ----------
    seed : int
        Start of the layer's stream of random numbers; every call draws anew.
    **kwargs
        `keras.layers.Layer`'s own arguments.
    """

    def __init__(self, seed: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def call(self, inputs: Any) -> Any:
        """Draw one z (n, latent_dim) for each row of [z_mean, z_log_var]."""
        z_mean, z_log_var = inputs
        epsilon = keras.random.normal(
            keras.ops.shape(z_mean), dtype=z_mean.dtype, seed=self.seed_generator
        )
        return z_mean + keras.ops.exp(0.5 * z_log_var) * epsilon

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Shape of z: that of z_mean."""
        return input_shape[0]

    def get_config(self) -> dict[str, Any]:
        """Arguments that make the layer again."""
        return {**super().get_config(), "seed": self.seed}


# dtype and data format are stated for every layer, so that what the host process
# has set for its own networks changes nothing here.
_DTYPE = "float32"


def _kernel_initializer(layer_name: str) -> keras.initializers.Initializer:
    """Keras's default initializer, with a seed.

    Left to itself, it would take one from Python's global generator, the host's.
    """
    return keras.initializers.GlorotUniform(zlib.crc32(layer_name.encode()))


def _convolution(name: str) -> dict[str, Any]:
    return {
        "padding": "same",
        "data_format": "channels_last",
        "kernel_initializer": _kernel_initializer(name),
        "dtype": _DTYPE,
        "name": name,
    }


def _dense(units: int, name: str, activation: str | None = None) -> keras.layers.Dense:
    return keras.layers.Dense(
        units,
        activation=activation,
        kernel_initializer=_kernel_initializer(name),
        dtype=_DTYPE,
        name=name,
    )


def build_encoder(architecture: Architecture, seed: int) -> keras.Model:
    """Images (n, H, W, C) in the network's units to (z_mean, z_log_var, z)."""
    inputs = keras.Input(architecture.image_shape, dtype=_DTYPE, name="encoder_input")
    x = inputs  # (n, height, width, channels)
    for i, filters in enumerate(architecture.stage_filters):
        x = keras.layers.Conv2D(
            filters,
            architecture.kernel_size,
            strides=2,
            activation="relu",
            **_convolution(f"encoder_conv_{i}"),
        )(x)  # (n, ceil(height / 2), ceil(width / 2), filters)
    x = keras.layers.Flatten(
        data_format="channels_last", dtype=_DTYPE, name="encoder_flatten"
    )(x)
    x = _dense(architecture.latent_dim * 8, "encoder_intermediate_layer", "relu")(x)
    z_mean = _dense(architecture.latent_dim, "encoder_z_mean")(x)
    z_log_var = _dense(architecture.latent_dim, "encoder_z_log_var")(x)
    # z_mean, z_log_var, z: (n, latent_dim)
    z = Sampling(seed, dtype=_DTYPE, name="encoder_z")([z_mean, z_log_var])
    return keras.Model(inputs, [z_mean, z_log_var, z], name="encoder")


def _crop(size: int, kernel_size: int) -> tuple[int, int]:
    """What to cut off before and after, to come back to `size` pixels along an axis.

    The transposed convolution always gives an even size, one more than an odd
    `size`. The pixel to lose is the one that makes it the transpose of the
    encoder's convolution at that size, which pads odd sizes one pixel further
    ahead than even ones when the kernel is odd and wider than one.
    """
    if size % 2 == 0:
        return 0, 0
    return (1, 0) if kernel_size % 2 == 1 and kernel_size > 1 else (0, 1)


def build_decoder(architecture: Architecture) -> keras.Model:
    """Latents (n, latent_dim) to images (n, H, W, C) in the network's units."""
    *larger_sizes, (height, width) = architecture.stage_sizes
    last_filters = architecture.stage_filters[-1]
    inputs = keras.Input(
        (architecture.latent_dim,), dtype=_DTYPE, name="decoder_sampled_input"
    )
    x = _dense(height * width * last_filters, "decoder_intermediate", "relu")(inputs)
    x = keras.layers.Reshape(
        (height, width, last_filters), dtype=_DTYPE, name="decoder_reshape"
    )(x)
    stages = zip(
        architecture.stage_filters[::-1],
        larger_sizes[::-1],
        strict=True,
    )
    for i, (filters, (height, width)) in enumerate(stages):
        x = keras.layers.Conv2DTranspose(
            filters,
            architecture.kernel_size,
            strides=2,
            activation="relu",
            **_convolution(f"decoder_conv_{i}"),
        )(x)  # (n, height or height + 1, width or width + 1, filters)
        crop = (
            _crop(height, architecture.kernel_size),
            _crop(width, architecture.kernel_size),
        )
        if crop != ((0, 0), (0, 0)):
            x = keras.layers.Cropping2D(
                crop,
                data_format="channels_last",
                dtype=_DTYPE,
                name=f"decoder_crop_{i}",
            )(x)  # (n, height, width, filters)
    outputs = keras.layers.Conv2DTranspose(
        architecture.image_shape[-1],
        architecture.kernel_size,
        activation=architecture.last_activation,
        **_convolution("decoder_output"),
    )(x)  # (n, height, width, channels)
    return keras.Model(inputs, outputs, name="decoder")


class KerasModels(NamedTuple):
    """The guide's three models: images to (z_mean, z_log_var, z), z to images, both."""

    encoder: keras.Model
    decoder: keras.Model
    vae: keras.Model


def build_models(
    architecture: Architecture, weights: dict[str, np.ndarray], seed: int
) -> KerasModels:
    """Make the three models with the given weights, by their Keras paths."""
    encoder = build_encoder(architecture, seed)
    decoder = build_decoder(architecture)
    variables = [*encoder.trainable_variables, *decoder.trainable_variables]
    # In order: within a name scope of the host's, variables have other paths.
    for variable, path in zip(variables, architecture.weight_shapes, strict=True):
        variable.assign(weights[path])
    inputs = keras.Input(architecture.image_shape, dtype=_DTYPE, name="encoder_input")
    vae = keras.Model(inputs, decoder(encoder(inputs)[2]), name="vae")
    return KerasModels(encoder, decoder, vae)
