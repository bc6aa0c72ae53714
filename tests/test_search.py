"""Model selection: the same scores whatever runs it, and a best estimator to keep."""

import json
from collections import OrderedDict

import joblib
import numpy as np
import pytest
from helpers import TINY, assert_same_fit, counted_traces
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from skvae import ConvVAE


@pytest.mark.slow
def test_search_gives_the_same_scores_in_processes_and_threads(run_python):
    """Threads are pinned for this process and its workers alike."""
    printed = run_python(
        """
import json
import joblib
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV
from skvae import ConvVAE

X = load_digits().images[:150]
grid = {"latent_dim": [2, 3], "filters": [2, 4]}
vae = ConvVAE(hidden_layers=2, epochs=3, batch_size=16, random_state=0)
scores = {}
for name, backend, n_jobs in [
    ("alone", "loky", 1), ("loky", "loky", 2), ("threading", "threading", 2)
]:
    with joblib.parallel_config(backend=backend):
        search = GridSearchCV(vae, grid, cv=3, n_jobs=n_jobs).fit(X)
    scores[name] = [search.cv_results_[f"split{i}_test_score"].tolist()
                    for i in range(3)]
print(json.dumps(scores))
""",
        TF_NUM_INTRAOP_THREADS="1",
        TF_NUM_INTEROP_THREADS="1",
    )
    scores = json.loads(printed)
    assert np.isfinite(scores["alone"]).all()
    assert scores["loky"] == scores["alone"]
    assert scores["threading"] == scores["alone"]


def test_search_in_a_pipeline_and_its_best_estimator_in_a_file(tmp_path):
    X, y = load_digits(return_X_y=True)
    X, y = X[:200], y[:200]
    pipeline = make_pipeline(ConvVAE(**TINY), LogisticRegression(max_iter=1000))
    search = GridSearchCV(pipeline, {"convvae__latent_dim": [2, 4]}, cv=2)
    search.fit(X, y)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    joblib.dump(search.best_estimator_, tmp_path / "best.joblib")
    loaded = joblib.load(tmp_path / "best.joblib")
    np.testing.assert_array_equal(
        loaded.predict_proba(X), search.best_estimator_.predict_proba(X)
    )


def test_a_larger_score_wins_the_search():
    X = load_digits().images[:300]
    grid = {"epochs": [1, 40]}
    vae = ConvVAE(**{**TINY, "latent_dim": 4, "filters": 8})
    assert GridSearchCV(vae, grid, cv=2).fit(X).best_params_ == {"epochs": 40}


def test_search_traces_an_architecture_once():
    X = load_digits().images[:90]
    grid = {"filters": [5, 6], "learning_rate": [1e-3, 1e-2], "beta": [0.5, 1.0]}
    with counted_traces() as counts:
        GridSearchCV(ConvVAE(**TINY), grid, cv=3, refit=False).fit(X)
    assert counts == {"built": 2, "traced": 2}


@pytest.mark.parametrize("filters", [[2] * 6, [2, 3, 4] * 2])
def test_concurrent_fits_in_threads_equal_serial_ones(images, filters, monkeypatch):
    # Nothing is compiled yet: the threads build and trace, too.
    monkeypatch.setattr("skvae.training.compiled._networks", OrderedDict())
    vaes = [
        ConvVAE(**{**TINY, "filters": f, "random_state": i})
        for i, f in enumerate(filters)
    ]

    def fit_and_use(vae):
        vae.fit(images)
        return vae, vae.score_samples(images[:10])

    with counted_traces() as counts:
        threaded = joblib.Parallel(n_jobs=6, backend="threading")(
            joblib.delayed(fit_and_use)(vae) for vae in vaes
        )
    n_networks = len(set(filters))
    # All trainers have the gradient in common.
    assert counts == {"built": n_networks, "traced": n_networks}
    serial = [fit_and_use(ConvVAE(**vae.get_params())) for vae in vaes]
    for (first, scores), (second, other_scores) in zip(serial, threaded, strict=True):
        assert_same_fit(first, second)
        np.testing.assert_array_equal(scores, other_scores)
