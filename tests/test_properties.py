"""Whatever the input: a result that holds what is promised, or an error that names it.

Each property is tried on some examples here, and on as many as one likes with

    pytest tests/test_properties.py --hypothesis-profile=thorough
"""

import copy
import functools
import re
import warnings

import numpy as np
import pytest
from helpers import TINY, assert_unchanged
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

from skvae import ConvVAE
from skvae.exceptions import PosteriorCollapseWarning

# Shapes of an image: a few, whose networks stay compiled.
SHAPES = [(1,), (6,), (9,), (2, 3), (3, 3), (1, 4, 2), (2, 3, 1)]
NUMERIC = ["?", "u1", "i1", "<u2", ">u2", "<i4", ">i8", "<u8"]
NUMERIC += ["<f2", ">f2", "<f4", ">f4", "<f8", ">f8", "g"]
NO_NUMBERS = ["<c8", "<c16", "U3", "S3", "M8[s]", "m8[s]", "O", "V4"]
EXTREMES = [0.0, 1.0, -1.0, 1e-300, 1e300, -1e300, 5e-324, 1e-45, 3.4e38, 1e18, 1e19]
NOT_FINITE = [np.nan, np.inf, -np.inf]


@functools.cache
def fitted(shape):
    X = np.random.default_rng(0).random((20, *shape))
    parameters = {**TINY, "hidden_layers": 1, "filters": 1}
    return ConvVAE(**parameters, sampler=GaussianMixture(2)).fit(X)


@st.composite
def values(draw, shape):
    """An array of that shape, of any dtype, with any values."""
    dtype = np.dtype(draw(st.sampled_from(NUMERIC + NO_NUMBERS)))
    if dtype.kind == "f":
        elements = st.one_of(
            st.floats(0, 1), st.floats(), st.sampled_from(EXTREMES + NOT_FINITE)
        )
        if not draw(st.booleans()):
            elements = st.one_of(st.floats(0, 1), st.sampled_from(EXTREMES))
        wide = draw(arrays.arrays("f8", shape, elements=elements))
        with np.errstate(all="ignore"):
            return wide.astype(dtype)
    if dtype.kind == "O":
        return np.full(shape, draw(st.sampled_from([None, "a", 1, 0.5, object()])))
    if dtype.kind == "V":
        return np.zeros(shape, dtype)
    return draw(arrays.arrays(dtype, shape))


@st.composite
def layouts(draw, array):
    """The same values, otherwise in memory."""
    how = draw(st.sampled_from(["C", "F", "reversed", "strided", "constant", "list"]))
    if how == "F":
        array = np.asfortranarray(array)
    elif how == "reversed":
        array = array[::-1, ..., ::-1]
    elif how == "strided":
        array = np.repeat(array, 2, axis=0)[::2]
    elif how == "constant" and array.size:
        array = np.broadcast_to(array[:1], array.shape)
    elif how == "list" and array.dtype.kind != "V":
        return array.tolist()
    if draw(st.booleans()):
        array = array.view()
        array.flags.writeable = False
    return array


@st.composite
def images(draw, shapes):
    shape = draw(shapes)
    n = draw(st.sampled_from([0, 1, 2, 5, 17]))
    return draw(layouts(draw(values((n, *shape)))))


def outcome(estimator, function, names):
    """Result of a function, or None if it raises an error that is expected.

    No other error, no warning but skvae's own, and no change that was not asked for.
    """
    before = ConvVAE()
    before.__dict__ = vars(estimator) | {
        name: copy.deepcopy(value)
        for name, value in vars(estimator).items()
        if name not in before.get_params()
    }
    result, refused = None, None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            result = function()
        except (ValueError, TypeError) as error:
            refused = str(error)
    if refused is not None:
        assert re.search(names, refused), refused
        assert_unchanged(estimator, before)
    for each in caught:
        assert each.category in (
            UserWarning,
            PosteriorCollapseWarning,
            ConvergenceWarning,
        ), each
        assert re.search(r"\bX\b|posterior", str(each.message)), each
    return result


def assert_result(array, shape, dtype=np.float32):
    assert array.shape == shape
    assert array.dtype == dtype
    assert np.isfinite(array).all()


def contents(X):
    return repr(X) if isinstance(X, list) else X.tobytes()


# The argument, what becomes of it within the network, and where its units fail.
OVERFLOW = "the input has values that are too large"
OF_IMAGES = rf"\bX\b|value range|value_range|{OVERFLOW}"


@given(
    X=images(st.sampled_from(SHAPES)),
    epochs=st.sampled_from([1, 2]),
    likelihood=st.sampled_from(["gaussian", "mse", "bernoulli"]),
)
def test_any_array_is_fitted_and_comes_back_or_is_refused(X, epochs, likelihood):
    kept = contents(X)
    vae = ConvVAE(
        1,
        filters=1,
        hidden_layers=1,
        epochs=epochs,
        batch_size=4,
        random_state=0,
        likelihood=likelihood,
    )
    fit = outcome(vae, lambda: vae.fit(X), OF_IMAGES)
    assert contents(X) == kept
    if fit is None:
        return
    shape = np.shape(X)
    for name, values in vae.history_.items():
        assert len(values) == epochs, name
        assert np.isfinite(values).all(), name
    z = outcome(vae, lambda: vae.transform(X), OF_IMAGES)
    if z is not None:
        assert_result(z, (len(X), 1))
        decoded = outcome(vae, lambda: vae.inverse_transform(z), OVERFLOW)
        if decoded is not None:
            assert_result(decoded, shape)
    scores = outcome(vae, lambda: vae.score_samples(X, n_draws=2), OF_IMAGES)
    if scores is not None:
        assert_result(scores, (len(X),), np.float64)
    assert_result(vae.sample(2, random_state=0), (2, *shape[1:]))
    assert contents(X) == kept


@given(shape=st.sampled_from(SHAPES), data=st.data())
def test_a_fitted_estimator_takes_any_array_or_refuses_it(shape, data):
    vae = fitted(shape)
    own = st.sampled_from([shape, (int(np.prod(shape)),)])
    X = data.draw(images(st.one_of(own, own, st.sampled_from(SHAPES))))
    kept = contents(X)
    for method, width, dtype in [
        ("transform", (2,), np.float32),
        ("score_samples", (), np.float64),
    ]:
        result = outcome(vae, lambda m=method: getattr(vae, m)(X), OF_IMAGES)
        if result is not None:
            assert_result(result, (len(X), *width), dtype)
    posterior = outcome(vae, lambda: vae.posterior(X), OF_IMAGES)
    if posterior is not None:
        for part in posterior:
            assert_result(part, (len(X), 2))
    assert contents(X) == kept


@given(shape=st.sampled_from(SHAPES), data=st.data())
def test_any_latents_are_decoded_or_refused(shape, data):
    vae = fitted(shape)
    n_columns = data.draw(st.sampled_from([2, 2, 2, 1, 3, 0]))
    Z = data.draw(images(st.just((n_columns,))))
    kept = contents(Z)
    X = outcome(vae, lambda: vae.inverse_transform(Z), rf"\bZ\b|{OVERFLOW}")
    if X is not None:
        assert_result(X, (len(Z), *shape))
    assert contents(Z) == kept


# Values of every wrong type and range. What is right would take for ever if large.
NO_COUNTS = [0, -1, -(2**70), 1.5, 1.0, np.nan, np.inf, "1", None, [], (1,), {}, b"1"]
NO_COUNTS += [object(), int, 1j, np.zeros(2), np.float32(2), GaussianMixture]
NUMBERS = [0, 1, 0.5, -1e-300, 1e-300, 1e300, 3.4e38, 1e38, 1e6, 1e-6, *NO_COUNTS]
PAIRS = [(0, 1), (1, 0), [0, 2], (0, 1e-45), (-3e38, 3e38), (0, 1e300), (np.nan, 1)]
SIZES = [1, 2, True, np.int8(2), 2**40, 2**70, *NO_COUNTS]
COUNTS = [1, 2, True, np.int8(2), 2**31, 2**63, 2**70, *NO_COUNTS]
FLAGS = [True, False, *NO_COUNTS]
NAMES = ["gaussian", "mse", "bernoulli", "sigmoid", "linear", "relu", "", "adam", "sgd"]
NAMES += ["nadam", "float32", "mixed_bfloat16", "mixed_float16", "auto"]
NAMES += [*PAIRS, *NO_COUNTS]
PARAMETERS = {
    "latent_dim": SIZES,
    "filters": SIZES,
    "kernel_size": SIZES,
    "hidden_layers": [1, 2, 29, 31, 2**70, *NO_COUNTS],
    "epochs": [1, 2, *NO_COUNTS],
    "batch_size": COUNTS,
    "n_iter_no_change": COUNTS,
    "kl_warmup_epochs": COUNTS,
    "beta": NUMBERS,
    "free_bits": NUMBERS,
    "learning_rate": NUMBERS,
    "tol": NUMBERS,
    "validation_fraction": NUMBERS,
    "input_shape": [(2, 3), (3, 2, 1), [6, 1], (6,), (2, 2**70), (0, 6), *NO_COUNTS],
    "last_activation": NAMES,
    "likelihood": NAMES,
    "optimizer": NAMES,
    "dtype_policy": NAMES,
    "value_range": NAMES,
    "early_stopping": FLAGS,
    "warm_start": FLAGS,
    "sampler": [GaussianMixture(2), *NO_COUNTS],
    "random_state": [0, 2**32 - 1, 2**32, np.random.RandomState(0), *NO_COUNTS],
    "verbose": [0, False, -1, "1", None, 0.5, [], object()],
}


@pytest.mark.parametrize("n_changed", [1, 2])
@given(data=st.data())
def test_any_parameters_are_fitted_or_refused_by_name(n_changed, data):
    names = data.draw(
        st.lists(
            st.sampled_from(sorted(PARAMETERS)),
            min_size=n_changed,
            max_size=n_changed,
            unique=True,
        )
    )
    changed = {name: data.draw(st.sampled_from(PARAMETERS[name])) for name in names}
    X = np.random.default_rng(0).random((7, 6))
    vae = copy.deepcopy(fitted((6,)))
    vae.set_params(**{"epochs": 2, "sampler": None, **changed})
    own = "|".join([*names, "value range", "n_samples"])
    # What diverges is one of these.
    if {"beta", "learning_rate", "value_range", "free_bits"} & set(names):
        own += "|learning_rate"
    fit = outcome(vae, lambda: vae.fit(X), own)
    if fit is not None:
        latent_dim = int(vae.latent_dim)
        assert_result(vae.transform(X), (7, latent_dim))
        assert_result(vae.latent_kl_, (latent_dim,))
        # Weights may be huge.
        images = outcome(vae, lambda: vae.sample(2, random_state=0), "overflow")
        if images is not None:
            assert_result(images, (2, 6))
        scores = outcome(vae, lambda: vae.score_samples(X), "overflow")
        if scores is not None:
            assert_result(scores, (7,), np.float64)
