"""VAE in PyTorch, with the network of ConvVAE and conversion of its weights.

Convolutions with stride 2 on images of even size are padded differently: TensorFlow
appends one pixel, whereas PyTorch effectively prepends one. PyTorch therefore computes
the same outputs from mirrored images with mirrored weights.
"""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import torch
from torch import nn


class Encoder(nn.Module):
    """Convolutions with stride 2, followed by dense layers."""

    def __init__(
        self, sizes: list[tuple[int, int]], channels: list[int], latent_dim: int
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for n_in, n_out in pairwise(channels):
            # A kernel of 3 with padding 1 halves sizes, rounded up.
            layers += [nn.Conv2d(n_in, n_out, 3, stride=2, padding=1), nn.ReLU()]
        n_flat = channels[-1] * math.prod(sizes[-1])
        layers += [nn.Flatten(), nn.Linear(n_flat, latent_dim * 8), nn.ReLU()]
        self.layers = nn.Sequential(*layers)
        self.z_mean = nn.Linear(latent_dim * 8, latent_dim)
        self.z_log_var = nn.Linear(latent_dim * 8, latent_dim)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Encode images (n, C, H, W) to mean and log variance (n, latent_dim)."""
        hidden = self.layers(images)
        return self.z_mean(hidden), self.z_log_var(hidden)


class Decoder(nn.Module):
    """Dense layer, followed by transposed convolutions with stride 2."""

    def __init__(
        self, sizes: list[tuple[int, int]], channels: list[int], latent_dim: int
    ) -> None:
        super().__init__()
        image_channels, *filters = channels
        layers: list[nn.Module] = [
            nn.Linear(latent_dim, filters[-1] * math.prod(sizes[-1])),
            nn.ReLU(),
            nn.Unflatten(1, (filters[-1], *sizes[-1])),
        ]
        widths = [filters[-1], *filters[::-1]]
        for (n_in, n_out), size in zip(pairwise(widths), sizes[-2::-1], strict=True):
            # The output has 2 * size - 1 pixels; even sizes need one more.
            even = tuple(1 - length % 2 for length in size)
            layers += [
                nn.ConvTranspose2d(n_in, n_out, 3, 2, padding=1, output_padding=even),
                nn.ReLU(),
            ]
        layers += [
            nn.ConvTranspose2d(filters[0], image_channels, 3, padding=1),
            nn.Sigmoid(),
        ]
        self.layers = nn.Sequential(*layers)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        """Decode latents (n, latent_dim) to images (n, C, H, W)."""
        return self.layers(z)


def build_networks(
    image_shape: tuple[int, ...], *, latent_dim: int, filters: int, hidden_layers: int
) -> tuple[Encoder, Decoder]:
    """Build encoder and decoder, with PyTorch's initial weights.

    `image_shape` is (H, W) of grey images or (H, W, C).
    """
    height, width, *n_channels = image_shape
    sizes = [(height, width)]
    for _ in range(hidden_layers):
        sizes.append(tuple((length + 1) // 2 for length in sizes[-1]))
    channels = [*(n_channels or [1]), *(filters * 2**i for i in range(hidden_layers))]
    return Encoder(sizes, channels, latent_dim), Decoder(sizes, channels, latent_dim)


def mirrored(images: np.ndarray) -> torch.Tensor:
    """Convert images (n, H, W) to the mirrored layout (n, 1, H, W) of the networks."""
    return torch.from_numpy(np.flip(images, (1, 2)).copy())[:, None]


def load_weights(
    encoder: Encoder, decoder: Decoder, weights: dict[str, np.ndarray]
) -> None:
    """Set the weights of both networks from `ConvVAE.weights_`; sizes must be even."""
    unflatten = next(x for x in decoder.layers if isinstance(x, nn.Unflatten))
    n_channels, height, width = unflatten.unflattened_size

    def reordered(rows: np.ndarray) -> np.ndarray:
        """Reorder rows from (height, width, channels) to PyTorch's layout."""
        pixels = rows.reshape(-1, height, width, n_channels)[:, ::-1, ::-1]
        return pixels.transpose(0, 3, 1, 2).reshape(rows.shape)

    layers = [
        layer
        for network in (encoder, decoder)
        for layer in network.modules()
        if hasattr(layer, "weight")
    ]
    names = dict.fromkeys(path.partition("/")[0] for path in weights)
    for layer, name in zip(layers, names, strict=True):
        kernel, bias = weights[f"{name}/kernel"], weights[f"{name}/bias"]
        if kernel.ndim == 4:
            # (height, width, a, b) to (b, a, height, width), also if transposed.
            kernel = kernel[::-1, ::-1].transpose(3, 2, 0, 1)
        elif name == "encoder_intermediate_layer":
            kernel = reordered(kernel.T)
        elif name == "decoder_intermediate":
            kernel, bias = reordered(kernel).T, reordered(bias)
        else:
            kernel = kernel.T
        with torch.no_grad():
            layer.weight.copy_(torch.from_numpy(kernel.copy()))
            layer.bias.copy_(torch.from_numpy(bias.copy()))


def vae_loss(
    images: torch.Tensor,
    decoded: torch.Tensor,
    z_mean: torch.Tensor,
    z_log_var: torch.Tensor,
) -> torch.Tensor:
    """Mean over images of squared error plus KL divergence."""
    errors = (images - decoded).square().sum(dim=(1, 2, 3))
    kl = -0.5 * (1 + z_log_var - z_mean.square() - z_log_var.exp()).sum(dim=1)
    return (errors + kl).mean()


def train_epoch(
    encoder: Encoder,
    decoder: Decoder,
    optimizer: torch.optim.Optimizer,
    images: torch.Tensor,
    batch_size: int,
) -> float:
    """Train on each image (n, 1, H, W) once and return the mean loss."""
    total = torch.zeros(())
    for rows in torch.randperm(len(images)).split(batch_size):
        batch = images.index_select(0, rows)
        z_mean, z_log_var = encoder(batch)
        z = z_mean + torch.exp(0.5 * z_log_var) * torch.randn_like(z_mean)
        loss = vae_loss(batch, decoder(z), z_mean, z_log_var)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        total += loss.detach() * len(rows)
    return total.item() / len(images)
