"""Grid search with ConvVAE: `python grid_skvae.py N_JOBS BACKEND`."""

from __future__ import annotations

import math
import sys
import warnings

import joblib
import numpy as np
from sklearn.model_selection import GridSearchCV

from benchmarks.speed.grid_search.grid import (
    BATCH_SIZE,
    EPOCHS,
    GRID,
    HIDDEN_LAYERS,
    N_FOLDS,
    load_images,
    report,
)
from skvae import ConvVAE
from skvae.exceptions import PosteriorCollapseWarning


def measures(vae: ConvVAE, images: np.ndarray, _: object = None) -> dict[str, float]:
    """Score training and held-out images by the negative loss, with one draw each."""
    # Difference of log density and negative loss, with a variance of 1/2.
    normaliser = 0.5 * images[0].size * math.log(math.pi)
    return {
        "training": -vae.history_["loss"][-1],
        "held_out": vae.score_samples(images, n_draws=1).mean() + normaliser,
    }


def main() -> None:
    """Run the search and print the outcome."""
    n_jobs, backend = sys.argv[1:]
    warnings.simplefilter("ignore", PosteriorCollapseWarning)
    vae = ConvVAE(
        hidden_layers=HIDDEN_LAYERS,
        likelihood="mse",
        epochs=EPOCHS,
        batch_size=BATCH_SIZE,
        random_state=0,
    )
    # The other sides have no final fit on all images either.
    search = GridSearchCV(vae, GRID, scoring=measures, cv=N_FOLDS, refit=False)
    with joblib.parallel_config(backend, n_jobs=int(n_jobs)):
        search.fit(load_images())
    results = search.cv_results_
    report(
        results["params"],
        -results["mean_test_training"],
        -results["mean_test_held_out"],
    )


if __name__ == "__main__":
    main()
