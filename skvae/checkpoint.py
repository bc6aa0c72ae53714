"""Callback that saves the estimator to a file during `fit`."""

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
    """Callback that saves the estimator to a joblib file during `fit`.

    The saved estimator is fitted: it has the attributes of a fit that ends with the
    same epoch, except that `latent_kl_`, `sampler_` and a `noise_variance_` of each
    pixel are estimated from a part of the images until the fit ends. With
    ``warm_start=True`` its `fit` continues training, with the same bits as a fit that
    was not interrupted. With `early_stopping` it continues from the best epoch so far.

    The file is always complete. Each checkpoint is written to a temporary file in the
    same folder, which then replaces the earlier one.

    Parameters
    ----------
    path : str or path-like
        File to write. Its folder must exist.
    every : int, default=1
        Number of epochs between checkpoints. The end of the fit is always saved.

    Raises
    ------
    ImportError
        If the version of scikit-learn is older than 1.9, which introduced callbacks.
    ValueError, TypeError
        If `every` is not a positive integer.

    Warns
    -----
    UserWarning
        In `fit`, if the file cannot be written. Training continues, and the earlier
        file is kept.

    Notes
    -----
    In a pipeline, call `set_callbacks` on the ConvVAE step. The fits of a search share
    the callback and overwrite the same file. The saved estimator has no callbacks. If
    the process is killed during a write, a temporary file ``path.*.part`` remains.

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
            msg = "Checkpoint needs the callbacks of scikit-learn 1.9 or newer."
            raise ImportError(msg)
        self.path = Path(path).resolve()
        self.every = int(check_scalar(every, "every", Integral, min_val=1))

    def setup(self, estimator: Any, context: Any) -> None:
        """Validate the estimator and the path before training."""
        if not isinstance(estimator, ConvVAE):
            msg = (
                f"Checkpoint requires a ConvVAE, got {type(estimator).__name__}. In a "
                f"pipeline, call set_callbacks on the ConvVAE step."
            )
            raise TypeError(msg)
        if self.path.is_dir() or not self.path.parent.is_dir():
            msg = f"path must be a file in an existing folder, got {self.path}."
            raise ValueError(msg)

    def on_fit_task_begin(self, estimator: Any, context: Any) -> None:
        """Do nothing."""

    def on_fit_task_end(self, estimator: Any, context: Any) -> None:
        """Save the estimator at the end of the fit and of every `every`-th epoch."""
        is_epoch = context.max_subtasks == 0
        if is_epoch and (context.task_id + 1) % self.every:
            return
        fitted = clone(estimator).set_callbacks()
        vars(fitted).update(fitted_so_far())
        self._write(fitted)

    def teardown(self, estimator: Any, context: Any) -> None:
        """Do nothing."""

    def _write(self, estimator: BaseEstimator) -> None:
        temporary = self.path.with_name(f"{self.path.name[:99]}.{uuid4().hex}.part")
        try:
            try:
                with temporary.open("xb") as file:
                    joblib.dump(estimator, file)
                    file.flush()
                    os.fsync(file.fileno())
                temporary.replace(self.path)
            finally:
                temporary.unlink(missing_ok=True)
        except OSError as error:
            warn_user(
                f"The checkpoint of epoch {estimator.n_iter_} could not be written: "
                f"{error}. Training continues, and {self.path} is unchanged."
            )
