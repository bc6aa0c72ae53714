"""Fitted attributes: what an outcome of training leaves in the estimator."""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import asdict
from itertools import pairwise
from typing import Any

import numpy as np
from sklearn.base import clone

from skvae.data.storage import ReadingStopped, Selection
from skvae.persistence.state import with_read_only_arrays
from skvae.serving.densities import kl_divergence
from skvae.serving.sampler import fit_sampler
from skvae.training.divergence import check_last_step, overflow_as_divergence
from skvae.training.inference import network_of
from skvae.training.interruption import Interruption
from skvae.training.plan import History, Outcome, Plan
from skvae.training.replicas import Replicas
from skvae.training.trainer import Trainer

# Images with so many pixels are encoded at once, and as many stand for all images
# before training has ended.
_PART_PIXELS = 2**22

# They are runs of neighbouring rows, of so many images each at least.
_N_RUNS = 16
_MIN_RUN = 16


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
        Whether `latent_kl_` and `sampler_` are those of a part of the images, as they
        are after an interruption, too.

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
    latent_kl, z_mean, z_log_var = _describe_latents(
        plan, outcome, trainer.replicas, interruption, is_partial=is_partial
    )
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
            "optimizer": plan.settings.optimizer,
            "optimizer_arrays": state.optimizer_arrays,
            "noise_variance": state.noise_variance,
            "split_sizes": data.split_sizes,
        },
    }
    if architecture.likelihood != "bernoulli":
        low, high = data.value_range
        fitted["noise_variance_"] = outcome.noise_variance * (high - low) ** 2
    fitted = with_read_only_arrays(fitted)
    if plan.sampler is not None:
        sampler = clone(plan.sampler)
        try:
            fitted["sampler_"] = fit_sampler(sampler, z_mean, z_log_var, state.seed)
        except Exception as error:  # noqa: BLE001  training is not to be lost
            return fitted, error
    return fitted, None


def _describe_latents(
    plan: Plan,
    outcome: Outcome,
    replicas: Replicas,
    interruption: Interruption,
    *,
    is_partial: bool,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Encode the training images, or a part of them.

    Returns
    -------
    kl : ndarray of shape (latent_dim,), float32
        Mean KL of each latent dimension.
    z_mean, z_log_var : ndarray of shape (n, latent_dim)
        Empty if no sampler needs them.
    """
    if not is_partial:
        # Several processes have to call alike, and are not interrupted.
        is_alone = replicas.n_processes == 1
        images = Selection(
            plan.data.images,
            plan.data.rows,
            lambda: interruption.is_training_wanted or not is_alone,
        )
        here = range(*replicas.rows_here(len(images)))
        with suppress(ReadingStopped), replicas.failing_together():
            kl, latents = _encode(plan, outcome, images, here)
            kl = replicas.sum_of_processes(kl)
            latents = replicas.sum_of_processes(latents)
            return _to_float32(kl), latents[0], latents[1]
    some = _part_of(plan.data.rows, plan.architecture.n_pixels)
    images = Selection(plan.data.images, some)
    kl, latents = _encode(plan, outcome, images, range(len(images)))
    return _to_float32(kl), latents[0], latents[1]


def _to_float32(kl: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):  # an overflow is a divergence, found later
        return kl.astype(np.float32)


def _part_of(rows: np.ndarray | range, n_pixels: int) -> np.ndarray:
    """Runs of neighbouring rows from everywhere."""
    n_run = max(_MIN_RUN, math.ceil(_PART_PIXELS / n_pixels / _N_RUNS))
    bounds = [i * len(rows) // _N_RUNS for i in range(_N_RUNS + 1)]
    runs = [rows[start : min(start + n_run, end)] for start, end in pairwise(bounds)]
    return np.concatenate(runs).astype(np.int64)


def _encode(
    plan: Plan, outcome: Outcome, images: Selection, here: range
) -> tuple[np.ndarray, np.ndarray]:
    """Encode those of n images that are for this process.

    Returns
    -------
    kl : ndarray of shape (latent_dim,)
        Their share of the mean KL of all n images.
    latents : ndarray of shape (2, n, latent_dim)
        z_mean and z_log_var, zero for other images; empty if no sampler needs them.

    Raises
    ------
    ReadingStopped
        If the images are not wanted any more.
    """
    architecture = plan.architecture
    network = network_of(architecture, plan.data, outcome.state)
    n_latents = len(images) if plan.sampler is not None else 0
    kl = np.zeros(architecture.latent_dim)
    latents = np.zeros((2, n_latents, architecture.latent_dim), np.float32)
    n_part = max(1, _PART_PIXELS // architecture.n_pixels)
    for start in here[::n_part]:
        part = range(start, min(start + n_part, here.stop))
        with overflow_as_divergence():
            z_mean, z_log_var = network.encode(Selection(images, part))
        kl += kl_divergence(z_mean, z_log_var).sum(axis=0) / len(images)
        if n_latents:
            latents[:, start : part.stop] = z_mean, z_log_var
    return kl, latents


def _joined(earlier: History, later: History) -> History:
    """One value per epoch under every name, NaN where it was not computed."""
    n_earlier, n_later = len(earlier.get("loss", [])), len(later["loss"])
    names = dict.fromkeys([*earlier, *later])
    return {
        name: earlier.get(name, [math.nan] * n_earlier)
        + later.get(name, [math.nan] * n_later)
        for name in names
    }
