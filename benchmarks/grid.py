"""The grid search that the speed benchmark times, the same on all sides."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.datasets import load_digits

if TYPE_CHECKING:
    from collections.abc import Sequence

GRID = {"latent_dim": [2, 4, 8], "filters": [8, 16]}
N_FOLDS = 3
EPOCHS = 10
BATCH_SIZE = 64
HIDDEN_LAYERS = 2


def load_images() -> np.ndarray:
    """Digits: (1797, 8, 8) float32 in 0 to 1."""
    return (load_digits().images / 16).astype(np.float32)


def report(
    candidates: Sequence[dict[str, Any]],
    training_losses: Sequence[float],
    held_out_losses: Sequence[float],
) -> None:
    """Print the outcome for the process that waits for it.

    The losses are squared error + KL an image, one a candidate, in the mean over folds:
    of the last epoch of training, and of the images held out.
    """
    outcome = {
        "best": candidates[int(np.argmin(held_out_losses))],
        "training": float(np.mean(training_losses)),
        "held_out": float(np.mean(held_out_losses)),
    }
    json.dump(outcome, sys.stdout)
