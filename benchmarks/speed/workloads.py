"""Workloads of the speed benchmark, which are the same on all sides."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from skvae.architecture import Architecture

LATENT_DIM = 4
FILTERS = 8
KERNEL_SIZE = 3
LEARNING_RATE = 1e-3


class Training(NamedTuple):
    """Images and network of a fit, which is timed as a whole."""

    size: int  # height and width of an image
    hidden_layers: int
    batch_size: int
    n_images: int
    epochs: int
    filters: int = FILTERS

    def __str__(self) -> str:
        name = f"train {self.size}x{self.size}"
        return name if self.filters == FILTERS else f"{name}, {self.filters} filters"


class Serving(NamedTuple):
    """Call of a fitted network, which is timed as a mean over several calls."""

    task: str  # "encode", "decode" or "score"
    size: int
    hidden_layers: int
    n_images: int
    filters: int = FILTERS
    latent_dim: int = LATENT_DIM

    def __str__(self) -> str:
        rows = "row" if self.n_images == 1 else "rows"
        name = f"{self.task} {self.n_images} {rows} {self.size}x{self.size}"
        n_weights = architecture(self).n_weights
        return name if n_weights < 10**6 else f"{name}, {n_weights:,} weights"


def architecture(workload: Training | Serving) -> Architecture:
    """Return the layers and shapes of the network."""
    return Architecture(
        image_shape=(workload.size, workload.size, 1),
        latent_dim=getattr(workload, "latent_dim", LATENT_DIM),
        filters=workload.filters,
        hidden_layers=workload.hidden_layers,
        kernel_size=KERNEL_SIZE,
        last_activation="sigmoid",
        likelihood="mse",
    )


def forward_multiply_adds(workload: Training) -> int:
    """Count the multiply-adds that encode and decode one image."""
    network = architecture(workload)
    n_pixels = [math.prod(size) for size in network.stage_sizes]
    n_uses = {"decoder_output": n_pixels[0]}
    for i in range(network.hidden_layers):
        # A kernel is applied once per pixel on the smaller side of its convolution.
        n_uses[f"encoder_conv_{i}"] = n_pixels[i + 1]
        n_uses[f"decoder_conv_{i}"] = n_pixels[network.hidden_layers - i]
    total = 0
    for path, shape in network.weight_shapes.items():
        layer, _, kind = path.partition("/")
        if kind == "kernel":
            total += math.prod(shape) * n_uses.get(layer, 1)
    return total


def make_images(workload: Training | Serving) -> np.ndarray:
    """Generate images (n, H, W) in [0, 1]: two blobs at random places, and noise."""
    generator = np.random.default_rng(0)
    n, size = workload.n_images, workload.size
    pixels = np.arange(size, dtype=np.float32)
    images = 0.05 * generator.standard_normal((n, size, size), np.float32)
    for _ in range(2):
        centres = generator.uniform(0, size, (2, n, 1)).astype(np.float32)
        # Profiles of the blobs along rows and columns: (2, n, size).
        rows, columns = np.exp(-0.5 * ((pixels - centres) / (0.15 * size)) ** 2)
        images += rows[:, :, None] * columns[:, None, :]
    return images.clip(0, 1, out=images)


def make_inputs(workload: Serving) -> np.ndarray:
    """Generate images, or latents (n, latent_dim) to decode."""
    if workload.task != "decode":
        return make_images(workload)
    shape = (workload.n_images, workload.latent_dim)
    return np.random.default_rng(0).standard_normal(shape, np.float32)
