"""The network's forward pass in TensorFlow, each layer in the form that runs fastest.

The layers and weights are those of `network`'s Keras models, and so are the results, to
rounding. On a CPU a convolution is slow where it is small, because each call costs the
library that computes it some hundred microseconds, and where it has few inputs, or
fewer outputs than a vector register has lanes; and a transposed convolution is slower
than a convolution. Hence the other forms below. benchmarks/README.md has the figures.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import tensorflow as tf

from skvae.architecture import Architecture, convolution_links, padding_before

# A convolution is a product with a matrix where that has at most so many entries.
_MAX_MATRIX_SIZE = 2**16

# Outputs that a convolution computes together: the float32 lanes of a vector register.
_LANES = 16

# Libraries compute the last rows of a matrix product otherwise than those before, if
# they do not fill a tile, and round otherwise. Tiles have 4, 6, 8, 12 or 24 rows.
WHOLE_TILES = 24

# Without oneDNN, a convolution of images with up to so many channels computes up to
# _LINE_LENGTH pixels of a line together, as up to _LINE_OUTPUTS channels.
_FEW_INPUTS = 4
_LINE_LENGTH = 4
_LINE_OUTPUTS = 32

Function = Callable[[Any], Any]


def encoder(
    architecture: Architecture, weights: list[Any], row_multiple: int = 1
) -> Function:
    """Images (n, H, W, C) to z_mean and z_log_var, each (n, latent_dim).

    Parameters
    ----------
    architecture : Architecture
    weights : list of tensors
        The encoder's, in the order of `Architecture.weight_shapes`.
    row_multiple : int
        Matrix products are given a multiple of so many rows. With `WHOLE_TILES` no bit
        of what they give for a row depends on its place among the others.
    """
    *computed, z_mean, z_log_var = _pairs(weights)
    *convolutions, hidden = _cast(architecture, computed)
    layers = [
        _convolution(size, *pair, row_multiple)
        for size, pair in zip(architecture.stage_sizes, convolutions, strict=False)
    ]
    n_features = hidden[0].shape[0]

    def encode(images: Any) -> tuple[Any, Any]:
        x = tf.cast(images, _layer_dtype(architecture))
        for layer in layers:
            x = tf.nn.relu(layer(x))
        x = tf.reshape(x, (-1, n_features))
        x = tf.nn.relu(_dense(x, *hidden, row_multiple))  # (n, 8 latent_dim)
        x = tf.cast(x, tf.float32)
        return tuple(_dense(x, *layer, row_multiple) for layer in (z_mean, z_log_var))

    return encode


def decoder(architecture: Architecture, weights: list[Any]) -> Function:
    """Latents (n, latent_dim) to what enters the last activation, (n, H, W, C).

    Parameters
    ----------
    architecture : Architecture
    weights : list of tensors
        The decoder's, in the order of `Architecture.weight_shapes`.
    """
    hidden, *convolutions, output = _cast(architecture, _pairs(weights))
    *sizes, (height, width) = architecture.stage_sizes
    layers = [
        _transposed_convolution(size, 2, *pair)
        for size, pair in zip(sizes[::-1], convolutions, strict=True)
    ]
    output_layer = _transposed_convolution(sizes[0], 1, *output)

    def decode(z: Any) -> Any:
        x = tf.cast(z, _layer_dtype(architecture))
        x = tf.nn.relu(_dense(x, *hidden))
        x = tf.reshape(x, (-1, height, width, architecture.stage_filters[-1]))
        for layer in layers:
            x = tf.nn.relu(layer(x))
        return tf.cast(output_layer(x), tf.float32)

    return decode


def _pairs(weights: list[Any]) -> list[tuple[Any, Any]]:
    """Kernel and bias of each layer."""
    return list(zip(weights[::2], weights[1::2], strict=True))


def _cast(
    architecture: Architecture, pairs: list[tuple[Any, Any]]
) -> list[tuple[Any, Any]]:
    """Kernels and biases in the dtype that layers compute in."""
    dtype = _layer_dtype(architecture)
    return [(tf.cast(kernel, dtype), tf.cast(bias, dtype)) for kernel, bias in pairs]


def _layer_dtype(architecture: Architecture) -> str:
    """What layers compute in: float32 where 16 bits would give wrong gradients."""
    dtype = architecture.layer_dtype
    return dtype if dtype == "float32" or adds_in_float32(dtype) else "float32"


@cache
def adds_in_float32(dtype: str) -> bool:
    """Whether TensorFlow, on its device here, adds 16-bit numbers up in float32.

    On a processor without instructions for them it adds up in 16 bits: a sum stops
    growing once its summands are smaller than its rounding, and the gradients of
    weights are such sums, over all pixels of a batch.
    """
    shape = (4, 64, 64, 8)
    n_pixels = math.prod(shape[:3])
    with tf.init_scope():  # to compute now, while a graph is traced
        x, ones = tf.fill(shape, tf.constant(0.7, dtype)), tf.ones(shape, dtype)
        products = tf.raw_ops.Conv2DBackpropFilter(
            input=x,
            filter_sizes=(3, 3, 8, 8),
            out_backprop=ones,
            strides=[1, 1, 1, 1],
            padding="SAME",
        )
        values = tf.reduce_sum(x, axis=(0, 1, 2))
        sums = [tf.cast(each, tf.float32).numpy() for each in (products[1, 1], values)]
    return all(np.allclose(each / n_pixels, 0.7, rtol=0.01) for each in sums)


@cache
def _computes_with_onednn() -> bool:
    """Whether TensorFlow computes convolutions with Intel's oneDNN in this process.

    That depends on processor, system and TF_ENABLE_ONEDNN_OPTS, and only a private
    function knows.
    """
    try:
        from tensorflow.python.util._pywrap_util_port import (  # noqa: PLC0415
            IsMklEnabled,
        )
    except ImportError:  # It matters for speed alone.
        return False
    return bool(IsMklEnabled())


def _dense(x: Any, kernel: Any, bias: Any, row_multiple: int = 1) -> Any:
    return _matmul(x, kernel, row_multiple) + bias


def _matmul(x: Any, matrix: Any, row_multiple: int, **options: Any) -> Any:
    """Product of rows (n, k), filled up to a multiple meanwhile, with a matrix."""
    if row_multiple == 1:
        return tf.matmul(x, matrix, **options)
    n_rows = tf.shape(x)[0]
    x = tf.pad(x, [(0, -n_rows % row_multiple), (0, 0)])
    return tf.matmul(x, matrix, **options)[:n_rows]


def _convolution(
    size: tuple[int, int], kernel: Any, bias: Any, row_multiple: int
) -> Function:
    """Convolution with stride 2 of images of a size.

    The kernel is (height, width, inputs, outputs).
    """
    if _matrix_size(size, 2, kernel) <= _MAX_MATRIX_SIZE:
        matrix = _convolution_matrix(size, 2, kernel)
        shape = (*_strided(size, 2), kernel.shape[3])
        return _matrix_product(matrix, bias, shape, row_multiple)

    def convolution(x: Any) -> Any:
        if kernel.shape[0] == 1:
            # The gradient of stride 2 would write beyond its memory (TensorFlow 2.21
            # with oneDNN), for the last line and column that such a kernel leaves out.
            x = _line_convolution(x[:, ::2, ::2], kernel, 1)
        else:
            x = _line_convolution(x, kernel, 2)
        # Not bias_add: its gradient takes ten times as long where outputs are few.
        return x + bias

    return convolution


def _transposed_convolution(
    size: tuple[int, int], stride: int, kernel: Any, bias: Any
) -> Function:
    """Transposed convolution that comes to images of a size.

    The kernel is (height, width, outputs, inputs).
    """
    n_outputs = kernel.shape[2]
    if _matrix_size(size, stride, kernel) <= _MAX_MATRIX_SIZE:
        matrix = _convolution_matrix(size, stride, kernel)
        shape = (*size, n_outputs)
        return _matrix_product(matrix, bias, shape, is_transposed=True)
    rows = _block_rows(kernel, stride)
    if rows:
        return _block_convolution(size, stride, kernel, bias, rows)

    def transposed_convolution(x: Any) -> Any:
        if kernel.shape[0] < stride:  # as in `_convolution`
            x = _spread(x, size)
        shape = (tf.shape(x)[0], *size, n_outputs)
        return _add_bias(tf.nn.conv2d_transpose(x, kernel, shape, 1, "SAME"), bias)

    return transposed_convolution


def _spread(images: Any, size: tuple[int, int]) -> Any:
    """Put a line and a column of zeros after each, as far as the size goes."""
    _, height, width, n_channels = images.shape
    x = tf.reshape(images, (-1, height, 1, width, 1, n_channels))
    x = tf.pad(x, [(0, 0), (0, 0), (0, 1), (0, 0), (0, 1), (0, 0)])
    x = tf.reshape(x, (-1, 2 * height, 2 * width, n_channels))
    return x[:, : size[0], : size[1]]


@tf.custom_gradient
def _add_bias(images: Any, bias: Any) -> Any:
    """Add a bias (channels,) to images (n, H, W, channels).

    Whole lines are added at once, in half the time where channels are few, but the
    gradient is fastest summed over all axes.
    """
    width, n_channels = images.shape[2:]
    lines = tf.reshape(images, (-1, width * n_channels)) + tf.tile(bias, [width])
    return tf.reshape(lines, tf.shape(images)), lambda gradient: (
        gradient,
        tf.reduce_sum(gradient, axis=(0, 1, 2)),
    )


# The first layer: a convolution whose channels are the next pixels of a line.


def _line_convolution(x: Any, kernel: Any, stride: int) -> Any:
    """Convolution with "same" padding; several pixels together where inputs are few.

    The kernel is (height, width, inputs, outputs).
    """
    extent, _, n_inputs, n_outputs = kernel.shape
    length = min(_LINE_LENGTH, _LINE_OUTPUTS // n_outputs)
    if n_inputs > _FEW_INPUTS or length < 2 or _computes_with_onednn():
        return tf.nn.conv2d(x, kernel, stride, "SAME")
    size = x.shape[1:3]
    height, width = _strided(size, stride)
    n_blocks = math.ceil(width / length)
    # What the last output of each axis reaches, of the right end's block if need be.
    reaches = [(n - 1) * stride + extent for n in (height, n_blocks * length)]
    befores = [padding_before(of, stride, extent) for of in size]
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
        tf.concat(
            kernels, axis=3
        ),  # (extent, a line's reach, inputs, length x outputs)
        [1, stride, stride * length, 1],
        [(0, 0), *paddings, (0, 0)],
    )
    x = tf.reshape(x, (-1, height, n_blocks * length, n_outputs))
    # A slice that leaves nothing out costs its gradient a copy.
    return x[:, :, :width] if width % length else x


# A small convolution: the product with a matrix that holds the kernel for each output.


def _strided(size: tuple[int, int], stride: int) -> tuple[int, int]:
    height, width = size
    return math.ceil(height / stride), math.ceil(width / stride)


def _matrix_size(size: tuple[int, int], stride: int, kernel: Any) -> int:
    """Entries of the matrix, or of the one that it is made with if that has more."""
    n_pixels = math.prod(size) * math.prod(_strided(size, stride))
    return n_pixels * max(math.prod(kernel.shape[:2]), math.prod(kernel.shape[2:]))


def _convolution_matrix(size: tuple[int, int], stride: int, kernel: Any) -> Any:
    """Matrix of a convolution of images of a size.

    The kernel is (height, width, a, b), the matrix (pixels x a, strided pixels x b).
    """
    height, width, n_a, n_b = kernel.shape
    rows, columns = (convolution_links(length, stride, height) for length in size)
    # Which pixels each entry of the kernel joins.
    links = np.einsum("kio,ljp->ijopkl", rows, columns)
    links = tf.constant(links.reshape(-1, height * width), kernel.dtype)
    matrix = links @ tf.reshape(kernel, (height * width, n_a * n_b))
    n_larger, n_smaller = math.prod(size), math.prod(_strided(size, stride))
    if n_a > 1:
        matrix = tf.reshape(matrix, (n_larger, n_smaller, n_a, n_b))
        # The axes in the middle change places. tf.transpose takes several times as long
        # with so few values.
        matrix = tf.stack(tf.unstack(matrix, axis=2), axis=1)
    return tf.reshape(matrix, (n_larger * n_a, n_smaller * n_b))


def _matrix_product(
    matrix: Any,
    bias: Any,
    shape: tuple[int, ...],
    row_multiple: int = 1,
    *,
    is_transposed: bool = False,
) -> Function:
    """Images times a matrix, or its transpose, to images of a shape (H, W, C)."""
    n_inputs = matrix.shape[1 if is_transposed else 0]
    biases = tf.tile(bias, [math.prod(shape[:2])])

    def product(x: Any) -> Any:
        x = tf.reshape(x, (-1, n_inputs))
        x = _matmul(x, matrix, row_multiple, transpose_b=is_transposed) + biases
        return tf.reshape(x, (-1, *shape))

    return product


# A transposed convolution: convolutions whose channels are the pixels of a block.


def _block_rows(kernel: Any, stride: int) -> list[range]:
    """The rows of a block of pixels that each convolution computes.

    There are none where blocks gain nothing.
    """
    length, _, n_outputs, _ = kernel.shape
    if stride == 2:
        # Every other pixel has the same entries of the kernel: two convolutions, of a
        # row each, take no more inputs than these entries need. A kernel of 1 has none
        # for the second row.
        return [range(1), range(1, 2)] if length > 1 else []

    def cost(block: int) -> float:
        """Multiplications an output."""
        n_lanes = _LANES * math.ceil(block**2 * n_outputs / _LANES)
        return (block + length - 1) ** 2 * n_lanes / block**2

    block = min((1, 2, 4), key=cost)
    return [range(block)] if block > 1 else []


def _block_convolution(
    size: tuple[int, int], stride: int, kernel: Any, bias: Any, rows: list[range]
) -> Function:
    """Transposed convolution by convolutions of rows of pixel blocks.

    The kernel is (height, width, outputs, inputs), the size that of the outputs.
    """
    length, _, n_outputs, n_inputs = kernel.shape
    block = rows[-1].stop
    n_down, n_across = (math.ceil(extent / block) for extent in size)
    entries = tf.reshape(kernel, (length**2, n_outputs * n_inputs))
    column_taps, column_padding = _block_taps(
        size[1], stride, length, block, range(block)
    )
    convolutions = []
    for own_rows in rows:
        taps, padding = _block_taps(size[0], stride, length, block, own_rows)
        # Which entry of the kernel joins each input and each pixel.
        links = np.einsum("aut,bvs->uvabts", taps, column_taps)
        reach = links.shape[:2]
        links = tf.constant(links.reshape(-1, length**2), kernel.dtype)
        blocks = tf.reshape(links @ entries, (math.prod(reach), -1, n_inputs))
        blocks = tf.transpose(blocks, (0, 2, 1))  # (reach, inputs, pixels x outputs)
        blocks = tf.reshape(blocks, (*reach, n_inputs, -1))
        convolutions.append((blocks, [(0, 0), padding, column_padding, (0, 0)]))

    @tf.custom_gradient
    def apply(x: Any, kernel: Any) -> Any:
        parts = []
        for own_rows, (blocks, paddings) in zip(rows, convolutions, strict=True):
            y = tf.nn.conv2d(x, blocks, block // stride, paddings)
            if len(own_rows) > 1:
                # Not depth_to_space, which takes up to ten times as long.
                y = tf.reshape(y, (-1, n_across, len(own_rows), block * n_outputs))
                y = tf.transpose(y, (0, 2, 1, 3))
            line = n_across * block * n_outputs
            parts.append(tf.reshape(y, (-1, n_down, len(own_rows), line)))
        y = tf.concat(parts, axis=2)  # (n, n_down, block, line)
        y = tf.reshape(y, (-1, n_down * block, n_across * block, n_outputs))
        y = y[:, : size[0], : size[1]]

        def gradients(upstream: Any) -> tuple[Any, Any]:
            # Those of a transposed convolution are a convolution, and what that one's
            # kernel has as its gradient in the direction of x.
            with tf.GradientTape() as tape:
                tape.watch(kernel)
                x_gradient = _line_convolution(upstream, kernel, stride)
            return x_gradient, tape.gradient(x_gradient, kernel, x)

        return y, gradients

    return lambda x: _add_bias(apply(x, kernel), bias)


def _block_taps(
    size: int, stride: int, length: int, block: int, pixels: range
) -> tuple[np.ndarray, tuple[int, int]]:
    """Which entry of the kernel joins a pixel of a block and an input, on one axis.

    The size is that of the outputs. Returns (pixels, inputs that they need, length) and
    the padding of all inputs that lets each block have them.
    """
    n_inputs, n_blocks = math.ceil(size / stride), math.ceil(size / block)
    before = padding_before(size, stride, length)
    # Entry t joins pixel p and input i, both counted from the block's first, if
    # t = p + before - stride i.
    first = -((length - 1 - before - pixels[0]) // stride)
    last = (pixels[-1] + before) // stride
    entries = np.subtract.outer(pixels, stride * np.arange(first, last + 1)) + before
    taps = entries[..., None] == np.arange(length)
    after = (n_blocks - 1) * (block // stride) + last + 1 - n_inputs
    return taps.astype(float), (-first, after)
