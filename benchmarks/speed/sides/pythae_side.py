"""pythae in the speed benchmark: its VAE and its trainer."""

from __future__ import annotations

import tempfile
from time import perf_counter
from typing import TYPE_CHECKING, Any

import torch
from pythae.trainers import BaseTrainerConfig
from pythae.trainers.training_callbacks import TrainingCallback

from benchmarks.networks.pythae_vae import QuietTrainer, build_model, dataset
from benchmarks.networks.torch_vae import load_weights, mirrored
from benchmarks.speed.workloads import LATENT_DIM, LEARNING_RATE, make_images

if TYPE_CHECKING:
    import numpy as np

    from benchmarks.speed.workloads import Training as TrainingWorkload

# The loss of pythae is half the squared error plus beta times the KL divergence. With
# beta=0.5 it is half the loss of the other sides, for which Adam takes the same steps.
_BETA = 0.5


class Training:
    """Runs of the trainer, each from the same weights."""

    def __init__(self, workload: TrainingWorkload) -> None:
        self._workload = workload
        images = mirrored(make_images(workload))
        self._images = images
        self._data = dataset(images[:, 0])
        self._model = build_model(
            (workload.size, workload.size),
            latent_dim=LATENT_DIM,
            filters=workload.filters,
            hidden_layers=workload.hidden_layers,
            beta=_BETA,
        )

    def check(self, weights: dict[str, np.ndarray], n_images: int) -> tuple[int, float]:
        """Return the number of weights, and the loss of the first images at z_mean."""
        self._weights = weights
        self._load_weights()
        model, images = self._model, self._images[:n_images]
        with torch.inference_mode():
            encoded = model.encoder(images)
            z_mean, z_log_var = encoded.embedding, encoded.log_covariance
            decoded = model.decoder(z_mean).reconstruction
            loss = model.loss_function(decoded, images, z_mean, z_log_var, z_mean)[0]
        return sum(weight.numel() for weight in model.parameters()), 2 * float(loss)

    def forms(self) -> dict[str, str]:
        """Warm up and return the form to time, with its description."""
        self._train(epochs=1)
        return {"pythae": "BaseTrainer, no images held out, no progress bars"}

    def train(self, _: str) -> tuple[float, float]:
        """Return the seconds of a run and the mean loss of its last epoch."""
        return self._train(self._workload.epochs)

    def _train(self, epochs: int) -> tuple[float, float]:
        self._load_weights()
        losses = _Losses()
        with tempfile.TemporaryDirectory() as folder:
            config = BaseTrainerConfig(
                output_dir=folder,
                num_epochs=epochs,
                learning_rate=LEARNING_RATE,
                per_device_train_batch_size=self._workload.batch_size,
            )
            start = perf_counter()
            trainer = QuietTrainer(self._model, self._data, None, config, [losses])
            trainer.train()
            return perf_counter() - start, 2 * losses.of_epochs[-1]

    def _load_weights(self) -> None:
        encoder, decoder = self._model.encoder.network, self._model.decoder.network
        load_weights(encoder, decoder, self._weights)


class _Losses(TrainingCallback):
    """Record the training loss of each epoch."""

    def __init__(self) -> None:
        self.of_epochs: list[float] = []

    def on_log(
        self,
        training_config: BaseTrainerConfig,  # noqa: ARG002 - signature of pythae
        logs: dict[str, float],
        **kwargs: Any,  # noqa: ARG002
    ) -> None:
        self.of_epochs.append(logs["train_epoch_loss"])
