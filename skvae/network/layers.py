"""Keras layers in the forms that train fastest on a CPU.

Weights, configuration and, up to rounding, results equal those of the Keras layers of
the same name. On a CPU, small convolutions are slow because each call to the library
that computes them costs about a hundred microseconds. Convolutions with few inputs, or
with fewer outputs than a vector register has lanes, are slow, too, and so are
transposed convolutions. The forms below avoid these cases. benchmarks/README.md has the
figures.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np

from skvae.architecture import linked_inputs, same_padding
from skvae.network.backend import keras, tf

# A convolution is computed as a matrix product if the matrix is at most this large.
_MAX_MATRIX_SIZE = 2**16

# Number of float32 lanes of a vector register: outputs that are computed together.
_LANES = 16

# Without oneDNN, a convolution of images with at most _FEW_INPUTS channels computes at
# most _LINE_LENGTH pixels of a line together, as at most _LINE_OUTPUTS channels.
_FEW_INPUTS = 4
_LINE_LENGTH = 4
_LINE_OUTPUTS = 32


@keras.saving.register_keras_serializable(package="skvae")
class Conv2D(keras.layers.Conv2D):
    """Convolution with stride 2 and "same" padding."""

    def call(self, inputs: Any) -> Any:
        """Map images (n, H, W, inputs) to (n, ceil(H / 2), ceil(W / 2), filters)."""
        kernel, bias = map(tf.convert_to_tensor, (self.kernel, self.bias))
        return self.activation(_convolution(inputs, kernel, bias))


@keras.saving.register_keras_serializable(package="skvae")
class Conv2DTranspose(keras.layers.Conv2DTranspose):
    """Transposed convolution with "same" padding and a given output size.

    Parameters
    ----------
    *args, **kwargs
        Arguments of `keras.layers.Conv2DTranspose`.
    output_size : (int, int)
        Height and width of the output.
    """

    def __init__(self, *args: Any, output_size: tuple[int, int], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        height, width = output_size
        self.output_size = (height, width)

    def call(self, inputs: Any) -> Any:
        """Map images (n, h, w, inputs) to (n, *output_size, filters)."""
        kernel, bias = map(tf.convert_to_tensor, (self.kernel, self.bias))
        x = _transposed_convolution(
            inputs, self.output_size, self.strides[0], kernel, bias
        )
        return self.activation(x)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Shape of the output."""
        return (input_shape[0], *self.output_size, self.filters)

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments of the layer."""
        return {**super().get_config(), "output_size": self.output_size}


def _convolution(x: Any, kernel: Any, bias: Any) -> Any:
    """Convolution with stride 2. The kernel is (height, width, inputs, outputs)."""
    size = tuple(x.shape[1:3])
    if _matrix_size(size, 2, kernel) <= _MAX_MATRIX_SIZE:
        matrix = _convolution_matrix(size, 2, kernel)
        return _matrix_product(x, matrix, bias, (*_strided(size, 2), kernel.shape[3]))
    if kernel.shape[0] == 1:
        # A kernel of size 1 with stride 2 skips the last line and column of even sizes.
        # Its gradient would write out of bounds (TensorFlow 2.21 with oneDNN).
        x = _line_convolution(x[:, ::2, ::2], kernel, 1)
    else:
        x = _line_convolution(x, kernel, 2)
    # The gradient of bias_add takes ten times as long for few outputs.
    return x + bias


def _transposed_convolution(
    x: Any, size: tuple[int, int], stride: int, kernel: Any, bias: Any
) -> Any:
    """Transposed convolution to images of a size.

    The kernel is (height, width, outputs, inputs).
    """
    extent, _, n_outputs, _ = kernel.shape
    if _matrix_size(size, stride, kernel) <= _MAX_MATRIX_SIZE:
        matrix = _convolution_matrix(size, stride, kernel)
        return _matrix_product(x, matrix, bias, (*size, n_outputs), is_transposed=True)
    block = _block_length(extent, n_outputs) if stride == 1 else 1
    if block > 1:
        return _block_convolution(x, block, kernel) + bias
    if extent < stride:  # as in `_convolution`
        x, stride = _spread(x, size), 1
    shape = (tf.shape(x)[0], *size, n_outputs)
    return tf.nn.conv2d_transpose(x, kernel, shape, stride, "SAME") + bias


def _spread(images: Any, size: tuple[int, int]) -> Any:
    """Insert zeros after each line and column, and crop to a size."""
    _, height, width, n_channels = images.shape
    x = tf.reshape(images, (-1, height, 1, width, 1, n_channels))
    x = tf.pad(x, [(0, 0), (0, 0), (0, 1), (0, 0), (0, 1), (0, 0)])
    x = tf.reshape(x, (-1, 2 * height, 2 * width, n_channels))
    return x[:, : size[0], : size[1]]


@cache
def _computes_with_onednn() -> bool:
    """Check if TensorFlow computes convolutions with oneDNN on this machine.

    TensorFlow has no function for this check. It replaces the operations of a graph
    before running it, so this runs a convolution and inspects the operations run.
    """
    v1 = tf.compat.v1
    run_metadata = v1.RunMetadata()
    with tf.Graph().as_default():
        images = v1.placeholder(tf.float32, (1, 4, 4, 1))
        convolved = tf.nn.conv2d(images, tf.ones((3, 3, 1, 1)), 1, "SAME")
        # No GPU, so that the session does not allocate its memory.
        config = v1.ConfigProto(device_count={"GPU": 0})
        with v1.Session(config=config) as session:
            session.run(
                convolved,
                {images: np.ones((1, 4, 4, 1), np.float32)},
                v1.RunOptions(output_partition_graphs=True),
                run_metadata,
            )
    nodes = [node for graph in run_metadata.partition_graphs for node in graph.node]
    return any("Mkl" in node.op for node in nodes)


# First layer: a convolution whose output channels are neighbouring pixels of a line.


def _line_convolution(x: Any, kernel: Any, stride: int) -> Any:
    """Convolution with "same" padding, of several pixels together for few inputs.

    The kernel is (height, width, inputs, outputs).
    """
    extent, _, n_inputs, n_outputs = kernel.shape
    length = min(_LINE_LENGTH, _LINE_OUTPUTS // n_outputs)
    if n_inputs > _FEW_INPUTS or length < 2 or _computes_with_onednn():
        return tf.nn.conv2d(x, kernel, stride, "SAME")
    size = x.shape[1:3]
    height, width = _strided(size, stride)
    n_blocks = math.ceil(width / length)
    # End of the last output's receptive field on each axis, after padding to blocks.
    reaches = [(n - 1) * stride + extent for n in (height, n_blocks * length)]
    befores = [same_padding(of, stride, extent)[0] for of in size]
    paddings = [
        (before, max(reach - of - before, 0))
        for before, reach, of in zip(befores, reaches, size, strict=True)
    ]
    kernels = [
        tf.pad(
            kernel, [(0, 0), (stride * i, stride * (length - 1 - i)), (0, 0), (0, 0)]
        )
        for i in range(length)
    ]
    x = tf.nn.conv2d(
        x,
        tf.concat(kernels, axis=3),  # (extent, width, inputs, length * outputs)
        [1, stride, stride * length, 1],
        [(0, 0), *paddings, (0, 0)],
    )
    x = tf.reshape(x, (-1, height, n_blocks * length, n_outputs))
    # The gradient of a slice is a copy, even if nothing is cut off.
    return x[:, :, :width] if width % length else x


# Small convolution: the product with a matrix that has the kernel for each output.


def _strided(size: tuple[int, int], stride: int) -> tuple[int, int]:
    height, width = size
    return math.ceil(height / stride), math.ceil(width / stride)


def _matrix_size(size: tuple[int, int], stride: int, kernel: Any) -> int:
    """Size of the convolution matrix, or of the links it is made from if larger."""
    n_pixels = math.prod(size) * math.prod(_strided(size, stride))
    return n_pixels * max(math.prod(kernel.shape[:2]), math.prod(kernel.shape[2:]))


def _convolution_matrix(size: tuple[int, int], stride: int, kernel: Any) -> Any:
    """Matrix of a convolution of images of a size.

    The kernel is (height, width, a, b), the matrix (pixels * a, strided pixels * b).
    """
    height, width, n_a, n_b = kernel.shape
    # True at [k, i, o] if kernel entry k connects line or column i to o of the outputs.
    rows, columns = (
        linked_inputs(length, stride, height)[:, None, :] == np.arange(length)[:, None]
        for length in size
    )
    links = np.einsum("kio,ljp->ijopkl", rows, columns)
    links = tf.constant(links.reshape(-1, height * width), kernel.dtype)
    matrix = links @ tf.reshape(kernel, (height * width, n_a * n_b))
    n_larger, n_smaller = math.prod(size), math.prod(_strided(size, stride))
    if n_a > 1:
        matrix = tf.reshape(matrix, (n_larger, n_smaller, n_a, n_b))
        # Swaps the middle axes. tf.transpose takes several times as long for so few
        # values.
        matrix = tf.stack(tf.unstack(matrix, axis=2), axis=1)
    return tf.reshape(matrix, (n_larger * n_a, n_smaller * n_b))


def _matrix_product(
    x: Any,
    matrix: Any,
    bias: Any,
    shape: tuple[int, ...],
    *,
    is_transposed: bool = False,
) -> Any:
    """Multiply images by a matrix or its transpose, to images of shape (H, W, C)."""
    x = tf.reshape(x, (-1, matrix.shape[1 if is_transposed else 0]))
    x = tf.matmul(x, matrix, transpose_b=is_transposed)
    return tf.reshape(x + tf.tile(bias, [math.prod(shape[:2])]), (-1, *shape))


# Last layer: a convolution whose output channels are the pixels of a block.


def _block_length(extent: int, n_outputs: int) -> int:
    """Side of the square blocks with the fewest multiplications per output."""

    def cost(block: int) -> float:
        n_lanes = _LANES * math.ceil(block**2 * n_outputs / _LANES)
        return (block + extent - 1) ** 2 * n_lanes / block**2

    return min((1, 2, 4), key=cost)


def _block_convolution(x: Any, block: int, kernel: Any) -> Any:
    """Transposed convolution with stride 1, as a convolution with stride `block`.

    The kernel is (height, width, outputs, inputs). The kernel of the convolution has it
    rotated by 180 degrees, once for each pixel of a block: (reach, reach, inputs,
    pixels * outputs) with reach = block + height - 1.
    """
    extent, _, n_outputs, _ = kernel.shape
    size = tuple(x.shape[1:3])
    n_down, n_across = (math.ceil(length / block) for length in size)
    before, after = same_padding(size[0], 1, extent)[::-1]
    paddings = [
        (before, n * block - length + after)
        for n, length in ((n_down, size[0]), (n_across, size[1]))
    ]
    turned = tf.transpose(tf.reverse(kernel, axis=[0, 1]), (0, 1, 3, 2))
    pixels = [
        tf.pad(turned, [(i, block - 1 - i), (j, block - 1 - j), (0, 0), (0, 0)])
        for i in range(block)
        for j in range(block)
    ]
    blocks = tf.concat(pixels, axis=3)

    @tf.custom_gradient
    def apply(x: Any, kernel: Any) -> Any:
        y = tf.nn.conv2d(x, blocks, block, [(0, 0), *paddings, (0, 0)])
        # depth_to_space takes up to ten times as long.
        y = tf.reshape(y, (-1, n_across, block, block * n_outputs))
        y = tf.transpose(y, (0, 2, 1, 3))  # lines of blocks to lines of pixels
        y = tf.reshape(y, (-1, n_down * block, n_across * block, n_outputs))
        y = y[:, : size[0], : size[1]]

        def gradients(upstream: Any) -> tuple[Any, Any]:
            # The gradient with respect to x is a convolution of upstream. The gradient
            # with respect to the kernel is that convolution's vector-Jacobian product
            # with x.
            with tf.GradientTape() as tape:
                tape.watch(kernel)
                x_gradient = _line_convolution(upstream, kernel, 1)
            return x_gradient, tape.gradient(x_gradient, kernel, x)

        return y, gradients

    return apply(x, kernel)
