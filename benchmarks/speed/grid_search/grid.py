"""Data, grid and output of the grid search, which are the same on all sides."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import KFold, ParameterGrid

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

GRID = {"latent_dim": [2, 4, 8], "filters": [8, 16]}
N_FOLDS = 3
EPOCHS = 10
BATCH_SIZE = 64
HIDDEN_LAYERS = 2


def load_images() -> np.ndarray:
    """Load the digits, of shape (1797, 8, 8) and with values in [0, 1]."""
    return (load_digits().images / 16).astype(np.float32)


def search(losses: Callable[..., tuple[float, float]], images: Any) -> None:
    """Search in a loop, for models that GridSearchCV does not support.

    Parameters
    ----------
    losses : callable
        Takes training images, held-out images and the parameters of a candidate.
        Returns the training loss of the last epoch and the loss of the held-out images.
    images : array-like of shape (n, ...)
        Images of all folds.
    """
    candidates = list(ParameterGrid(GRID))
    folds = list(KFold(N_FOLDS).split(images))
    means = [
        np.mean(
            [losses(images[train], images[test], **choice) for train, test in folds],
            axis=0,
        )
        for choice in candidates
    ]
    report(candidates, *np.transpose(means))


def report(
    candidates: Sequence[dict[str, Any]],
    training_losses: Sequence[float],
    held_out_losses: Sequence[float],
) -> None:
    """Print the outcome as JSON.

    A loss is the squared error plus KL divergence of an image, averaged over images and
    folds. Both sequences have one loss per candidate.
    """
    outcome = {
        "best": candidates[int(np.argmin(held_out_losses))],
        "training": float(np.mean(training_losses)),
        "held_out": float(np.mean(held_out_losses)),
    }
    json.dump(outcome, sys.stdout)
