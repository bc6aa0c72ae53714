"""PyTorch in the speed benchmark: an eager training loop, and inference."""

from __future__ import annotations

import math
from itertools import product
from time import perf_counter
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from benchmarks.common.measurement import fastest, seconds_per_call
from benchmarks.networks.torch_vae import (
    Decoder,
    Encoder,
    build_networks,
    load_weights,
    mirrored,
    train_epoch,
    vae_loss,
)
from benchmarks.speed.sides.importance import N_DRAWS, VARIANCE
from benchmarks.speed.workloads import (
    LEARNING_RATE,
    architecture,
    make_images,
    make_inputs,
)

if TYPE_CHECKING:
    from benchmarks.speed.workloads import Serving as ServingWorkload
    from benchmarks.speed.workloads import Training as TrainingWorkload

_LAYOUTS = {"contiguous": torch.contiguous_format, "channels last": torch.channels_last}
_ADAMS: dict[str, dict[str, bool]] = {
    "foreach": {"foreach": True},
    "fused": {"fused": True},
}
_BATCH_SIZES = (32, 256, 1024)


def _networks(workload: TrainingWorkload | ServingWorkload) -> tuple[Encoder, Decoder]:
    network = architecture(workload)
    return build_networks(
        network.image_shape[:2],
        latent_dim=network.latent_dim,
        filters=network.filters,
        hidden_layers=network.hidden_layers,
    )


def _thread_counts() -> list[int]:
    """Numbers of threads to try: one, and the default of PyTorch."""
    return sorted({1, torch.get_num_threads()})


class _TrainingForm(NamedTuple):
    layout: str
    adam: str
    n_threads: int

    def __str__(self) -> str:
        return f"{self.layout}, {self.adam} Adam, threads={self.n_threads}"


class Training:
    """Training loops, each from the same weights and with a new optimizer."""

    def __init__(self, workload: TrainingWorkload) -> None:
        self._workload = workload
        self._images = mirrored(make_images(workload))
        self._encoder, self._decoder = _networks(workload)

    def check(self, weights: dict[str, np.ndarray], n_images: int) -> tuple[int, float]:
        """Return the number of weights, and the loss of the first images at z_mean."""
        self._weights = weights
        load_weights(self._encoder, self._decoder, weights)
        images = self._images[:n_images]
        with torch.inference_mode():
            z_mean, z_log_var = self._encoder(images)
            loss = vae_loss(images, self._decoder(z_mean), z_mean, z_log_var)
        return sum(weight.numel() for weight in self._parameters()), float(loss)

    def forms(self) -> dict[str, str]:
        """Select the fastest memory layout, form of Adam and number of threads."""
        forms = [
            _TrainingForm(*choice)
            for choice in product(_LAYOUTS, _ADAMS, _thread_counts())
        ]
        self._form = fastest(forms, lambda form: self._train(form, epochs=1)[0])
        return {"PyTorch": str(self._form)}

    def train(self, _: str) -> tuple[float, float]:
        """Return the seconds of all epochs and the mean loss of the last one."""
        return self._train(self._form, self._workload.epochs)

    def _train(self, form: _TrainingForm, epochs: int) -> tuple[float, float]:
        torch.set_num_threads(form.n_threads)
        layout = {"memory_format": _LAYOUTS[form.layout]}
        images = self._images.to(**layout)
        encoder, decoder = self._encoder.to(**layout), self._decoder.to(**layout)
        load_weights(encoder, decoder, self._weights)
        optimizer = torch.optim.Adam(
            self._parameters(), LEARNING_RATE, **_ADAMS[form.adam]
        )
        start = perf_counter()
        for _ in range(epochs):
            loss = train_epoch(
                encoder, decoder, optimizer, images, self._workload.batch_size
            )
        return perf_counter() - start, loss

    def _parameters(self) -> list[torch.nn.Parameter]:
        return [*self._encoder.parameters(), *self._decoder.parameters()]


class _ServingForm(NamedTuple):
    layout: str
    batch_size: int
    n_threads: int

    def __str__(self) -> str:
        batch = f"batch_size={self.batch_size}"
        return f"{self.layout}, {batch}, threads={self.n_threads}"


class Serving:
    """Inference on NumPy arrays."""

    def __init__(self, workload: ServingWorkload) -> None:
        self._task = workload.task
        self._inputs = make_inputs(workload)
        if workload.task != "decode":
            # Mirroring is not part of the timed call.
            self._inputs = mirrored(self._inputs).numpy()  # (n, 1, H, W)
        self._encoder, self._decoder = _networks(workload)

    def check(self, weights: dict[str, np.ndarray]) -> np.ndarray:
        """Set the weights and return the result of one call."""
        load_weights(self._encoder, self._decoder, weights)
        results = self._compute(_ServingForm("contiguous", _BATCH_SIZES[0], 1))
        return results[:, 0, ::-1, ::-1] if self._task == "decode" else results

    def forms(self) -> dict[str, str]:
        """Select the fastest memory layout, batch size and number of threads."""
        batch_sizes = [1] if len(self._inputs) == 1 else _BATCH_SIZES
        forms = [
            _ServingForm(*choice)
            for choice in product(_LAYOUTS, batch_sizes, _thread_counts())
        ]
        self._form = fastest(forms, self._seconds)
        return {"PyTorch": str(self._form)}

    def serve(self, _: str) -> float:
        """Measure seconds per call."""
        return self._seconds(self._form)

    def _seconds(self, form: _ServingForm) -> float:
        torch.set_num_threads(form.n_threads)
        layout = _LAYOUTS[form.layout]
        self._encoder.to(memory_format=layout)
        self._decoder.to(memory_format=layout)
        return seconds_per_call(lambda: self._compute(form))

    def _compute(self, form: _ServingForm) -> np.ndarray:
        with torch.inference_mode():
            rows = torch.from_numpy(self._inputs)
            if self._task == "decode":
                batches = [self._decoder(z) for z in rows.split(form.batch_size)]
                return torch.cat(batches).contiguous().numpy()
            rows = rows.to(memory_format=_LAYOUTS[form.layout])
            if self._task == "encode":
                batches = [self._encoder(x)[0] for x in rows.split(form.batch_size)]
            else:
                n_rows = max(1, form.batch_size // N_DRAWS)
                batches = [self._scores(x) for x in rows.split(n_rows)]
            return torch.cat(batches).numpy()

    def _scores(self, x: torch.Tensor) -> torch.Tensor:
        """Compute the scores of `importance_scores` for images (n, 1, H, W)."""
        z_mean, z_log_var = (part[:, None] for part in self._encoder(x))
        epsilon = torch.randn(len(x), N_DRAWS, z_mean.shape[2])
        z = z_mean + torch.exp(0.5 * z_log_var) * epsilon
        decoded = self._decoder(z.flatten(0, 1)).reshape(len(x), N_DRAWS, -1)
        errors = (x.reshape(len(x), 1, -1) - decoded).square().sum(dim=2)
        log_ratio = 0.5 * (epsilon.square() + z_log_var - z.square()).sum(dim=2)
        log_weights = log_ratio - errors / (2 * VARIANCE)
        constant = math.log(N_DRAWS) + 0.5 * x[0].numel() * math.log(
            2 * math.pi * VARIANCE
        )
        return torch.logsumexp(log_weights, dim=1) - constant
