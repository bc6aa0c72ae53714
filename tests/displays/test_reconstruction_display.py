"""ReconstructionDisplay: selection of images, errors and the plotted grid."""

import numpy as np
import pandas as pd
import pytest
from helpers import TINY
from layouts import get_tile

from skvae import ConvVAE, ReconstructionDisplay


def image_errors(vae, X):
    """Mean squared error of each image, in float64 and pixel by pixel."""
    decoded = vae.inverse_transform(vae.transform(X))
    errors = []
    for image, reconstruction in zip(X, decoded, strict=True):
        pixels = zip(image.flat, reconstruction.flat, strict=True)
        errors.append(np.mean([(float(a) - float(b)) ** 2 for a, b in pixels]))
    return np.array(errors)


def test_worst_selects_the_highest_errors(layout):
    vae, X, image_shape = layout
    display = ReconstructionDisplay.from_estimator(vae, X, select="worst", n_samples=7)
    errors = image_errors(vae, X)
    expected = np.argsort(errors)[::-1][:7]
    np.testing.assert_array_equal(display.indices, expected)
    np.testing.assert_allclose(display.errors, errors[expected], rtol=1e-4)
    shape = (7, *image_shape)
    np.testing.assert_array_equal(display.images, X[expected].reshape(shape))
    decoded = vae.inverse_transform(vae.transform(X[expected])).reshape(shape)
    np.testing.assert_allclose(display.reconstructions, decoded, rtol=1e-5)


def test_worst_compares_several_chunks_of_images():
    """Images of 18 MB; a chunk has 16 MB of float32."""
    X = np.random.default_rng(0).random((70, 256, 256), np.float32)
    vae = ConvVAE(**{**TINY, "epochs": 1}).fit(X[:9])
    display = ReconstructionDisplay.from_estimator(vae, X, select="worst", n_samples=70)
    decoded = vae.inverse_transform(vae.transform(X))
    errors = np.mean((X - decoded.astype(np.float64)) ** 2, axis=(1, 2))
    np.testing.assert_array_equal(display.indices, np.argsort(-errors))
    np.testing.assert_allclose(display.errors, errors[display.indices])


def test_errors_of_large_values_are_finite(images):
    X = (images * 1e25).astype(np.float32)
    vae = ConvVAE(**TINY).fit(X)
    display = ReconstructionDisplay.from_estimator(vae, X, select="worst")
    np.testing.assert_allclose(
        display.errors, image_errors(vae, X)[display.indices], rtol=1e-4
    )


def test_random_selects_rows_with_the_seed_in_ascending_order(layout):
    vae, X, image_shape = layout

    def indices(random_state, n_samples=7):
        display = ReconstructionDisplay.from_estimator(
            vae, X, n_samples=n_samples, random_state=random_state
        )
        selected = X[display.indices].reshape(-1, *image_shape)
        np.testing.assert_array_equal(display.images, selected)
        return display.indices

    first = indices(3)
    assert len(first) == 7
    assert (np.diff(first) > 0).all()
    np.testing.assert_array_equal(first, indices(3))
    np.testing.assert_array_equal(first, indices(np.random.RandomState(3)))
    assert not np.array_equal(first, indices(4))
    np.testing.assert_array_equal(indices(None, 99), np.arange(40))


def test_random_without_seed_keeps_the_global_random_state(images, fitted):
    before = str(np.random.get_state())
    selected = [
        ReconstructionDisplay.from_estimator(fitted, images).indices for _ in range(2)
    ]
    assert not np.array_equal(*selected)
    assert str(np.random.get_state()) == before


class OutOfCoreArray:
    """Array that supports slices only and records the rows that are read."""

    def __init__(self, images):
        self.images = images
        self.shape, self.dtype = images.shape, images.dtype
        self.read = set()

    def __getitem__(self, key):
        assert isinstance(key, slice)
        self.read.update(range(*key.indices(len(self.images))))
        return self.images[key]


@pytest.mark.parametrize("select", ["random", "worst"])
def test_out_of_core_array_gives_the_same_display(images, fitted, select):
    stored = OutOfCoreArray(images)
    display, expected = (
        ReconstructionDisplay.from_estimator(fitted, X, select=select, random_state=0)
        for X in (stored, images)
    )
    np.testing.assert_array_equal(display.indices, expected.indices)
    np.testing.assert_array_equal(display.images, expected.images)
    # "random" reads the plotted rows only.
    assert stored.read == set(display.indices if select == "random" else range(70))


@pytest.mark.parametrize("select", ["random", "worst"])
def test_data_frame_and_list_give_the_same_display(images, select):
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


def test_each_image_is_above_its_reconstruction(images, fitted):
    display = ReconstructionDisplay.from_estimator(fitted, images, n_samples=5)
    display.plot(n_cols=3)
    grid = display.im_.get_array()
    assert grid.shape == (2 * 17 + 3, 3 * 9 - 1)
    for i in range(5):
        pair = get_tile(grid, i // 3, i % 3, (17, 8), gap_y=3)
        np.testing.assert_array_equal(pair[:8], display.images[i, ..., 0])
        np.testing.assert_allclose(pair[9:], display.reconstructions[i, ..., 0])
        assert pair.mask[8].all()


def test_invalid_select_raises(images, fitted):
    with pytest.raises(ValueError, match="select must be 'random' or 'worst'"):
        ReconstructionDisplay.from_estimator(fitted, images, select="best")
