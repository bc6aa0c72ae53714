"""Properties of all displays: axes, parameters, layout of the figure, errors."""

import sys

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib import pyplot as plt
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline

from skvae import (
    ConvVAE,
    LatentSpaceDisplay,
    ManifoldDisplay,
    ReconstructionDisplay,
    SampleDisplay,
    TrainingDisplay,
)


def sample_display(vae, _, n=10, ax=None):
    return SampleDisplay.from_estimator(vae, n_samples=n, ax=ax)


def random_display(vae, X, n=10, ax=None):
    return ReconstructionDisplay.from_estimator(
        vae, X, n_samples=n, random_state=0, ax=ax
    )


def worst_display(vae, X, n=10, ax=None):
    return ReconstructionDisplay.from_estimator(
        vae, X, n_samples=n, select="worst", ax=ax
    )


def latent_space_display(vae, X, n=10, ax=None):
    return LatentSpaceDisplay.from_estimator(vae, X[:n], np.arange(n) % 3, ax=ax)


def manifold_display(vae, _, n=10, ax=None):
    return ManifoldDisplay.from_estimator(vae, n_steps=n, ax=ax)


def training_display(vae, _, *, ax=None, **__):
    return TrainingDisplay.from_estimator(vae, ax=ax)


DISPLAYS = {
    "samples": sample_display,
    "random": random_display,
    "worst": worst_display,
    "latent space": latent_space_display,
    "manifold": manifold_display,
    "training": training_display,
}


@pytest.fixture(params=DISPLAYS.values(), ids=DISPLAYS)
def create_display(request):
    """Call `from_estimator` of one display."""
    return request.param


def to_pixels(figure):
    figure.canvas.draw()
    return np.array(figure.canvas.buffer_rgba())


def test_given_axes_are_used(images, fitted, create_display):
    before = dict(mpl.rcParams)
    figure, (left, right) = plt.subplots(1, 2)
    display = create_display(fitted, images, ax=left)
    assert display.figure_ is figure
    if isinstance(display, TrainingDisplay):
        assert display.bounding_ax_ is left
    else:
        assert display.ax_ is left
    assert plt.get_fignums() == [figure.number]
    assert not right.has_data()
    assert dict(mpl.rcParams) == before


def test_plot_repeats_the_plot_in_a_new_figure(images, fitted, create_display):
    display = create_display(fitted, images)
    first = to_pixels(display.figure_)
    assert display.plot() is display
    np.testing.assert_array_equal(to_pixels(display.figure_), first)
    assert len(plt.get_fignums()) == 2


def test_parameters_are_stored_as_attributes(images, fitted, create_display):
    display = create_display(fitted, images)
    params = {k: v for k, v in vars(display).items() if not k.endswith("_")}
    copy = type(display)(**params).plot()
    np.testing.assert_array_equal(to_pixels(copy.figure_), to_pixels(display.figure_))


@pytest.mark.parametrize("n", [2, 40])
def test_everything_is_inside_the_figure(layout, create_display, n):
    vae, X, _ = layout
    figure = create_display(vae, X, n=n).figure_
    figure.canvas.draw()
    box, page = figure.get_tightbbox(), figure.bbox_inches
    assert min(box.x0, box.y0) >= 0
    assert box.x1 <= page.x1
    assert box.y1 <= page.y1


def test_invalid_estimator_or_axes_raises(images, fitted, create_display):
    with pytest.raises(NotFittedError):
        create_display(ConvVAE(), images)
    with pytest.raises(TypeError, match=r"Display requires a ConvVAE, got Pipeline"):
        create_display(make_pipeline(fitted), images)
    with pytest.raises(TypeError, match="ax must be"):
        create_display(fitted, images, ax="left")
    assert not plt.get_fignums()


def test_missing_matplotlib_raises(images, fitted, create_display, monkeypatch):
    display = create_display(fitted, images)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    message = rf"{type(display).__name__} needs matplotlib: pip install matplotlib"
    with pytest.raises(ImportError, match=message):
        display.plot()
    # Raised before the estimator is used.
    for vae in (fitted, ConvVAE()):
        with pytest.raises(ImportError, match=message):
            create_display(vae, images)


@pytest.mark.parametrize(
    ("name", "value"), [("n_samples", 0), ("n_cols", 0), ("n_samples", 2.5)]
)
def test_invalid_number_of_images_raises(images, fitted, name, value):
    with pytest.raises((ValueError, TypeError), match=name):
        ReconstructionDisplay.from_estimator(fitted, images, **{name: value})
    with pytest.raises((ValueError, TypeError), match=name):
        SampleDisplay.from_estimator(fitted, **{name: value})


@pytest.mark.parametrize("display", [ReconstructionDisplay, LatentSpaceDisplay])
def test_invalid_images_raise(images, fitted, display):
    with pytest.raises(ValueError, match="NaN"):
        display.from_estimator(fitted, np.full((3, 8, 8), np.nan))
    with pytest.raises(ValueError, match="expecting 64 features"):
        display.from_estimator(fitted, np.zeros((3, 5)))
    with pytest.raises(ValueError, match="0 sample"):
        display.from_estimator(fitted, images[:0])
    with pytest.raises((ValueError, TypeError), match=r"None|shape"):
        display.from_estimator(fitted, None)
