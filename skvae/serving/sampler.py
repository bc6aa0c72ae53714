"""Samplers: scikit-learn density estimators fitted to the latents.

Ex-post density estimation, Ghosh et al. (2020), https://arxiv.org/abs/1903.12436,
section 4: if the latents of the images do not fill the prior, samples from a density
fitted to them are better than samples from the prior.
"""

from __future__ import annotations

import inspect
from copy import deepcopy
from typing import Any

import numpy as np
from sklearn.base import clone
from sklearn.utils import check_array

from skvae.exceptions import naming
from skvae.streams import Stream, stream

# A sampler that needs a number of samples is checked against so many at most.
_MAX_CHECKED = 200


def check_sampler(sampler: Any, n_samples: int, latent_dim: int, seed: int) -> None:
    """Check before training that a sampler can be fitted to few samples.

    Parameters
    ----------
    sampler : density estimator with `fit` and `sample`
        A clone of it is fitted, to draws from the prior.
    n_samples : int
        Number of training images; there is no check if they are many.
    latent_dim : int
    seed : int
    """
    if n_samples <= _MAX_CHECKED:
        zeros = np.zeros((n_samples, latent_dim), np.float32)
        fit_sampler(clone(sampler), zeros, zeros, seed)


def fit_sampler(
    sampler: Any, z_mean: np.ndarray, z_log_var: np.ndarray, seed: int
) -> Any:
    """Fit a sampler to one draw from each posterior.

    Parameters
    ----------
    sampler : density estimator with `fit` and `sample`
        Each `random_state` parameter that is None is set to an integer derived from
        `seed`.
    z_mean, z_log_var : ndarray of shape (n, latent_dim)
        Means and log-variances of the posteriors.
    seed : int

    Returns
    -------
    The sampler itself.
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
            f"while fitting sampler={sampler!r} to latents of {len(z)} samples"
        )
        raise
    return sampler


def draw_latents(
    sampler: Any, n_samples: int, latent_dim: int, rng: np.random.Generator
) -> np.ndarray:
    """Draw latents from a fitted sampler.

    Some samplers take the random state as an argument of `sample` (KernelDensity),
    others as a parameter (GaussianMixture). The latter are copied, so that drawing does
    not change them.

    Returns
    -------
    ndarray of shape (n_samples, latent_dim), float32

    Raises
    ------
    ValueError
        If the samples have another shape or are not finite numbers.
    """
    if "random_state" in inspect.signature(sampler.sample).parameters:
        drawn = sampler.sample(n_samples, random_state=_new_seed(rng))
    else:
        sampler = deepcopy(sampler)
        names = sorted(_random_states(sampler))
        sampler.set_params(**{name: _new_seed(rng) for name in names})
        drawn = sampler.sample(n_samples)
    # GaussianMixture returns component labels, too.
    latents = drawn[0] if isinstance(drawn, tuple) and drawn else drawn
    with naming("samples of sampler_"):
        z = check_array(latents, dtype=np.float32, input_name="samples of sampler_")
    if z.shape != (n_samples, latent_dim):
        msg = (
            f"{sampler!r} returned samples of shape {z.shape}, expected "
            f"{(n_samples, latent_dim)}."
        )
        raise ValueError(msg)
    return z


def _random_states(estimator: Any) -> dict[str, Any]:
    """Random states among the parameters of an estimator, including nested ones."""
    return {
        name: value
        for name, value in estimator.get_params().items()
        if name.split("__")[-1] == "random_state"
    }


def _new_seed(rng: np.random.Generator) -> int:
    return int(rng.integers(2**31 - 1))
