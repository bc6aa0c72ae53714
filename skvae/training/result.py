"""Fitted attributes: what an outcome of training leaves in the estimator."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from sklearn.base import clone

from skvae.architecture import MIN_NOISE_VARIANCE
from skvae.data.storage import ReadingStopped, Selection
from skvae.persistence.state import weights_checksum, with_read_only_arrays
from skvae.serving.densities import kl_divergence
from skvae.serving.row_draws import row_draws
from skvae.serving.sampler import fit_sampler
from skvae.serving.scores import squared_errors
from skvae.training.divergence import check_last_step, overflow_as_divergence
from skvae.training.inference import network_of
from skvae.training.interruption import Interruption
from skvae.training.plan import History, Outcome, Plan, TrainingData
from skvae.training.replicas import Replicas
from skvae.training.trainer import Trainer

# Images with so many pixels are encoded at once, and as many stand for all images
# before training has ended.
_PART_PIXELS = 2**22

# They are runs of neighbouring rows, of so many images each at least.
_N_RUNS = 16
_MIN_RUN = 16

# Lower bound of the noise variance of a pixel, in the network's units: a standard
# deviation of a hundredth of the value range. Where pixels never vary, the density
# depends on nothing else.
_MIN_PIXEL_VARIANCE = 1e-4

# In the mean squared error of a pixel, the mean of all pixels counts as so many images.
_N_PRIOR_IMAGES = 4


def fitted_attributes(
    plan: Plan,
    outcome: Outcome,
    trainer: Trainer,
    interruption: Interruption,
    *,
    is_partial: bool,
) -> tuple[dict[str, Any], Exception | None]:
    """Fitted attributes of the estimator, by their names.

    Parameters
    ----------
    plan : Plan
    outcome : Outcome
    trainer : Trainer
        What has trained.
    interruption : Interruption
    is_partial : bool
        Whether `latent_kl_`, `sampler_` and a noise variance of each pixel are those of
        a part of the images, as they are after an interruption, too.

    Returns
    -------
    fitted : dict of str to object
    sampler_error : Exception or None
        Error of a sampler that could not be fitted and is left out.

    Raises
    ------
    ValueError
        If training has diverged.
    """
    architecture, data, state = plan.architecture, plan.data, outcome.state
    reading = _Reading(data, trainer.replicas, interruption, is_partial)
    latent_kl, z_mean, z_log_var = _describe_latents(plan, outcome, reading)
    check_last_step(state, latent_kl)
    fitted = {
        "weights_": architecture.unpack(state.weights),
        "history_": _joined(plan.earlier_history, outcome.history),
        "n_iter_": state.n_epochs,
        "input_shape_": architecture.image_shape,
        "value_range_": data.value_range,
        "latent_kl_": latent_kl,
        "compute_dtype_": trainer.compute_dtype,
        **data.feature_attributes,
        "_state_": {
            "architecture": asdict(architecture),
            "caller_shape": data.layout.caller_shape,
            "seed": state.seed,
            "n_steps": state.n_steps,
            "last_weights": state.last_weights,
            "weights_checksum": weights_checksum(state.weights),
            "optimizer": plan.settings.optimizer,
            "optimizer_arrays": state.optimizer_arrays,
            "noise_variance": state.noise_variance,
            "split_sizes": data.split_sizes,
        },
    }
    if architecture.likelihood != "bernoulli":
        noise_variance: Any = outcome.noise_variance
        if plan.settings.noise_type == "diag":
            variances = _pixel_variances(plan, outcome, reading)
            noise_variance = variances.reshape(data.layout.caller_shape)
        low, high = data.value_range
        fitted["noise_variance_"] = noise_variance * (high - low) ** 2
    fitted = with_read_only_arrays(fitted)
    if plan.sampler is not None:
        sampler = clone(plan.sampler)
        try:
            fitted["sampler_"] = fit_sampler(sampler, z_mean, z_log_var, state.seed)
        except Exception as error:  # noqa: BLE001  training is not to be lost
            return fitted, error
    return fitted, None


def _describe_latents(
    plan: Plan, outcome: Outcome, reading: _Reading
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Encode the training images, or a part of them.

    Returns
    -------
    kl : ndarray of shape (latent_dim,), float32
        Mean KL of each latent dimension.
    z_mean, z_log_var : ndarray of shape (n, latent_dim)
        Empty if no sampler needs them.
    """
    architecture = plan.architecture
    network = network_of(architecture, plan.data, outcome.state)

    def describe(images: Selection, here: range) -> list[np.ndarray]:
        n_latents = len(images) if plan.sampler is not None else 0
        kl = np.zeros(architecture.latent_dim)
        latents = np.zeros((2, n_latents, architecture.latent_dim), np.float32)
        for part in _parts(here, architecture.n_pixels):
            with overflow_as_divergence():
                z_mean, z_log_var = network.encode(Selection(images, part))
            kl += kl_divergence(z_mean, z_log_var).sum(axis=0) / len(images)
            if n_latents:
                latents[:, part.start : part.stop] = z_mean, z_log_var
        return [kl, latents]

    kl, latents = reading.sums(describe)
    with np.errstate(over="ignore"):  # an overflow is a divergence, found later
        return kl.astype(np.float32), latents[0], latents[1]


def _pixel_variances(plan: Plan, outcome: Outcome, reading: _Reading) -> np.ndarray:
    """Noise variance of each pixel (n_pixels,), in the network's units.

    That of all pixels, in proportion to each pixel's mean squared error over the
    training images. With early stopping its level is the validation images', which are
    too few to tell pixels apart: measured on the 7 of 75 faces (25 x 25 pixels), it
    gave held-out faces 21 nats less.
    """
    architecture, data, state = plan.architecture, plan.data, outcome.state
    network = network_of(architecture, data, state)
    draws = row_draws(state.seed, 1, architecture.n_pixels, architecture.latent_dim)

    def measure(images: Selection, here: range) -> list[np.ndarray]:
        n_images = np.array([float(len(here))])
        mean_squares = np.zeros(architecture.n_pixels)
        for part in _parts(here, architecture.n_pixels):
            with overflow_as_divergence():
                squares = squared_errors(network, Selection(images, part), draws)
            mean_squares += squares.sum(axis=0) / len(images)
        return [mean_squares, n_images]

    mean_squares, (n_images,) = reading.sums(measure)
    mean = mean_squares.mean()
    shrunk = n_images * mean_squares + _N_PRIOR_IMAGES * mean
    shrunk /= n_images + _N_PRIOR_IMAGES
    level = outcome.noise_variance / max(mean, MIN_NOISE_VARIANCE)
    return np.maximum(level * shrunk, _MIN_PIXEL_VARIANCE)


@dataclass(frozen=True)
class _Reading:
    """How training images are read again: all of them, or a part that stands for them.

    Attributes
    ----------
    data : TrainingData
    replicas : Replicas
    interruption : Interruption
        Requested, it ends the reading of all images.
    is_partial : bool
        Whether only a part is read.
    """

    data: TrainingData
    replicas: Replicas
    interruption: Interruption
    is_partial: bool

    def sums(
        self, function: Callable[[Selection, range], list[np.ndarray]]
    ) -> list[np.ndarray]:
        """Sum the arrays that a function returns in each process.

        Parameters
        ----------
        function : callable
            Takes the images, and the range of those that are for this process.
        """
        images, rows = self.data.images, self.data.rows
        if not self.is_partial:
            # Several processes have to call alike, and are not interrupted.
            is_alone = self.replicas.n_processes == 1
            wanted = Selection(
                images,
                rows,
                lambda: self.interruption.is_training_wanted or not is_alone,
            )
            here = range(*self.replicas.rows_here(len(wanted)))
            with suppress(ReadingStopped), self.replicas.failing_together():
                arrays = function(wanted, here)
                return [self.replicas.sum_of_processes(array) for array in arrays]
        some = Selection(images, _part_of(rows, self.data.layout.n_pixels))
        return function(some, range(len(some)))


def _part_of(rows: np.ndarray | range, n_pixels: int) -> np.ndarray:
    """Runs of neighbouring rows from everywhere."""
    n_run = max(_MIN_RUN, math.ceil(_PART_PIXELS / n_pixels / _N_RUNS))
    bounds = [i * len(rows) // _N_RUNS for i in range(_N_RUNS + 1)]
    runs = [rows[start : min(start + n_run, end)] for start, end in pairwise(bounds)]
    return np.concatenate(runs).astype(np.int64)


def _parts(rows: range, n_pixels: int) -> Iterator[range]:
    """Split a range of images into those that are computed at once."""
    n_part = max(1, _PART_PIXELS // n_pixels)
    for start in rows[::n_part]:
        yield range(start, min(start + n_part, rows.stop))


def _joined(earlier: History, later: History) -> History:
    """One value per epoch under every name, NaN where it was not computed."""
    n_earlier, n_later = len(earlier.get("loss", [])), len(later["loss"])
    names = dict.fromkeys([*earlier, *later])
    return {
        name: earlier.get(name, [math.nan] * n_earlier)
        + later.get(name, [math.nan] * n_later)
        for name in names
    }
