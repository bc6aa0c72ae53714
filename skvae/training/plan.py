"""Plan of a fit, state of training and its outcome, as plain values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator

from skvae.architecture import Architecture
from skvae.data.layout import ImageLayout
from skvae.data.storage import Selection, StoredImages

# One value per epoch under "loss", "reconstruction", "kl" and perhaps "val_loss".
History = dict[str, list[float]]


@dataclass(frozen=True)
class Settings:
    """Parameters of training; only the optimizer is part of a graph."""

    epochs: int
    batch_size: int
    learning_rate: float
    beta: float
    kl_warmup_epochs: int
    free_bits: float
    optimizer: str
    noise_type: str
    n_iter_no_change: int
    tol: float

    def kl_weight(self, epoch: int) -> float:
        """Weight of the KL in the loss of an epoch, counted from 0."""
        if epoch < self.kl_warmup_epochs:
            return self.beta * (epoch / self.kl_warmup_epochs)
        return self.beta


@dataclass(frozen=True)
class TrainingData:
    """Validated images and how to read them.

    Attributes
    ----------
    images : array-like of shape (n, H, W, C)
        Images in the caller's units and dtype.
    layout : ImageLayout
    value_range : (low, high)
        The interval of pixel values that the network sees as [0, 1].
    rows : ndarray of int of shape (n_rows,), or range
        Training images, in ascending order.
    validation_images : array-like of shape (n, H, W, C) or None
        Validation set of early stopping.
    split_sizes : tuple of int
        Numbers of images for which it was taken from X; empty if it was not.
    suitable_range : (low, high) or None
        Value range that suits the images better.
    feature_attributes : dict of str to object
        Attributes that scikit-learn's validation sets.
    """

    images: np.ndarray | StoredImages
    layout: ImageLayout
    value_range: tuple[float, float]
    rows: np.ndarray | range
    validation_images: np.ndarray | StoredImages | Selection | None
    split_sizes: tuple[int, ...]
    suitable_range: tuple[float, float] | None
    feature_attributes: dict[str, Any]


@dataclass(frozen=True)
class TrainingState:
    """State of training after an epoch, from which training can go on.

    Attributes
    ----------
    seed : int
        Seed of all random numbers of this training.
    n_epochs, n_steps : int
        Epochs and optimizer steps so far.
    weights : ndarray of shape (n_weights,)
        Moving average of the weights after each step, which computes the results.
    last_weights : ndarray of shape (n_weights,)
        Weights after the last step, from which training goes on.
    noise_variance : float
        In the network's units.
    optimizer_arrays : list of ndarray
        The optimizer's variables in Keras's order; empty for those of a new one.
    """

    seed: int
    n_epochs: int
    n_steps: int
    weights: np.ndarray
    last_weights: np.ndarray
    noise_variance: float
    optimizer_arrays: list[np.ndarray]


@dataclass(frozen=True)
class Plan:
    """Everything that a fit needs to know.

    Attributes
    ----------
    architecture : Architecture
    settings : Settings
    data : TrainingData
    seed : int
    start : TrainingState or None
        State of the earlier fit that this one continues.
    earlier_history : dict of str to list of float
        History of the earlier fit.
    sampler : estimator or None
        Unfitted density estimator of the latents.
    """

    architecture: Architecture
    settings: Settings
    data: TrainingData
    seed: int
    start: TrainingState | None
    earlier_history: History
    sampler: BaseEstimator | None

    @property
    def n_epochs_before(self) -> int:
        """Epochs of the earlier fit."""
        return self.start.n_epochs if self.start else 0


@dataclass(frozen=True)
class Outcome:
    """Result of training.

    Attributes
    ----------
    state : TrainingState
        With early stopping that of the best epoch.
    noise_variance : float
        Noise variance that fits best, in the network's units: with early stopping to
        the validation images, else to the training images.
    history : dict of str to list of float
        History of this fit.
    """

    state: TrainingState
    noise_variance: float
    history: History
