"""What a network is, as plain values: the key under which compiled networks are shared.

numpy alone, so that an estimator can be loaded and looked at without TensorFlow.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

ACTIVATIONS = ("sigmoid", "linear")

LIKELIHOODS = ("gaussian", "mse", "bernoulli")

# Keras's optimizers, and what each one's variables are, in a trainer's order: a count,
# a number that is not negative, or as many numbers as there are weights: means of
# gradients, or of their squares or sizes, which are not negative.
OPTIMIZERS = {
    "adagrad": ("count", "squares"),
    "adam": ("count", "means", "squares"),
    "adamax": ("count", "means", "squares"),
    "adamw": ("count", "means", "squares"),
    "lion": ("count", "means"),
    "nadam": ("count", "means", "squares", "number"),
    "rmsprop": ("count", "squares"),
    "sgd": ("count",),
}

# What mixed_float16 has before these, to keep gradients within its range.
LOSS_SCALE_VARIABLES = ("count", "number", "count", "number")

DTYPE_POLICIES = ("float32", "mixed_bfloat16", "mixed_float16")

# All weights are one array, whose length TensorFlow counts in 32 bits.
MAX_WEIGHTS = 2**31 - 1

# More only make a single pixel smaller.
MAX_HIDDEN_LAYERS = 30

# Bounds of a latent's log-variance: its exponential stays finite in float32, whatever
# images are encoded.
Z_LOG_VAR_BOUNDS = (-30.0, 30.0)


@dataclass(frozen=True)
class Architecture:
    """The choices that fix a network's shapes and its graph.

    Numbers that training reads at run time (learning rate, beta, batch size) are
    not here: changing them must not build or trace anything.
    """

    image_shape: tuple[int, int, int]  # (height, width, channels)
    latent_dim: int
    filters: int
    hidden_layers: int
    kernel_size: int
    last_activation: str
    likelihood: str
    dtype_policy: str = "float32"

    @property
    def n_pixels(self) -> int:
        """Number of values in one image: height x width x channels."""
        return math.prod(self.image_shape)

    @property
    def largest_layer(self) -> int:
        """Number of values of an image in the layer that has most."""
        height, width, channels = self.image_shape
        n_values = [height * width * max(channels, self.filters), 8 * self.latent_dim]
        for size, filters in zip(self.stage_sizes[1:], self.stage_filters, strict=True):
            n_values.append(math.prod(size) * filters)
        return max(n_values)

    @property
    def stage_sizes(self) -> list[tuple[int, int]]:
        """(height, width) of the image and after each of the encoder's convolutions.

        A convolution with stride 2 and "same" padding halves a size, rounding up.
        """
        height, width, _ = self.image_shape
        sizes = [(height, width)]
        for _ in range(self.hidden_layers):
            height, width = (height + 1) // 2, (width + 1) // 2
            sizes.append((height, width))
        return sizes

    @property
    def stage_filters(self) -> list[int]:
        """Filters of each of the encoder's convolutions, doubling from `filters`."""
        return [self.filters * 2**i for i in range(self.hidden_layers)]

    @property
    def weight_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every weight under its Keras path, the encoder's first."""
        height, width = self.stage_sizes[-1]
        channels = self.image_shape[-1]
        filters = self.stage_filters
        flat = height * width * filters[-1]
        kernel = (self.kernel_size, self.kernel_size)
        shapes: dict[str, tuple[int, ...]] = {}

        def layer(name: str, kernel_shape: tuple[int, ...], n_outputs: int) -> None:
            shapes[f"{name}/kernel"] = kernel_shape
            shapes[f"{name}/bias"] = (n_outputs,)

        def dense(name: str, n_inputs: int, n_outputs: int) -> None:
            layer(name, (n_inputs, n_outputs), n_outputs)

        # The encoder's convolutions read image channels, then the stage before.
        encoder_inputs = [channels, *filters[:-1]]
        for i, (n_in, n_out) in enumerate(zip(encoder_inputs, filters, strict=True)):
            layer(f"encoder_conv_{i}", (*kernel, n_in, n_out), n_out)
        dense("encoder_intermediate_layer", flat, self.latent_dim * 8)
        dense("encoder_z_mean", self.latent_dim * 8, self.latent_dim)
        dense("encoder_z_log_var", self.latent_dim * 8, self.latent_dim)
        dense("decoder_intermediate", self.latent_dim, flat)
        # A transposed convolution's kernel is (height, width, outputs, inputs). The
        # first keeps the encoder's last number of filters, the others halve it.
        decoder_outputs = filters[::-1]
        decoder_inputs = [filters[-1], *decoder_outputs[:-1]]
        for i, (n_in, n_out) in enumerate(
            zip(decoder_inputs, decoder_outputs, strict=True)
        ):
            layer(f"decoder_conv_{i}", (*kernel, n_out, n_in), n_out)
        layer("decoder_output", (*kernel, channels, filters[0]), channels)
        return shapes

    @property
    def n_weights(self) -> int:
        """Number of weights in all."""
        return sum(map(math.prod, self.weight_shapes.values()))

    def pack(self, weights: dict[str, np.ndarray]) -> np.ndarray:
        """All weights in one vector (n_weights,), in the order of `weight_shapes`."""
        return np.concatenate([weights[path].ravel() for path in self.weight_shapes])

    def unpack(self, vector: np.ndarray) -> dict[str, np.ndarray]:
        """Split the vector (n_weights,) into a copied array a weight."""
        weights = {}
        start = 0
        for path, shape in self.weight_shapes.items():
            stop = start + math.prod(shape)
            weights[path] = vector[start:stop].reshape(shape).copy()
            start = stop
        return weights


def same_padding(size: int, stride: int, kernel_size: int) -> tuple[int, int]:
    """Zeros that "same" padding puts before and after an axis, as TensorFlow does."""
    n_outputs = math.ceil(size / stride)
    total = max((n_outputs - 1) * stride + kernel_size - size, 0)
    return total // 2, total - total // 2


def convolution_links(size: int, stride: int, kernel_size: int) -> np.ndarray:
    """Which pixels a convolution joins along an axis.

    With "same" padding as TensorFlow pads.

    Returns
    -------
    (kernel_size, size, ceil(size / stride)) of bool
        Whether entry k of the kernel carries input pixel i to output pixel o.
    """
    n_outputs = math.ceil(size / stride)
    before, _ = same_padding(size, stride, kernel_size)
    starts = stride * np.arange(n_outputs) - before
    inputs = np.add.outer(np.arange(kernel_size), starts)
    return inputs[:, None, :] == np.arange(size)[:, None]
