"""Grid search with PyTorch: `python grid_torch.py`."""

from __future__ import annotations

import torch

from benchmarks.networks.torch_vae import (
    build_networks,
    mirrored,
    train_epoch,
    vae_loss,
)
from benchmarks.speed.grid_search.grid import (
    BATCH_SIZE,
    EPOCHS,
    HIDDEN_LAYERS,
    load_images,
    search,
)
from benchmarks.speed.workloads import LEARNING_RATE


def losses(
    train: torch.Tensor, test: torch.Tensor, latent_dim: int, filters: int
) -> tuple[float, float]:
    """Train and return the losses of the last epoch and of the held-out images."""
    encoder, decoder = build_networks(
        train.shape[2:],
        latent_dim=latent_dim,
        filters=filters,
        hidden_layers=HIDDEN_LAYERS,
    )
    parameters = [*encoder.parameters(), *decoder.parameters()]
    optimizer = torch.optim.Adam(parameters, LEARNING_RATE, fused=True)
    for _ in range(EPOCHS):
        training_loss = train_epoch(encoder, decoder, optimizer, train, BATCH_SIZE)
    with torch.inference_mode():
        z_mean, z_log_var = encoder(test)
        z = z_mean + torch.exp(0.5 * z_log_var) * torch.randn_like(z_mean)
        return training_loss, float(vae_loss(test, decoder(z), z_mean, z_log_var))


def main() -> None:
    """Run the search and print the outcome."""
    # A second thread does not speed up networks of this size.
    torch.set_num_threads(1)
    search(losses, mirrored(load_images()))


if __name__ == "__main__":
    main()
