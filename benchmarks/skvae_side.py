"""ConvVAE's side of the speed benchmark."""

from __future__ import annotations

import warnings
from time import perf_counter

import numpy as np
from sklearn.base import clone
from timing import seconds_a_call
from workloads import KERNEL_SIZE, LEARNING_RATE, architecture, make_images, make_inputs
from workloads import Serving as ServingWorkload
from workloads import Training as TrainingWorkload

from skvae import ConvVAE
from skvae.exceptions import PosteriorCollapseWarning

# Some of these fits are far too short to be of any use.
warnings.simplefilter("ignore", PosteriorCollapseWarning)

# The learning rate of a fit that leaves the weights where its training starts.
_NO_LEARNING = 1e-30


def conv_vae(workload: TrainingWorkload | ServingWorkload, policy: str) -> ConvVAE:
    """The guide's network and loss."""
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
    """Whole fits, validation of X and encoding of what was trained on included."""

    def __init__(self, workload: TrainingWorkload, policy: str = "float32") -> None:
        self._name = "skvae" if policy == "float32" else f"skvae, {policy}"
        self._images = make_images(workload)
        vae = conv_vae(workload, policy)
        self._vae = vae.set_params(
            epochs=workload.epochs, batch_size=workload.batch_size
        )
        # The first fit of an architecture compiles; the others here do not.
        start = clone(self._vae).set_params(epochs=1, learning_rate=_NO_LEARNING)
        self._start = start.fit(self._images)

    def start_weights(self) -> dict[str, np.ndarray]:
        """The weights that every timed fit starts from, under their Keras paths."""
        return self._start.weights_

    def check(self, _: dict[str, np.ndarray], n_images: int) -> tuple[int, float]:
        """Number of weights; loss of the first images at the means of their latents."""
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
        """What to time, under its name, and how it was chosen."""
        return {self._name: "ConvVAE.fit"}

    def train(self, _: str) -> tuple[float, float]:
        """Seconds of a fit; mean loss of its last epoch."""
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
        """The network's weights, under their Keras paths."""
        return self._vae.weights_

    def check(self, _: dict[str, np.ndarray]) -> np.ndarray:
        """Compute once."""
        return self._call()

    def forms(self) -> dict[str, str]:
        """What to time, under its name, and how it was chosen."""
        self.serve("skvae")  # to warm up
        return {"skvae": self._form}

    def serve(self, _: str) -> float:
        """Seconds of a call."""
        return seconds_a_call(self._call)
