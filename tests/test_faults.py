"""Faults in the middle of `fit`: nothing is lost, and the next fit is as any."""

import copy
import pkgutil
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path

import joblib
import numpy as np
import pytest
from helpers import TINY, assert_same_fit, assert_unchanged
from sklearn import config_context
from sklearn.exceptions import FitFailedWarning
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV

from skvae import ConvVAE
from skvae.training import compiled

PARAMS = {
    **TINY,
    "filters": 3,
    "early_stopping": True,
    "validation_fraction": 0.4,
    "noise_type": "diag",
    "sampler": GaussianMixture(2),
}

# Where a fit can fail, and in which call.
STAGES = [
    ("skvae.training.compiled.Network.__init__", 0),
    ("skvae.training.trainer.Trainer.__init__", 0),
    ("skvae.training.trainer.Trainer._step", 0),  # traced
    ("skvae.training.gradient.BatchGradient.__call__", 0),  # traced within that
    ("skvae.training.loop.sample_images", 0),
    ("skvae.training.loop.initial_weights", 0),
    ("skvae.training.trainer.Trainer.load", 0),
    ("skvae.training.loop.shuffled_blocks", 0),
    ("skvae.training.loop.shuffled_blocks", 2),
    ("skvae.training.trainer.Trainer.train_steps", 0),
    ("skvae.training.trainer.Trainer.train_steps", 2),
    ("skvae.training.trainer.Trainer.state", 1),
    ("skvae.training.early_stopping.elbo_terms", 0),
    ("skvae.training.report.Report.update", 1),
    ("skvae.serving.graphs.Graph.to_session", 0),
    ("skvae.serving.sessions.FittedNetwork.encode", 0),
    ("skvae.training.result.squared_errors", 0),
    ("skvae.training.callbacks.FitTasks.end", 0),
]


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """A fit in a fresh process."""
    path = tmp_path_factory.mktemp("fresh") / "vae.joblib"
    code = (
        "import joblib, test_faults\n"
        "from skvae import ConvVAE\n"
        "X = test_faults.images_to_fit()\n"
        f"joblib.dump(ConvVAE(**test_faults.PARAMS).fit(X), {str(path)!r})\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parent)
    return joblib.load(path)


def images_to_fit():
    return np.random.default_rng(0).random((60, 8, 8))


@pytest.mark.parametrize("error", [MemoryError, OSError])
@pytest.mark.parametrize(("stage", "call"), STAGES)
def test_a_fault_at_any_stage_leaves_all_as_it_was(
    expected, monkeypatch, stage, call, error
):
    X = images_to_fit()
    vae = ConvVAE(**TINY).fit(X[:20]).set_params(**PARAMS)
    before = copy.deepcopy(vae)
    owner, _, name = stage.rpartition(".")
    if name in ("__init__", "_step", "__call__"):
        monkeypatch.setattr(compiled, "_networks", OrderedDict())
    monkeypatch.setattr("skvae.training.loop._CALL_PIXELS", 16 * 64)
    calls = []

    def failing(*args, **kwargs):
        calls.append(args)
        if len(calls) == call + 1:
            raise error
        return original(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        owner = pkgutil.resolve_name(owner)
        original = getattr(owner, name)
        patch.setattr(owner, name, failing)
        with pytest.raises(error):
            vae.fit(X)
    assert_unchanged(vae, before)
    assert not any(each.n_trainers_in_use for each in compiled._networks.values())
    assert_same_fit(ConvVAE(**PARAMS).fit(X), expected)


@pytest.mark.filterwarnings("ignore:One or more of the test scores are non-finite")
def test_what_diverges_costs_a_search_one_candidate():
    X = images_to_fit()
    grid = {"learning_rate": [1e-3, 1e6]}
    search = GridSearchCV(ConvVAE(**TINY), grid, cv=2)
    with pytest.warns(FitFailedWarning, match="Lower learning_rate"):
        search.set_params(error_score=np.nan).fit(X)
    scores = search.cv_results_["mean_test_score"]
    assert np.isfinite(scores).tolist() == [True, False]
    assert search.best_params_ == {"learning_rate": 1e-3}


@pytest.mark.parametrize(
    "parameters",
    [
        {"learning_rate": 1e6},
        {"learning_rate": 1e6, "batch_size": 60, "epochs": 2},
        {"value_range": (0.0, 1e-30)},
        {"beta": 1e38, "learning_rate": 1.0},
    ],
)
def test_what_diverges_stops_and_keeps_the_earlier_fit(parameters):
    X = images_to_fit()
    vae = ConvVAE(**TINY).fit(X)
    vae.set_params(**{"last_activation": "linear", "epochs": 100, **parameters})
    before = copy.deepcopy(vae)
    name = next(iter(parameters))
    with pytest.raises(ValueError, match=rf"Training diverged.*{name}"):
        vae.fit(X)
    assert_unchanged(vae, before)


@pytest.mark.parametrize("value_range", ["auto", (0, 1)])
def test_nan_is_named_also_where_scikit_learn_does_not_look(images, value_range):
    """In place of a range or a learning rate."""
    broken = images.copy()
    broken[:40, 2, 2:4] = np.nan
    params = {**TINY, "value_range": value_range}
    stopping = ConvVAE(**params, early_stopping=True)
    fitted = ConvVAE(**params).fit(images)
    with config_context(assume_finite=True):
        for call in (
            lambda: ConvVAE(**params).fit(broken),
            lambda: stopping.fit(images, X_val=broken),
            lambda: fitted.transform(broken),
            lambda: fitted.score(broken),
        ):
            with pytest.raises(ValueError, match="contains NaN or infinity"):
                call()
