"""Fit: train a network and describe what it has come to."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from hashlib import sha256
from typing import Any

import numpy as np

from skvae.data.storage import StoredImages
from skvae.serving.sampler import check_sampler
from skvae.training.callbacks import FitTasks
from skvae.training.interruption import Interruption
from skvae.training.loop import Training, new_state
from skvae.training.plan import Plan, TrainingState
from skvae.training.processes import check_process
from skvae.training.replicas import current_strategy, outside_scopes
from skvae.training.report import Report
from skvae.training.result import fitted_attributes
from skvae.training.threads import limit_worker
from skvae.training.trainer import leased_trainer

# Images that the workers of a strategy compare.
_N_COMPARED = 64


def fit(
    plan: Plan, tasks: FitTasks, verbose: int, interruption: Interruption
) -> tuple[dict[str, Any], Exception | None]:
    """Train a network.

    Parameters
    ----------
    plan : Plan
    tasks : FitTasks
        Calls the callbacks.
    verbose : int
    interruption : Interruption
        Requested, it stops training. It is requested afterwards if it was in another
        worker of a strategy.

    Returns
    -------
    fitted : dict of str to object
        Fitted attributes by their names.
    sampler_error : Exception or None
        Error of a sampler that could not be fitted after training and is left out.

    Raises
    ------
    ValueError
        If training diverges.
    KeyboardInterrupt
        If training is interrupted before the first step.
    RuntimeError
        If TensorFlow cannot run in this process, or if the strategy in scope is not
        supported.
    """
    if plan.sampler is not None:
        n_images, latent_dim = len(plan.data.rows), plan.architecture.latent_dim
        check_sampler(plan.sampler, n_images, latent_dim, plan.seed)
    limit_worker()
    check_process()
    strategy = current_strategy()
    train = partial(_fit, plan, strategy, tasks, verbose, interruption)
    return outside_scopes(train, interruption.discard)


def _fit(
    plan: Plan,
    strategy: Any,
    tasks: FitTasks,
    verbose: int,
    interruption: Interruption,
) -> tuple[dict[str, Any], Exception | None]:
    settings = plan.settings
    with leased_trainer(
        plan.architecture, settings.optimizer, settings.batch_size, strategy
    ) as trainer:
        replicas = trainer.replicas
        with (
            replicas.failing_together(),
            Report(verbose, settings.epochs, plan.n_epochs_before) as report,
        ):
            start = plan.start or new_state(plan)
            trainer.load(start, settings.learning_rate)
            if replicas.n_processes > 1:
                replicas.check_same(_digest(plan, start))
            training = Training(plan, start, trainer, tasks, report, interruption)
            outcome = training.run()
            is_interrupted = training.is_interrupted()
        fitted, sampler_error = fitted_attributes(
            plan, outcome, trainer, interruption, is_partial=is_interrupted
        )
    interruption.check()
    if sampler_error is None:
        tasks.end(fitted)
    return fitted, sampler_error


def _digest(plan: Plan, start: TrainingState) -> int:
    """Number below 2^32 that differs between fits of other data or parameters."""
    digest = sha256()
    for part in _facts(plan, start):
        is_array = isinstance(part, np.ndarray)
        digest.update(part.tobytes() if is_array else repr(part).encode())
    return int.from_bytes(digest.digest()[:4])


def _facts(plan: Plan, start: TrainingState) -> Iterator[Any]:
    """Numbers and arrays that are to be the same for all workers of a strategy."""
    data = plan.data
    yield plan.architecture, plan.settings, data.value_range
    yield start.seed, start.n_epochs, start.noise_variance
    yield start.weights
    yield start.last_weights
    yield from start.optimizer_arrays
    yield len(data.rows)
    if isinstance(data.images, StoredImages):
        yield data.images.starts  # they determine the order
    yield data.images[np.array([data.rows[i] for i in _spread(len(data.rows))])]
    if data.validation_images is not None:
        n_images = len(data.validation_images)
        yield n_images
        yield data.validation_images[_spread(n_images)]


def _spread(n: int) -> np.ndarray:
    """Places of some of n images, from the first to the last."""
    return np.unique(np.linspace(0, n - 1, _N_COMPARED).astype(np.int64))
