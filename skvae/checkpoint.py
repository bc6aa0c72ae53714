"""A callback that keeps a fit's newest state in a file."""

from __future__ import annotations

import os
from numbers import Integral
from pathlib import Path
from typing import Any
from uuid import uuid4

import joblib
from sklearn.base import BaseEstimator, clone
from sklearn.utils import check_scalar

from skvae.estimator import ConvVAE
from skvae.exceptions import warn_user
from skvae.training.callbacks import HAS_CALLBACKS, fitted_so_far


class Checkpoint:
    """Callback that writes the estimator to a file while it is fitted.

    A joblib file, complete at any moment: the estimator is written beside `path`, and
    takes the place of the file there when all of it is on disk. It is what the fit
    would have left if it had ended with that epoch, except that `latent_kl_` and
    `sampler_` are those of some images until the fit ends. `fit` goes on from it with
    ``warm_start=True``, for the epochs that are left, and gives the bits of a fit that
    was never cut short; with `early_stopping` it goes on from the best epoch so far.

    Parameters
    ----------
    path : str or path-like
        The file. Its folder has to exist.
    every : int, default=1
        Epochs between two writes. The end of a fit is written, too.

    Raises
    ------
    ImportError
        With scikit-learn before 1.9, which has no callbacks.
    ValueError, TypeError
        If `every` is no positive integer.

    Warns
    -----
    UserWarning
        In `fit`, if the file cannot be written. Training goes on, and the file that was
        there stays.

    Notes
    -----
    Set it on the ConvVAE itself, also in a pipeline. Fits that share one, as those of a
    search do, write the same file in turn. A process that is killed while it writes
    leaves a file ``path.*.part`` behind. The file is without callbacks.

    Examples
    --------
    >>> import joblib
    >>> from sklearn.datasets import load_digits
    >>> from skvae import Checkpoint, ConvVAE
    >>> images = load_digits().images
    >>> vae = ConvVAE(latent_dim=8, hidden_layers=2, epochs=3, random_state=0)
    >>> vae = vae.set_callbacks(Checkpoint("vae.joblib", every=2)).fit(images)
    >>> kept = joblib.load("vae.joblib").set_params(warm_start=True, epochs=2)
    >>> kept.fit(images).n_iter_
    5
    """

    def __init__(self, path: str | os.PathLike[str], every: int = 1) -> None:
        if not HAS_CALLBACKS:
            msg = "Checkpoint needs scikit-learn 1.9 or newer, which has callbacks."
            raise ImportError(msg)
        self.path = Path(path).resolve()
        self.every = int(check_scalar(every, "every", Integral, min_val=1))

    def setup(self, estimator: Any, context: Any) -> None:
        """See that the file can be there, before anything is trained."""
        if not isinstance(estimator, ConvVAE):
            msg = (
                f"Checkpoint is for a ConvVAE, got {type(estimator).__name__}. Call "
                f"set_callbacks on the ConvVAE itself, also where it is a step of a "
                f"pipeline."
            )
            raise TypeError(msg)
        if self.path.is_dir() or not self.path.parent.is_dir():
            msg = f"path must name a file in a folder that exists, got {self.path}."
            raise ValueError(msg)

    def on_fit_task_begin(self, estimator: Any, context: Any) -> None:
        """Do nothing."""

    def on_fit_task_end(self, estimator: Any, context: Any) -> None:
        """Write the estimator, if the fit has ended or an epoch that is due."""
        is_epoch = context.max_subtasks == 0
        if is_epoch and (context.task_id + 1) % self.every:
            return
        fitted = clone(estimator).set_callbacks()
        vars(fitted).update(fitted_so_far())
        self._write(fitted)

    def teardown(self, estimator: Any, context: Any) -> None:
        """Do nothing."""

    def _write(self, estimator: BaseEstimator) -> None:
        part = self.path.with_name(f"{self.path.name[:99]}.{uuid4().hex}.part")
        try:
            try:
                with part.open("xb") as file:
                    joblib.dump(estimator, file)
                    file.flush()
                    os.fsync(file.fileno())
                part.replace(self.path)
            finally:
                part.unlink(missing_ok=True)
        except OSError as error:
            warn_user(
                f"The checkpoint of epoch {estimator.n_iter_} could not be written: "
                f"{error}. Training goes on; {self.path} is as it was."
            )
