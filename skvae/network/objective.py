"""The objective: the terms of the evidence lower bound, per image.

In nats and in the network's units throughout. With D pixels, x an image and y what
the decoder gives before its last activation a:

- gaussian and mse: -log p(x | z) = |x - a(y)|^2 / (2 v) + D/2 log(2 pi v), where the
  noise variance v is learned for gaussian and 1/2 for mse, whose loss leaves the
  constant out, as the guide's does;
- bernoulli: -log p(x | z) = sum(softplus(y) - x y), the cross-entropy of a = sigmoid.
"""

from __future__ import annotations

import math
from typing import Any

from skvae.architecture import Architecture
from skvae.network.backend import keras

ops = keras.ops

# The noise variance v where none is learned. With it the error term above is |x - a|^2,
# the guide's loss; the cross-entropy is divided by 2 v all the same.
FIXED_NOISE_VARIANCE = 0.5

# The smallest noise variance that is learned, in the network's units: a standard
# deviation of a thousandth of the value range.
MIN_NOISE_VARIANCE = 1e-6


def decoder_mean(architecture: Architecture, outputs: Any) -> Any:
    """The likelihood's mean, from what enters the last activation."""
    if architecture.last_activation == "sigmoid":
        return ops.sigmoid(outputs)
    return outputs


def kl_divergence(z_mean: Any, z_log_var: Any) -> Any:
    """KL(N(z_mean, exp(z_log_var)) || N(0, 1)) of each latent dimension.

    Kingma and Welling (2014), appendix B. (n, latent_dim) twice to (n, latent_dim).
    """
    # exp(v) - 1 would leave nothing but rounding of the KL of a latent hardly used.
    return 0.5 * (ops.square(z_mean) + (ops.expm1(z_log_var) - z_log_var))


def pixel_error(architecture: Architecture, images: Any, outputs: Any) -> Any:
    """|x - a(y)|^2, or the cross-entropy, of each image: (n, H, W, C) twice to (n,)."""
    if architecture.likelihood == "bernoulli":
        errors = ops.softplus(outputs) - images * outputs
    else:
        errors = ops.square(images - decoder_mean(architecture, outputs))
    return ops.sum(errors, axis=(1, 2, 3))


def normaliser(architecture: Architecture, noise_variance: Any) -> Any:
    """D/2 log(2 pi v), what -log p(x | z) has besides the error; 0 for bernoulli."""
    if architecture.likelihood == "bernoulli":
        return ops.zeros_like(noise_variance)
    return 0.5 * architecture.n_pixels * ops.log(2.0 * math.pi * noise_variance)
