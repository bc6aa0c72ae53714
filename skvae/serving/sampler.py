"""Samplers: scikit-learn density estimators of the latents, to draw new images from.

Ex-post density estimation, Ghosh et al. (2020), https://arxiv.org/abs/1903.12436,
section 4: where the latents of the images do not fill the prior, a density fitted to
them afterwards gives better samples.
"""

from __future__ import annotations

import inspect
from copy import deepcopy
from typing import Any

import numpy as np
from sklearn.utils import check_array

from skvae.exceptions import naming
from skvae.streams import Stream, stream


def fit_sampler(
    sampler: Any, z_mean: np.ndarray, z_log_var: np.ndarray, seed: int
) -> Any:
    """Fit a sampler on a draw from each posterior.

    Parameters
    ----------
    sampler : scikit-learn density estimator with `fit` and `sample`
        Where its `random_state` is None, it is set to one that follows from `seed`.
    z_mean, z_log_var : (n, latent_dim)
        The posteriors.
    seed : int
    """
    rng = stream(seed, Stream.SAMPLER)
    epsilon = rng.standard_normal(z_mean.shape)
    z = z_mean + np.exp(0.5 * z_log_var.astype(np.float64)) * epsilon
    states = _random_states(sampler)
    unset = sorted(name for name, value in states.items() if value is None)
    sampler.set_params(**{name: _new_seed(rng) for name in unset})
    try:
        sampler.fit(z)
    except Exception as error:
        error.add_note(
            f"raised while sampler={sampler!r} was fitted on {len(z)} latents"
        )
        raise
    return sampler


def draw_latents(
    sampler: Any, n_samples: int, latent_dim: int, rng: np.random.Generator
) -> np.ndarray:
    """Draw (n_samples, latent_dim) float32 from a fitted sampler.

    Some samplers take a random state when they draw (KernelDensity), others have one as
    a parameter (GaussianMixture): these are copied, so that a draw changes nothing.

    Raises
    ------
    ValueError
        If the sampler gives anything else, or values that are not finite.
    """
    if "random_state" in inspect.signature(sampler.sample).parameters:
        drawn = sampler.sample(n_samples, random_state=_new_seed(rng))
    else:
        sampler = deepcopy(sampler)
        names = sorted(_random_states(sampler))
        sampler.set_params(**{name: _new_seed(rng) for name in names})
        drawn = sampler.sample(n_samples)
    # GaussianMixture gives the components, too.
    latents = drawn[0] if isinstance(drawn, tuple) and drawn else drawn
    with naming("what sampler_ drew"):
        z = check_array(latents, dtype=np.float32, input_name="what sampler_ drew")
    if z.shape != (n_samples, latent_dim):
        msg = (
            f"{sampler!r} drew an array of shape {z.shape}; expected latents of shape "
            f"{(n_samples, latent_dim)}."
        )
        raise ValueError(msg)
    return z


def _random_states(estimator: Any) -> dict[str, Any]:
    """The random states among an estimator's parameters and those within it."""
    return {
        name: value
        for name, value in estimator.get_params().items()
        if name.split("__")[-1] == "random_state"
    }


def _new_seed(rng: np.random.Generator) -> int:
    return int(rng.integers(2**31 - 1))
