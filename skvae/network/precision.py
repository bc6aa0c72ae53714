"""Dtype policy of layers, depending on how the device sums 16-bit numbers."""

from __future__ import annotations

import math
from functools import cache

import numpy as np

from skvae.architecture import Architecture
from skvae.network.backend import tf


def layer_policy(architecture: Architecture) -> str:
    """Keras dtype policy of layers: float32 if 16-bit gradients would be wrong."""
    policy = architecture.dtype_policy
    if policy == "float32":
        return policy
    device = tf.zeros(()).device
    if adds_in_float32(policy.removeprefix("mixed_"), device):
        return policy
    return "float32"


@cache
def adds_in_float32(dtype: str, device: str) -> bool:
    """Check if TensorFlow sums numbers of a 16-bit dtype in float32 on a device.

    On a processor without 16-bit instructions it sums in 16 bits, and a sum stops
    growing once its terms are smaller than its rounding error. Gradients of weights are
    such sums, over all pixels of a batch.
    """
    shape = (4, 64, 64, 8)
    n_pixels = math.prod(shape[:3])
    # Eager, even while a graph is traced.
    with tf.init_scope(), tf.device(device):
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
