"""SampleDisplay: samples and the plotted grid."""

import numpy as np
import pytest
from layouts import RNG, get_tile

from skvae import SampleDisplay


def test_images_are_samples_of_the_estimator(layout):
    vae, _, image_shape = layout
    display = SampleDisplay.from_estimator(vae, n_samples=5, random_state=3)
    samples = vae.sample(5, random_state=3)
    np.testing.assert_array_equal(display.images, samples.reshape(5, *image_shape))


def test_grid_has_each_image_in_its_cell(layout):
    vae, _, (height, width, n_channels) = layout
    display = SampleDisplay.from_estimator(vae, n_samples=5).plot(n_cols=3)
    grid = np.ma.filled(display.im_.get_array(), np.nan)
    low, high = vae.value_range_
    thickness = 4 if height == 1 else 1
    size, gap_x = (height * thickness, width), width // 12 or 1
    for i, image in enumerate(display.images):
        tile = get_tile(grid, i // 3, i % 3, size, gap_x=gap_x)
        if n_channels == 3:
            expected = np.clip((image - low) / (high - low), 0, 1)
            np.testing.assert_allclose(tile[..., :3], expected, rtol=1e-5)
            assert (tile[..., 3] == 1).all()
        else:
            expected = image.mean(axis=-1).repeat(thickness, axis=0)
            np.testing.assert_allclose(tile, expected, rtol=1e-5)
    # Gaps and empty cells are transparent.
    transparent = grid[..., 3] == 0 if n_channels == 3 else np.isnan(grid)
    assert transparent.sum() == transparent.size - 5 * size[0] * size[1]
    if n_channels != 3:
        assert (display.im_.norm.vmin, display.im_.norm.vmax) == (low, high)


def test_colours_are_clipped_to_the_value_range(caplog):
    images = np.array([-9, 0, 2, 3, 4, 9.0]).reshape(1, 1, 2, 3).repeat(2, axis=1)
    grid = SampleDisplay(images, value_range=(2, 4)).plot().im_.get_array()
    np.testing.assert_allclose(grid[0, :, :3], [[0, 0, 0], [0.5, 1, 1]])
    assert not caplog.records  # matplotlib logs a warning when it clips


def test_fourth_channel_is_alpha():
    images = RNG.random((3, 8, 8, 4))
    grid = SampleDisplay(images, value_range=(0, 1)).plot(n_cols=3).im_.get_array()
    np.testing.assert_allclose(get_tile(grid, 0, 1, (8, 8)), images[1])


def test_selected_channel_is_plotted():
    images = RNG.random((3, 8, 8, 4))
    display = SampleDisplay(images[..., [1]], value_range=(0, 1)).plot(n_cols=3)
    tile = get_tile(display.im_.get_array(), 0, 2, (8, 8))
    np.testing.assert_allclose(tile, images[2, ..., 1])


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
def test_default_number_of_columns_fills_a_figure(n, shape, n_cols):
    images = np.zeros((n, *shape, 1))
    grid = SampleDisplay(images, value_range=(0, 1)).plot().im_.get_array()
    assert grid.shape[1] // (shape[1] + 1) + 1 == n_cols


def test_cmap_and_im_kwargs_are_passed_to_imshow(fitted):
    display = SampleDisplay.from_estimator(
        fitted, cmap="viridis", im_kwargs={"vmin": -1, "interpolation": "bicubic"}
    )
    assert display.im_.get_cmap().name == "viridis"
    assert display.im_.norm.vmin == -1
    assert display.im_.get_interpolation() == "bicubic"
