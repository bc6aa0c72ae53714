"""ConvVAE inside of what scikit-learn puts around transformers, as one would use it."""

import numpy as np
import pandas as pd
import polars as pl
import pytest
from helpers import TINY
from sklearn import config_context
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import (
    HalvingGridSearchCV,
    KFold,
    RandomizedSearchCV,
    cross_val_score,
)
from sklearn.pipeline import make_pipeline, make_union
from sklearn.preprocessing import FunctionTransformer, MinMaxScaler, StandardScaler

from skvae import ConvVAE

PIXELS = [f"pixel{i}" for i in range(64)]


@pytest.fixture
def rows():
    """100 digits as rows of pixels in [0, 1]."""
    return load_digits(n_class=2, return_X_y=True)[0][:100] / 16


@pytest.fixture
def labels():
    return load_digits(n_class=2, return_X_y=True)[1][:100]


def test_pandas_and_polars_frames_go_in_and_come_out(rows):
    frame = pd.DataFrame(rows, columns=PIXELS, index=np.arange(100) + 7)
    vae = ConvVAE(**TINY)
    expected = clone(vae).fit_transform(rows)

    features = clone(vae).set_output(transform="pandas").fit_transform(frame)
    assert list(features.columns) == ["convvae0", "convvae1"]
    pd.testing.assert_index_equal(features.index, frame.index)
    np.testing.assert_array_equal(features, expected)

    fitted = clone(vae).set_output(transform="polars").fit(pl.DataFrame(frame))
    features = fitted.transform(pl.DataFrame(frame))
    assert features.schema == {"convvae0": pl.Float32, "convvae1": pl.Float32}
    np.testing.assert_array_equal(features, expected)
    assert list(fitted.feature_names_in_) == PIXELS
    with pytest.raises(ValueError, match="feature names"):
        fitted.transform(frame.rename(columns={"pixel0": "corner"}))


def test_names_of_features_pass_through_a_pipeline(rows, labels):
    frame = pd.DataFrame(rows, columns=PIXELS)
    pipeline = make_pipeline(
        ConvVAE(**TINY), StandardScaler(), LogisticRegression()
    ).set_output(transform="pandas")
    pipeline.fit(frame, labels)
    assert list(pipeline[-1].feature_names_in_) == ["convvae0", "convvae1"]
    assert list(pipeline[:-1].get_feature_names_out()) == ["convvae0", "convvae1"]


def test_validation_images_are_routed_and_scaled_in_a_pipeline(rows):
    """The steps before ConvVAE transform the validation set."""
    vae = ConvVAE(**TINY, early_stopping=True)
    scaler = MinMaxScaler().fit(16 * rows[:70])
    expected = clone(vae).fit(
        scaler.transform(16 * rows[:70]), X_val=scaler.transform(16 * rows[70:])
    )
    with config_context(enable_metadata_routing=True):
        pipeline = make_pipeline(
            MinMaxScaler(), vae.set_fit_request(X_val=True), transform_input=["X_val"]
        )
        pipeline.fit(16 * rows[:70], X_val=16 * rows[70:])
    assert pipeline[-1].history_ == expected.history_


def test_a_union_puts_its_features_beside_those_of_pca(rows):
    union = make_union(ConvVAE(**TINY), PCA(3)).fit(rows)
    features = union.transform(rows)
    np.testing.assert_array_equal(features[:, :2], ConvVAE(**TINY).fit_transform(rows))
    np.testing.assert_allclose(features[:, 2:], PCA(3).fit_transform(rows), atol=1e-9)
    assert list(union.get_feature_names_out()) == [
        *("convvae__convvae0", "convvae__convvae1"),
        *("pca__pca0", "pca__pca1", "pca__pca2"),
    ]


def test_the_pixels_among_the_columns_of_a_frame(rows, labels):
    frame = pd.DataFrame(rows, columns=PIXELS)
    frame.insert(0, "age", np.arange(100.0))
    frame["site"] = ["north", "south"] * 50
    columns = ColumnTransformer(
        [("image", ConvVAE(**TINY), PIXELS), ("age", StandardScaler(), ["age"])]
    ).set_output(transform="pandas")
    features = columns.fit_transform(frame, labels)
    assert list(features) == ["image__convvae0", "image__convvae1", "age__age"]
    expected = ConvVAE(**TINY).fit_transform(rows)
    np.testing.assert_array_equal(features.iloc[:, :2], expected)
    # Columns are found by their names.
    again = columns.transform(frame[frame.columns[::-1]])
    pd.testing.assert_frame_equal(again, features)


def test_functions_around_it(rows):
    """Negatives of images go in, and negatives come back from the pipeline."""
    negative = FunctionTransformer(_negative, _negative)
    pipeline = make_pipeline(negative, ConvVAE(**TINY)).fit(rows)
    alone = ConvVAE(**TINY).fit(1 - rows)
    features = pipeline.transform(rows)
    np.testing.assert_array_equal(features, alone.transform(1 - rows))
    np.testing.assert_array_equal(
        pipeline.inverse_transform(features), 1 - alone.inverse_transform(features)
    )
    # A model that is fitted already, as a step that is never fitted.
    frozen = FunctionTransformer(
        alone.transform, alone.inverse_transform, check_inverse=False
    )
    np.testing.assert_array_equal(
        make_pipeline(negative, frozen).fit_transform(rows), features
    )


def _negative(X):
    return 1 - X


def test_cross_val_score_is_the_likelihood_of_the_folds(rows):
    folds = KFold(3)
    scores = cross_val_score(ConvVAE(**TINY), rows, cv=folds)
    expected = [
        ConvVAE(**TINY).fit(rows[train]).score(rows[test])
        for train, test in folds.split(rows)
    ]
    assert list(scores) == expected


def test_halving_search_over_epochs(rows):
    """More epochs are the resource that candidates have to earn."""
    params = {name: value for name, value in TINY.items() if name != "epochs"}
    search = HalvingGridSearchCV(
        ConvVAE(**params),
        {"latent_dim": [2, 3], "learning_rate": [1e-3, 1e-2]},
        factor=2,
        resource="epochs",
        max_resources=4,
        cv=2,
        random_state=0,
    ).fit(rows)
    assert search.n_candidates_ == [4, 2, 1]
    assert search.n_resources_ == [1, 2, 4]
    assert search.best_estimator_.n_iter_ == 4
    assert search.best_params_["learning_rate"] == 1e-2


def test_randomized_search_with_a_classifier_behind(rows, labels):
    pipeline = make_pipeline(ConvVAE(**TINY), LogisticRegression())
    search = RandomizedSearchCV(
        pipeline,
        {"convvae__learning_rate": [1e-4, 1e-3, 1e-2], "convvae__beta": [0.5, 1.0]},
        n_iter=3,
        cv=2,
        random_state=0,
    ).fit(rows, labels)
    assert len(search.cv_results_["params"]) == 3
    best = clone(pipeline).set_params(**search.best_params_).fit(rows, labels)
    np.testing.assert_array_equal(search.predict_proba(rows), best.predict_proba(rows))
