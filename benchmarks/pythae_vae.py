"""pythae's VAE with ConvVAE's network, as far as the benchmarks need it.

The layers, their sizes and activations are ConvVAE's; loss, trainer, initial weights
and all that is not named here are pythae's own defaults. pythae's "mse" loss is half
the squared error plus the KL: that of a Gaussian whose variance stays 1.
"""

from __future__ import annotations

import contextlib
import logging
import math
import tempfile
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Self

import torch
from pythae.data.datasets import BaseDataset
from pythae.models import BetaVAE, BetaVAEConfig
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseEncoder
from pythae.trainers import BaseTrainer, BaseTrainerConfig
from pythae.trainers.training_callbacks import CallbackHandler, TrainingCallback
from torch import nn

if TYPE_CHECKING:
    import numpy as np

# pythae gives its loggers a level and a handler each, and logs every epoch.
logging.getLogger("pythae.trainers.base_trainer.base_trainer").setLevel("WARNING")


class Encoder(BaseEncoder):
    """Convolutions that halve the image, then dense layers to mean and log variance."""

    def __init__(
        self, sizes: list[tuple[int, int]], channels: list[int], latent_dim: int
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for n_in, n_out in pairwise(channels):
            # With a kernel of 3, padding 1 gives "same": sizes are halved, rounded up.
            layers += [nn.Conv2d(n_in, n_out, 3, stride=2, padding=1), nn.ReLU()]
        n_flat = channels[-1] * math.prod(sizes[-1])
        layers += [nn.Flatten(), nn.Linear(n_flat, latent_dim * 8), nn.ReLU()]
        self.layers = nn.Sequential(*layers)
        self.z_mean = nn.Linear(latent_dim * 8, latent_dim)
        self.z_log_var = nn.Linear(latent_dim * 8, latent_dim)

    def forward(self, images: torch.Tensor) -> ModelOutput:
        """Images (n, C, H, W) to mean and log variance (n, latent_dim) of z."""
        hidden = self.layers(images)
        return ModelOutput(
            embedding=self.z_mean(hidden), log_covariance=self.z_log_var(hidden)
        )


class Decoder(BaseDecoder):
    """The encoder's sizes retraced by transposed convolutions."""

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
            # 2 size - 1 pixels come out, and one more where the encoder read as many.
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

    def forward(self, z: torch.Tensor) -> ModelOutput:
        """Latents (n, latent_dim) to images (n, C, H, W)."""
        return ModelOutput(reconstruction=self.layers(z))


class PythaeVAE:
    """pythae's VAE for images (n, H, W) with values in 0 to 1.

    Parameters are those of ConvVAE that the benchmarks set. `beta` weighs the KL: 1 is
    pythae's VAE, and v its BetaVAE that has the optimum of a Gaussian of variance v
    (the loss is v times that one's). `fit` keeps a tenth of the images apart, in
    `validation_images_`, and the weights of the epoch that was best on them, as ConvVAE
    does with early_stopping=True.
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
        """Train on images (n, H, W)."""
        torch.manual_seed(self.random_state)
        order = torch.randperm(len(X)).numpy()
        n_held_out = math.ceil(len(X) / 10)
        self.validation_images_ = X[order[:n_held_out]]
        self.history_: list[float] = []
        trainer = _Trainer(
            self._build(X.shape[1:]),
            _dataset(X[order[n_held_out:]]),
            _dataset(self.validation_images_),
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
        """Means and log variances (n, latent_dim) of the latents of images."""
        with torch.no_grad():
            output = self.model_.encoder(self._tensor(X[:, None]))
        return output.embedding.cpu().numpy(), output.log_covariance.cpu().numpy()

    def transform(self, X: np.ndarray) -> np.ndarray:
        """Means (n, latent_dim) of the latents of images."""
        return self.posterior(X)[0]

    def inverse_transform(self, Z: np.ndarray) -> np.ndarray:
        """Decode latents (n, latent_dim) to images (n, H, W)."""
        with torch.no_grad():
            output = self.model_.decoder(self._tensor(Z))
        return output.reconstruction[:, 0].cpu().numpy()

    def n_weights(self) -> int:
        """Number of weights and biases."""
        return sum(weight.numel() for weight in self.model_.parameters())

    def _build(self, image_shape: tuple[int, int]) -> BetaVAE:
        sizes = [image_shape]
        for _ in range(self.hidden_layers):
            sizes.append(tuple((length + 1) // 2 for length in sizes[-1]))
        channels = [1, *(self.filters * 2**i for i in range(self.hidden_layers))]
        config = BetaVAEConfig(
            input_dim=(1, *image_shape), latent_dim=self.latent_dim, beta=self.beta
        )
        return BetaVAE(
            config,
            Encoder(sizes, channels, self.latent_dim),
            Decoder(sizes, channels, self.latent_dim),
        )

    def _tensor(self, values: np.ndarray) -> torch.Tensor:
        return torch.as_tensor(values, dtype=torch.float32, device=self.model_.device)


class _NoGain(Exception):  # noqa: N818 - no error: the only way out of pythae's loop
    pass


class _Stop(TrainingCallback):
    """Record the loss of the held-out images, and stop when it no longer falls."""

    def __init__(self, history: list[float], n_iter_no_change: int) -> None:
        self.history = history
        self.n_iter_no_change = n_iter_no_change

    def on_log(
        self,
        training_config: BaseTrainerConfig,  # noqa: ARG002 - pythae gives it
        logs: dict[str, float],
        **kwargs: Any,  # noqa: ARG002
    ) -> None:
        self.history.append(logs["eval_epoch_loss"])
        best_epoch = self.history.index(min(self.history))
        if len(self.history) - 1 - best_epoch >= self.n_iter_no_change:
            raise _NoGain


class _Trainer(BaseTrainer):
    """pythae's trainer without its progress bars."""

    def _setup_callbacks(self) -> None:
        self.callback_handler = CallbackHandler(self.callbacks, self.model)

    def best_model(self) -> BetaVAE:
        """Train, and give the model of the best epoch, which pythae keeps."""
        with tempfile.TemporaryDirectory() as folder:
            self.training_config.output_dir = folder
            with contextlib.suppress(_NoGain):
                self.train()
        return self._best_model.eval()


def _dataset(images: np.ndarray) -> BaseDataset:
    """Images (n, H, W) as pythae takes them; labels it wants, but does not use."""
    data = torch.as_tensor(images, dtype=torch.float32)[:, None]
    return BaseDataset(data, torch.zeros(len(data)))
