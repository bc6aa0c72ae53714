"""A fit's job: what it works on, and the attributes that it leaves in the estimator."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, clone

from skvae import training
from skvae.architecture import Architecture
from skvae.progress import History
from skvae.sampler import fit_sampler
from skvae.state import with_read_only_arrays


@dataclass(frozen=True)
class Job:
    """What a fit works on.

    Attributes
    ----------
    architecture : Architecture
    settings : training.Settings
    data : training.Data
    start : training.Progress
    earlier_history : dict of str to list of float
        Of the epochs before `start`; empty for a new network.
    caller_shape : tuple of int
        One image's in the caller's layout.
    recorded : dict of str to object
        What scikit-learn records of X.
    sampler : estimator or None
        To be cloned and fitted.
    """

    architecture: Architecture
    settings: training.Settings
    data: training.Data
    start: training.Progress
    earlier_history: History
    caller_shape: tuple[int, ...]
    recorded: dict[str, Any]
    sampler: BaseEstimator | None

    def fitted(
        self, outcome: training.Outcome, *, is_brief: bool
    ) -> tuple[dict[str, Any], bool]:
        """Attributes of an estimator for which training has come to this.

        Also whether all training images have been encoded for them; if this is to be
        brief, it is some.
        """
        architecture, end = self.architecture, outcome.progress
        posterior = training.posterior(
            architecture,
            self.data,
            outcome,
            is_brief=is_brief,
            with_latents=self.sampler is not None,
        )
        with np.errstate(over="ignore"):  # to be found not finite
            latent_kl = posterior.kl.astype(np.float32)
        training.check_converged(outcome, latent_kl)
        fitted = {
            "weights_": architecture.unpack(end.weights),
            "history_": _joined(self.earlier_history, outcome.history),
            "n_iter_": end.n_epochs,
            "input_shape_": architecture.image_shape,
            "value_range_": self.data.value_range,
            "latent_kl_": latent_kl,
            **self.recorded,
            "_state_": {
                "architecture": asdict(architecture),
                "caller_shape": self.caller_shape,
                "seed": end.seed,
                "optimizer": self.settings.optimizer,
                "optimizer_arrays": end.optimizer_arrays,
                "noise_variance": end.noise_variance,
            },
        }
        if architecture.likelihood != "bernoulli":
            low, high = self.data.value_range
            fitted["noise_variance_"] = outcome.noise_variance * (high - low) ** 2
        if self.sampler is not None:
            fitted["sampler_"] = fit_sampler(
                clone(self.sampler), posterior.z_mean, posterior.z_log_var, end.seed
            )
        return with_read_only_arrays(fitted), posterior.is_whole


def _joined(earlier: History, later: History) -> History:
    """One value an epoch under every name, NaN where it was not computed."""
    n_earlier, n_later = len(earlier.get("loss", [])), len(later["loss"])
    names = dict.fromkeys([*earlier, *later])
    return {
        name: earlier.get(name, [math.nan] * n_earlier)
        + later.get(name, [math.nan] * n_later)
        for name in names
    }
