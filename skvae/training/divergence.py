"""Errors of training that diverges."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from skvae.serving.sessions import OutputOverflowError
from skvae.training.plan import TrainingState


def check_loss(loss: float, epoch: int) -> None:
    """Check that the loss of an epoch, counted from 0, is finite.

    Raises
    ------
    ValueError
        If it is not.
    """
    if not math.isfinite(loss):
        raise ValueError(_message(f"the loss was {loss} in epoch {epoch + 1}"))


def check_last_step(state: TrainingState, latent_kl: np.ndarray) -> None:
    """Check that the last step has left finite weights: its loss is of those before it.

    Raises
    ------
    ValueError
        If weights, optimizer variables or the KL of the images are not finite.
    """
    arrays = (latent_kl, state.weights, state.last_weights, *state.optimizer_arrays)
    if not all(np.isfinite(array).all() for array in arrays):
        raise ValueError(_message("weights are not finite after the last step"))


@contextmanager
def overflow_as_divergence() -> Iterator[None]:
    """Raise the overflow of a network under training as a divergence."""
    try:
        yield
    except OutputOverflowError as error:
        msg = _message("the network's outputs for the images overflow float32")
        raise ValueError(msg) from error


def _message(how: str) -> str:
    return (
        f"Training diverged: {how}. Lower learning_rate (or beta or free_bits, if "
        f"they are large), or check that value_range covers the data (and X_val)."
    )
