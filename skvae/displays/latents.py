"""What displays say about latent dimensions."""

from __future__ import annotations

import numpy as np


def ordered(latent_kl: np.ndarray) -> np.ndarray:
    """Latent dimensions; of more than two, those of the highest KL first."""
    if len(latent_kl) <= 2:
        return np.arange(len(latent_kl))
    return np.argsort(-latent_kl, kind="stable")


def axis_label(dimension: int, latent_kl: np.ndarray) -> str:
    """What an axis along a latent dimension is called: its number and its KL."""
    return f"latent {dimension} ({latent_kl[dimension]:.2f} nats)"
