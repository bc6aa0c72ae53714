"""Bad input: a clear error each, and the estimator as it was."""

import copy
from pathlib import Path

import dask.array as da
import numpy as np
import pytest
from helpers import TINY, assert_unchanged
from scipy import sparse

from skvae import ConvVAE

GOOD = np.random.default_rng(0).random((20, 8, 8))
ROWS = GOOD.reshape(20, 64)


def with_value(value):
    X = GOOD.copy()
    X[3, 2, 1] = value
    return X


class NoArray:
    """As a tensor that is part of a gradient."""

    shape = (20, 64)

    def __array__(self, dtype=None, copy=None):
        raise RuntimeError("detach it first")


class NoParameters:
    """As a density of one's own, without scikit-learn's base."""

    def fit(self, X):
        return self

    sample = set_params = fit


# X, message
BAD_EVERYWHERE = {
    "nan": (with_value(np.nan), "NaN"),
    "infinity": (with_value(np.inf), "infinity"),
    "both infinities": (with_value(np.inf) - with_value(np.inf)[::-1], "infinity"),
    "complex": (GOOD + 1j, "Complex data not supported"),
    "complex rows": (ROWS + 1j, "Complex data not supported"),
    "sparse": (sparse.csr_array(ROWS), "[Ss]parse"),
    "strings": (ROWS.astype(str).tolist(), "strings"),
    "objects": (np.full((20, 64), object()), "Invalid X: float"),
    "ints beyond floats": ([[10**400] * 64] * 20, "Invalid X: int too large"),
    "beyond float64": (
        np.full((20, 64), np.finfo(np.longdouble).max),
        "too large|value.range",
    ),
    "masked": (np.ma.masked_less(ROWS, 0.5), "X has masked values"),
    "a class": (np.ndarray, "got a class ndarray"),
    "of unknown length": (da.from_array(ROWS)[da.from_array(ROWS)[:, 0] > 0], "chunk"),
    "what cannot be an array": (NoArray(), "cannot be converted.*: detach it first"),
    "words": ([["a", "b"], ["c", "d"]], "strings|convert"),
    "dates": (ROWS.astype("M8[s]"), "numeric"),
    "no rows": (GOOD[:0], "0 sample"),
    "no columns": (ROWS[:, :0], "0 feature"),
    "empty list": ([], "Expected 2D array|Reshape"),
    "ragged": ([[1.0, 2.0], [3.0]], "ragged"),
    "one image": (GOOD[0, 0], "Reshape your data"),
    "five axes": (GOOD[..., None, None], "shape"),
    "a number": (3.0, "2D array"),
    "none": (None, "got a NoneType"),
    "paths": (
        [Path("a.png"), Path("b.png")],
        r"X\[0\] must be an image.*Read the file",
    ),
}

BAD_AFTER_FIT = {
    "wrong width": (ROWS[:, :63], "63 features"),
    "wrong shape": (GOOD[:, :7], r"\(20, 7, 8\).*\(n, 8, 8\)"),
    "with channels": (GOOD[..., None], r"\(20, 8, 8, 1\)"),
    "channels first": (GOOD[:, None], r"\(20, 1, 8, 8\)"),
}

# parameters, X, message
BAD_FITS = {
    "input_shape that does not fit": ({"input_shape": (7, 9)}, ROWS, "input_shape"),
    "input_shape against images": ({"input_shape": (4, 16)}, GOOD, "input_shape"),
    "input_shape of one": ({"input_shape": (64,)}, ROWS, "input_shape"),
    "input_shape of floats": ({"input_shape": (8.0, 8)}, ROWS, "input_shape"),
    "input_shape of zero": ({"input_shape": (0, 64)}, ROWS, "input_shape"),
    "value_range reversed": ({"value_range": (1, 0)}, GOOD, "value.range"),
    "value_range of three": ({"value_range": (0, 1, 2)}, GOOD, "value.range"),
    "value_range of words": ({"value_range": ("a", "b")}, GOOD, "value.range"),
    "value_range infinite": ({"value_range": (0, np.inf)}, GOOD, "value.range"),
    "too large for float32": ({}, GOOD * 1e300, "float32"),
    "too small for float32": ({}, GOOD * 1e-300 - 1e-300, "float32"),
    "value_range beyond floats": ({"value_range": (0, 10**400)}, GOOD, "value.range"),
    "sampler that cannot be cloned": ({"sampler": NoParameters()}, GOOD, "sampler"),
    "bernoulli of linear outputs": (
        {"likelihood": "bernoulli", "last_activation": "linear"},
        GOOD,
        "last_activation",
    ),
    "nothing left to train on": ({"early_stopping": True}, GOOD[:1], "n_samples=1"),
    "latent_dim": ({"latent_dim": 0}, GOOD, "latent_dim"),
    "beta": ({"beta": -1}, GOOD, "beta"),
    "optimizer": ({"optimizer": "adan"}, GOOD, "optimizer"),
    "learning_rate": ({"learning_rate": 0}, GOOD, "learning_rate"),
    "learning_rate that float32 has as 0": (
        {"learning_rate": 1e-50},
        GOOD,
        "learning_rate",
    ),
    "beta that float32 has as infinity": ({"beta": 1e50}, GOOD, "beta"),
    "hidden_layers": ({"hidden_layers": 31}, GOOD, "hidden_layers"),
    "more weights than TensorFlow takes": ({"latent_dim": 2**40}, GOOD, "latent_dim"),
    "epochs": ({"epochs": 1.5}, GOOD, "epochs"),
}


@pytest.mark.parametrize("is_fitted", [False, True])
@pytest.mark.parametrize(("X", "message"), BAD_EVERYWHERE.values(), ids=BAD_EVERYWHERE)
def test_bad_images_are_refused(X, message, is_fitted):
    vae = ConvVAE(**TINY)
    if is_fitted:
        vae.fit(GOOD)
    before = copy.deepcopy(vae)
    methods = ["fit", "partial_fit"]
    if is_fitted:
        methods += ["transform", "posterior", "score_samples", "score"]
    for method in methods:
        with pytest.raises((ValueError, TypeError), match=message):
            getattr(vae, method)(X)
        assert_unchanged(vae, before)


@pytest.mark.parametrize(("X", "message"), BAD_AFTER_FIT.values(), ids=BAD_AFTER_FIT)
def test_other_images_than_fitted_are_refused(X, message):
    vae = ConvVAE(**TINY, warm_start=True).fit(GOOD)
    before = copy.deepcopy(vae)
    for method in ("transform", "posterior", "score_samples", "partial_fit", "fit"):
        with pytest.raises(ValueError, match=message):
            getattr(vae, method)(X)
        assert_unchanged(vae, before)


def test_channels_first_images_after_channels_last_are_refused():
    X = np.random.default_rng(0).random((20, 8, 8, 3))
    vae = ConvVAE(**TINY).fit(X)
    with pytest.raises(ValueError, match=r"\(20, 3, 8, 8\).*\(n, 8, 8, 3\)"):
        vae.transform(X.transpose(0, 3, 1, 2))


@pytest.mark.parametrize("is_fitted", [False, True])
@pytest.mark.parametrize(
    ("parameters", "X", "message"), BAD_FITS.values(), ids=BAD_FITS
)
def test_bad_fits_are_refused(parameters, X, message, is_fitted):
    vae = ConvVAE(**TINY)
    if is_fitted:
        vae.fit(GOOD)
    before = copy.deepcopy(vae).set_params(**parameters)
    vae.set_params(**parameters)
    with pytest.raises((ValueError, TypeError), match=message):
        vae.fit(X)
    assert_unchanged(vae, before)


def test_a_failed_fit_keeps_the_names_of_the_last_one():
    import pandas as pd

    frame = pd.DataFrame(ROWS, columns=[f"pixel{i}" for i in range(64)])
    vae = ConvVAE(**TINY).fit(frame)
    with pytest.raises(ValueError, match="NaN"):
        vae.fit(np.full((3, 9), np.nan))
    with pytest.raises(ValueError, match="learning_rate"):
        vae.set_params(learning_rate=1e30).fit(ROWS[:, :9])
    assert list(vae.feature_names_in_) == list(frame.columns)
    assert vae.n_features_in_ == 64


@pytest.mark.parametrize(
    ("Z", "message"),
    [
        (np.zeros((3, 5)), "latent_dim=2"),
        (np.zeros(2), "Reshape your data"),
        (np.full((3, 2), np.nan), "NaN"),
        (np.array([[-np.inf, np.inf]]), "infinity"),
        (np.full((3, 2), 1e300), "too large for dtype"),
        ([[0j, 0j]], "Complex data not supported"),
        ([[0.0, 0.0], [0.0]], "Z is ragged"),
        (np.zeros((0, 2)), "0 sample"),
        ([["a", "b"]], "Invalid Z"),
        ([[10**400, 0]], "Invalid Z: int too large"),
        (np.zeros((3, 2), "M8[s]"), "Z must be numeric"),
        (np.ma.masked_less(np.zeros((3, 2)), 1), "Z has masked values"),
    ],
)
def test_bad_latents_are_refused(fitted, Z, message):
    with pytest.raises(ValueError, match=message):
        fitted.inverse_transform(Z)


@pytest.mark.parametrize(
    ("X_val", "message"),
    [
        (GOOD[:, :7], r"Invalid X_val: .*\(20, 7, 8\)"),
        (ROWS[:, :9], "Invalid X_val: .*9 features"),
        (with_value(np.nan), "Invalid X_val: .*NaN"),
        (with_value(0) * 1e30, "X_val"),
    ],
)
@pytest.mark.filterwarnings("ignore:X_val has values")
def test_bad_validation_images_are_refused(X_val, message):
    vae = ConvVAE(**TINY, early_stopping=True)
    with pytest.raises(ValueError, match=message):
        vae.fit(GOOD, X_val=X_val)
    assert not hasattr(vae, "n_features_in_")


def test_numbers_of_small_dtypes_and_huge_ints_are_parameters(fitted):
    half = np.float16(0.5)
    vae = ConvVAE(
        **TINY, beta=half, tol=half, value_range=(np.float16(0), np.float16(1))
    )
    vae.set_params(kl_warmup_epochs=2**2000).fit(GOOD)
    assert fitted.sample(True).shape == (1, 8, 8)


def test_validation_images_without_early_stopping_are_refused():
    with pytest.raises(ValueError, match="early_stopping=True"):
        ConvVAE(**TINY).fit(GOOD, X_val=GOOD)


@pytest.mark.parametrize(
    ("method", "arguments", "name"),
    [
        ("sample", {"n_samples": 0}, "n_samples"),
        ("sample", {"n_samples": 1.5}, "n_samples"),
        ("sample", {"n_samples": 2**63}, "n_samples"),
        ("score_samples", {"X": GOOD, "n_draws": 2**63}, "n_draws"),
        ("sample", {"random_state": "seed"}, "random_state"),
        ("sample", {"random_state": -1}, "random_state"),
        ("score_samples", {"X": GOOD, "n_draws": 0}, "n_draws"),
        ("score_samples", {"X": GOOD, "n_draws": "many"}, "n_draws"),
    ],
)
def test_bad_arguments_are_refused(method, arguments, name):
    vae = ConvVAE(**TINY).fit(GOOD)
    with pytest.raises((ValueError, TypeError), match=name):
        getattr(vae, method)(**arguments)
