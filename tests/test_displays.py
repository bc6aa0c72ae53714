"""Displays: what they show, and where they draw it."""

import sys
from itertools import pairwise

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from helpers import TINY
from matplotlib import pyplot as plt
from scipy.stats import norm
from sklearn.base import BaseEstimator
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from skvae import (
    ConvVAE,
    LatentSpaceDisplay,
    ManifoldDisplay,
    ReconstructionDisplay,
    SampleDisplay,
    TrainingDisplay,
)

mpl.use("agg")

# Images in the layouts and units that callers have: (X, image shape).
RNG = np.random.default_rng(0)
LAYOUTS = {
    "grey": (RNG.random((40, 6, 9)), (6, 9, 1)),
    "grey rows": (RNG.random((40, 64), np.float32), (8, 8, 1)),
    "colour": (RNG.integers(0, 256, (40, 7, 5, 3), np.uint8), (7, 5, 3)),
    "two channels": (RNG.normal(50, 9, (40, 6, 6, 2)), (6, 6, 2)),
    "strips": (RNG.normal(0, 9, (40, 30)), (1, 30, 1)),
    "bool": (RNG.random((40, 8, 8)) < 0.5, (8, 8, 1)),
}


def draw_samples(vae, _, n=10, ax=None):
    return SampleDisplay.from_estimator(vae, n_samples=n, ax=ax)


def draw_random(vae, X, n=10, ax=None):
    return ReconstructionDisplay.from_estimator(
        vae, X, n_samples=n, random_state=0, ax=ax
    )


def draw_worst(vae, X, n=10, ax=None):
    return ReconstructionDisplay.from_estimator(
        vae, X, n_samples=n, select="worst", ax=ax
    )


def draw_latent_space(vae, X, n=10, ax=None):
    return LatentSpaceDisplay.from_estimator(vae, X[:n], np.arange(n) % 3, ax=ax)


def draw_manifold(vae, _, n=10, ax=None):
    return ManifoldDisplay.from_estimator(vae, n_steps=n, ax=ax)


def draw_training(vae, _, *, ax=None, **__):
    return TrainingDisplay.from_estimator(vae, ax=ax)


DRAWN = {
    "samples": draw_samples,
    "random": draw_random,
    "worst": draw_worst,
    "latent space": draw_latent_space,
    "manifold": draw_manifold,
    "training": draw_training,
}


@pytest.fixture(autouse=True)
def _no_figure_stays():
    yield
    plt.close("all")


@pytest.fixture(params=LAYOUTS.values(), ids=LAYOUTS)
def layout(request):
    X, image_shape = request.param
    return ConvVAE(**TINY).fit(X), X, image_shape


def fitted_with(latent_dim, X, **params):
    return ConvVAE(**{**TINY, "latent_dim": latent_dim}, **params).fit(X)


def drawn(figure):
    figure.canvas.draw()
    return np.array(figure.canvas.buffer_rgba())


def image_errors(vae, X):
    """Mean squared error of each image, one pixel after the other."""
    decoded = vae.inverse_transform(vae.transform(X))
    errors = []
    for image, reconstruction in zip(X, decoded, strict=True):
        pixels = zip(image.flat, reconstruction.flat, strict=True)
        errors.append(np.mean([(float(a) - float(b)) ** 2 for a, b in pixels]))
    return np.array(errors)


# Which images, and what they decode to.


def test_the_worst_are_those_of_the_highest_error(layout, monkeypatch):
    vae, X, image_shape = layout
    # Compared in parts of a few images.
    monkeypatch.setattr("skvae.displays.reconstruction._CHUNK_VALUES", 300)
    display = ReconstructionDisplay.from_estimator(vae, X, select="worst", n_samples=7)
    errors = image_errors(vae, X)
    expected = np.argsort(errors)[::-1][:7]
    np.testing.assert_array_equal(display.indices, expected)
    np.testing.assert_allclose(display.errors, errors[expected], rtol=1e-4)
    shape = (7, *image_shape)
    np.testing.assert_array_equal(display.images, X[expected].reshape(shape))
    decoded = vae.inverse_transform(vae.transform(X[expected])).reshape(shape)
    np.testing.assert_allclose(display.reconstructions, decoded, rtol=1e-5)


def test_errors_of_large_values_are_finite(images):
    X = (images * 1e25).astype(np.float32)
    vae = ConvVAE(**TINY).fit(X)
    display = ReconstructionDisplay.from_estimator(vae, X, select="worst")
    np.testing.assert_allclose(
        display.errors, image_errors(vae, X)[display.indices], rtol=1e-4
    )


def test_random_rows_come_from_the_seed_in_their_order(layout):
    vae, X, image_shape = layout

    def indices(random_state, n_samples=7):
        display = ReconstructionDisplay.from_estimator(
            vae, X, n_samples=n_samples, random_state=random_state
        )
        shown = X[display.indices].reshape(-1, *image_shape)
        np.testing.assert_array_equal(display.images, shown)
        return display.indices

    first = indices(3)
    assert len(first) == 7
    assert (np.diff(first) > 0).all()
    np.testing.assert_array_equal(first, indices(3))
    np.testing.assert_array_equal(first, indices(np.random.RandomState(3)))
    assert not np.array_equal(first, indices(4))
    np.testing.assert_array_equal(indices(None, 99), np.arange(40))


def test_without_a_seed_numpys_global_generator_is_left_alone(images, fitted):
    before = str(np.random.get_state())
    shown = [
        ReconstructionDisplay.from_estimator(fitted, images).indices for _ in range(2)
    ]
    assert not np.array_equal(*shown)
    assert str(np.random.get_state()) == before


class Stored:
    """Images in a file, of which only slices are read."""

    def __init__(self, images):
        self.images = images
        self.shape, self.dtype = images.shape, images.dtype
        self.read = set()

    def __getitem__(self, key):
        assert isinstance(key, slice)
        self.read.update(range(*key.indices(len(self.images))))
        return self.images[key]


def test_stored_images_give_the_same_and_only_what_is_shown_is_read(images, fitted):
    for select in ("random", "worst"):
        stored = Stored(images)
        display, expected = (
            ReconstructionDisplay.from_estimator(
                fitted, X, select=select, random_state=0
            )
            for X in (stored, images)
        )
        np.testing.assert_array_equal(display.indices, expected.indices)
        np.testing.assert_array_equal(display.images, expected.images)
        shown = set(display.indices) if select == "random" else set(range(len(images)))
        assert stored.read == shown


@pytest.mark.parametrize("select", ["random", "worst"])
def test_tables_and_lists_give_the_same(images, select):
    rows = images.reshape(70, 64)
    table = pd.DataFrame(rows, index=np.arange(70)[::-1]).add_prefix("pixel")
    expected = ReconstructionDisplay.from_estimator(
        ConvVAE(**TINY).fit(rows), rows, select=select, random_state=0
    )
    for X in (table, rows.tolist()):
        display = ReconstructionDisplay.from_estimator(
            ConvVAE(**TINY).fit(X), X, select=select, random_state=0
        )
        np.testing.assert_array_equal(display.indices, expected.indices)
        np.testing.assert_array_equal(display.images, expected.images)


def test_samples_are_the_estimators(layout):
    vae, _, image_shape = layout
    display = SampleDisplay.from_estimator(vae, n_samples=5, random_state=3)
    samples = vae.sample(5, random_state=3)
    np.testing.assert_array_equal(display.images, samples.reshape(5, *image_shape))


# What is drawn: each image at its place, between gaps.


def tile(picture, row, column, shape, gap_y=1, gap_x=1):
    """Cut the image in that row and column out of a picture."""
    top, left = row * (shape[0] + gap_y), column * (shape[1] + gap_x)
    return picture[top : top + shape[0], left : left + shape[1]]


def test_a_grid_has_each_sample_at_its_place(layout):
    vae, _, (height, width, n_channels) = layout
    display = SampleDisplay.from_estimator(vae, n_samples=5).plot(n_cols=3)
    shown = np.ma.filled(display.im_.get_array(), np.nan)
    low, high = vae.value_range_
    thickness = 4 if height == 1 else 1
    size, gap_x = (height * thickness, width), width // 12 or 1
    for i, image in enumerate(display.images):
        pixels = tile(shown, i // 3, i % 3, size, gap_x=gap_x)
        if n_channels == 3:
            expected = np.clip((image - low) / (high - low), 0, 1)
            np.testing.assert_allclose(pixels[..., :3], expected, rtol=1e-5)
            assert (pixels[..., 3] == 1).all()
        else:
            expected = image.mean(axis=-1).repeat(thickness, axis=0)
            np.testing.assert_allclose(pixels, expected, rtol=1e-5)
    # Nothing is where there is no image.
    transparent = shown[..., 3] == 0 if n_channels == 3 else np.isnan(shown)
    assert transparent.sum() == transparent.size - 5 * size[0] * size[1]
    if n_channels != 3:
        assert (display.im_.norm.vmin, display.im_.norm.vmax) == (low, high)


def test_each_original_is_over_its_reconstruction(images, fitted):
    display = ReconstructionDisplay.from_estimator(fitted, images, n_samples=5)
    display.plot(n_cols=3)
    shown = display.im_.get_array()
    assert shown.shape == (2 * 17 + 3, 3 * 9 - 1)
    for i in range(5):
        pair = tile(shown, i // 3, i % 3, (17, 8), gap_y=3)
        np.testing.assert_array_equal(pair[:8], display.images[i, ..., 0])
        np.testing.assert_allclose(pair[9:], display.reconstructions[i, ..., 0])
        assert pair.mask[8].all()


def test_colours_beyond_the_value_range_are_its_ends(caplog):
    images = np.array([-9, 0, 2, 3, 4, 9.0]).reshape(1, 1, 2, 3).repeat(2, axis=1)
    shown = SampleDisplay(images, value_range=(2, 4)).plot().im_.get_array()
    np.testing.assert_allclose(shown[0, :, :3], [[0, 0, 0], [0.5, 1, 1]])
    assert not caplog.records  # matplotlib would cut them off, and say so


def test_four_channels_have_an_alpha_and_others_can_be_chosen():
    images = RNG.random((3, 8, 8, 4))
    shown = SampleDisplay(images, value_range=(0, 1)).plot(n_cols=3).im_.get_array()
    np.testing.assert_allclose(tile(shown, 0, 1, (8, 8)), images[1])
    chosen = SampleDisplay(images[..., [1]], value_range=(0, 1)).plot(n_cols=3)
    np.testing.assert_allclose(
        tile(chosen.im_.get_array(), 0, 2, (8, 8)), images[2, ..., 1]
    )


@pytest.mark.parametrize(
    ("n", "shape", "n_cols"),
    [
        (1, (8, 8), 1),
        (2, (8, 8), 2),
        (64, (8, 8), 8),
        (200, (8, 8), 16),
        (9, (9, 90), 1),
    ],
)
def test_a_grid_fills_a_figure(n, shape, n_cols):
    images = np.zeros((n, *shape, 1))
    shown = SampleDisplay(images, value_range=(0, 1)).plot().im_.get_array()
    assert shown.shape[1] // (shape[1] + 1) + 1 == n_cols


def test_what_matplotlib_is_told_is_the_callers_choice(images, fitted):
    display = SampleDisplay.from_estimator(
        fitted, cmap="viridis", im_kwargs={"vmin": -1, "interpolation": "bicubic"}
    )
    assert display.im_.get_cmap().name == "viridis"
    assert display.im_.norm.vmin == -1
    assert display.im_.get_interpolation() == "bicubic"
    display = LatentSpaceDisplay.from_estimator(
        fitted, images, scatter_kwargs={"s": 77, "marker": "x"}
    )
    assert display.scatter_.get_sizes() == [77]
    display = TrainingDisplay.from_estimator(fitted, line_kwargs={"linewidth": 7})
    assert {line.get_linewidth() for line in display.lines_.values()} == {7}


# The latent space.


def test_the_two_latents_of_highest_kl_are_drawn(images):
    vae = fitted_with(3, images)
    vae.latent_kl_ = np.array([2.0, 0.1, 3.0])
    display = LatentSpaceDisplay.from_estimator(vae, images)
    Z = vae.transform(images)
    np.testing.assert_allclose(display.scatter_.get_offsets(), Z[:, [2, 0]])
    assert display.ax_.get_xlabel() == "latent 2 (3.00 nats)"
    assert display.ax_.get_ylabel() == "latent 0 (2.00 nats)"
    display = LatentSpaceDisplay.from_estimator(vae, images, projection=(1, 2))
    np.testing.assert_allclose(display.scatter_.get_offsets(), Z[:, [1, 2]])
    assert display.ax_.get_xlabel() == "latent 1 (0.10 nats)"


def test_two_latents_stay_in_order_and_one_is_drawn_against_rows(images, fitted):
    fitted.latent_kl_ = np.array([1.0, 2.0])
    display = LatentSpaceDisplay.from_estimator(fitted, images)
    Z = fitted.transform(images)
    np.testing.assert_allclose(display.scatter_.get_offsets(), Z)
    vae = fitted_with(1, images)
    display = LatentSpaceDisplay.from_estimator(vae, images)
    offsets = display.scatter_.get_offsets()
    np.testing.assert_allclose(offsets[:, 0], vae.transform(images)[:, 0])
    np.testing.assert_array_equal(offsets[:, 1], np.arange(70))
    assert display.ax_.get_ylabel() == "row of X"


class Embedding(BaseEstimator):
    """As TSNE, it has no `transform`."""

    def fit(self, X):
        self.embedding_ = X[:, ::2]
        return self

    def fit_transform(self, X):
        return self.fit(X).embedding_


def test_a_transformer_brings_all_latents_to_two(images):
    vae = fitted_with(3, images).set_output(transform="pandas")
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
def test_a_projection_that_gives_no_two_is_an_error(images, projection, error, message):
    vae = fitted_with(3, images)
    with pytest.raises(error, match=message):
        LatentSpaceDisplay.from_estimator(vae, images, projection=projection)


@pytest.mark.parametrize(
    ("y", "names"),
    [
        (np.arange(70) % 3, ["0", "1", "2"]),
        ((np.arange(70) % 3).astype(float), ["0.0", "1.0", "2.0"]),
        (np.arange(70) % 2 == 0, ["False", "True"]),
        ([["x", "a", "b"][i % 3] for i in range(70)], ["a", "b", "x"]),
        (pd.Series(["x", "a"] * 35, dtype="category"), ["a", "x"]),
        ([f"{i % 30:02}" for i in range(70)], [f"{i:02}" for i in range(0, 30, 2)]),
    ],
)
def test_classes_have_a_colour_each(images, fitted, y, names):
    display = LatentSpaceDisplay.from_estimator(fitted, images, y)
    labels = display.colorbar_.ax.get_yticklabels()
    assert [label.get_text() for label in labels] == names
    display.figure_.canvas.draw()
    colours = [tuple(colour) for colour in display.scatter_.get_facecolors()]
    pairs = set(zip(colours, map(str, y), strict=True))
    assert len(pairs) == len({str(value) for value in y}) == len(set(colours))


@pytest.mark.parametrize("y", [np.linspace(0, 1, 70), np.arange(70)])
def test_quantities_have_a_scale(images, fitted, y):
    display = LatentSpaceDisplay.from_estimator(fitted, images, y)
    np.testing.assert_array_equal(display.scatter_.get_array(), y)
    assert display.scatter_.get_cmap().name == "viridis"


def test_without_y_there_is_no_scale(images, fitted):
    assert LatentSpaceDisplay.from_estimator(fitted, images).colorbar_ is None


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (np.zeros(69), "inconsistent numbers"),
        (np.zeros((70, 2)), "1d array"),
        (np.full(70, np.nan), "y contains NaN"),
    ],
)
def test_a_y_that_is_not_one_value_an_image_is_an_error(images, fitted, y, message):
    with pytest.raises(ValueError, match=message):
        LatentSpaceDisplay.from_estimator(fitted, images, y)


def test_latents_that_are_all_the_same_have_room_around_them():
    display = LatentSpaceDisplay(np.full((9, 2), 5.0)).plot()
    assert display.ax_.get_xlim() == pytest.approx((4.45, 5.55))


# The manifold.


def test_the_plane_is_decoded_from_normal_quantiles(layout):
    vae, _, image_shape = layout
    display = ManifoldDisplay.from_estimator(vae, n_steps=4)
    values = norm.ppf([0.125, 0.375, 0.625, 0.875])
    for row in range(4):
        for column in range(4):
            z = [values[column], values[3 - row]]  # upwards, as axes are
            np.testing.assert_allclose(display.latents[row, column], z)
            image = vae.inverse_transform([z]).reshape(image_shape)
            np.testing.assert_allclose(
                display.images[row, column], image, rtol=1e-5, atol=1e-5
            )


def test_more_latents_are_traversed_one_by_one_the_highest_kl_first(images):
    vae = fitted_with(3, images)
    vae.latent_kl_ = np.array([0.5, 0.0, 2.0])
    display = ManifoldDisplay.from_estimator(vae, n_steps=5)
    values = norm.ppf([0.1, 0.3, 0.5, 0.7, 0.9])
    shown = display.im_.get_array()
    for row, dimension in enumerate([2, 0, 1]):
        for column in range(5):
            z = np.zeros((1, 3))
            z[0, dimension] = values[column]
            image = vae.inverse_transform(z)[0]
            np.testing.assert_allclose(
                display.images[row, column, ..., 0], image, rtol=1e-5
            )
            np.testing.assert_allclose(
                tile(shown, row, column, (8, 8)), image, rtol=1e-5
            )
    names = [label.get_text() for label in display.ax_.get_yticklabels()]
    assert names == ["2 (2.00)", "0 (0.50)", "1 (0.00)"]
    names = [label.get_text() for label in display.ax_.get_xticklabels()]
    assert names == ["-1.3", "0.0", "1.3"]


def test_a_single_latent_is_a_row(images):
    vae = fitted_with(1, images)
    display = ManifoldDisplay.from_estimator(vae, n_steps=3)
    expected = vae.inverse_transform(norm.ppf([[1 / 6], [0.5], [5 / 6]]))
    np.testing.assert_allclose(display.images[0, ..., 0], expected, rtol=1e-5)


def traversal(n_latents, n_steps, *image_shape):
    """A display of random images."""
    return ManifoldDisplay(
        RNG.random((n_latents, n_steps, *image_shape)),
        np.tile(np.arange(n_steps)[:, np.newaxis], (n_latents, 1, n_latents)),
        latent_kl=np.arange(n_latents, 0, -1.0),
        value_range=(0, 1),
    )


def test_traversals_of_strips_go_upwards():
    display = traversal(3, 5, 1, 30, 1).plot()
    shown = display.im_.get_array()
    for i in range(3):
        for step in range(5):
            pixels = tile(shown, 4 - step, i, (4, 30), gap_x=2)
            np.testing.assert_allclose(pixels[0], display.images[i, step, 0, :, 0])
    first, *_, last = display.ax_.get_yticks()
    assert first > last  # in pixels from the top
    names = [label.get_text() for label in display.ax_.get_yticklabels()]
    assert names == ["0.0", "2.0", "4.0"]


@pytest.mark.parametrize("shape", [(8, 8, 1), (8, 40, 1)])
def test_many_latents_are_named_as_far_as_there_is_room(shape):
    axes = plt.figure(figsize=(5, 3)).add_subplot()
    display = traversal(40, 3, *shape).plot(axes)
    display.figure_.canvas.draw()
    axis = axes.yaxis if shape[1] == 8 else axes.xaxis
    boxes = [label.get_window_extent() for label in axis.get_ticklabels()]
    assert len(boxes) > 2
    for one, next_one in pairwise(boxes):
        assert not one.overlaps(next_one)


# Training.


def test_each_line_is_the_estimators_history(images):
    vae = ConvVAE(**TINY, early_stopping=True).fit(images)
    display = TrainingDisplay.from_estimator(vae)
    assert display.lines_.keys() == vae.history_.keys()
    for name, line in display.lines_.items():
        np.testing.assert_array_equal(line.get_xdata(), [1, 2, 3])
        np.testing.assert_array_equal(line.get_ydata(), vae.history_[name])
        assert line.axes is display.axes_[int(name == "kl")]
    assert display.best_epoch == np.argmin(vae.history_["val_loss"]) + 1


def test_epochs_without_validation_are_left_out(images):
    vae = ConvVAE(**TINY, warm_start=True).fit(images)
    assert TrainingDisplay.from_estimator(vae).best_epoch is None
    vae.set_params(early_stopping=True).fit(images)
    vae.history_["val_loss"] = [np.nan] * 3 + [2.0, 1.0, 3.0]
    display = TrainingDisplay.from_estimator(vae)
    assert display.best_epoch == 5
    assert display.axes_[1].get_xlabel() == "epoch (best: 5)"
    # While the KL's weight rises, no epoch is the best.
    vae.set_params(kl_warmup_epochs=5)
    assert TrainingDisplay.from_estimator(vae).best_epoch == 6
    vae.set_params(kl_warmup_epochs=6)
    assert TrainingDisplay.from_estimator(vae).best_epoch is None


def test_mse_has_a_validation_loss_beside_its_loss(images):
    """The squared error and a Gaussian density of variance 1/2 compare."""
    params = {"likelihood": "mse", "early_stopping": True}
    vae = ConvVAE(**TINY, **params).fit(images * 255)
    display = TrainingDisplay.from_estimator(vae)
    low, high = vae.value_range_
    at_mean = norm.logpdf(0, scale=np.sqrt(0.5) * (high - low))
    expected = vae.history_["val_loss"] + 64 * at_mean
    np.testing.assert_allclose(display.lines_["val_loss"].get_ydata(), expected)


def test_a_single_epoch_is_seen(images):
    display = TrainingDisplay.from_estimator(
        ConvVAE(**{**TINY, "epochs": 1}).fit(images)
    )
    display.figure_.canvas.draw()
    lower = display.axes_[1]
    left, right = lower.get_xlim()
    assert [tick for tick in lower.get_xticks() if left < tick < right] == [1]
    assert display.lines_["loss"].get_marker() == "."


def test_two_fits_are_drawn_in_the_same_axes(fitted):
    first = TrainingDisplay.from_estimator(fitted)
    second = TrainingDisplay.from_estimator(fitted, ax=first.axes_)
    assert list(second.axes_) == list(first.axes_)
    assert len(first.axes_[1].lines) == 2
    with pytest.raises(ValueError, match=r"ax=display\.axes_"):
        TrainingDisplay.from_estimator(fitted, ax=first.bounding_ax_)
    with pytest.raises(ValueError, match="one matplotlib Axes or two, got 3"):
        TrainingDisplay.from_estimator(fitted, ax=[*first.axes_, first.bounding_ax_])


# All of them.


@pytest.mark.parametrize("draw", DRAWN.values(), ids=DRAWN)
def test_it_draws_in_the_axes_it_is_given(images, fitted, draw):
    before = dict(mpl.rcParams)
    figure, (left, right) = plt.subplots(1, 2)
    display = draw(fitted, images, ax=left)
    assert display.figure_ is figure
    assert getattr(display, "ax_", None) or display.bounding_ax_ is left
    if hasattr(display, "ax_"):
        assert display.ax_ is left
    assert plt.get_fignums() == [figure.number]
    assert not right.has_data()
    assert dict(mpl.rcParams) == before


@pytest.mark.parametrize("draw", DRAWN.values(), ids=DRAWN)
def test_plot_draws_the_same_again(images, fitted, draw):
    display = draw(fitted, images)
    first = drawn(display.figure_)
    assert display.plot() is display
    np.testing.assert_array_equal(drawn(display.figure_), first)
    assert len(plt.get_fignums()) == 2


@pytest.mark.parametrize("draw", DRAWN.values(), ids=DRAWN)
def test_what_it_keeps_is_what_its_class_takes(images, fitted, draw):
    display = draw(fitted, images)
    kept = {k: v for k, v in vars(display).items() if not k.endswith("_")}
    again = type(display)(**kept).plot()
    np.testing.assert_array_equal(drawn(again.figure_), drawn(display.figure_))


@pytest.mark.parametrize("n", [2, 40])
@pytest.mark.parametrize("draw", DRAWN.values(), ids=DRAWN)
def test_nothing_is_cut_off(layout, draw, n):
    vae, X, _ = layout
    figure = draw(vae, X, n=n).figure_
    figure.canvas.draw()
    box, page = figure.get_tightbbox(), figure.bbox_inches
    assert min(box.x0, box.y0) >= 0
    assert box.x1 <= page.x1
    assert box.y1 <= page.y1


@pytest.mark.parametrize("draw", DRAWN.values(), ids=DRAWN)
def test_what_it_cannot_draw_is_an_error(images, fitted, draw):
    with pytest.raises(NotFittedError):
        draw(ConvVAE(), images)
    with pytest.raises(TypeError, match=r"Display is for a ConvVAE, got Pipeline"):
        draw(make_pipeline(fitted), images)
    with pytest.raises(TypeError, match="ax must be"):
        draw(fitted, images, ax="left")
    assert not plt.get_fignums()


@pytest.mark.parametrize("draw", DRAWN.values(), ids=DRAWN)
def test_without_matplotlib_the_error_says_what_to_install(
    images, fitted, draw, monkeypatch
):
    display = draw(fitted, images)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    message = rf"{type(display).__name__} needs matplotlib: pip install matplotlib"
    with pytest.raises(ImportError, match=message):
        display.plot()
    # Before anything is worked out.
    monkeypatch.setattr(ConvVAE, "transform", None)
    monkeypatch.setattr(ConvVAE, "sample", None)
    monkeypatch.setattr(ConvVAE, "inverse_transform", None)
    with pytest.raises(ImportError, match=message):
        draw(fitted, images)


@pytest.mark.parametrize(
    ("name", "value"), [("n_samples", 0), ("n_cols", 0), ("n_samples", 2.5)]
)
def test_numbers_of_images_are_positive_integers(images, fitted, name, value):
    with pytest.raises((ValueError, TypeError), match=name):
        ReconstructionDisplay.from_estimator(fitted, images, **{name: value})
    with pytest.raises((ValueError, TypeError), match=name):
        SampleDisplay.from_estimator(fitted, **{name: value})


def test_bad_input_is_named(images, fitted):
    with pytest.raises(ValueError, match="select must be 'random' or 'worst'"):
        ReconstructionDisplay.from_estimator(fitted, images, select="best")
    with pytest.raises(ValueError, match="n_steps"):
        ManifoldDisplay.from_estimator(fitted, n_steps=0)
    for draw in (ReconstructionDisplay, LatentSpaceDisplay):
        with pytest.raises(ValueError, match="NaN"):
            draw.from_estimator(fitted, np.full((3, 8, 8), np.nan))
        with pytest.raises(ValueError, match="expecting 64 features"):
            draw.from_estimator(fitted, np.zeros((3, 5)))
        with pytest.raises(ValueError, match="0 sample"):
            draw.from_estimator(fitted, images[:0])
        with pytest.raises((ValueError, TypeError), match=r"None|shape"):
            draw.from_estimator(fitted, None)
