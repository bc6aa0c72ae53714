"""VAE of pythae, with the network of ConvVAE.

Loss, trainer, initial weights and parameters that are not set here are the defaults of
pythae. Its "mse" loss is half the squared error plus the KL divergence, which
corresponds to a Gaussian likelihood with variance 1.
"""

from __future__ import annotations

import contextlib
import logging
import math
import tempfile
from typing import Any, Self

import numpy as np
import torch
from pythae.data.datasets import BaseDataset
from pythae.models import BetaVAE, BetaVAEConfig
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseEncoder
from pythae.trainers import BaseTrainer, BaseTrainerConfig
from pythae.trainers.training_callbacks import CallbackHandler, TrainingCallback

from benchmarks.networks.torch_vae import Decoder, Encoder, build_networks

# The trainer logs each epoch, with a level of its own.
logging.getLogger("pythae.trainers.base_trainer.base_trainer").setLevel("WARNING")


class _Encoder(BaseEncoder):
    """Encoder with the output type of pythae."""

    def __init__(self, network: Encoder) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> ModelOutput:
        """Encode images (n, C, H, W) to mean and log variance (n, latent_dim)."""
        z_mean, z_log_var = self.network(images)
        return ModelOutput(embedding=z_mean, log_covariance=z_log_var)


class _Decoder(BaseDecoder):
    """Decoder with the output type of pythae."""

    def __init__(self, network: Decoder) -> None:
        super().__init__()
        self.network = network

    def forward(self, z: torch.Tensor) -> ModelOutput:
        """Decode latents (n, latent_dim) to images (n, C, H, W)."""
        return ModelOutput(reconstruction=self.network(z))


def build_model(
    image_shape: tuple[int, ...],
    *,
    latent_dim: int,
    filters: int,
    hidden_layers: int,
    beta: float,
) -> BetaVAE:
    """Build a BetaVAE with the network of ConvVAE, for images (H, W) or (H, W, C)."""
    encoder, decoder = build_networks(
        image_shape, latent_dim=latent_dim, filters=filters, hidden_layers=hidden_layers
    )
    height, width, *n_channels = image_shape
    config = BetaVAEConfig(
        input_dim=(*(n_channels or [1]), height, width),
        latent_dim=latent_dim,
        beta=beta,
    )
    return BetaVAE(config, _Encoder(encoder), _Decoder(decoder))


class PythaeVAE:
    """VAE of pythae for images (n, H, W) or (n, H, W, C) with values in [0, 1].

    As ConvVAE with early_stopping=True, `fit` holds out a tenth of the images, in
    `validation_images_`, and keeps the weights of the best epoch on these.

    Parameters
    ----------
    latent_dim, filters, hidden_layers : int
        Size of the network, as in ConvVAE.
    epochs, batch_size, n_iter_no_change, random_state : int
        Training, as in ConvVAE.
    beta : float
        Weight of the KL divergence. The default of 1 is the VAE of pythae. Another
        value v is its BetaVAE, which has the same optimum as a Gaussian likelihood
        with variance v.
    """

    def __init__(
        self,
        latent_dim: int,
        *,
        filters: int,
        hidden_layers: int,
        epochs: int,
        batch_size: int,
        n_iter_no_change: int,
        random_state: int,
        beta: float = 1.0,
    ) -> None:
        self.latent_dim = latent_dim
        self.filters = filters
        self.hidden_layers = hidden_layers
        self.epochs = epochs
        self.batch_size = batch_size
        self.n_iter_no_change = n_iter_no_change
        self.random_state = random_state
        self.beta = beta

    def fit(self, X: np.ndarray) -> Self:
        """Train on images (n, H, W) or (n, H, W, C)."""
        self.is_grey_ = X.ndim == 3
        torch.manual_seed(self.random_state)
        order = torch.randperm(len(X)).numpy()
        n_held_out = math.ceil(len(X) / 10)
        self.validation_images_ = X[order[:n_held_out]]
        self.history_: list[float] = []
        trainer = QuietTrainer(
            build_model(
                X.shape[1:],
                latent_dim=self.latent_dim,
                filters=self.filters,
                hidden_layers=self.hidden_layers,
                beta=self.beta,
            ),
            dataset(X[order[n_held_out:]]),
            dataset(self.validation_images_),
            BaseTrainerConfig(
                num_epochs=self.epochs,
                learning_rate=1e-3,
                per_device_train_batch_size=self.batch_size,
                per_device_eval_batch_size=n_held_out,
                seed=self.random_state,
            ),
            [_Stop(self.history_, self.n_iter_no_change)],
        )
        self.model_ = trainer.best_model()
        return self

    def posterior(self, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Encode images to means and log variances (n, latent_dim)."""
        with torch.no_grad():
            output = self.model_.encoder(channels_first(X).to(self.model_.device))
        return output.embedding.cpu().numpy(), output.log_covariance.cpu().numpy()

    def transform(self, X: np.ndarray) -> np.ndarray:
        """Encode images to means (n, latent_dim)."""
        return self.posterior(X)[0]

    def inverse_transform(self, Z: np.ndarray) -> np.ndarray:
        """Decode latents (n, latent_dim) to images in the layout of `fit`."""
        latents = torch.as_tensor(Z, dtype=torch.float32, device=self.model_.device)
        with torch.no_grad():
            decoded = self.model_.decoder(latents).reconstruction.cpu().numpy()
        return decoded[:, 0] if self.is_grey_ else np.moveaxis(decoded, 1, -1)

    def n_weights(self) -> int:
        """Return the number of weights and biases."""
        return sum(weight.numel() for weight in self.model_.parameters())


class _NoGain(Exception):  # noqa: N818 - not an error, but ends pythae's loop
    pass


class _Stop(TrainingCallback):
    """Early stopping, which also records the loss of the validation images."""

    def __init__(self, history: list[float], n_iter_no_change: int) -> None:
        self.history = history
        self.n_iter_no_change = n_iter_no_change

    def on_log(
        self,
        training_config: BaseTrainerConfig,  # noqa: ARG002 - signature of pythae
        logs: dict[str, float],
        **kwargs: Any,  # noqa: ARG002
    ) -> None:
        self.history.append(logs["eval_epoch_loss"])
        best_epoch = self.history.index(min(self.history))
        if len(self.history) - 1 - best_epoch >= self.n_iter_no_change:
            raise _NoGain


class QuietTrainer(BaseTrainer):
    """Trainer of pythae without progress bars."""

    def _setup_callbacks(self) -> None:
        self.callback_handler = CallbackHandler(self.callbacks, self.model)

    def best_model(self) -> BetaVAE:
        """Train and return the model of the best epoch."""
        with tempfile.TemporaryDirectory() as folder:
            self.training_config.output_dir = folder
            with contextlib.suppress(_NoGain):
                self.train()
        return self._best_model.eval()


def dataset(images: np.ndarray) -> BaseDataset:
    """Convert images to a dataset of pythae; its labels are not used."""
    data = channels_first(images)
    return BaseDataset(data, torch.zeros(len(data)))


def channels_first(images: np.ndarray) -> torch.Tensor:
    """Convert images (n, H, W) or (n, H, W, C) to (n, C, H, W), float32."""
    data = torch.as_tensor(images, dtype=torch.float32)
    return data[:, None] if images.ndim == 3 else data.movedim(-1, 1).contiguous()
