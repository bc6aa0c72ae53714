"""The training loop: epochs, blocks, early stopping.

Images reach the engine in blocks, gathered in the epoch's order in the caller's
dtype; one graph call trains on a whole block. The permutation and the noise of an
epoch depend on the seed and the epoch's number alone, so that training can stop after
any epoch and go on from its state with the same bits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from skvae import engine, objective
from skvae.architecture import Architecture
from skvae.draws import Stream, stream
from skvae.images import to_graph_dtype
from skvae.inference import FittedNetwork
from skvae.initialization import initial_weights
from skvae.progress import History, Report

# A block, and so a graph call, has about this many pixels: a second's work or less.
_BLOCK_PIXELS = 2**22


@dataclass(frozen=True)
class Settings:
    """What steers training; of these only the optimizer is part of a graph."""

    epochs: int
    batch_size: int
    learning_rate: float
    beta: float
    kl_warmup_epochs: int
    free_bits: float
    optimizer: str
    n_iter_no_change: int
    tol: float

    def kl_weight(self, epoch: int) -> float:
        """Weight of the KL in the loss of an epoch, counted from 0."""
        if epoch < self.kl_warmup_epochs:
            return self.beta * epoch / self.kl_warmup_epochs
        return self.beta


@dataclass(frozen=True)
class Data:
    """What to train on.

    Attributes
    ----------
    images : (n, H, W, C)
        Images in the caller's units and dtype.
    rows : (n_rows,) of int
        The images to train on, each used once an epoch.
    validation_images : (n, H, W, C) or None
        What early stopping watches; None trains for all epochs.
    value_range : (low, high)
        The interval of pixel values that the network sees as [0, 1].
    """

    images: np.ndarray
    rows: np.ndarray
    validation_images: np.ndarray | None
    value_range: tuple[float, float]


@dataclass(frozen=True)
class Progress:
    """How far training has come.

    Attributes
    ----------
    seed : int
        What every random number of this training depends on.
    n_epochs : int
        Epochs trained so far.
    weights : (n_weights,)
    noise_variance : float
        What training goes on with, in the network's units.
    optimizer_arrays : list of ndarray
        The optimizer's variables in Keras's order; empty for those of a new one.
    """

    seed: int
    n_epochs: int
    weights: np.ndarray
    noise_variance: float
    optimizer_arrays: list[np.ndarray]


@dataclass(frozen=True)
class Outcome:
    """What training comes to.

    Attributes
    ----------
    progress : Progress
        With early stopping that of the best epoch.
    noise_variance : float
        The variance that fits best, in the network's units: with early stopping to
        the validation images, which training has not adapted to, else to the
        training images.
    history : dict of str to list of float
        Of all epochs trained: see `ConvVAE.history_`.
    """

    progress: Progress
    noise_variance: float
    history: History


def new_progress(architecture: Architecture, seed: int) -> Progress:
    """Where the training of a new network starts."""
    weights = initial_weights(architecture, stream(seed, Stream.INITIAL_WEIGHTS))
    return Progress(
        seed, 0, architecture.pack(weights), objective.FIXED_NOISE_VARIANCE, []
    )


def fit(
    architecture: Architecture,
    settings: Settings,
    data: Data,
    start: Progress,
    report: Report,
) -> Outcome:
    """Train a network.

    Parameters
    ----------
    architecture : Architecture
    settings : Settings
    data : Data
    start : Progress
        Where to go on.
    report : callable
        Called after each epoch with the history so far and whether that was the last.

    Returns
    -------
    Outcome

    Raises
    ------
    ValueError
        If training diverges.
    """
    early_stopping = None
    if data.validation_images is not None:
        early_stopping = _EarlyStopping(
            architecture, settings, data, data.validation_images, start
        )
    # The guide's loss stays in the network's units.
    is_gaussian = architecture.likelihood == "gaussian"
    offset = _network(architecture, data, start).log_span if is_gaussian else 0.0
    history: History = {"loss": [], "reconstruction": [], "kl": []}
    last_epoch = start.n_epochs + settings.epochs - 1
    with engine.leased_trainer(
        architecture, settings.optimizer, settings.batch_size
    ) as trainer:
        trainer.load(
            start.weights,
            start.noise_variance,
            start.optimizer_arrays,
            settings.learning_rate,
        )
        for epoch in range(start.n_epochs, last_epoch + 1):
            loss, reconstruction, kl = _train_epoch(
                trainer, settings, data, start.seed, epoch
            )
            history["loss"].append(loss + offset)
            history["reconstruction"].append(reconstruction + offset)
            history["kl"].append(kl)
            is_last = epoch == last_epoch
            if early_stopping:
                progress = Progress(start.seed, epoch + 1, *trainer.state())
                val_loss = early_stopping.watch(progress)
                history.setdefault("val_loss", []).append(val_loss)
                is_last = is_last or early_stopping.is_over
            report(history, is_last)
            if is_last:
                break
        if early_stopping:
            best = replace(early_stopping.best, n_epochs=epoch + 1)
            return Outcome(best, early_stopping.noise_variance, history)
        end = Progress(start.seed, epoch + 1, *trainer.state())
        return Outcome(end, end.noise_variance, history)


def posterior(
    architecture: Architecture, data: Data, progress: Progress
) -> tuple[np.ndarray, np.ndarray]:
    """z_mean and z_log_var of the training rows, each (n_rows, latent_dim) float32."""
    is_all = len(data.rows) == len(data.images)
    images = data.images if is_all else data.images[data.rows]
    return _network(architecture, data, progress).encode(images)


def _network(
    architecture: Architecture, data: Data, progress: Progress
) -> FittedNetwork:
    return FittedNetwork(
        architecture, progress.weights, data.value_range, progress.seed
    )


def _train_epoch(
    trainer: engine.Trainer, settings: Settings, data: Data, seed: int, epoch: int
) -> tuple[float, float, float]:
    """Use every row once; the rows' mean loss, reconstruction term and KL."""
    order = stream(seed, Stream.PERMUTATION, epoch).permutation(data.rows)
    noise_seed = int(stream(seed, Stream.NOISE, epoch).integers(2**63))
    low, high = data.value_range
    n_pixels = math.prod(data.images.shape[1:])
    batches_per_block = max(1, _BLOCK_PIXELS // (n_pixels * settings.batch_size))
    block_size = batches_per_block * settings.batch_size
    sums = np.zeros(3)
    for start in range(0, len(order), block_size):
        block = data.images[order[start : start + block_size]]
        sums += trainer.train_block(
            to_graph_dtype(block),  # (block_size, H, W, C)
            low,
            high - low,
            kl_weight=settings.kl_weight(epoch),
            free_bits=settings.free_bits,
            batch_size=settings.batch_size,
            noise_seed=noise_seed,
            first_step=start // settings.batch_size,
        )
        _check_finite(float(sums.sum()), epoch)
    loss, reconstruction, kl = (sums / len(order)).tolist()
    return loss, reconstruction, kl


def _check_finite(loss: float, epoch: int) -> None:
    if not math.isfinite(loss):
        msg = (
            f"Training diverged: the loss was {loss} in epoch {epoch + 1}. Lower "
            f"learning_rate, or see that value_range covers the data."
        )
        raise ValueError(msg)


class _EarlyStopping:
    """The best epoch so far by validation loss, and whether to wait for a better one.

    The loss is the negative evidence lower bound (beta = 1) of the validation images,
    with one draw an image, always the same, and with the noise variance that suits
    these images best (if one is learned). The one that suits the training images is too
    small for others: it would charge overfitting twice, and stop too soon. While the
    KL's weight still rises, the newest epoch is the best: the loss would prefer one
    with less weight than was asked for.
    """

    def __init__(
        self,
        architecture: Architecture,
        settings: Settings,
        data: Data,
        images: np.ndarray,
        start: Progress,
    ) -> None:
        self._architecture = architecture
        self._settings = settings
        self._data = data
        self._images = images
        self._n_epochs_without_gain = 0
        self.best, self.noise_variance = start, start.noise_variance
        self._best_loss = math.inf
        # A new network is no candidate, whatever its loss, nor is one whose KL does not
        # yet weigh what it should.
        if start.n_epochs > settings.kl_warmup_epochs:
            self._best_loss, self.noise_variance = self._loss(start)

    def watch(self, progress: Progress) -> float:
        """Take another epoch into account; its validation loss."""
        loss, noise_variance = self._loss(progress)
        _check_finite(loss, progress.n_epochs - 1)
        is_warming_up = progress.n_epochs <= self._settings.kl_warmup_epochs
        if is_warming_up or loss < self._best_loss - self._settings.tol:
            self._n_epochs_without_gain = 0
        else:
            self._n_epochs_without_gain += 1
        if loss < self._best_loss:
            self.best, self.noise_variance = progress, noise_variance
            self._best_loss = math.inf if is_warming_up else loss
        return loss

    @property
    def is_over(self) -> bool:
        """Whether the loss has not fallen for long enough to stop."""
        return self._n_epochs_without_gain >= self._settings.n_iter_no_change

    def _loss(self, progress: Progress) -> tuple[float, float]:
        """Validation loss, and the noise variance behind it in the network's units."""
        network = _network(self._architecture, self._data, progress)
        errors, kl = network.elbo_terms(self._images)
        noise_variance = np.float64(progress.noise_variance)
        if self._architecture.likelihood == "gaussian":
            mean_square = errors.mean() / self._architecture.n_pixels
            noise_variance = np.maximum(mean_square, engine.MIN_NOISE_VARIANCE)
        normaliser = objective.normaliser(self._architecture, noise_variance)
        reconstruction = errors.mean() / (2.0 * noise_variance) + float(normaliser)
        loss = float(reconstruction + kl.mean()) + network.log_span
        return loss, float(noise_variance)
