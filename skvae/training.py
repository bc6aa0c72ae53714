"""The training loop: epochs, graph calls, early stopping.

Images are gathered in blocks in the epoch's order and in the caller's dtype, and reach
the engine in parts of these. The order and the noise of an epoch depend on the seed and
the epoch's number alone, so that training can stop after any epoch and go on from its
state with the same bits.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from hashlib import sha256
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from skvae import objective
from skvae.architecture import Architecture
from skvae.draws import Stream, stream
from skvae.images import to_graph_dtype
from skvae.initialization import initial_weights
from skvae.interrupts import UninterruptedThreads
from skvae.progress import History, Report
from skvae.replicas import Replicas
from skvae.serving.batches import Rows
from skvae.serving.densities import kl_divergence, log_span, normaliser
from skvae.serving.fitted import FittedNetwork, OutputOverflowError
from skvae.serving.row_draws import row_draws
from skvae.serving.scores import elbo_terms
from skvae.shuffling import shuffled_blocks
from skvae.storage import Selection, StoredImages
from skvae.trainer import Trainer, leased_trainer

if TYPE_CHECKING:
    from skvae.callbacks import FitTasks

# Between graph calls training can be interrupted: they take about so many seconds.
_CALL_SECONDS = 0.25

# A graph call has at most about this many pixels; the first one a sixteenth of them.
_CALL_PIXELS = 2**22

# So many images are encoded before their latents are summed up.
_PART_ROWS = 2**18

# Runs of neighbouring rows that stand for all rows before training has ended.
_N_RUNS = 16

# So many of each at least: a sampler may be fitted to them.
_MIN_RUN = 16


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
            return self.beta * (epoch / self.kl_warmup_epochs)
        return self.beta


@dataclass(frozen=True)
class Data:
    """What to train on.

    Attributes
    ----------
    images : (n, H, W, C)
        Images in the caller's units and dtype.
    rows : (n_rows,) of int, or range
        The images to train on, each used once an epoch, in ascending order.
    validation_images : (n, H, W, C) or None
        What early stopping watches; None trains for all epochs.
    value_range : (low, high)
        The interval of pixel values that the network sees as [0, 1].
    """

    images: np.ndarray | StoredImages
    rows: np.ndarray | range
    validation_images: Rows | None
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
    is_interrupted : bool
        Whether the user interrupted training, which ended it; the last epoch may then
        have used a part of the images.
    replicas : Replicas
        Who has trained.
    """

    progress: Progress
    noise_variance: float
    history: History
    is_interrupted: bool
    replicas: Replicas


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
    tasks: FitTasks,
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
    tasks : FitTasks
        Told of each epoch; may end training.
    report : Report
        Told of each graph call and each epoch.

    Returns
    -------
    Outcome

    Raises
    ------
    ValueError
        If training diverges.
    """
    with (
        leased_trainer(
            architecture, settings.optimizer, settings.batch_size
        ) as trainer,
        UninterruptedThreads(1) as thread,
    ):
        thread.submit(
            trainer.load,
            start.weights,
            start.noise_variance,
            start.optimizer_arrays,
            settings.learning_rate,
        ).result()
        if trainer.replicas.n_processes > 1:
            trainer.replicas.check_same(_digest(architecture, settings, data, start))
        with trainer.replicas.failing_together():
            run = _Run(architecture, settings, data, start, trainer, thread, report)
            run.train(tasks)
            return run.outcome()


def _digest(
    architecture: Architecture, settings: Settings, data: Data, start: Progress
) -> int:
    """A number below 2^32 that is another one for another training."""
    facts = (
        architecture,
        settings,
        data.images.shape,
        str(data.images.dtype),
        data.images[:1].tobytes(),
        data.value_range,
        len(data.rows),
        data.validation_images is None or len(data.validation_images),
        start.seed,
        start.n_epochs,
        start.noise_variance,
        start.weights.tobytes(),
        [array.tobytes() for array in start.optimizer_arrays],
    )
    return int.from_bytes(sha256(repr(facts).encode()).digest()[:4])


def check_converged(outcome: Outcome, kl: np.ndarray) -> None:
    """See that the last step, too, has left finite weights.

    Its loss is that of the weights before it.

    Raises
    ------
    ValueError
        If weights, the optimizer's variables or the KL of the images are not finite.
    """
    end = outcome.progress
    if not all(np.isfinite(a).all() for a in (kl, end.weights, *end.optimizer_arrays)):
        raise ValueError(_diverged("weights are no finite numbers after the last step"))


@dataclass(frozen=True)
class Posterior:
    """Where the images that a network was trained on lie in its latent space.

    Attributes
    ----------
    kl : (latent_dim,)
        Mean KL of each latent.
    z_mean, z_log_var : (n, latent_dim)
        Empty unless they were asked for.
    is_whole : bool
        Whether all images were encoded, and not some.
    """

    kl: np.ndarray
    z_mean: np.ndarray
    z_log_var: np.ndarray
    is_whole: bool


def posterior(
    architecture: Architecture,
    data: Data,
    outcome: Outcome,
    *,
    is_brief: bool,
    with_latents: bool,
) -> Posterior:
    """Encode the training images.

    If this is to be brief, or the user interrupts it, as many of them as take a moment,
    from all over the data.
    """
    network = _network(architecture, data, outcome.progress)
    replicas, rows = outcome.replicas, data.rows
    if not is_brief:
        images = Selection(data.images, rows)
        n_images = len(images)
        here = range(*replicas.rows_here(n_images))
        try:
            with replicas.failing_together():
                sums = _encode(network, images, here, with_latents=with_latents)
                kl, latents = map(replicas.sum_of_processes, sums)
            return Posterior(kl / n_images, latents[0], latents[1], is_whole=True)
        except KeyboardInterrupt:
            if replicas.n_processes > 1:
                raise
    length = max(_MIN_RUN, math.ceil(_CALL_PIXELS / architecture.n_pixels / _N_RUNS))
    bounds = [i * len(rows) // _N_RUNS for i in range(_N_RUNS + 1)]
    runs = [rows[start : min(start + length, stop)] for start, stop in pairwise(bounds)]
    images = Selection(data.images, np.concatenate(runs).astype(np.int64))
    n_images = len(images)
    kl, latents = _encode(network, images, range(n_images), with_latents=with_latents)
    return Posterior(kl / n_images, latents[0], latents[1], is_whole=False)


def _encode(
    network: FittedNetwork, images: Selection, here: range, *, with_latents: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Encode those images that are for this process.

    Their KL, summed, (latent_dim,), and if asked for z_mean and z_log_var of all images
    (2, n, latent_dim), with zeros for others.
    """
    latent_dim = network.architecture.latent_dim
    kl = np.zeros(latent_dim)
    latents = np.zeros((2, len(images) if with_latents else 0, latent_dim), np.float32)
    for start in here[::_PART_ROWS]:
        part = range(start, min(start + _PART_ROWS, here.stop))
        with _overflow_named():
            z_mean, z_log_var = network.encode(Selection(images, part))
        kl += kl_divergence(z_mean, z_log_var).sum(axis=0)
        if with_latents:
            latents[:, start : part.stop] = z_mean, z_log_var
    return kl, latents


def _network(
    architecture: Architecture, data: Data, progress: Progress
) -> FittedNetwork:
    weights = architecture.unpack(progress.weights)
    return FittedNetwork(architecture, weights, data.value_range, progress.seed)


class _Totals:
    """Loss, reconstruction term and KL, summed over the images of an epoch so far.

    Epochs are those of one fit, counted from 0.
    """

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch
        self.sums = np.zeros(3)
        self.n_images = 0

    def means(self) -> list[float]:
        means: list[float] = (self.sums / self.n_images).tolist()
        return means


class _Run:
    """A fit under way."""

    def __init__(
        self,
        architecture: Architecture,
        settings: Settings,
        data: Data,
        start: Progress,
        trainer: Trainer,
        thread: UninterruptedThreads,
        report: Report,
    ) -> None:
        self._settings = settings
        self._data = data
        self._start = start
        self._trainer = trainer
        self._thread = thread
        self._report = report
        self._replicas = trainer.replicas
        self._early_stopping = None
        if data.validation_images is not None:
            self._early_stopping = _EarlyStopping(
                architecture,
                settings,
                data,
                data.validation_images,
                start,
                trainer.replicas,
            )
        # The guide's loss stays in the network's units.
        is_gaussian = architecture.likelihood == "gaussian"
        self._offset = log_span(architecture, data.value_range) * is_gaussian
        self._history: History = {"loss": [], "reconstruction": [], "kl": []}
        self._totals = _Totals(0)
        self._is_interrupted = False
        # Of the next graph call. Results do not depend on it.
        self._n_batches = self._whole_batches(_CALL_PIXELS / 16)

    def train(self, tasks: FitTasks) -> None:
        """Train until the epochs are over, or something else ends training."""
        is_last = False
        try:
            while not is_last:
                tasks.begin_epoch()
                self._train_epoch()
                self._record()
                is_last = self._is_over()
                is_last = tasks.end_epoch(self.outcome) or is_last
                # A callback may be set in one process alone.
                is_last = self._replicas.any(is_last)
                self._report.update(self._n_epochs, self._newest())
        except KeyboardInterrupt:
            # The call that is under way ends, and is counted, before training does;
            # unless there is a second Ctrl-C, after which nothing is kept.
            self._thread.submit(int).result()
            # Other processes would wait for this one, or go on without it.
            if self._replicas.n_processes > 1:
                raise
            # It may have come when an epoch was entered, but not yet done with.
            if self._totals.n_images and self._totals.epoch == self._n_epochs:
                self._record()
            if self._n_epochs == 0:
                raise
            self._is_interrupted = True
            self._report.update(self._n_epochs, self._newest())

    def outcome(self) -> Outcome:
        """What training has come to."""
        history = {name: each[: self._n_epochs] for name, each in self._history.items()}
        end = self._progress()
        noise_variance = end.noise_variance
        if self._early_stopping:
            val_losses = history.get("val_loss", [])
            n_missing = self._n_epochs - len(val_losses)
            history["val_loss"] = [*val_losses, *[math.nan] * n_missing]
            if self._early_stopping.best:
                end = replace(self._early_stopping.best, n_epochs=end.n_epochs)
                noise_variance = self._early_stopping.noise_variance
        return Outcome(
            end, noise_variance, history, self._is_interrupted, self._replicas
        )

    @property
    def _n_epochs(self) -> int:
        """Epochs of this fit that are recorded."""
        return len(self._history["loss"])

    def _progress(self) -> Progress:
        n_epochs = self._start.n_epochs + self._n_epochs
        state = self._thread.submit(self._trainer.state).result()
        return Progress(self._start.seed, n_epochs, *state)

    def _train_epoch(self) -> None:
        """Use every row once."""
        data, seed = self._data, self._start.seed
        epoch = self._start.n_epochs + self._n_epochs
        rng = stream(seed, Stream.PERMUTATION, epoch)
        noise_seed = int(stream(seed, Stream.NOISE, epoch).integers(2**63))
        batch_size = self._settings.batch_size

        def of_this_process(rows: np.ndarray) -> np.ndarray:
            return self._replicas.batches_here(rows, batch_size)

        for n_block, images in shuffled_blocks(
            data.images, data.rows, batch_size, rng, of_this_process
        ):
            start = 0
            while start < n_block:
                stop = min(start + self._n_batches * batch_size, n_block)
                first, last = (
                    self._replicas.n_here(n, batch_size) for n in (start, stop)
                )
                images_here = images[first:last]  # (n, H, W, C), all in one process
                self._replicas.any(False)
                self._thread.submit(
                    self._train_images, images_here, stop - start, epoch, noise_seed
                ).result()
                start = stop
                part = self._totals.n_images / len(data.rows)
                if part < 1:
                    loss = self._totals.means()[0] + self._offset
                    self._report.update(
                        self._n_epochs + part, {**self._newest(), "loss": loss}
                    )

    def _train_images(
        self, images: np.ndarray, n_images: int, epoch: int, noise_seed: int
    ) -> None:
        """Train on the next n_images of an epoch, of which some are here."""
        low, high = self._data.value_range
        started = time.perf_counter()
        sums = self._trainer.train_steps(
            to_graph_dtype(images),
            low,
            high - low,
            kl_weight=self._settings.kl_weight(epoch),
            free_bits=self._settings.free_bits,
            batch_size=self._settings.batch_size,
            noise_seed=noise_seed,
            # Only the last batch of an epoch is short.
            first_step=self._totals.n_images // self._settings.batch_size,
            n_images=n_images,
            sums=self._totals.sums,
        )
        _check_finite(float(sums.sum()), epoch)
        self._totals.sums = sums
        self._totals.n_images += n_images
        if self._replicas.n_processes == 1:  # else all have to call alike
            n_pixels = n_images * math.prod(images.shape[1:])
            in_time = n_pixels * _CALL_SECONDS / (time.perf_counter() - started)
            self._n_batches = self._whole_batches(min(in_time, 4 * n_pixels))

    def _whole_batches(self, n_pixels: float) -> int:
        """How many batches have so many pixels, within bounds."""
        image_pixels = math.prod(self._data.images.shape[1:])
        batch_pixels = self._settings.batch_size * image_pixels
        return max(1, int(min(n_pixels, _CALL_PIXELS) / batch_pixels))

    def _record(self) -> None:
        """Enter the epoch's means in the history; the loss, which counts, last."""
        loss, reconstruction, kl = self._totals.means()
        self._history["kl"].append(kl)
        self._history["reconstruction"].append(reconstruction + self._offset)
        self._history["loss"].append(loss + self._offset)
        self._totals = _Totals(self._n_epochs)

    def _newest(self) -> dict[str, float]:
        """The newest values of the history."""
        return {name: each[-1] for name, each in self._history.items() if each}

    def _is_over(self) -> bool:
        is_over = self._n_epochs == self._settings.epochs
        if self._early_stopping:
            val_loss = self._early_stopping.watch(self._progress())
            self._history.setdefault("val_loss", []).append(val_loss)
            is_over = is_over or self._early_stopping.is_over
        return is_over


def _check_finite(loss: float, epoch: int) -> None:
    if not math.isfinite(loss):
        raise ValueError(_diverged(f"the loss was {loss} in epoch {epoch + 1}"))


@contextmanager
def _overflow_named() -> Iterator[None]:
    """Say what it means that images to train on or to watch overflow the network."""
    try:
        yield
    except OutputOverflowError as error:
        msg = _diverged("what the network gives for the images overflows float32")
        raise ValueError(msg) from error


def _diverged(how: str) -> str:
    return (
        f"Training diverged: {how}. Lower learning_rate (or beta or free_bits, if "
        f"they are large), or see that value_range covers the data (and X_val)."
    )


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
        images: Rows,
        start: Progress,
        replicas: Replicas,
    ) -> None:
        self._replicas = replicas
        self._architecture = architecture
        self._settings = settings
        self._data = data
        self._images = images
        self._draws = row_draws(
            start.seed, 1, architecture.n_pixels, architecture.latent_dim
        )
        self._n_epochs_without_gain = 0
        # A new network is no candidate, whatever its loss, nor is one whose KL does not
        # yet weigh what it should.
        self.best: Progress | None = None
        self.noise_variance = start.noise_variance
        self._best_loss = math.inf
        if start.n_epochs > settings.kl_warmup_epochs:
            self.best = start
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
        with _overflow_named():
            errors, kl = self._replicas.shared(
                lambda images: elbo_terms(network, images, self._draws), self._images
            )
        noise_variance = progress.noise_variance
        if self._architecture.likelihood == "gaussian":
            mean_square = float(errors.mean()) / self._architecture.n_pixels
            noise_variance = max(mean_square, objective.MIN_NOISE_VARIANCE)
        reconstruction = errors.mean() / (2.0 * noise_variance)
        reconstruction += normaliser(self._architecture, noise_variance)
        span = log_span(self._architecture, self._data.value_range)
        return float(reconstruction + kl.mean()) + span, noise_variance
