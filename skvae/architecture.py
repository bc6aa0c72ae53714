"""Architecture of a network, as plain hashable values: the key of compiled networks.

Needs numpy only, so that an estimator can be loaded and inspected without TensorFlow.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

ACTIVATIONS = ("sigmoid", "linear")

LIKELIHOODS = ("gaussian", "mse", "bernoulli")

NOISE_TYPES = ("spherical", "diag")

# Keras optimizers and their variables, in the order in which a trainer returns them: a
# "count" of steps, a non-negative "number", or one value per weight: "means" of
# gradients, or "squares", non-negative means of squared or absolute gradients.
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

# Loss scaling variables, which precede these for mixed_float16. The scale keeps
# gradients within the range of float16.
LOSS_SCALE_VARIABLES = ("count", "number", "count", "number")

DTYPE_POLICIES = ("float32", "mixed_bfloat16", "mixed_float16")

# All weights are packed into one array, whose length TensorFlow stores in 32 bits.
MAX_WEIGHTS = 2**31 - 1

# After 30 halvings an image is a single pixel; further layers would not reduce it.
MAX_HIDDEN_LAYERS = 30

# Bounds of a latent's log-variance. Its exponential is finite in float32 for any image.
Z_LOG_VAR_BOUNDS = (-30.0, 30.0)

# Noise variance v of mse and bernoulli. With it the error term of mse is |x - a(y)|^2,
# the loss of the Keras VAE guide, and the cross-entropy, which is divided by 2 v as
# well, is unchanged.
FIXED_NOISE_VARIANCE = 0.5

# Lower bound of the learned noise variance, in the network's units: a standard
# deviation of a thousandth of the value range.
MIN_NOISE_VARIANCE = 1e-6


@dataclass(frozen=True)
class Architecture:
    """Hyperparameters that determine the shapes and the graph of a network.

    Parameters that training reads at run time (learning rate, beta, batch size) are not
    included: changing them must not rebuild or retrace a network.

    Attributes
    ----------
    image_shape : (int, int, int)
        Height, width and channels of one image.
    latent_dim : int
        Number of latent features.
    filters : int
        Filters of the encoder's first convolution. Each further one doubles them.
    hidden_layers : int
        Number of convolutions in the encoder, and in the decoder.
    kernel_size : int
        Height and width of the convolution kernels, in pixels.
    last_activation : {"sigmoid", "linear"}
        Activation of the decoder's output.
    likelihood : {"gaussian", "mse", "bernoulli"}
        Distribution of a pixel given its decoded mean.
    dtype_policy : {"float32", "mixed_bfloat16", "mixed_float16"}, default="float32"
        Dtype policy of the layers during training.
    """

    image_shape: tuple[int, int, int]
    latent_dim: int
    filters: int
    hidden_layers: int
    kernel_size: int
    last_activation: str
    likelihood: str
    dtype_policy: str = "float32"

    @property
    def n_pixels(self) -> int:
        """Number of values in one image, H * W * C."""
        return math.prod(self.image_shape)

    @property
    def largest_layer(self) -> int:
        """Number of values per image in the largest layer."""
        height, width, channels = self.image_shape
        n_values = [height * width * max(channels, self.filters), 8 * self.latent_dim]
        for size, filters in zip(self.stage_sizes[1:], self.stage_filters, strict=True):
            n_values.append(math.prod(size) * filters)
        return max(n_values)

    @property
    def stage_sizes(self) -> list[tuple[int, int]]:
        """Height and width of the image and of each encoder convolution's output.

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
        """Number of filters of each encoder convolution, doubling from `filters`."""
        return [self.filters * 2**i for i in range(self.hidden_layers)]

    @property
    def weight_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the weights by Keras path, encoder first."""
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

        # The first convolution reads image channels, the others the previous stage.
        encoder_inputs = [channels, *filters[:-1]]
        for i, (n_in, n_out) in enumerate(zip(encoder_inputs, filters, strict=True)):
            layer(f"encoder_conv_{i}", (*kernel, n_in, n_out), n_out)
        dense("encoder_intermediate_layer", flat, self.latent_dim * 8)
        dense("encoder_z_mean", self.latent_dim * 8, self.latent_dim)
        dense("encoder_z_log_var", self.latent_dim * 8, self.latent_dim)
        dense("decoder_intermediate", self.latent_dim, flat)
        # The kernel of a transposed convolution is (height, width, outputs, inputs).
        # The first one keeps the number of filters, the others halve it.
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
        """Total number of weights."""
        return sum(map(math.prod, self.weight_shapes.values()))

    def pack(self, weights: dict[str, np.ndarray]) -> np.ndarray:
        """Concatenate weights to a vector (n_weights,), ordered as `weight_shapes`."""
        return np.concatenate([weights[path].ravel() for path in self.weight_shapes])

    def unpack(self, vector: np.ndarray) -> dict[str, np.ndarray]:
        """Split a vector of shape (n_weights,) into one array per weight, as copies."""
        weights = {}
        start = 0
        for path, shape in self.weight_shapes.items():
            stop = start + math.prod(shape)
            weights[path] = vector[start:stop].reshape(shape).copy()
            start = stop
        return weights


def same_padding(size: int, stride: int, kernel_size: int) -> tuple[int, int]:
    """Number of zeros before and after an axis in TensorFlow's "same" padding."""
    n_outputs = math.ceil(size / stride)
    total = max((n_outputs - 1) * stride + kernel_size - size, 0)
    return total // 2, total - total // 2


def linked_inputs(size: int, stride: int, kernel_size: int) -> np.ndarray:
    """Input pixels that a convolution connects to output pixels along one axis.

    Parameters
    ----------
    size : int
        Number of input pixels, without TensorFlow's "same" padding.
    stride : int
    kernel_size : int

    Returns
    -------
    inputs : ndarray of int of shape (kernel_size, ceil(size / stride))
        Index at [k, o] of the input pixel that kernel entry k connects to output pixel
        o. Below 0 or from `size` on it is padding.
    """
    n_outputs = math.ceil(size / stride)
    before, _ = same_padding(size, stride, kernel_size)
    starts = stride * np.arange(n_outputs) - before
    return np.add.outer(np.arange(kernel_size), starts)
