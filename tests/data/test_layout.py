"""Layouts, units and dtypes: what comes out matches what came in."""

import warnings

import numpy as np
import pandas as pd
import pytest
from helpers import TINY

from skvae import ConvVAE
from skvae.data.layout import ImageLayout, infer_layout
from skvae.data.value_range import auto_value_range

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(
    ("shape", "input_shape", "image_shape"),
    [
        ((5, 1), None, (1, 1, 1)),
        ((5, 64), None, (8, 8, 1)),
        ((5, 10), None, (1, 10, 1)),
        ((5, 105), (7, 5, 3), (7, 5, 3)),
        ((5, 784), (28, 28), (28, 28, 1)),
        ((5, 64), (4, 16), (4, 16, 1)),
        ((5, 7, 5), None, (7, 5, 1)),
        ((5, 7, 5), (7, 5), (7, 5, 1)),
        ((5, 7, 5), (7, 5, 1), (7, 5, 1)),
        ((5, 7, 5, 3), None, (7, 5, 3)),
        ((5, 7, 5, 1), (7, 5), (7, 5, 1)),
    ],
)
def test_layouts_are_inferred(shape, input_shape, image_shape):
    given = None if input_shape is None else (*input_shape, 1)[:3]
    layout = infer_layout(shape, given)
    assert layout.image_shape == image_shape
    array = RNG.random(shape)
    images = layout.to_images(layout.to_rows(array))
    assert images.shape == (5, *image_shape)
    np.testing.assert_array_equal(images.reshape(5, *layout.caller_shape), array)


@pytest.mark.parametrize(
    "shape", [(20, 1, 1), (20, 1, 9), (20, 7, 5, 3), (20, 28, 28), (20, 105), (20, 1)]
)
@pytest.mark.parametrize("dtype", ["uint8", "bool", "int16", "int64", "f2", "f4", "f8"])
def test_any_shape_and_dtype_works_with_four_layers(shape, dtype):
    X = (RNG.random(shape) * 1.99).astype(dtype)
    kept = X.copy()
    vae = ConvVAE(2, filters=2, epochs=1, random_state=0).fit(X)
    assert vae.n_features_in_ == np.prod(shape[1:])
    z = vae.transform(X)
    assert z.shape == (20, 2)
    assert z.dtype == np.float32
    for images in (vae.inverse_transform(z), vae.sample(20, random_state=0)):
        assert images.shape == shape
        assert images.dtype == np.float32
        low, high = vae.value_range_
        assert low <= images.min() <= images.max() <= high
    assert np.isfinite(vae.score_samples(X)).all()
    np.testing.assert_array_equal(X, kept)


def test_rows_images_frames_and_lists_train_alike(images):
    rows = images.reshape(len(images), -1)
    layouts = [
        images,
        images[..., None],
        rows,
        rows.tolist(),
        images.tolist(),
        pd.DataFrame(rows),
        np.asfortranarray(images),
        images.astype(">f8"),
    ]
    expected = ConvVAE(**TINY).fit(images).transform(images)
    for X in layouts:
        np.testing.assert_array_equal(ConvVAE(**TINY).fit_transform(X), expected)


def test_after_fit_rows_and_the_fitted_layout_are_equal(images):
    vae = ConvVAE(**TINY).fit(images)
    rows = images.reshape(len(images), -1)
    np.testing.assert_array_equal(vae.transform(rows), vae.transform(images))


def test_uint8_equals_the_same_images_as_floats():
    X = np.resize(np.arange(256, dtype=np.uint8), (64, 8, 8))
    as_uint8 = ConvVAE(**TINY).fit(X)
    for floats in (X / 255, (X / 255).astype(np.float32)):
        as_floats = ConvVAE(**TINY).fit(floats)
        for path, weight in as_uint8.weights_.items():
            np.testing.assert_array_equal(weight, as_floats.weights_[path])
        np.testing.assert_array_equal(
            as_uint8.transform(X), as_floats.transform(floats)
        )


def test_images_come_back_in_the_units_that_came_in(images):
    z = ConvVAE(**TINY).fit_transform(images)
    decoded = ConvVAE(**TINY).fit(images).inverse_transform(z)
    scaled = ConvVAE(**TINY).fit(images * 40 - 10)
    np.testing.assert_allclose(
        scaled.inverse_transform(z), decoded * 40 - 10, rtol=1e-4, atol=1e-3
    )
    assert scaled.noise_variance_ == pytest.approx(
        ConvVAE(**TINY).fit(images).noise_variance_ * 40**2, rel=1e-3
    )


@pytest.mark.parametrize("shape", [(70, 64), (70, 8, 8), (70, 4, 8, 2)])
def test_noise_variances_of_pixels_have_the_layout_that_came_in(images, shape):
    X = images.reshape(shape) * 40 - 10
    vae = ConvVAE(**TINY, noise_type="diag").fit(X)
    assert vae.noise_variance_.shape == shape[1:]
    errors = np.square(vae.inverse_transform(vae.transform(X)) - X).mean(axis=0)
    place = np.unravel_index(errors.argmax(), errors.shape)
    assert vae.noise_variance_[place] == pytest.approx(errors[place], rel=0.3)
    assert vae.noise_variance_.min() >= 1e-4 * 40**2 * (1 - 1e-9)


def test_64_bits_keep_small_differences_at_a_large_offset(images):
    far = images + 1e9
    vae = ConvVAE(**TINY).fit(far)
    near = ConvVAE(**TINY).fit(images)
    assert vae.value_range_ == (1e9, 1e9 + 1)
    np.testing.assert_allclose(vae.transform(far), near.transform(images), atol=1e-4)


@pytest.mark.parametrize(
    ("X", "value_range"),
    [
        (np.array([[3, 70]], np.uint8), (0, 255)),
        (np.array([[True, True]]), (0, 1)),
        (np.array([[0.2, 0.7]]), (0, 1)),
        (np.array([[0.2, 1.7]]), (0.2, 1.7)),
        (np.array([[-0.2, 0.7]], np.float32), pytest.approx((-0.2, 0.7))),
        (np.array([[0, 1]]), (0, 1)),
        (np.array([[0, 16]]), (0, 16)),
        (np.array([[1, 1]]), (1, 2)),
        (np.array([[5.0, 5.0]]), (5, 6)),
        (np.array([[1e17, 1e17]]), (1e17, 1e17 + 16)),
    ],
)
def test_automatic_value_range(X, value_range):
    assert auto_value_range(X, X) == value_range


def test_value_range_is_what_the_network_sees_as_the_unit_interval(images):
    given = ConvVAE(**TINY, value_range=(-1, 3)).fit(images)
    assert given.value_range_ == (-1.0, 3.0)
    moved = ConvVAE(**TINY, value_range=(0, 1)).fit((images + 1) / 4)
    np.testing.assert_allclose(
        given.transform(images), moved.transform((images + 1) / 4), atol=1e-5
    )


@pytest.mark.parametrize(
    ("shape", "remedy"),
    [
        ((4, 3, 12, 12), r"transpose\(0, 2, 3, 1\)"),
        ((4, 1, 12, 12), r"transpose\(0, 2, 3, 1\)"),
        ((4, 3 * 8 * 8), r"input_shape=\(8, 8, 3\)"),
    ],
)
def test_doubtful_guesses_warn_with_the_remedy(shape, remedy):
    X = RNG.random(shape)
    with pytest.warns(UserWarning, match=remedy):
        ConvVAE(2, filters=2).partial_fit(X)
    shape_as_guessed = shape[1:] if len(shape) == 4 else (1, shape[1])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ConvVAE(2, filters=2, input_shape=shape_as_guessed).partial_fit(X)


def test_bernoulli_clips_with_one_warning(images):
    vae = ConvVAE(**TINY, likelihood="bernoulli", value_range=(0, 0.5))
    with pytest.warns(UserWarning, match="clipped") as caught:
        vae.partial_fit(images)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    with pytest.warns(UserWarning, match="clipped"):
        z = vae.transform(images)
    np.testing.assert_array_equal(z, vae.transform(np.minimum(images, 0.5)))


@pytest.mark.parametrize(
    ("shape", "input_shape", "message"),
    [
        ((20, 65), None, r"a label.*8 x 8 pixels, remove it; .*\(1, 65\)"),
        ((20, 785), None, "28 x 28 pixels, remove it"),
        ((20, 3073), None, "colour images of 32 x 32 pixels, remove it"),
        ((64, 48, 3), None, r"64 grey images of 48 x 3.*X\[None\].*\(48, 3\)"),
        ((20, 30, 4), None, r"X\[None\]"),
        ((10, 16, 16, 16), None, "volumes.*slices"),
        ((10, 8, 9, 30), None, "volumes.*slices"),
        ((10, 3, 20, 16), None, r"X\.transpose\(0, 2, 3, 1\)"),
        ((5, 3072), (3, 32, 32), r"X\.reshape\(-1, 3, 32, 32\)\.transpose"),
        ((5, 4 * 9 * 7), (4, 9, 7), r"X\.reshape\(-1, 4, 9, 7\)\.transpose"),
        ((5, 3072), None, r"\(32, 32, 3\), or pass X\.reshape\(-1, 3, 32, 32\)"),
        ((5, 192), None, r"\(8, 8, 3\), or pass X\.reshape\(-1, 3, 8, 8\)"),
    ],
)
def test_a_layout_that_is_likely_another_warns(shape, input_shape, message):
    with pytest.warns(UserWarning, match=message):
        infer_layout(shape, input_shape)


@pytest.mark.parametrize(
    ("shape", "input_shape"),
    [
        ((20, 10), None),
        ((20, 65), (1, 65, 1)),
        ((64, 48, 3), (48, 3, 1)),
        ((20, 8, 8), None),
        ((20, 64, 48, 3), None),
        ((20, 64, 64, 10), None),  # some channels of a sensor
        ((10, 16, 16, 16), (16, 16, 16)),
        ((5, 3, 32, 32), (3, 32, 32)),
        ((5, 3072), (32, 32, 3)),
    ],
)
def test_usual_and_confirmed_layouts_do_not_warn(shape, input_shape):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        infer_layout(shape, input_shape)


@pytest.mark.parametrize("fitted", [(8, 6), (8, 6, 1), (48,)])
@pytest.mark.parametrize("shape", [(8, 6), (8, 6, 1), (48,)])
def test_one_image_after_fit_is_named_with_advice_that_works(fitted, shape):
    vae = ConvVAE(**TINY, input_shape=(8, 6)).fit(RNG.random((20, *fitted)))
    X = np.zeros(shape)
    with pytest.raises(ValueError, match="one image") as raised:
        vae.transform(X)
    advice = str(raised.value).split("data: ")[1].rstrip(".")
    batch = eval(advice, {"X": X})  # noqa: S307
    assert vae.transform(batch).shape == (1, vae.latent_dim)


@pytest.mark.parametrize(
    ("image_shape", "shape", "advice"),
    [
        ((8, 8, 1), (20, 8, 8, 1), r"X\.reshape\(-1, 8, 8\)"),
        ((8, 8, 1), (20, 1, 8, 8), r"X\.reshape\(-1, 8, 8\)"),
        ((8, 6, 3), (20, 3, 8, 6), r"X\.transpose\(0, 2, 3, 1\)\."),
        ((8, 6, 1), (20, 6, 8), r"\(n, 8, 6\)\.$"),
        ((8, 8, 3), (20, 4, 16, 3), r"\(n, 8, 8, 3\)\.$"),
    ],
)
def test_advice_for_another_layout_keeps_pixels_in_place(image_shape, shape, advice):
    caller_shape = image_shape[:2] if image_shape[2] == 1 else image_shape
    with pytest.raises(ValueError, match=advice):
        ImageLayout(image_shape, caller_shape).check_shape(shape)
