"""LatentSpaceDisplay: points, axis labels, colours and projections."""

import numpy as np
import pandas as pd
import pytest
from layouts import fit_with_latent_dim
from sklearn.base import BaseEstimator
from sklearn.decomposition import PCA
from sklearn.preprocessing import FunctionTransformer

from skvae import LatentSpaceDisplay


def test_two_dimensions_of_highest_kl_are_plotted(images):
    vae = fit_with_latent_dim(3, images)
    vae.latent_kl_ = np.array([2.0, 0.1, 3.0])
    display = LatentSpaceDisplay.from_estimator(vae, images)
    Z = vae.transform(images)
    np.testing.assert_allclose(display.scatter_.get_offsets(), Z[:, [2, 0]])
    assert display.ax_.get_xlabel() == "latent 2 (3.00 nats)"
    assert display.ax_.get_ylabel() == "latent 0 (2.00 nats)"


def test_projection_selects_two_dimensions(images):
    vae = fit_with_latent_dim(3, images)
    vae.latent_kl_ = np.array([2.0, 0.1, 3.0])
    display = LatentSpaceDisplay.from_estimator(vae, images, projection=(1, 2))
    Z = vae.transform(images)
    np.testing.assert_allclose(display.scatter_.get_offsets(), Z[:, [1, 2]])
    assert display.ax_.get_xlabel() == "latent 1 (0.10 nats)"


def test_two_dimensions_keep_their_order(images, fitted):
    fitted.latent_kl_ = np.array([1.0, 2.0])
    display = LatentSpaceDisplay.from_estimator(fitted, images)
    np.testing.assert_allclose(display.scatter_.get_offsets(), fitted.transform(images))


def test_single_dimension_is_plotted_against_the_row_number(images):
    vae = fit_with_latent_dim(1, images)
    display = LatentSpaceDisplay.from_estimator(vae, images)
    offsets = display.scatter_.get_offsets()
    np.testing.assert_allclose(offsets[:, 0], vae.transform(images)[:, 0])
    np.testing.assert_array_equal(offsets[:, 1], np.arange(70))
    assert display.ax_.get_ylabel() == "row of X"


class Embedding(BaseEstimator):
    """Transformer without `transform`, like TSNE."""

    def fit(self, X):
        self.embedding_ = X[:, ::2]
        return self

    def fit_transform(self, X):
        return self.fit(X).embedding_


def test_projection_with_a_transformer(images):
    vae = fit_with_latent_dim(3, images).set_output(transform="pandas")
    Z = vae.transform(images).to_numpy()
    pca = PCA(2)
    display = LatentSpaceDisplay.from_estimator(vae, images, projection=pca)
    np.testing.assert_allclose(display.points, PCA(2).fit_transform(Z), atol=1e-6)
    assert not hasattr(pca, "components_")
    assert display.ax_.get_xlabel() == "PCA 0"
    pca.fit(Z[:9])
    display = LatentSpaceDisplay.from_estimator(vae, images, projection=pca)
    np.testing.assert_allclose(display.points, pca.transform(Z), atol=1e-6)
    for embedding in (Embedding(), Embedding().fit(Z)):
        display = LatentSpaceDisplay.from_estimator(vae, images, projection=embedding)
        np.testing.assert_array_equal(display.points, Z[:, ::2])


@pytest.mark.parametrize(
    ("projection", "error", "message"),
    [
        ((0, 3), ValueError, "dimensions 0 to 2"),
        ((0, 1, 2), ValueError, "two of the latent"),
        (PCA(1), ValueError, "two columns"),
        (FunctionTransformer(), ValueError, "two columns"),
        ("pca", TypeError, "transformer"),
    ],
)
def test_invalid_projection_raises(images, projection, error, message):
    vae = fit_with_latent_dim(3, images)
    with pytest.raises(error, match=message):
        LatentSpaceDisplay.from_estimator(vae, images, projection=projection)


@pytest.mark.parametrize(
    ("y", "labels"),
    [
        (np.arange(70) % 3, ["0", "1", "2"]),
        ((np.arange(70) % 3).astype(float), ["0.0", "1.0", "2.0"]),
        (np.arange(70) % 2 == 0, ["False", "True"]),
        ([["x", "a", "b"][i % 3] for i in range(70)], ["a", "b", "x"]),
        (pd.Series(["x", "a"] * 35, dtype="category"), ["a", "x"]),
        ([f"{i % 30:02}" for i in range(70)], [f"{i:02}" for i in range(0, 30, 2)]),
    ],
)
def test_each_class_has_its_own_colour(images, fitted, y, labels):
    display = LatentSpaceDisplay.from_estimator(fitted, images, y)
    tick_labels = display.colorbar_.ax.get_yticklabels()
    assert [label.get_text() for label in tick_labels] == labels
    display.figure_.canvas.draw()
    colours = [tuple(colour) for colour in display.scatter_.get_facecolors()]
    pairs = set(zip(colours, map(str, y), strict=True))
    assert len(pairs) == len({str(value) for value in y}) == len(set(colours))


@pytest.mark.parametrize("y", [np.linspace(0, 1, 70), np.arange(70)])
def test_continuous_y_has_a_continuous_colormap(images, fitted, y):
    display = LatentSpaceDisplay.from_estimator(fitted, images, y)
    np.testing.assert_array_equal(display.scatter_.get_array(), y)
    assert display.scatter_.get_cmap().name == "viridis"


def test_without_y_there_is_no_colorbar(images, fitted):
    assert LatentSpaceDisplay.from_estimator(fitted, images).colorbar_ is None


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (np.zeros(69), "inconsistent numbers"),
        (np.zeros((70, 2)), "1d array"),
        (np.full(70, np.nan), "y has missing values"),
    ],
)
def test_invalid_y_raises(images, fitted, y, message):
    with pytest.raises(ValueError, match=message):
        LatentSpaceDisplay.from_estimator(fitted, images, y)


def test_axes_of_identical_points_span_at_least_one():
    display = LatentSpaceDisplay(np.full((9, 2), 5.0)).plot()
    assert display.ax_.get_xlim() == pytest.approx((4.45, 5.55))


def test_scatter_kwargs_are_passed_to_scatter(images, fitted):
    display = LatentSpaceDisplay.from_estimator(
        fitted, images, scatter_kwargs={"s": 77, "marker": "x"}
    )
    assert display.scatter_.get_sizes() == [77]


@pytest.mark.parametrize(
    ("y", "error", "message"),
    [
        ([None, "a"], ValueError, "y has missing values"),
        ([np.nan, "a"], ValueError, "y has missing values"),
        ([1.0, np.nan], ValueError, "y has missing values"),
        (pd.Series(["a", None], dtype="string"), ValueError, "y has missing values"),
        (pd.Series(["a", None], dtype="category"), ValueError, "y has missing values"),
        (pd.array([1, None], dtype="Int64"), ValueError, "y has missing values"),
        ([None, 1], ValueError, "y has missing values"),
        ([1, "a"], TypeError, "several types"),
    ],
)
def test_missing_and_mixed_values_of_y_are_named(images, fitted, y, error, message):
    rows = np.arange(len(images)) % 2
    values = y.take(rows) if hasattr(y, "take") else np.array(y, object)[rows]
    with pytest.raises(error, match=message):
        LatentSpaceDisplay.from_estimator(fitted, images, values)
