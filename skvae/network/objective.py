"""Training objective: terms of the evidence lower bound of each image, as Keras ops.

`skvae.serving.densities` has the same formulas in numpy float64, for fitted networks.
All terms are in nats and in the network's units. D is the number of pixels, x an image
and y the decoder's output before the last activation a.

- gaussian and mse: -log p(x | z) = |x - a(y)|^2 / (2 v) + D/2 log(2 pi v), where the
  noise variance v is learned for gaussian and 1/2 for mse. The loss of mse omits the
  constant, as the Keras VAE guide does.
- bernoulli: -log p(x | z) = sum(softplus(y) - x y), the cross-entropy for a = sigmoid.
"""

from __future__ import annotations

import math
from typing import Any

from skvae.architecture import MIN_NOISE_VARIANCE, Architecture
from skvae.network.backend import keras

ops = keras.ops

# The running noise variance is a running mean of the batches' mean squared error, in
# which the newest batch has at least this weight: about the last 20 steps count.
_NOISE_VARIANCE_MIN_RATE = 0.05


def decoder_mean(architecture: Architecture, outputs: Any) -> Any:
    """Apply the last activation to the decoder's outputs."""
    if architecture.last_activation == "sigmoid":
        return ops.sigmoid(outputs)
    return outputs


def kl_divergence(z_mean: Any, z_log_var: Any) -> Any:
    """KL(N(z_mean, exp(z_log_var)) || N(0, 1)) of each latent dimension, in nats.

    Kingma and Welling (2014), appendix B. `skvae.serving.densities.kl_divergence` is
    the same for fitted networks.

    Parameters
    ----------
    z_mean, z_log_var : tensor of shape (n, latent_dim)

    Returns
    -------
    tensor of shape (n, latent_dim)
    """
    # exp(v) - 1 would lose the KL of a barely used latent to rounding.
    return 0.5 * (ops.square(z_mean) + (ops.expm1(z_log_var) - z_log_var))


def pixel_error(architecture: Architecture, images: Any, outputs: Any) -> Any:
    """Pixel error of each image.

    `skvae.serving.densities.pixel_errors` is the same for fitted networks.

    Parameters
    ----------
    architecture : Architecture
    images : tensor of shape (n, H, W, C)
    outputs : tensor of shape (n, H, W, C)
        Decoder outputs before the last activation.

    Returns
    -------
    tensor of shape (n,)
        Cross-entropy for bernoulli, else sum of squared errors.
    """
    if architecture.likelihood == "bernoulli":
        errors = ops.softplus(outputs) - images * outputs
    else:
        errors = ops.square(images - decoder_mean(architecture, outputs))
    return ops.sum(errors, axis=(1, 2, 3))


def normaliser(architecture: Architecture, noise_variance: Any) -> Any:
    """Normalising constant D/2 log(2 pi v) of -log p(x | z); 0 for bernoulli.

    `skvae.serving.densities.normaliser` is the same for fitted networks.
    """
    if architecture.likelihood == "bernoulli":
        return ops.zeros_like(noise_variance)
    return 0.5 * architecture.n_pixels * ops.log(2.0 * math.pi * noise_variance)


def updated_noise_variance(
    architecture: Architecture, noise_variance: Any, n_steps: Any, mean_error: Any
) -> Any:
    """Update the running noise variance with the mean error of a batch.

    The maximum likelihood variance is the mean squared error (Rybkin, Daniilidis and
    Levine 2021, equation 6), here a running mean over batches.

    Parameters
    ----------
    architecture : Architecture
    noise_variance : scalar
        Running noise variance after the previous step.
    n_steps : scalar
        Number of previous steps.
    mean_error : scalar
        Pixel error of the batch's images, in the mean.
    """
    if architecture.likelihood != "gaussian":
        return noise_variance
    newest = mean_error / architecture.n_pixels
    n_steps = ops.cast(n_steps, "float32")
    rate = ops.maximum(1.0 / (n_steps + 1.0), _NOISE_VARIANCE_MIN_RATE)
    mean = noise_variance + rate * (newest - noise_variance)
    return ops.maximum(mean, MIN_NOISE_VARIANCE)
