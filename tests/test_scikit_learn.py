"""scikit-learn's own checks, all of them, and its conventions."""

import os
import warnings

import numpy as np
import pytest
from helpers import TINY
from sklearn.base import clone
from sklearn.exceptions import NotFittedError, SkipTestWarning
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.utils import estimator_checks

from skvae import ConvVAE

PARAMETER_SETS = {
    "defaults": {},
    "bernoulli": {"likelihood": "bernoulli", "epochs": 20},
    "mse": {"likelihood": "mse", "last_activation": "linear", "epochs": 20},
    "early stopping": {"early_stopping": True, "epochs": 20},
    "one layer": {"hidden_layers": 1, "epochs": 20},
}


@pytest.mark.parametrize("parameters", PARAMETER_SETS.values(), ids=PARAMETER_SETS)
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
    import pandas as pd

    rows = images.reshape(len(images), -1)
    frame = pd.DataFrame(rows, columns=[f"pixel{i}" for i in range(64)])
    vae = ConvVAE(**TINY).fit(frame)
    assert list(vae.feature_names_in_) == list(frame.columns)
    vae.fit(rows)
    assert not hasattr(vae, "feature_names_in_")


def test_clone_is_unfitted_with_the_same_parameters(fitted):
    copied = clone(fitted)
    assert copied.get_params() == fitted.get_params()
    assert not hasattr(copied, "weights_")
