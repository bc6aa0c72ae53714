"""Encoder and decoder as Keras models, with Keras's convolutions or faster ones.

Import this module before ``keras.saving.load_model`` reads a model from
`ConvVAE.to_keras`: it registers the custom layers.
"""

from __future__ import annotations

import zlib
from typing import Any, NamedTuple

import numpy as np

from skvae.architecture import Architecture
from skvae.network import layers
from skvae.network.backend import keras


@keras.saving.register_keras_serializable(package="skvae")
class Sampling(keras.layers.Layer):
    """Draw z from the posterior N(z_mean, exp(z_log_var)).

    Reparameterisation trick (Kingma and Welling 2014, section 2.4):
    z = z_mean + exp(z_log_var / 2) * epsilon with epsilon standard normal.

    Parameters
    ----------
    seed : int, default=0
        Seed of the layer's random stream. Each call makes new draws.
    **kwargs
        Arguments of `keras.layers.Layer`.
    """

    def __init__(self, seed: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def call(self, inputs: Any) -> Any:
        """Draw z from z_mean and z_log_var, all of shape (n, latent_dim)."""
        z_mean, z_log_var = inputs
        epsilon = keras.random.normal(
            keras.ops.shape(z_mean), dtype=z_mean.dtype, seed=self.seed_generator
        )
        return z_mean + keras.ops.exp(0.5 * z_log_var) * epsilon

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Shape of z, equal to that of z_mean."""
        return input_shape[0]

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments of the layer."""
        return {**super().get_config(), "seed": self.seed}


def _cropped_transpose(
    *args: Any, output_size: tuple[int, int], **kwargs: Any
) -> keras.layers.Layer:
    """Transposed convolution of Keras, cropped to a size if its output is larger."""
    convolution = keras.layers.Conv2DTranspose(*args, **kwargs)

    def apply(x: Any) -> Any:
        x = convolution(x)
        crop = tuple(
            (0, 0) if size == full else _crop(convolution.kernel_size[0])
            for size, full in zip(output_size, x.shape[1:3], strict=True)
        )
        if crop == ((0, 0), (0, 0)):
            return x
        return keras.layers.Cropping2D(
            crop,
            data_format="channels_last",
            dtype=kwargs["dtype"],
            name=convolution.name.replace("conv", "crop"),
        )(x)

    return apply


def _crop(kernel_size: int) -> tuple[int, int]:
    """Number of pixels to crop before and after an axis of odd size.

    The output of the transposed convolution with stride 2 has an even size, one pixel
    too many. It is cropped to be the transpose of the encoder's convolution. For odd
    kernels wider than one, that convolution pads odd sizes with one more pixel in front
    than even sizes.
    """
    return (1, 0) if kernel_size % 2 == 1 and kernel_size > 1 else (0, 1)


class LayerSet(NamedTuple):
    """Convolution layers of a network."""

    Conv2D: Any
    Conv2DTranspose: Any  # takes output_size, (height, width)


KERAS = LayerSet(keras.layers.Conv2D, _cropped_transpose)
FAST = LayerSet(layers.Conv2D, layers.Conv2DTranspose)


# Each layer sets dtype and data format, so that the global Keras settings of the host
# process have no effect.


def _options(name: str, dtype: str) -> dict[str, Any]:
    # Without a seed, the initializer would draw one from Python's global random state.
    initializer = keras.initializers.GlorotUniform(zlib.crc32(name.encode()))
    return {"kernel_initializer": initializer, "dtype": dtype, "name": name}


def _convolution_options(name: str, dtype: str) -> dict[str, Any]:
    return {
        "padding": "same",
        "data_format": "channels_last",
        **_options(name, dtype),
    }


def build_encoder(
    architecture: Architecture, kind: LayerSet = KERAS, dtype: str = "float32"
) -> keras.Model:
    """Build the encoder: images (n, H, W, C) to z_mean and z_log_var (n, latent_dim).

    Parameters
    ----------
    architecture : Architecture
    kind : LayerSet, default=KERAS
        Convolution layers to use.
    dtype : str, default="float32"
        Dtype policy of all layers but the last two, which are float32.

    Returns
    -------
    keras.Model
        For images in the network's units.
    """
    inputs = keras.Input(
        architecture.image_shape, dtype="float32", name="encoder_input"
    )
    x = inputs  # (n, height, width, channels)
    for i, filters in enumerate(architecture.stage_filters):
        x = kind.Conv2D(
            filters,
            architecture.kernel_size,
            strides=2,
            activation="relu",
            **_convolution_options(f"encoder_conv_{i}", dtype),
        )(x)  # (n, ceil(height / 2), ceil(width / 2), filters)
    x = keras.layers.Flatten(
        data_format="channels_last", dtype=dtype, name="encoder_flatten"
    )(x)
    x = keras.layers.Dense(
        architecture.latent_dim * 8,
        activation="relu",
        **_options("encoder_intermediate_layer", dtype),
    )(x)
    if dtype != "float32":
        # One cast for both layers, so that their gradients are summed in float32.
        x = keras.ops.cast(x, "float32")
    z_mean, z_log_var = (
        keras.layers.Dense(architecture.latent_dim, **_options(name, "float32"))(x)
        for name in ("encoder_z_mean", "encoder_z_log_var")
    )  # (n, latent_dim)
    return keras.Model(inputs, [z_mean, z_log_var], name="encoder")


def build_decoder(
    architecture: Architecture,
    kind: LayerSet = KERAS,
    dtype: str = "float32",
    last_activation: str = "linear",
) -> keras.Model:
    """Build the decoder: latents (n, latent_dim) to images (n, H, W, C).

    Parameters
    ----------
    architecture : Architecture
    kind : LayerSet, default=KERAS
        Convolution layers to use.
    dtype : str, default="float32"
        Dtype policy of the layers.
    last_activation : str, default="linear"
        Activation of the output, in place of the architecture's.

    Returns
    -------
    keras.Model
        For images in the network's units.
    """
    *sizes, (height, width) = architecture.stage_sizes
    filters = architecture.stage_filters[::-1]
    inputs = keras.Input(
        (architecture.latent_dim,), dtype="float32", name="decoder_sampled_input"
    )
    x = keras.layers.Dense(
        height * width * filters[0],
        activation="relu",
        **_options("decoder_intermediate", dtype),
    )(inputs)
    x = keras.layers.Reshape(
        (height, width, filters[0]), dtype=dtype, name="decoder_reshape"
    )(x)
    for i, size in enumerate(sizes[::-1]):
        x = kind.Conv2DTranspose(
            filters[i],
            architecture.kernel_size,
            strides=2,
            activation="relu",
            output_size=size,
            **_convolution_options(f"decoder_conv_{i}", dtype),
        )(x)  # (n, *size, filters)
    outputs = kind.Conv2DTranspose(
        architecture.image_shape[-1],
        architecture.kernel_size,
        activation=last_activation,
        output_size=sizes[0],
        **_convolution_options("decoder_output", dtype),
    )(x)  # (n, height, width, channels)
    return keras.Model(inputs, outputs, name="decoder")


class KerasModels(NamedTuple):
    """Encoder, decoder and both as Keras models.

    Attributes
    ----------
    encoder : keras.Model
        Images to z_mean, z_log_var and z.
    decoder : keras.Model
        z to images.
    vae : keras.Model
        Images to their reconstructions, decoded from z.
    """

    encoder: keras.Model
    decoder: keras.Model
    vae: keras.Model


def build_models(
    architecture: Architecture, weights: dict[str, np.ndarray], seed: int
) -> KerasModels:
    """Build Keras models with given weights.

    Parameters
    ----------
    architecture : Architecture
    weights : dict of str to ndarray
        Weights by Keras path.
    seed : int
        Seed of the sampling layer.

    Returns
    -------
    KerasModels
    """
    # The gradient of Keras's convolution with stride 2 and a kernel of size 1 writes
    # out of bounds (TensorFlow 2.21 with oneDNN).
    kind = KERAS if architecture.kernel_size > 1 else FAST
    encoder = build_encoder(architecture, kind)
    z = Sampling(seed, dtype="float32", name="encoder_z")(encoder.outputs)
    encoder = keras.Model(encoder.inputs[0], [*encoder.outputs, z], name="encoder")
    decoder = build_decoder(
        architecture, kind, last_activation=architecture.last_activation
    )
    variables = [*encoder.trainable_variables, *decoder.trainable_variables]
    # By order, because paths differ within a name scope of the host process.
    for variable, path in zip(variables, architecture.weight_shapes, strict=True):
        variable.assign(weights[path])
    inputs = keras.Input(
        architecture.image_shape, dtype="float32", name="encoder_input"
    )
    vae = keras.Model(inputs, decoder(encoder(inputs)[2]), name="vae")
    return KerasModels(encoder, decoder, vae)
