"""The training loop: epochs and the graph calls of which they consist.

The order of the images and the noise of an epoch depend on the seed and the number of
the epoch alone. So training can stop after any epoch and go on with the same bits.
"""

from __future__ import annotations

import math
import time
from dataclasses import replace

import numpy as np

from skvae.architecture import FIXED_NOISE_VARIANCE
from skvae.data.shuffling import shuffled_blocks
from skvae.data.storage import ReadingStopped, Selection, sample_images
from skvae.data.value_range import check_finite, to_graph_dtype, to_network_units
from skvae.network.initializers import initial_weights
from skvae.serving.densities import log_span
from skvae.streams import Stream, stream
from skvae.training.callbacks import FitTasks
from skvae.training.divergence import check_loss
from skvae.training.early_stopping import EarlyStopping
from skvae.training.interruption import Interruption
from skvae.training.plan import History, Outcome, Plan, TrainingState
from skvae.training.report import Report
from skvae.training.result import fitted_attributes
from skvae.training.trainer import Trainer

# Training can be interrupted between graph calls, which take about so many seconds.
_CALL_SECONDS = 0.25

# Maximum number of pixels in a graph call; the first one has a sixteenth of them.
_CALL_PIXELS = 2**22


def new_state(plan: Plan) -> TrainingState:
    """State from which the training of a new network starts."""
    architecture, rng = plan.architecture, stream(plan.seed, Stream.INITIAL_WEIGHTS)
    weights = architecture.pack(initial_weights(architecture, rng, _mean_pixel(plan)))
    return TrainingState(
        seed=plan.seed,
        n_epochs=0,
        n_steps=0,
        weights=weights,
        last_weights=weights,
        noise_variance=FIXED_NOISE_VARIANCE,
        optimizer_arrays=[],
    )


def _mean_pixel(plan: Plan) -> np.ndarray:
    """Mean of each channel (C,) in the network's units, of a sample of the images."""
    is_clipped = plan.architecture.likelihood == "bernoulli"
    data = plan.data
    sample = sample_images(Selection(data.images, data.rows))
    check_finite(sample)
    images = to_network_units(sample, data.value_range, is_clipped=is_clipped)
    with np.errstate(invalid="ignore"):  # training finds an overflow
        return images.mean(axis=(0, 1, 2), dtype=np.float64)


class Training:
    """Training of one fit.

    Parameters
    ----------
    plan : Plan
    start : TrainingState
        State to go on from.
    trainer : Trainer
        Has loaded that state.
    tasks : FitTasks
        Calls the callbacks of each epoch, which may end training.
    report : Report
        Prints what `verbose` asks for.
    interruption : Interruption
    """

    def __init__(
        self,
        plan: Plan,
        start: TrainingState,
        trainer: Trainer,
        tasks: FitTasks,
        report: Report,
        interruption: Interruption,
    ) -> None:
        self._plan = plan
        self._settings = plan.settings
        self._data = plan.data
        self._start = start
        self._trainer = trainer
        self._replicas = trainer.replicas
        self._tasks = tasks
        self._report = report
        self._interruption = interruption
        self._early_stopping = None
        if plan.data.validation_images is not None:
            images = plan.data.validation_images
            if trainer.replicas.n_processes == 1:  # several have to call alike
                rows = range(len(images))
                images = Selection(images, rows, self._is_training_wanted)
            self._early_stopping = EarlyStopping(
                plan.architecture,
                plan.settings,
                plan.data,
                images,
                start,
                trainer.replicas,
            )
        # Loss in the caller's units, but the guide's in the network's.
        is_gaussian = plan.architecture.likelihood == "gaussian"
        span = log_span(plan.architecture, plan.data.value_range)
        self._offset = span * is_gaussian
        self._history: History = {"loss": [], "reconstruction": [], "kl": []}
        # Of the images of the epoch so far: loss, reconstruction term and KL, summed.
        self._sums = np.zeros(3)
        self._n_images = 0
        # Batches in the next graph call; results do not depend on it.
        self._n_batches = self._whole_batches(_CALL_PIXELS / 16)

    def run(self) -> Outcome:
        """Train until the last epoch, early stopping, a callback or an interruption.

        Raises
        ------
        ValueError
            If training diverges.
        KeyboardInterrupt
            If training is interrupted before the first step.
        """
        is_over = False
        while not is_over and not self.is_interrupted():
            self._tasks.begin_epoch()
            is_whole = self._train_epoch()
            if self._n_images:
                self._record()
            if not is_whole:
                break
            is_over = self._n_epochs == self._settings.epochs
            if self._early_stopping:
                try:
                    val_loss = self._early_stopping.update(self._state())
                except ReadingStopped:
                    break
                self._history.setdefault("val_loss", []).append(val_loss)
                is_over = is_over or self._early_stopping.is_over
            is_over = self._tasks.end_epoch(self._fitted_so_far) or is_over
            # A callback may be set in one process alone.
            is_over = self._replicas.any(is_over)
            self._report.update(self._n_epochs, self._newest())
        if self._n_epochs == 0:
            self._interruption.discard()
        self._interruption.check()
        self._report.update(self._n_epochs, self._newest())
        return self._outcome()

    @property
    def _n_epochs(self) -> int:
        """Number of epochs in this fit's history."""
        return len(self._history["loss"])

    def _state(self) -> TrainingState:
        start = self._start
        return self._trainer.state(start.seed, start.n_epochs + self._n_epochs)

    def _outcome(self) -> Outcome:
        history = {name: list(values) for name, values in self._history.items()}
        state = self._state()
        noise_variance = state.noise_variance
        if self._early_stopping:
            # Not computed for the epoch in which training was interrupted.
            val_losses = history.setdefault("val_loss", [])
            val_losses += [math.nan] * (self._n_epochs - len(val_losses))
            if self._early_stopping.best:
                state = replace(self._early_stopping.best, n_epochs=state.n_epochs)
                noise_variance = self._early_stopping.noise_variance
        return Outcome(state, noise_variance, history)

    def _fitted_so_far(self) -> dict[str, object]:
        fitted, sampler_error = fitted_attributes(
            self._plan,
            self._outcome(),
            self._trainer,
            self._interruption,
            is_partial=True,
        )
        if sampler_error is not None:
            raise sampler_error
        return fitted

    def _train_epoch(self) -> bool:
        """Use every image once; return whether that was not interrupted."""
        data, seed = self._data, self._start.seed
        batch_size = self._settings.batch_size
        epoch = self._start.n_epochs + self._n_epochs
        rng = stream(seed, Stream.PERMUTATION, epoch)
        noise_seed = int(stream(seed, Stream.NOISE, epoch).integers(2**63))
        blocks = shuffled_blocks(
            data.images,
            data.rows,
            batch_size,
            rng,
            choose=lambda rows: self._replicas.batches_here(rows, batch_size),
            is_wanted=self._is_training_wanted,
        )
        try:
            for n_block, images in blocks:
                start = 0
                while start < n_block:
                    if self.is_interrupted():
                        return False
                    stop = min(start + self._n_batches * batch_size, n_block)
                    first, last = (
                        self._replicas.n_here(n, batch_size) for n in (start, stop)
                    )
                    images_here = images[first:last]  # all of them in one process
                    self._train_images(images_here, stop - start, epoch, noise_seed)
                    start = stop
                    self._report_part()
        except ReadingStopped:
            return not self.is_interrupted()
        finally:
            blocks.close()
        return True

    def is_interrupted(self) -> bool:
        """Return whether an interruption is requested in any process.

        Raises
        ------
        KeyboardInterrupt
            If it is final.
        """
        self._interruption.check()
        if self._replicas.any(self._interruption.is_requested):
            self._interruption.request()
        return self._interruption.is_requested

    def _is_training_wanted(self) -> bool:
        return self._interruption.is_training_wanted

    def _train_images(
        self, images: np.ndarray, n_images: int, epoch: int, noise_seed: int
    ) -> None:
        """Train on the next n_images of an epoch, of which `images` are here."""
        low, high = self._data.value_range
        stopping = self._early_stopping
        noise_factor = stopping.noise_factor if stopping else 1.0
        started = time.perf_counter()
        sums = self._trainer.train_steps(
            to_graph_dtype(images),
            low,
            high - low,
            kl_weight=self._settings.kl_weight(epoch),
            free_bits=self._settings.free_bits,
            noise_factor=noise_factor,
            batch_size=self._settings.batch_size,
            noise_seed=noise_seed,
            # Only the last batch of an epoch is short.
            first_step=self._n_images // self._settings.batch_size,
            n_images=n_images,
            sums=self._sums,
        )
        if not np.isfinite(sums).all():
            check_finite(images)
        check_loss(float(sums.sum()), epoch)
        self._sums = sums
        self._n_images += n_images
        if self._replicas.n_processes == 1:  # several have to call alike
            n_pixels = n_images * math.prod(images.shape[1:])
            in_time = n_pixels * _CALL_SECONDS / (time.perf_counter() - started)
            self._n_batches = self._whole_batches(min(in_time, 4 * n_pixels))

    def _whole_batches(self, n_pixels: float) -> int:
        """Number of batches with so many pixels, within bounds."""
        image_pixels = math.prod(self._data.images.shape[1:])
        batch_pixels = self._settings.batch_size * image_pixels
        return max(1, int(min(n_pixels, _CALL_PIXELS) / batch_pixels))

    def _record(self) -> None:
        """Append the epoch's means to the history."""
        loss, reconstruction, kl = map(float, self._sums / self._n_images)
        self._history["kl"].append(kl)
        self._history["reconstruction"].append(reconstruction + self._offset)
        self._history["loss"].append(loss + self._offset)
        self._sums, self._n_images = np.zeros(3), 0

    def _newest(self) -> dict[str, float]:
        """Newest values of the history."""
        return {name: values[-1] for name, values in self._history.items() if values}

    def _report_part(self) -> None:
        part = self._n_images / len(self._data.rows)
        if part < 1:
            loss = float(self._sums[0] / self._n_images) + self._offset
            self._report.update(self._n_epochs + part, {**self._newest(), "loss": loss})
