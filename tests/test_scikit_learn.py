"""scikit-learn's own checks, all of them, and its conventions."""

import os
import re
import warnings

import numpy as np
import pandas as pd
import pytest
from helpers import TINY
from sklearn.base import clone
from sklearn.exceptions import NotFittedError, SkipTestWarning
from sklearn.linear_model import LogisticRegression
from sklearn.mixture import GaussianMixture
from sklearn.pipeline import make_pipeline
from sklearn.utils import estimator_checks

from skvae import ConvVAE, ConvVAEOutlierDetector
from skvae.documentation import BASE_ADDRESS
from skvae.training.callbacks import HAS_CALLBACKS


@pytest.mark.parametrize(
    "parameters",
    [
        pytest.param({}, id="defaults"),
        pytest.param({"early_stopping": True, "epochs": 2}, id="early stopping"),
        pytest.param({"hidden_layers": 1, "epochs": 2}, id="one layer"),
        pytest.param(
            {"likelihood": "bernoulli", "epochs": 2},
            id="bernoulli",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            {"likelihood": "mse", "last_activation": "linear", "epochs": 2},
            id="mse",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_check_estimator_passes_with_no_check_skipped(parameters, monkeypatch):
    # Without it scikit-learn skips a check that numpy input can pass.
    monkeypatch.setitem(os.environ, "SCIPY_ARRAY_API", "1")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", SkipTestWarning)
        results = estimator_checks.check_estimator(ConvVAE(**parameters))
    assert len(results) >= 40
    assert {result["status"] for result in results} == {"passed"}


@pytest.mark.parametrize(
    "name",
    [
        "check_transformer_get_feature_names_out",
        "check_transformer_get_feature_names_out_pandas",
        "check_set_output_transform",
        "check_set_output_transform_pandas",
        "check_set_output_transform_polars",
        "check_global_output_transform_pandas",
        "check_global_set_output_transform_polars",
        "check_dataframe_column_names_consistency",
        "check_param_validation",
        "check_inplace_ensure_writeable",
    ],
)
# The checks themselves fit on a DataFrame and transform an array, and back.
@pytest.mark.filterwarnings("ignore:X (has|does not have valid) feature names")
def test_checks_that_check_estimator_leaves_out(name):
    getattr(estimator_checks, name)("ConvVAE", ConvVAE(**TINY))


def test_constructor_only_assigns():
    wrong = object()
    assert ConvVAE(latent_dim=wrong).get_params()["latent_dim"] is wrong


def test_unfitted_estimator_says_so(images):
    vae = ConvVAE()
    for method, argument in [
        ("transform", images),
        ("posterior", images),
        ("inverse_transform", np.zeros((1, 4))),
        ("score_samples", images),
        ("score", images),
        ("sample", 1),
    ]:
        with pytest.raises(NotFittedError):
            getattr(vae, method)(argument)
    with pytest.raises(NotFittedError):
        vae.to_keras()


def test_pipeline_with_a_classifier(digits):
    X_train, X_test, y_train, y_test = digits
    vae = ConvVAE(8, filters=8, hidden_layers=2, epochs=15, random_state=0)
    pipeline = make_pipeline(vae, LogisticRegression(max_iter=1000))
    pipeline.fit(X_train, y_train)
    assert pipeline.score(X_test, y_test) > 0.7
    names = pipeline[:-1].get_feature_names_out()
    assert list(names) == [f"convvae{i}" for i in range(8)]


def test_feature_names_of_a_refit_replace_the_old(images):
    rows = images.reshape(len(images), -1)
    frame = pd.DataFrame(rows, columns=[f"pixel{i}" for i in range(64)])
    vae = ConvVAE(**TINY).fit(frame)
    assert list(vae.feature_names_in_) == list(frame.columns)
    vae.fit(rows)
    assert not hasattr(vae, "feature_names_in_")


def test_a_notebook_shows_parameters_before_and_after_fit(images):
    """Fitted attributes too, where scikit-learn does that (from 1.9 on)."""
    rows = pd.DataFrame(images.reshape(len(images), -1)).add_prefix("pixel")
    vae = ConvVAE(**TINY, sampler=GaussianMixture(2))
    for is_fitted in (False, True):
        html = vae._repr_html_()
        for name in vae.get_params(deep=False):
            assert re.search(rf">\s*{name}(&nbsp;|\s*<)", html), name
        if is_fitted and HAS_CALLBACKS:
            for name in (name for name in vars(vae) if name.endswith("_")):
                is_private = name.startswith("_")
                assert (name in html) != is_private, name
        assert "_state_" not in html
        vae.fit(rows)
    assert "ConvVAE" in make_pipeline(vae, LogisticRegression())._repr_html_()


@pytest.mark.parametrize("estimator", [ConvVAE(), ConvVAEOutlierDetector()])
def test_a_notebook_links_to_the_reference(estimator):
    name = type(estimator).__name__
    assert f'href="{BASE_ADDRESS}api/skvae.{name}.html"' in estimator._repr_html_()


def test_clone_is_unfitted_with_the_same_parameters(fitted):
    copied = clone(fitted)
    assert copied.get_params() == fitted.get_params()
    assert not hasattr(copied, "weights_")
