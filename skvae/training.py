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

# The draws behind a validation loss: one a row, always the same.
_N_VALIDATION_DRAWS = 1


@dataclass(frozen=True)
class Settings:
    """What steers training; of these only the optimizer is part of a graph."""

    epochs: int
    batch_size: int
    learning_rate: float
    beta: float
    optimizer: str
    n_iter_no_change: int
    tol: float


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
        In the network's units.
    optimizer_arrays : list of ndarray
        The optimizer's variables in Keras's order; empty for those of a new one.
    """

    seed: int
    n_epochs: int
    weights: np.ndarray
    noise_variance: float
    optimizer_arrays: list[np.ndarray]


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
) -> tuple[Progress, History]:
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
    Progress, History
        The outcome, with early stopping that of the best epoch, and the history of
        these epochs: see `ConvVAE.history_`.

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
    with engine.leased_trainer(architecture, settings.optimizer) as trainer:
        trainer.load(
            start.weights,
            start.noise_variance,
            start.optimizer_arrays,
            settings.learning_rate,
        )
        for epoch in range(start.n_epochs, last_epoch + 1):
            reconstruction, kl = _train_epoch(
                trainer, settings, data, start.seed, epoch
            )
            reconstruction += offset
            history["loss"].append(reconstruction + settings.beta * kl)
            history["reconstruction"].append(reconstruction)
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
        end = Progress(start.seed, epoch + 1, *trainer.state())
    if early_stopping:
        end = replace(early_stopping.best, n_epochs=end.n_epochs)
    return end, history


def latent_kl(architecture: Architecture, data: Data, progress: Progress) -> np.ndarray:
    """Mean KL of each latent dimension over the training rows: (latent_dim,) nats."""
    network = _network(architecture, data, progress)
    is_all = len(data.rows) == len(data.images)
    images = data.images if is_all else data.images[data.rows]
    return network.latent_kl(images).mean(axis=0)


def _network(
    architecture: Architecture, data: Data, progress: Progress
) -> FittedNetwork:
    return FittedNetwork(
        architecture,
        progress.weights,
        data.value_range,
        progress.noise_variance,
        progress.seed,
    )


def _train_epoch(
    trainer: engine.Trainer, settings: Settings, data: Data, seed: int, epoch: int
) -> tuple[float, float]:
    """Use every row once; the rows' mean reconstruction term and mean KL."""
    order = stream(seed, Stream.PERMUTATION, epoch).permutation(data.rows)
    noise_seed = int(stream(seed, Stream.NOISE, epoch).integers(2**63))
    low, high = data.value_range
    n_pixels = math.prod(data.images.shape[1:])
    batches_per_block = max(1, _BLOCK_PIXELS // (n_pixels * settings.batch_size))
    block_size = batches_per_block * settings.batch_size
    sums = np.zeros(2)
    for start in range(0, len(order), block_size):
        block = data.images[order[start : start + block_size]]
        sums += trainer.train_block(
            to_graph_dtype(block),  # (block_size, H, W, C)
            low,
            high - low,
            beta=settings.beta,
            batch_size=settings.batch_size,
            noise_seed=noise_seed,
            first_step=start // settings.batch_size,
        )
        _check_finite(float(sums.sum()), epoch)
    reconstruction, kl = sums / len(order)
    return float(reconstruction), float(kl)


def _check_finite(loss: float, epoch: int) -> None:
    if not math.isfinite(loss):
        msg = (
            f"Training diverged: the loss was {loss} in epoch {epoch + 1}. Lower "
            f"learning_rate, or see that value_range covers the data."
        )
        raise ValueError(msg)


class _EarlyStopping:
    """The best epoch so far by validation loss, and whether to wait for a better one.

    The loss is the negative evidence lower bound (beta = 1) of the validation images.
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
        # A new network is no candidate, whatever its loss.
        self.best = start
        self._best_loss = self._loss(start) if start.n_epochs else math.inf

    def watch(self, progress: Progress) -> float:
        """Take another epoch into account; its validation loss."""
        loss = self._loss(progress)
        _check_finite(loss, progress.n_epochs - 1)
        if loss < self._best_loss - self._settings.tol:
            self._n_epochs_without_gain = 0
        else:
            self._n_epochs_without_gain += 1
        if loss < self._best_loss:
            self.best, self._best_loss = progress, loss
        return loss

    @property
    def is_over(self) -> bool:
        """Whether the loss has not fallen for long enough to stop."""
        return self._n_epochs_without_gain >= self._settings.n_iter_no_change

    def _loss(self, progress: Progress) -> float:
        network = _network(self._architecture, self._data, progress)
        return -float(np.mean(network.elbo(self._images, _N_VALIDATION_DRAWS)))
