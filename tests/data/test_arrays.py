"""Types accepted as X and Z (arrays, tensors, sequences of images) and refused."""

from pathlib import Path

import keras
import numpy as np
import pandas as pd
import polars as pl
import pytest
import tensorflow as tf
from helpers import TINY
from PIL import Image

from skvae import ConvVAE

IMAGES = np.random.default_rng(0).integers(0, 256, (20, 6, 5)).astype(np.uint8)


class Tensor:
    """Tensor of another library, in memory."""

    def __init__(self, array):
        self._array = array
        self.shape, self.dtype = array.shape, array.dtype

    def __getitem__(self, key):
        raise AssertionError

    def __array__(self, dtype=None, copy=None):
        return self._array

    def __dlpack__(self, **_):
        raise AssertionError

    def __dlpack_device__(self):
        return 1, 0


class OnlyDLPack:
    """Tensor of a library that has DLPack alone."""

    shape = IMAGES.shape

    def __dlpack__(self, **kwargs):
        return IMAGES.__dlpack__(**kwargs)

    def __dlpack_device__(self):
        return IMAGES.__dlpack_device__()


class OnlyConvertible:
    def __array__(self, dtype=None, copy=None):
        return IMAGES


@pytest.mark.parametrize(
    "X",
    [
        tf.constant(IMAGES),
        tf.Variable(IMAGES),
        keras.ops.convert_to_tensor(IMAGES),
        keras.Variable(IMAGES, dtype="uint8"),
        Tensor(IMAGES),
        OnlyConvertible(),
        OnlyDLPack(),
        IMAGES.tolist(),
        list(IMAGES),
        tuple(tf.constant(image) for image in IMAGES),
        [Image.fromarray(image) for image in IMAGES],
        pd.Series(list(IMAGES)),
        pl.Series([image.ravel().tolist() for image in IMAGES]).to_list(),
        np.ma.masked_array(IMAGES),  # nothing is masked
        [np.ma.masked_array(image) for image in IMAGES],
        [list(image) for image in IMAGES],
        tf.constant(IMAGES, tf.bfloat16),  # exact up to 256
        IMAGES.astype(tf.bfloat16.as_numpy_dtype),
    ],
    ids=lambda X: type(X).__name__,
)
def test_what_has_images_of_one_shape_is_an_array(X):
    params = {**TINY, "epochs": 1, "value_range": (0, 255), "input_shape": (6, 5)}
    vae = ConvVAE(**params).fit(X)
    expected = ConvVAE(**params).fit(IMAGES)
    np.testing.assert_array_equal(vae.transform(X), expected.transform(IMAGES))
    np.testing.assert_array_equal(vae.score_samples(X), expected.score_samples(IMAGES))


def test_object_arrays_of_images_are_stacked():
    X = np.empty(len(IMAGES), object)
    X[:] = list(IMAGES)
    params = {**TINY, "epochs": 1}
    expected = ConvVAE(**params).fit(IMAGES)
    vae = ConvVAE(**params).fit(X)
    np.testing.assert_array_equal(vae.transform(X), expected.transform(IMAGES))


def test_a_decoder_s_output_can_be_encoded():
    vae = ConvVAE(**{**TINY, "epochs": 1}).fit(IMAGES[..., None])
    images = vae.to_keras().decoder(np.zeros((3, 2), np.float32)) * 255.0
    assert vae.transform(images).shape == (3, 2)
    assert vae.inverse_transform(tf.zeros((3, 2))).shape == (3, 6, 5, 1)


MASKED = np.ma.masked_equal(IMAGES, IMAGES[3, 0, 0])
LATENTS = np.ma.masked_array(np.zeros((2, 2)), mask=[[0, 0], [0, 1]])


class Stored:
    shape, dtype = MASKED.shape, MASKED.dtype

    def __getitem__(self, rows):
        return MASKED[rows]


def masked_dask():
    import dask.array as da

    return da.from_array(MASKED, chunks=(5, 6, 5))


@pytest.mark.parametrize(
    "X",
    [
        MASKED,
        list(MASKED),
        tuple(MASKED),
        pd.Series(list(MASKED)),
        Stored(),
        [list(image) for image in MASKED],
        [tuple([row] for row in image) for image in MASKED],
    ],
    ids=["array", "list", "tuple", "Series", "stored", "rows", "nested rows"],
)
def test_masked_values_are_refused_wherever_they_are(X):
    vae = ConvVAE(**{**TINY, "epochs": 1})
    with pytest.raises(ValueError, match="X has masked values"):
        vae.fit(X)
    vae.fit(IMAGES)
    for call in (vae.transform, vae.score_samples, vae.partial_fit):
        with pytest.raises(ValueError, match="X has masked values"):
            call(X)


def test_masked_values_of_dask_arrays_and_latents_are_refused():
    with pytest.raises(ValueError, match="X has masked values"):
        ConvVAE(**TINY).fit(masked_dask())
    vae = ConvVAE(**{**TINY, "epochs": 1}).fit(IMAGES)
    for Z in (LATENTS, list(LATENTS)):
        with pytest.raises(ValueError, match="Z has masked values"):
            vae.inverse_transform(Z)


class SparseImages:
    """As scipy's coo_array, which has more than two axes from version 1.15 on."""

    shape, dtype = IMAGES.shape, IMAGES.dtype

    def tocoo(self):
        raise AssertionError


def symbolic():
    return keras.Input((6, 5))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: tf.data.Dataset.from_tensor_slices(IMAGES), TypeError, "partial_fit"),
        (lambda: (image for image in IMAGES), TypeError, "got a generator.*np.stack"),
        (lambda: {"images": IMAGES}, TypeError, "got a dict.*one of its arrays"),
        (lambda: set("ab"), TypeError, "got a set"),
        (lambda: "images.npy", TypeError, "got a str.*np.load"),
        (lambda: Path("images.npy"), TypeError, "PosixPath.*np.load"),
        (symbolic, TypeError, "KerasTensor"),
        (lambda: [IMAGES[0], IMAGES[1, :4]], ValueError, r"\(4, 5\), \(6, 5\).*stack"),
        (lambda: pd.Series([IMAGES[0], IMAGES[0].T]), ValueError, "different shapes"),
        (SparseImages, TypeError, r"X\.toarray\(\)"),
        (object, TypeError, "got a object"),
        (lambda: np, TypeError, "got a module"),
        (lambda: tf.ragged.constant([[1.0], [2.0, 3.0]]), ValueError, "dense"),
        (lambda: tf.sparse.from_dense(IMAGES), ValueError, "dense"),
    ],
)
def test_what_is_no_array_is_refused_by_what_it_is(make, error, message):
    with pytest.raises(error, match=message):
        ConvVAE(**TINY).fit(make())
    vae = ConvVAE(**{**TINY, "epochs": 1}).fit(IMAGES)
    with pytest.raises(error, match=message):
        vae.transform(make())
