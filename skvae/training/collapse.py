"""Posterior collapse: how many latent dimensions are alive, and what to do about it.

A dimension whose posterior is the prior for every image tells the decoder nothing, so
the decoder learns to do without it and no gradient brings it back (Bowman et al. 2016,
https://arxiv.org/abs/1511.06349, section 3.1).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

# Mean KL in nats above which a latent dimension is alive. Used dimensions have 0.2 to 3
# nats, unused ones less than 0.08 (digits, 15 settings).
_ALIVE_KL = 0.1

# The posterior counts as collapsed if no larger part of the dimensions is alive. Many
# more dimensions than the images need leave some unused, which does no harm.
_COLLAPSED_PART = 0.25

# Up to here dimensions may just not have come to life yet.
_FEW_STEPS = 1000


def collapse_message(
    latent_kl: np.ndarray, parameters: Mapping[str, Any], n_steps: int
) -> str | None:
    """What to tell the user, or None if enough latent dimensions are alive.

    Parameters
    ----------
    latent_kl : (latent_dim,)
        Mean KL of each latent dimension, in nats.
    parameters : mapping
        The estimator's parameters, among others.
    n_steps : int
        Steps that the optimizer has taken.
    """
    n_alive = int(np.count_nonzero(latent_kl > _ALIVE_KL))
    if n_alive > _COLLAPSED_PART * len(latent_kl):
        return None
    remedies = _remedies(parameters, n_steps)
    return (
        f"The posterior has collapsed: {n_alive} of {len(latent_kl)} latent dimensions "
        f"are alive (latent_kl_ above {_ALIVE_KL} nats); the others say nothing about "
        f"the image. Try {'; or '.join(remedies)}. Images that hardly differ from each "
        f"other need no latent dimensions."
    )


def _remedies(parameters: Mapping[str, Any], n_steps: int) -> list[str]:
    """The changes of parameters that can help, the likeliest first."""
    remedies = []
    are_steps_few = n_steps < _FEW_STEPS
    if are_steps_few:
        more = "" if parameters["early_stopping"] else "more epochs or "
        remedies.append(
            f"{more}a smaller batch_size, for there were only {n_steps} training steps"
        )
    if parameters["likelihood"] == "mse":
        remedies.append(
            "likelihood='gaussian', which learns the noise variance that 'mse' fixes "
            "at half the squared width of the value range"
        )
    if parameters["likelihood"] == "bernoulli":
        remedies.append("likelihood='gaussian', unless the pixels are black or white")
    # Then it is not the way that training took, but where it leads to.
    is_kl_too_dear = parameters["likelihood"] == "mse" or parameters["beta"] > 1
    if is_kl_too_dear and parameters["beta"] > 0:
        remedies.append(f"a lower beta than {parameters['beta']:g}")
    elif parameters["kl_warmup_epochs"] == 0 and not are_steps_few:
        remedies.append(
            "kl_warmup_epochs, some tens, in which the decoder gets used to the latents"
        )
    free_bits = parameters["free_bits"]
    value = "free_bits=0.25" if free_bits == 0 else f"more free_bits than {free_bits:g}"
    remedies.append(f"{value}, which keeps every dimension at that many nats")
    return remedies
