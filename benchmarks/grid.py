"""The grid search that the speed benchmark times, the same on all sides."""

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
    """Digits: (1797, 8, 8) float32 in 0 to 1."""
    return (load_digits().images / 16).astype(np.float32)


def search(losses: Callable[..., tuple[float, float]], images: Any) -> None:
    """Search in a loop, for sides that GridSearchCV cannot take, and print the outcome.

    `losses` takes images to train on, others, and a candidate's parameters, and gives
    the loss of the last epoch of training and that of the other images.
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
