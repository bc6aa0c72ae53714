"""Value range: what "auto" is, and warnings where a range does not suit the values."""

import warnings

import numpy as np
import pytest
from helpers import TINY
from sklearn.datasets import load_digits

from skvae import ConvVAE
from skvae.data.range_warnings import suitable_range
from skvae.data.value_range import auto_value_range
from skvae.exceptions import PosteriorCollapseWarning

RNG = np.random.default_rng(0)
DIGITS = load_digits().images[:300, :, :, None]
PHOTOS = RNG.integers(0, 256, (100, 16, 16, 1)).astype(np.uint8)


def blobs(size, n_images=100):
    """A small Gaussian on black in each image, at random places."""
    rows, columns = np.mgrid[:size, :size]
    places = RNG.uniform(8, size - 8, (n_images, 2))
    return np.stack(
        [np.exp(-((rows - a) ** 2 + (columns - b) ** 2) / 8) for a, b in places]
    )[..., None]


def lines(n_images=100):
    """Dark lines of some shades on white."""
    images = np.full((n_images, 32, 32, 1), 255, np.uint8)
    for image in images:
        image[RNG.integers(0, 32)] = RNG.integers(0, 30, (32, 1))
    return images


def noise_and_blobs(level, brightness, proportion, n_images=300):
    """Noise, with a bright object in a part of the images."""
    noise = RNG.poisson(level, (n_images, 32, 32, 1))
    is_lit = RNG.random((n_images, 1, 1, 1)) < proportion
    return noise + brightness * is_lit * blobs(32, n_images)


def with_values(images, proportion, value):
    images = images.astype(np.float64)
    images[RNG.random(images.shape) < proportion] = value
    return images


def with_one(images, value):
    images = images.copy()
    images[0, 0, 0, 0] = value
    return images


@pytest.mark.parametrize(
    ("images", "value_range"),
    [
        (PHOTOS, (0, 255)),
        (PHOTOS // 3, (0, 255)),  # dim
        (PHOTOS > 100, (0, 1)),
        (PHOTOS / 255, (0, 1)),
        (PHOTOS / 255 / 2, (0, 1)),
        (np.zeros((5, 8, 8, 1), np.uint8), (0, 255)),
        (np.zeros((5, 8, 8, 1)), (0, 1)),
        (np.zeros((5, 8, 8, 1), bool), (0, 1)),
        # They fill less than a quarter of the range of their dtype.
        ((PHOTOS > 100).astype(np.uint8), (0, 1)),
        (DIGITS.astype(np.uint8), (0, 16)),
        (PHOTOS // 255 + 100, (100, 101)),
        (PHOTOS / 255 / 255, (0, 1 / 255)),
        (0.5 + PHOTOS / 255 / 10, (0.5, 0.6)),
        (PHOTOS.astype(np.uint16), (0, 255)),
        (DIGITS, (0, 16)),
    ],
)
def test_auto_is_the_range_of_the_dtype_unless_the_values_fill_little_of_it(
    images, value_range
):
    images = images.astype(np.uint8) if images.dtype == np.int64 else images
    assert auto_value_range(images, images) == pytest.approx(value_range)


@pytest.mark.parametrize(
    "images",
    [
        PHOTOS,
        PHOTOS > 250,
        ((PHOTOS > 250) * 255).astype(np.uint8),
        DIGITS,
        DIGITS / 16,
        DIGITS.astype(np.uint8),
        lines(),
        np.where(lines() < 30, 0, 255).astype(np.uint8),
        blobs(64),
        blobs(128),
        blobs(128) + RNG.normal(0, 1e-3, (100, 128, 128, 1)),
        (RNG.random((100, 64, 64, 1)) < 5e-4),
        RNG.normal(size=(100, 16, 16, 1)),
        RNG.exponential(size=(100, 16, 16, 1)),
        np.zeros((5, 8, 8, 1)),
        # A lamp in the dark, or cells, in some of the images.
        noise_and_blobs(4, 245, 0.4),
        noise_and_blobs(200, 4000, 0.1).astype(np.uint16),
        # Few levels, some of them close together.
        RNG.choice([0, 60, 62, 64, 255], (100, 16, 16, 1)),
        RNG.choice([0, 126, 129, 255], (100, 16, 16, 1), p=[0.1, 0.05, 0.05, 0.8]),
        RNG.choice([-1.0, 0.0, 0.01, 1.0], (100, 16, 16, 1)),
    ],
)
def test_ordinary_and_sparse_images_fill_their_range(images):
    assert suitable_range(images, auto_value_range(images, images)) is None


@pytest.mark.parametrize(
    ("images", "value_range", "suitable"),
    [
        (with_values(DIGITS / 16, 1e-3, 1000), "auto", (0, 1)),  # some outliers
        (with_values(DIGITS / 16, 0.1, -9999), "auto", (0, 1)),  # missing data
        (with_values(PHOTOS / 255, 0.001, 1e20), "auto", (0, 1)),
        (np.concatenate([PHOTOS / 255, PHOTOS[:1] * 100.0]), "auto", (0, 1)),
        (DIGITS / 16, (0, 255), (0, 1)),  # given too wide
        (DIGITS, (-1000, 1000), (0, 16)),
        ((PHOTOS > 100).astype(np.uint8), (0, 255), (0, 1)),
        ((PHOTOS > 254).astype(np.uint8), (0, 255), (0, 1)),  # small masks
        ((PHOTOS > 254).astype(float), (-1000, 1000), (0, 1)),
        (with_one((PHOTOS > 253).astype(np.uint8), 255), "auto", (0, 1)),
    ],
)
def test_a_range_that_most_values_do_not_fill_warns_with_a_better_one(
    images, value_range, suitable
):
    vae = ConvVAE(**{**TINY, "epochs": 1, "value_range": value_range})
    with pytest.warns(UserWarning, match="Most values of X") as caught:
        vae.fit(images)
    n_outside = np.count_nonzero((images < suitable[0]) | (images > suitable[1]))
    message = str(caught[0].message)
    assert f"Set value_range=({suitable[0]:g}, {suitable[1]:g})" in message
    if 0 < n_outside < images.size / 20:
        assert f"{n_outside:,} of {images.size:,} values" in message
    low, high = suitable_range(images, vae.value_range_)
    assert (low, high) == pytest.approx(suitable, abs=0.005 * (high - low))


@pytest.mark.filterwarnings("ignore:Most values")
def test_the_collapse_warning_names_the_value_range_first():
    images = with_values(DIGITS / 16, 1e-3, 1000)
    with pytest.warns(PosteriorCollapseWarning, match=r"Try value_range=\(0, 1\)"):
        ConvVAE(**TINY).fit(images)


def test_masks_as_uint8_are_learned_as_those_of_bool():
    masks = DIGITS > 8
    vae = ConvVAE(**{**TINY, "epochs": 30, "latent_dim": 4, "filters": 8})
    expected = vae.fit(masks).inverse_transform(vae.transform(masks))
    decoded = vae.fit(masks.astype(np.uint8)).inverse_transform(vae.transform(masks))
    np.testing.assert_array_equal(decoded, expected)


FITTED = {
    "masks": PHOTOS > 253,
    "dim": PHOTOS // 5,
    "uint8": PHOTOS,
    "unit": PHOTOS / 255,
    "standardised": (PHOTOS - 127.5) / 73,
    "12 bits": RNG.integers(0, 4096, (50, 16, 16, 1)).astype(np.uint16),
}


@pytest.mark.parametrize(
    ("fitted", "X"),
    [
        ("uint8", PHOTOS / 255),
        ("uint8", PHOTOS[:1] / 255),
        ("uint8", PHOTOS / 127.5 - 1),
        ("uint8", PHOTOS.astype(np.uint16) * 257),
        ("unit", PHOTOS),
        ("unit", PHOTOS[:1].astype(np.float32)),
        ("unit", PHOTOS / 255 / 255),
        ("unit", FITTED["standardised"]),
        ("standardised", PHOTOS),
        ("12 bits", PHOTOS / 255),
        ("12 bits", PHOTOS // 4),
        ("12 bits", PHOTOS[:1]),
        ("unit", PHOTOS / 127.5 - 1),
        ("unit", PHOTOS / 127.5),
        ("masks", (PHOTOS > 253) * np.uint8(255)),
        ("uint8", PHOTOS[:1] > 100),
        ("dim", PHOTOS // 2),
    ],
)
@pytest.mark.parametrize("likelihood", ["gaussian", "bernoulli"])
def test_images_in_other_units_than_those_fitted_warn_once(fitted, X, likelihood):
    parameters = {**TINY, "epochs": 1, "warm_start": True, "likelihood": likelihood}
    vae = ConvVAE(**parameters).fit(FITTED[fitted])
    validated = ConvVAE(**parameters, early_stopping=True)
    for call in (
        vae.transform,
        vae.score_samples,
        vae.posterior,
        vae.fit,
        vae.partial_fit,
        lambda X: validated.fit(FITTED[fitted], X_val=X),
    ):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            warnings.filterwarnings("ignore", "likelihood='bernoulli' is for")
            warnings.simplefilter("ignore", PosteriorCollapseWarning)
            call(X)
        messages = [str(each.message) for each in caught]
        assert len(messages) == 1, (call, messages)
        assert f"{X.min():g} to {X.max():g}" in messages[0]
        assert "but the value range is (" in messages[0]


@pytest.mark.parametrize(
    ("fitted", "X"),
    [
        ("uint8", np.zeros((30, 16, 16, 1), np.uint8)),
        ("uint8", PHOTOS[:1] // 100),  # a dark image
        ("uint8", PHOTOS.astype(float)),
        ("unit", with_values(PHOTOS / 255, 0.01, 50.0)),  # some outliers
        ("unit", 1.2 * PHOTOS / 255 - 0.1),
        ("unit", PHOTOS / 255 / 5),
        ("standardised", RNG.normal(size=(20, 16, 16, 1))),
        ("12 bits", FITTED["12 bits"] // 3),
        ("masks", with_one(PHOTOS > 253, 1).astype(float)),
        ("masks", with_one(np.zeros((5, 16, 16, 1)), 100.0)),  # a broken pixel
    ],
)
def test_images_in_the_same_units_do_not_warn(fitted, X):
    vae = ConvVAE(**{**TINY, "epochs": 1}).fit(FITTED[fitted])
    vae.transform(X)
    vae.transform(X[:1])


def test_units_of_out_of_core_images_are_looked_at(tmp_path):
    np.save(tmp_path / "unit.npy", PHOTOS / 255)
    stored = np.load(tmp_path / "unit.npy", mmap_mode="r")
    vae = ConvVAE(**TINY).fit(PHOTOS)
    with pytest.warns(UserWarning, match="scaled differently"):
        vae.transform(stored)
