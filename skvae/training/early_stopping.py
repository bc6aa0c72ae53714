"""Early stopping: the validation set, its loss, the best epoch and when to stop."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from skvae.architecture import MIN_NOISE_VARIANCE, Architecture
from skvae.serving.batches import Rows
from skvae.serving.densities import log_span, normaliser
from skvae.serving.row_draws import row_draws
from skvae.serving.scores import elbo_terms
from skvae.streams import Stream, stream
from skvae.training.divergence import check_loss, overflow_as_divergence
from skvae.training.inference import network_of
from skvae.training.plan import Settings, TrainingData, TrainingState

if TYPE_CHECKING:
    from skvae.training.replicas import Replicas

# Epochs count as without gain from so many steps on. Before, the validation loss of a
# new network may rise, and with few images this takes many epochs. With 20 images of
# clothes, two of four fits would end after 11 and 19 epochs with held-out log densities
# of -310 and -295 nats. With 100 or 200 steps, all four have more than 70.
_N_FIRST_STEPS = 100

# Fewer validation images say too little of the noise variance to train with it.
_MIN_VALIDATION_IMAGES = 30


def split_rows(
    n_images: int,
    validation_fraction: float,
    seed: int,
    earlier_sizes: tuple[int, ...] = (),
) -> tuple[np.ndarray, np.ndarray, tuple[int, ...]]:
    """Split images into a training and a validation set.

    A fit that is continued with the same images, or with others appended to them,
    validates on no image that it was trained on.

    Parameters
    ----------
    n_images : int
    validation_fraction : float
    seed : int
    earlier_sizes : tuple of int
        Numbers of images of the earlier fits, in ascending order.

    Returns
    -------
    training_rows, validation_rows : ndarray of int
        In ascending order.
    sizes : tuple of int
        Numbers of images for which the validation set was extended.

    Raises
    ------
    ValueError
        If the training set is empty.
    """
    n_validation = math.ceil(validation_fraction * n_images)
    if n_validation == n_images:
        msg = (
            f"early_stopping with validation_fraction={validation_fraction} leaves no "
            f"image to train on, got n_samples={n_images}. Give more images, a smaller "
            f"fraction or X_val."
        )
        raise ValueError(msg)
    if earlier_sizes and n_images < earlier_sizes[-1]:
        earlier_sizes = ()  # other images
    sizes = tuple(dict.fromkeys([*earlier_sizes, n_images]))
    is_held_out = np.zeros(n_images, bool)
    for i, (start, stop) in enumerate(pairwise([0, *sizes])):
        n_missing = math.ceil(validation_fraction * stop) - is_held_out.sum()
        order = stream(seed, Stream.VALIDATION_SPLIT, i).permutation(stop - start)
        is_held_out[start + order[: max(0, n_missing)]] = True
    return np.flatnonzero(~is_held_out), np.flatnonzero(is_held_out), sizes


class EarlyStopping:
    """Validation loss after each epoch, and the state with the lowest.

    The loss is the negative evidence lower bound (beta=1) of the validation images,
    with one draw per image, the same in each epoch. A learned noise variance is
    replaced by the one that fits these images best: the training images' own is too
    small for others, charges overfitting twice and stops too soon. During the KL
    warm-up the newest epoch is the best: the loss would prefer one with less weight on
    the KL than `beta`.

    Training images fit better than others, the more so the longer training goes on.
    With their own noise variance, the KL would weigh less and less in the loss. The
    noise variance of the loss is therefore the running one times `noise_factor`: the
    validation images' mean squared error over the running noise variance, but at least
    1, after each epoch anew. Held-out digits gain 2 nats (latent_dim of 8 and 16,
    three seeds).
    """

    def __init__(
        self,
        architecture: Architecture,
        settings: Settings,
        data: TrainingData,
        images: Rows,
        start: TrainingState,
        replicas: Replicas,
    ) -> None:
        self._architecture = architecture
        self._settings = settings
        self._data = data
        self._images = images
        self._replicas = replicas
        self._draws = row_draws(
            start.seed, 1, architecture.n_pixels, architecture.latent_dim
        )
        self._n_epochs_without_gain = 0
        self.noise_factor = 1.0
        # Neither a new network nor one in its warm-up is a candidate, whatever its
        # loss.
        self.best: TrainingState | None = None
        self.noise_variance = start.noise_variance
        self._best_loss = math.inf
        if start.n_epochs > 0:
            loss, noise_variance = self._loss(start)
            self.noise_factor = self._factor(start, noise_variance)
            if start.n_epochs > settings.kl_warmup_epochs:
                self.best, self.noise_variance = start, noise_variance
                self._best_loss = loss

    def update(self, state: TrainingState) -> float:
        """Take the state after another epoch into account; return its loss."""
        loss, noise_variance = self._loss(state)
        check_loss(loss, state.n_epochs - 1)
        self.noise_factor = self._factor(state, noise_variance)
        is_warming_up = state.n_epochs <= self._settings.kl_warmup_epochs
        is_new = state.n_steps < _N_FIRST_STEPS
        has_gained = loss < self._best_loss - self._settings.tol
        if is_warming_up or is_new or has_gained:
            self._n_epochs_without_gain = 0
        else:
            self._n_epochs_without_gain += 1
        if loss < self._best_loss:
            self.best, self.noise_variance = state, noise_variance
            self._best_loss = math.inf if is_warming_up else loss
        return loss

    @property
    def is_over(self) -> bool:
        """True after `n_iter_no_change` epochs that did not meet `tol` improvement."""
        return self._n_epochs_without_gain >= self._settings.n_iter_no_change

    def _factor(self, state: TrainingState, noise_variance: float) -> float:
        """Noise factor after a state with this noise variance of validation images."""
        if len(self._images) < _MIN_VALIDATION_IMAGES:
            return 1.0
        return max(1.0, noise_variance / state.noise_variance)

    def _loss(self, state: TrainingState) -> tuple[float, float]:
        """Validation loss and its noise variance, in the network's units."""
        network = network_of(self._architecture, self._data, state)
        with overflow_as_divergence():
            errors, kl = self._replicas.shared(
                lambda images: elbo_terms(network, images, self._draws), self._images
            )
        noise_variance = state.noise_variance
        if self._architecture.likelihood == "gaussian":
            mean_square = float(errors.mean()) / self._architecture.n_pixels
            noise_variance = max(mean_square, MIN_NOISE_VARIANCE)
        reconstruction = errors.mean() / (2.0 * noise_variance)
        reconstruction += normaliser(self._architecture, noise_variance)
        span = log_span(self._architecture, self._data.value_range)
        return float(reconstruction + kl.mean()) + span, noise_variance
