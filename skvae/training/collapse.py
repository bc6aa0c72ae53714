"""Posterior collapse: number of active latent dimensions, and remedies.

A dimension whose posterior equals the prior for every image has no information for the
decoder. The decoder learns to ignore it, and no gradient makes it active again (Bowman
et al. 2016, https://arxiv.org/abs/1511.06349, section 3.1).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

# Mean KL in nats above which a latent dimension is active. Measured on digits in 15
# settings: 0.2 to 3 nats for used dimensions, less than 0.08 for unused ones.
_ALIVE_KL = 0.1

# The posterior has collapsed if at most this proportion of dimensions is active. It is
# low because unused dimensions are harmless if there are more than the images need.
_COLLAPSED_PART = 0.25

# With fewer optimizer steps, dimensions may become active with more training.
_FEW_STEPS = 1000


def collapse_message(
    latent_kl: np.ndarray,
    parameters: Mapping[str, Any],
    n_steps: int,
    suitable_range: tuple[float, float] | None,
) -> str | None:
    """Message of the collapse warning, or None if enough dimensions are active.

    Parameters
    ----------
    latent_kl : ndarray of shape (latent_dim,)
        Mean KL of each latent dimension, in nats.
    parameters : mapping of str to object
        Contains the parameters of the estimator.
    n_steps : int
        Number of optimizer steps taken.
    suitable_range : (float, float) or None
        Value range that suits the images better than the one that was used.

    Returns
    -------
    str or None
    """
    n_alive = int(np.count_nonzero(latent_kl > _ALIVE_KL))
    if n_alive > _COLLAPSED_PART * len(latent_kl):
        return None
    remedies = _remedies(parameters, n_steps)
    if suitable_range:
        low, high = suitable_range
        remedies.insert(0, f"value_range=({low:g}, {high:g}), which most values fill")
    return (
        f"The posterior has collapsed: {n_alive} of {len(latent_kl)} latent dimensions "
        f"are active (latent_kl_ above {_ALIVE_KL} nats); the others have no "
        f"information about the image. Try {'; or '.join(remedies)}. Images that "
        f"hardly differ from each other need no latent dimensions."
    )


def _remedies(parameters: Mapping[str, Any], n_steps: int) -> list[str]:
    """Changes of parameters that may help, most promising first."""
    remedies = []
    are_steps_few = n_steps < _FEW_STEPS
    if are_steps_few:
        more = "" if parameters["early_stopping"] else "more epochs or "
        remedies.append(
            f"{more}a smaller batch_size, as there were only {n_steps} training steps"
        )
    if parameters["likelihood"] == "mse":
        remedies.append(
            "likelihood='gaussian', which learns the noise variance that 'mse' fixes "
            "at half the squared width of the value range"
        )
    if parameters["likelihood"] == "bernoulli":
        remedies.append("likelihood='gaussian', unless the pixels are black or white")
    # In these cases the optimum itself has collapsed, which warm-up cannot change.
    is_kl_too_dear = parameters["likelihood"] == "mse" or parameters["beta"] > 1
    if is_kl_too_dear and parameters["beta"] > 0:
        remedies.append(f"a lower beta than {parameters['beta']:g}")
    elif parameters["kl_warmup_epochs"] == 0 and not are_steps_few:
        remedies.append(
            "kl_warmup_epochs of some tens, for the decoder to learn to use the latents"
        )
    free_bits = parameters["free_bits"]
    value = "free_bits=0.25" if free_bits == 0 else f"more free_bits than {free_bits:g}"
    remedies.append(f"{value}, which allows each dimension this KL at no cost")
    return remedies
