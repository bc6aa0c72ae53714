"""ConvVAE in the speed benchmark."""

from __future__ import annotations

import warnings
from time import perf_counter

import numpy as np
from sklearn.base import clone

from benchmarks.common.measurement import seconds_per_call
from benchmarks.speed.workloads import (
    KERNEL_SIZE,
    LEARNING_RATE,
    architecture,
    make_images,
    make_inputs,
)
from benchmarks.speed.workloads import Serving as ServingWorkload
from benchmarks.speed.workloads import Training as TrainingWorkload
from skvae import ConvVAE
from skvae.exceptions import PosteriorCollapseWarning

# Some fits are too short to use the latents.
warnings.simplefilter("ignore", PosteriorCollapseWarning)

# Learning rate that leaves the initial weights unchanged.
_NO_LEARNING = 1e-30


def conv_vae(workload: TrainingWorkload | ServingWorkload, policy: str) -> ConvVAE:
    """Build an estimator with the network and loss of the workload."""
    network = architecture(workload)
    vae = ConvVAE(
        network.latent_dim,
        filters=network.filters,
        hidden_layers=network.hidden_layers,
        kernel_size=KERNEL_SIZE,
        likelihood="mse",
        learning_rate=LEARNING_RATE,
        random_state=0,
    )
    return vae if policy == "float32" else vae.set_params(dtype_policy=policy)


class Training:
    """Fits, including validation of X and the final encoding of the training images."""

    def __init__(self, workload: TrainingWorkload, policy: str = "float32") -> None:
        self._name = "skvae" if policy == "float32" else f"skvae, {policy}"
        self._images = make_images(workload)
        vae = conv_vae(workload, policy)
        self._vae = vae.set_params(
            epochs=workload.epochs, batch_size=workload.batch_size
        )
        # Only the first fit of an architecture compiles.
        start = clone(self._vae).set_params(epochs=1, learning_rate=_NO_LEARNING)
        self._start = start.fit(self._images)

    def start_weights(self) -> dict[str, np.ndarray]:
        """Return the initial weights of all timed fits, under their Keras paths."""
        return self._start.weights_

    def check(self, _: dict[str, np.ndarray], n_images: int) -> tuple[int, float]:
        """Return the number of weights, and the loss of the first images at z_mean."""
        images = self._images[:n_images].astype(float)
        z_mean, z_log_var = (
            part.astype(float) for part in self._start.posterior(images)
        )
        errors = (self._start.inverse_transform(z_mean) - images) ** 2
        kl = 0.5 * (z_mean**2 + np.exp(z_log_var) - 1 - z_log_var)
        loss = errors.sum(axis=(1, 2)) + kl.sum(axis=1)
        n_weights = sum(weight.size for weight in self._start.weights_.values())
        return n_weights, float(loss.mean())

    def forms(self) -> dict[str, str]:
        """Return the form to time, with its description."""
        return {self._name: "ConvVAE.fit"}

    def train(self, _: str) -> tuple[float, float]:
        """Return the seconds of a fit and the mean loss of its last epoch."""
        vae = clone(self._vae)
        start = perf_counter()
        vae.fit(self._images)
        seconds = perf_counter() - start
        return seconds, vae.history_["loss"][-1]


class Serving:
    """Calls of `transform`, `inverse_transform` and `score_samples`."""

    def __init__(self, workload: ServingWorkload) -> None:
        vae = conv_vae(workload, "float32")
        vae.set_params(epochs=1, learning_rate=_NO_LEARNING)
        self._vae = vae.fit(make_images(workload)[:100])
        method, self._form = {
            "encode": (self._vae.transform, "ConvVAE.transform"),
            "decode": (self._vae.inverse_transform, "ConvVAE.inverse_transform"),
            "score": (self._vae.score_samples, "ConvVAE.score_samples"),
        }[workload.task]
        inputs = make_inputs(workload)
        self._call = lambda: method(inputs)

    def weights(self) -> dict[str, np.ndarray]:
        """Return the weights of the network, under their Keras paths."""
        return self._vae.weights_

    def check(self, _: dict[str, np.ndarray]) -> np.ndarray:
        """Return the result of one call."""
        return self._call()

    def forms(self) -> dict[str, str]:
        """Warm up and return the form to time, with its description."""
        self.serve("skvae")
        return {"skvae": self._form}

    def serve(self, _: str) -> float:
        """Measure seconds per call."""
        return seconds_per_call(self._call)
