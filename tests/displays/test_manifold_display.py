"""ManifoldDisplay: decoded latents, the plotted grid and its labels."""

from itertools import pairwise

import numpy as np
import pytest
from layouts import RNG, fit_with_latent_dim, get_tile
from matplotlib import pyplot as plt
from scipy.stats import norm

from skvae import ManifoldDisplay


def test_plane_is_decoded_from_normal_quantiles(layout):
    vae, _, image_shape = layout
    display = ManifoldDisplay.from_estimator(vae, n_steps=4)
    values = norm.ppf([0.125, 0.375, 0.625, 0.875])
    for row in range(4):
        for column in range(4):
            z = [values[column], values[3 - row]]  # the y axis points upwards
            np.testing.assert_allclose(display.latents[row, column], z)
            image = vae.inverse_transform([z]).reshape(image_shape)
            np.testing.assert_allclose(
                display.images[row, column], image, rtol=1e-5, atol=1e-5
            )


def test_traversals_are_sorted_by_kl(images):
    vae = fit_with_latent_dim(3, images)
    vae.latent_kl_ = np.array([0.5, 0.0, 2.0])
    display = ManifoldDisplay.from_estimator(vae, n_steps=5)
    values = norm.ppf([0.1, 0.3, 0.5, 0.7, 0.9])
    grid = display.im_.get_array()
    for row, dimension in enumerate([2, 0, 1]):
        for column in range(5):
            z = np.zeros((1, 3))
            z[0, dimension] = values[column]
            image = vae.inverse_transform(z)[0]
            np.testing.assert_allclose(
                display.images[row, column, ..., 0], image, rtol=1e-5
            )
            np.testing.assert_allclose(
                get_tile(grid, row, column, (8, 8)), image, rtol=1e-5
            )
    labels = [label.get_text() for label in display.ax_.get_yticklabels()]
    assert labels == ["2 (2.00)", "0 (0.50)", "1 (0.00)"]
    labels = [label.get_text() for label in display.ax_.get_xticklabels()]
    assert labels == ["-1.3", "0.0", "1.3"]


def test_single_dimension_is_a_row(images):
    vae = fit_with_latent_dim(1, images)
    display = ManifoldDisplay.from_estimator(vae, n_steps=3)
    expected = vae.inverse_transform(norm.ppf([[1 / 6], [0.5], [5 / 6]]))
    np.testing.assert_allclose(display.images[0, ..., 0], expected, rtol=1e-5)


def random_traversals(latent_dim, n_steps, *image_shape):
    """Display of random images."""
    return ManifoldDisplay(
        RNG.random((latent_dim, n_steps, *image_shape)),
        np.tile(np.arange(n_steps)[:, np.newaxis], (latent_dim, 1, latent_dim)),
        latent_kl=np.arange(latent_dim, 0, -1.0),
        value_range=(0, 1),
    )


def test_traversals_of_strips_are_columns_from_bottom_to_top():
    display = random_traversals(3, 5, 1, 30, 1).plot()
    grid = display.im_.get_array()
    for i in range(3):
        for step in range(5):
            tile = get_tile(grid, 4 - step, i, (4, 30), gap_x=2)
            np.testing.assert_allclose(tile[0], display.images[i, step, 0, :, 0])
    first, *_, last = display.ax_.get_yticks()
    assert first > last  # in pixels from the top
    labels = [label.get_text() for label in display.ax_.get_yticklabels()]
    assert labels == ["0.0", "2.0", "4.0"]


@pytest.mark.parametrize("shape", [(8, 8, 1), (8, 40, 1)])
def test_labels_of_many_dimensions_do_not_overlap(shape):
    ax = plt.figure(figsize=(5, 3)).add_subplot()
    display = random_traversals(40, 3, *shape).plot(ax)
    display.figure_.canvas.draw()
    axis = ax.yaxis if shape[1] == 8 else ax.xaxis
    boxes = [label.get_window_extent() for label in axis.get_ticklabels()]
    assert len(boxes) > 2
    for box, next_box in pairwise(boxes):
        assert not box.overlaps(next_box)


def test_invalid_n_steps_raises(fitted):
    with pytest.raises(ValueError, match="n_steps"):
        ManifoldDisplay.from_estimator(fitted, n_steps=0)
