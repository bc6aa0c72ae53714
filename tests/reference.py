"""The network in float64, layer by layer as the guide describes it, in plain numpy."""

import math

import numpy as np


def _same_padding(size, stride, kernel_size):
    """TensorFlow's: the odd zero behind."""
    total = max((math.ceil(size / stride) - 1) * stride + kernel_size - size, 0)
    return total // 2


def convolution(x, kernel, bias, stride):
    """Each output pixel takes what the kernel lies over; zeros around the image."""
    n, height, width, _ = x.shape
    k = kernel.shape[0]
    padded = np.pad(x, [(0, 0), (k, k + stride), (k, k + stride), (0, 0)])
    top, left = (k - _same_padding(size, stride, k) for size in (height, width))
    down, across = math.ceil(height / stride), math.ceil(width / stride)
    y = np.zeros((n, down, across, kernel.shape[3]))
    for i in range(k):
        for j in range(k):
            rows = slice(top + i, top + i + stride * down, stride)
            columns = slice(left + j, left + j + stride * across, stride)
            y += padded[:, rows, columns] @ kernel[i, j]
    return y + bias


def transposed_convolution(x, kernel, bias, stride, size):
    """Each input pixel adds the kernel where the convolution of `size` took it from."""
    n, down, across, _ = x.shape
    k = kernel.shape[0]
    top, left = (k - _same_padding(length, stride, k) for length in size)
    y = np.zeros((n, *(length + 2 * k + stride for length in size), kernel.shape[2]))
    for i in range(k):
        for j in range(k):
            rows = slice(top + i, top + i + stride * down, stride)
            columns = slice(left + j, left + j + stride * across, stride)
            y[:, rows, columns] += x @ kernel[i, j].T
    return y[:, k : k + size[0], k : k + size[1]] + bias


def relu(x):
    return np.maximum(x, 0)


def layer_of(weights):
    """A function that gives kernel and bias of a layer, in float64."""
    return lambda name: [
        weights[f"{name}/{k}"].astype(float) for k in ("kernel", "bias")
    ]


def encode(architecture, weights, x):
    """Images (n, H, W, C) in the network's units to z_mean and z_log_var."""
    layer = layer_of(weights)
    for i in range(architecture.hidden_layers):
        x = relu(convolution(x, *layer(f"encoder_conv_{i}"), 2))
    kernel, bias = layer("encoder_intermediate_layer")
    x = relu(x.reshape(len(x), -1) @ kernel + bias)
    return [
        x @ kernel + bias
        for kernel, bias in (layer("encoder_z_mean"), layer("encoder_z_log_var"))
    ]


def decode(architecture, weights, z):
    """Latents to what enters the last activation, (n, H, W, C)."""
    layer = layer_of(weights)
    sizes = [architecture.image_shape[:2]]
    for _ in range(architecture.hidden_layers):
        sizes.append(tuple(math.ceil(length / 2) for length in sizes[-1]))
    kernel, bias = layer("decoder_intermediate")
    x = relu(z @ kernel + bias).reshape(len(z), *sizes.pop(), -1)
    for i, size in enumerate(sizes[::-1]):
        x = relu(transposed_convolution(x, *layer(f"decoder_conv_{i}"), 2, size))
    return transposed_convolution(x, *layer("decoder_output"), 1, sizes[0])
