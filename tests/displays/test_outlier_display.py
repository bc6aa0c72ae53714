"""OutlierDisplay: the oddest images, their scores and the plotted grid."""

import sys

import numpy as np
import pandas as pd
import pytest
from helpers import TINY
from layouts import LAYOUTS, get_tile
from matplotlib import pyplot as plt
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline

from skvae import ConvVAE, ConvVAEOutlierDetector, OutlierDisplay


def fit_detector(X):
    vae = ConvVAE(**TINY)
    return ConvVAEOutlierDetector(vae, contamination=0.5, random_state=0).fit(X)


@pytest.fixture(params=LAYOUTS.values(), ids=LAYOUTS)
def layout(request):
    """Fitted detector, the images it was fitted on, and the shape of one of them."""
    X, image_shape = request.param
    return fit_detector(X), X, image_shape


@pytest.fixture
def detector(images):
    return fit_detector(images)


def to_pixels(figure):
    figure.canvas.draw()
    return np.array(figure.canvas.buffer_rgba())


def test_the_oddest_images_are_selected_with_what_they_decode_to(layout):
    detector, X, image_shape = layout
    display = OutlierDisplay.from_estimator(detector, X, n_samples=7)
    scores = detector.score_samples(X)
    expected = np.argsort(scores)[:7]
    np.testing.assert_array_equal(display.indices, expected)
    np.testing.assert_array_equal(display.scores, scores[expected])
    assert display.threshold == detector.offset_
    shape = (7, *image_shape)
    odd, vae = X[expected], detector.estimator_
    np.testing.assert_array_equal(display.images, odd.reshape(shape))
    decoded = vae.inverse_transform(vae.transform(odd)).reshape(shape)
    np.testing.assert_array_equal(display.reconstructions, decoded)
    error_maps = detector.error_map(odd).reshape(shape)
    np.testing.assert_array_equal(display.error_maps, error_maps)


def test_all_images_are_plotted_if_there_are_few(images, detector):
    display = OutlierDisplay.from_estimator(detector, images[:3])
    assert sorted(display.indices) == [0, 1, 2]


def test_each_image_is_over_its_reconstruction_over_its_errors(images, detector):
    display = OutlierDisplay.from_estimator(detector, images, n_samples=5)
    grid = display.im_.get_array()
    assert grid.shape == (3 * 9 - 1, 5 * 9 - 1)
    largest = display.error_maps.max()
    for i in range(5):
        original, decoded, errors = (
            get_tile(grid, row, i, (8, 8)).data for row in range(3)
        )
        np.testing.assert_allclose(original, display.images[i, ..., 0])
        np.testing.assert_allclose(decoded, display.reconstructions[i, ..., 0])
        np.testing.assert_allclose(errors, display.error_maps[i, ..., 0] / largest)
    assert grid.mask[8].all()
    assert grid.mask[:, 8].all()


def test_errors_of_colours_are_grey_and_opaque():
    for n_channels in (3, 4):
        rng = np.random.default_rng(0)
        X = rng.integers(0, 256, (40, 7, 5, n_channels), np.uint8)
        display = OutlierDisplay.from_estimator(fit_detector(X), X, n_samples=2)
        errors = get_tile(display.im_.get_array(), 2, 1, (7, 5))
        expected = display.error_maps.mean(axis=-1)
        expected = expected[1] / expected.max()
        for channel in range(3):
            np.testing.assert_allclose(errors[..., channel], expected, rtol=1e-6)
        assert (errors[..., 3] == 1).all()


def test_scores_minus_the_threshold_are_written(images, detector):
    display = OutlierDisplay.from_estimator(detector, images, n_samples=4)
    labels = [label.get_text() for label in display.ax_.get_xticklabels()]
    differences = display.scores - detector.offset_
    np.testing.assert_allclose([float(x) for x in labels], differences, atol=0.05)
    np.testing.assert_array_equal(display.ax_.get_xticks(), 3.5 + 9 * np.arange(4))
    label = display.ax_.get_xlabel()
    assert f"minus the threshold of {detector.offset_:.1f}" in label


@pytest.mark.parametrize("scale", [1, 1e4, 1e9])
@pytest.mark.parametrize("n", [1, 10])
def test_scores_of_any_size_are_inside_the_figure_when_it_is_first_drawn(scale, n):
    images = np.zeros((n, 24, 36, 1))
    display = OutlierDisplay(
        *3 * [images],
        scores=-scale * np.linspace(9, 1, n),
        threshold=-5.0 * scale,
        value_range=(0, 1),
    )
    figure = display.plot().figure_
    figure.canvas.draw()
    label = display.ax_.xaxis.label.get_window_extent()
    assert label.y0 >= 0
    box = figure.get_tightbbox()
    assert min(box.x0, box.y0) >= 0


def test_a_perfect_reconstruction_has_no_errors():
    zeros = np.zeros((1, 4, 4, 1))
    display = OutlierDisplay(
        zeros, zeros, zeros, scores=zeros[0, 0, 0], threshold=0, value_range=(0, 1)
    )
    assert not display.plot().im_.get_array().any()


def test_out_of_core_images_tables_and_lists_give_the_same_display(images, tmp_path):
    rows = images.reshape(70, 64)
    np.save(tmp_path / "rows.npy", rows)
    expected = OutlierDisplay.from_estimator(fit_detector(rows), rows)
    for X in (
        np.load(tmp_path / "rows.npy", mmap_mode="r"),
        pd.DataFrame(rows, index=np.arange(70)[::-1]).add_prefix("pixel"),
        rows.tolist(),
    ):
        display = OutlierDisplay.from_estimator(fit_detector(X), X)
        np.testing.assert_array_equal(display.indices, expected.indices)
        np.testing.assert_array_equal(display.images, expected.images)
        np.testing.assert_array_equal(display.error_maps, expected.error_maps)


def test_given_axes_are_used_and_plot_repeats_the_picture(images, detector):
    figure, (left, right) = plt.subplots(1, 2)
    display = OutlierDisplay.from_estimator(detector, images, ax=left)
    assert display.ax_ is left
    assert display.figure_ is figure
    assert not right.has_data()
    display.plot()
    first = to_pixels(display.figure_)
    params = {k: v for k, v in vars(display).items() if not k.endswith("_")}
    copy = OutlierDisplay(**params).plot()
    assert copy.figure_ is not display.figure_
    np.testing.assert_array_equal(to_pixels(copy.figure_), first)


@pytest.mark.parametrize("n", [2, 40])
def test_everything_is_inside_the_figure(layout, n):
    detector, X, _ = layout
    figure = OutlierDisplay.from_estimator(detector, X, n_samples=n).figure_
    figure.canvas.draw()
    box, page = figure.get_tightbbox(), figure.bbox_inches
    assert min(box.x0, box.y0) >= 0
    assert box.x1 <= page.x1
    assert box.y1 <= page.y1


def test_invalid_arguments_raise(images, detector, fitted, monkeypatch):
    show = OutlierDisplay.from_estimator
    with pytest.raises(NotFittedError):
        show(ConvVAEOutlierDetector(), images)
    for other in (fitted, make_pipeline(detector)):
        message = (
            f"OutlierDisplay requires a ConvVAEOutlierDetector, got "
            f"{type(other).__name__}"
        )
        with pytest.raises(TypeError, match=message):
            show(other, images)
    with pytest.raises(ValueError, match="n_samples"):
        show(detector, images, n_samples=0)
    with pytest.raises(ValueError, match="expecting 64 features"):
        show(detector, images[:, :2, 0])
    with pytest.raises(TypeError, match="ax must be"):
        show(detector, images, ax="left")
    display = show(detector, images)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    for call in (display.plot, lambda: show(detector, images)):
        with pytest.raises(ImportError, match="OutlierDisplay needs matplotlib"):
            call()
