"""ConvVAEOutlierDetector: scikit-learn's contract, the threshold, error maps."""

import os
import warnings
from copy import deepcopy

import h5py
import joblib
import numpy as np
import pandas as pd
import polars as pl
import pytest
import skops.io
import zarr
from helpers import TINY, assert_same_fit
from sklearn.base import clone, is_outlier_detector
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError, SkipTestWarning
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.neighbors import KernelDensity
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler
from sklearn.utils.estimator_checks import check_estimator

from skvae import ConvVAE, ConvVAEOutlierDetector, outliers


def tiny_detector(**parameters):
    vae = ConvVAE(**{**TINY, "random_state": None, **parameters})
    return ConvVAEOutlierDetector(vae, random_state=0)


@pytest.fixture
def detector(images):
    return tiny_detector().fit(images)


def assert_same_detector(first, second):
    assert_same_fit(first.estimator_, second.estimator_)
    assert first.offset_ == second.offset_
    assert first.n_features_in_ == second.n_features_in_


class Spy(ConvVAE):
    """ConvVAE that keeps what it is fitted on and what it scores."""

    fitted_on, scored = [], []

    def fit(self, X, y=None, X_val=None):
        self.fitted_on.append(np.asarray(X))
        return super().fit(X, y, X_val)

    def score_samples(self, X, n_draws=64):
        scores = super().score_samples(X, n_draws)
        self.scored.append((np.asarray(X), scores))
        return scores


@pytest.fixture
def spy():
    Spy.fitted_on.clear()
    Spy.scored.clear()
    return Spy(**TINY)


# scikit-learn's contract.


@pytest.mark.slow
@pytest.mark.parametrize("vae", [ConvVAE(**TINY), ConvVAE()], ids=["tiny", "defaults"])
def test_check_estimator_passes_with_no_check_skipped(vae, monkeypatch):
    """With almost all images set aside.

    One of the checks is that exactly `contamination` of the images given to `fit` are
    found. Here the threshold is that of the images set aside, which are then all but
    three.
    """
    # Without it scikit-learn skips a check that numpy input can pass.
    monkeypatch.setitem(os.environ, "SCIPY_ARRAY_API", "1")
    detector = ConvVAEOutlierDetector(vae, calibration_fraction=0.99)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", SkipTestWarning)
        results = check_estimator(detector)
    names = {result["check_name"] for result in results}
    assert {"check_outliers_train", "check_outliers_fit_predict"} < names
    assert len(results) >= 40
    assert {result["status"] for result in results} == {"passed"}


def test_it_is_an_outlier_detector(images, detector):
    assert is_outlier_detector(detector)
    scores = detector.score_samples(images)
    decision = detector.decision_function(images)
    np.testing.assert_array_equal(scores, detector.estimator_.score_samples(images))
    np.testing.assert_array_equal(decision, scores - detector.offset_)
    labels = detector.predict(images)
    np.testing.assert_array_equal(labels, np.where(decision < 0, -1, 1))
    assert labels.dtype == np.int64
    assert set(labels) == {-1, 1}
    again = clone(detector).fit_predict(images)
    np.testing.assert_array_equal(again, labels)


def test_the_default_estimator_stops_early():
    detector = ConvVAEOutlierDetector(random_state=0).fit(np.eye(60))
    expected = ConvVAE(early_stopping=True, random_state=0).get_params()
    assert detector.estimator_.get_params() == expected
    assert "val_loss" in detector.estimator_.history_
    assert detector.estimator is None


def test_constructor_only_assigns():
    wrong = object()
    parameters = {"contamination": wrong, "random_state": wrong}
    parameters |= {"calibration_fraction": wrong}
    params = ConvVAEOutlierDetector(wrong, **parameters).get_params(deep=False)
    assert params == {"estimator": wrong, **parameters}


def test_clone_and_parameters_of_the_estimator(detector):
    copied = clone(detector).set_params(estimator__latent_dim=3, contamination=0.2)
    assert copied.estimator.latent_dim == 3
    assert detector.estimator.latent_dim == 2
    assert not hasattr(copied, "offset_")
    assert not hasattr(copied, "n_features_in_")


def test_unfitted_detector_says_so(images):
    for method in ("score_samples", "decision_function", "predict", "error_map"):
        with pytest.raises(NotFittedError):
            getattr(ConvVAEOutlierDetector(), method)(images)


def test_pipeline_and_search_with_labels():
    """Zeros are normal, ones are not; `roc_auc` uses the decision function."""
    rows, digits = load_digits(n_class=2, return_X_y=True)
    rows, y = rows[:150], np.where(digits[:150] == 0, 1, -1)
    keep = (y == 1) | (np.arange(150) % 4 == 0)
    rows, y = rows[keep], y[keep]
    vae = ConvVAE(**{**TINY, "epochs": 20, "filters": 8})
    detector = ConvVAEOutlierDetector(vae, contamination=0.2)
    pipeline = make_pipeline(MinMaxScaler(), detector)
    name = "convvaeoutlierdetector__estimator__latent_dim"
    folds = StratifiedKFold(2, shuffle=True, random_state=0)
    search = GridSearchCV(pipeline, {name: [1, 2]}, scoring="roc_auc", cv=folds)
    search.fit(rows, y)
    assert search.best_score_ > 0.8
    best = search.best_estimator_
    assert best[-1].estimator_.latent_dim == search.best_params_[name]
    is_found = best.predict(rows) == -1
    assert is_found[y == -1].mean() > is_found[y == 1].mean()

    detector = tiny_detector().set_params(contamination=0.2)
    alone = GridSearchCV(detector, {"estimator__latent_dim": [1, 2]}, cv=folds)
    alone.set_params(scoring="roc_auc").fit(rows / 16, y)
    assert np.isfinite(alone.cv_results_["mean_test_score"]).all()


def test_files(images, detector, tmp_path):
    joblib.dump(detector, tmp_path / "detector.joblib")
    skops.io.dump(detector, tmp_path / "detector.skops")
    types = skops.io.get_untrusted_types(file=tmp_path / "detector.skops")
    assert types == [
        "skvae.estimator.ConvVAE",
        "skvae.outliers.ConvVAEOutlierDetector",
    ]
    for loaded in (
        joblib.load(tmp_path / "detector.joblib"),
        skops.io.load(tmp_path / "detector.skops", trusted=types),
        deepcopy(detector),
    ):
        assert_same_detector(loaded, detector)
        np.testing.assert_array_equal(
            loaded.decision_function(images), detector.decision_function(images)
        )


@pytest.mark.parametrize(
    "table", [pd.DataFrame, pl.DataFrame], ids=["pandas", "polars"]
)
def test_names_of_columns_are_checked(images, table):
    rows = images.reshape(70, 64)
    names = [f"pixel{i}" for i in range(64)]
    frame = table(dict(zip(names, rows.T, strict=True)))
    detector, expected = tiny_detector().fit(frame), tiny_detector().fit(rows)
    assert_same_detector(detector, expected)
    assert list(detector.feature_names_in_) == names
    assert not hasattr(expected, "feature_names_in_")
    labels = detector.predict(frame)
    np.testing.assert_array_equal(labels, expected.predict(rows))
    np.testing.assert_array_equal(detector.error_map(frame), expected.error_map(rows))
    for method in (detector.predict, detector.error_map):
        with pytest.raises(ValueError, match="feature names"):
            method(frame[names[::-1]])
    assert not hasattr(detector.fit(rows), "feature_names_in_")


# The threshold.


@pytest.mark.parametrize(
    ("fraction", "n_aside"), [(0.2, 14), (0.06, 4), (0.5, 35), (0.999, 69)]
)
def test_the_threshold_is_from_images_set_aside(images, spy, fraction, n_aside):
    detector = ConvVAEOutlierDetector(
        spy, contamination=0.3, calibration_fraction=fraction, random_state=0
    )
    detector.fit(images)
    (fitted_on,), ((aside, scores),) = Spy.fitted_on, Spy.scored
    assert len(aside) == n_aside
    both = [image.tobytes() for image in (*fitted_on, *aside)]
    assert sorted(both) == sorted(image.tobytes() for image in images)
    assert detector.offset_ == np.quantile(scores, 0.3)


def test_at_least_one_image_is_set_aside(images, spy):
    detector = ConvVAEOutlierDetector(spy, calibration_fraction=0.001)
    with pytest.warns(UserWarning, match="1 of 70"):
        detector.fit(images)
    ((aside, scores),) = Spy.scored
    assert len(aside) == 1
    assert detector.offset_ == scores[0]


def blobs(n, seed):
    """Images (n, 8, 8) of one bright spot somewhere, with noise."""
    rng = np.random.default_rng(seed)
    centres = rng.uniform(2, 5, (2, n, 1))
    across, down = (np.exp(-((np.arange(8) - c) ** 2) / 2) for c in centres)
    return across[:, None] * down[..., None] + rng.normal(0, 0.05, (n, 8, 8))


@pytest.fixture(scope="module")
def blob_detector():
    vae = ConvVAE(4, filters=8, hidden_layers=2, epochs=12, value_range=(0, 1))
    return ConvVAEOutlierDetector(vae, random_state=0).fit(blobs(2000, seed=1))


@pytest.mark.parametrize("contamination", [0.05, 0.1, 0.3])
def test_of_new_images_contamination_is_found(blob_detector, contamination):
    detector = clone(blob_detector).set_params(contamination=contamination)
    detector.fit(blobs(2000, seed=1))
    found = (detector.predict(blobs(2000, seed=2)) == -1).mean()
    # Both of the new images and of the 400 set aside.
    error = np.sqrt(contamination * (1 - contamination) * (1 / 2000 + 1 / 400))
    assert abs(found - contamination) < 3 * error


@pytest.mark.parametrize("kind", ["noise", "two spots", "stripes"])
def test_images_of_another_kind_are_found(blob_detector, kind):
    images = blobs(300, seed=3)
    odd = {
        "noise": np.random.default_rng(0).random(images.shape),
        "two spots": np.maximum(images, images[:, ::-1, ::-1]),
        "stripes": np.tile(np.arange(8) % 2 / 2, (300, 8, 1)) + 0.01 * images,
    }[kind]
    assert (blob_detector.predict(odd) == -1).mean() > 0.7


@pytest.mark.slow
def test_nines_are_found_by_a_detector_of_the_other_digits():
    images, labels = load_digits().images / 16, load_digits().target
    vae = ConvVAE(8, filters=32, hidden_layers=2, epochs=300, early_stopping=True)
    for seed in range(3):
        detector = ConvVAEOutlierDetector(vae, random_state=seed)
        detector.fit(images[labels != 9])
        assert (detector.predict(images[labels == 9]) == -1).mean() > 0.7


# Layouts and storages.


@pytest.mark.parametrize("shape", [(64,), (8, 8), (8, 8, 1), (4, 4, 4)])
def test_every_layout(images, shape):
    X = np.round(255 * images).astype(np.uint8).reshape(-1, *shape)
    detector = tiny_detector(input_shape=(4, 4, 4) if shape[2:] == (4,) else None)
    detector.fit(X)
    assert detector.n_features_in_ == 64
    assert detector.estimator_.inverse_transform(np.zeros((1, 2))).shape[1:] == shape
    errors = detector.error_map(X)
    assert errors.shape == X.shape
    rows = X.reshape(70, 64)
    np.testing.assert_array_equal(detector.predict(rows), detector.predict(X))
    np.testing.assert_array_equal(detector.error_map(rows), errors.reshape(70, 64))
    assert_same_detector(clone(detector).fit(X.tolist()), clone(detector).fit(X * 1))


class Slices:
    """Nothing but `shape`, `dtype` and slicing, and a list of what was read."""

    def __init__(self, array):
        self.shape, self.dtype = array.shape, array.dtype
        self.array, self.lengths = array, []

    def __getitem__(self, key):
        assert isinstance(key, slice)
        part = self.array[key]
        self.lengths.append(len(part))
        return part


def as_memory_map(array, path):
    np.save(path / "images.npy", array)
    return np.load(path / "images.npy", mmap_mode="r")


def as_h5py(array, path):
    file = h5py.File(path / "images.h5", "w")
    return file.create_dataset("images", data=array, chunks=(3, *array.shape[1:]))


def as_zarr(array, path):
    stored = zarr.create_array(
        str(path / "images.zarr"), shape=array.shape, dtype=array.dtype
    )
    stored[:] = array
    return stored


@pytest.mark.parametrize(
    "store", [as_memory_map, as_h5py, as_zarr, lambda array, _: Slices(array)]
)
def test_out_of_core_images_give_the_same_bits(images, store, tmp_path):
    detector = tiny_detector(early_stopping=True).fit(images)
    X = store(images, tmp_path)
    stored = tiny_detector(early_stopping=True).fit(X)
    assert_same_detector(stored, detector)
    np.testing.assert_array_equal(stored.predict(X), detector.predict(images))
    errors = np.lib.format.open_memmap(
        tmp_path / "errors.npy", "w+", np.float32, images.shape
    )
    assert stored.error_map(X, out=errors) is errors
    np.testing.assert_allclose(errors, detector.error_map(images), rtol=1e-6)


def test_out_of_core_images_are_never_read_at_once():
    X = np.random.default_rng(0).integers(0, 256, (4096, 32, 32), np.uint8)
    stored = Slices(X)
    detector = tiny_detector(epochs=1, batch_size=256)
    detector.fit(stored).error_map(stored, out=np.empty(X.shape, np.float32))
    assert max(stored.lengths) <= 1024  # of 1 kB each
    assert_same_detector(detector, clone(detector).fit(X))


# Error maps.


@pytest.mark.parametrize("likelihood", ["gaussian", "mse", "bernoulli"])
def test_error_map_is_the_squared_error_over_the_noise_variance(images, likelihood):
    X = 16 * images
    detector = tiny_detector(likelihood=likelihood).fit(X)
    vae = detector.estimator_
    decoded = vae.inverse_transform(vae.transform(X)).astype(np.float64)
    variance = {"mse": 0.5 * 16**2, "bernoulli": 1.0}.get(likelihood)
    expected = (X - decoded) ** 2 / (variance or vae.noise_variance_)
    errors = detector.error_map(X)
    assert errors.dtype == np.float64
    np.testing.assert_allclose(errors, expected, rtol=1e-12)


@pytest.mark.parametrize("layout", [(8, 8), (64,)])
def test_error_map_with_a_noise_variance_for_each_pixel(images, layout):
    X = images.reshape(-1, *layout)
    detector = tiny_detector().fit(X)
    plain = detector.error_map(X) * detector.estimator_.noise_variance_
    variances = np.random.default_rng(0).uniform(0.1, 2, layout)
    detector.estimator_.noise_variance_ = variances
    np.testing.assert_allclose(detector.error_map(X), plain / variances)
    rows = images.reshape(70, 64)
    expected = plain.reshape(70, 64) / variances.ravel()
    np.testing.assert_allclose(detector.error_map(rows), expected)


def test_error_map_in_chunks(images, detector, monkeypatch):
    expected = detector.error_map(images)
    monkeypatch.setattr(outliers, "_CHUNK_VALUES", 9 * 64)
    out = np.full(images.shape, np.nan)
    np.testing.assert_array_equal(detector.error_map(images, out=out), expected)


def test_error_map_refuses_an_unsuitable_out(images, detector):
    with pytest.raises(ValueError, match=r"out must have the result's shape"):
        detector.error_map(images, out=np.empty((70, 64)))
    with pytest.raises(TypeError, match="out must be an array of float32 or float64"):
        detector.error_map(images, out=np.empty(images.shape, np.uint8))
    with pytest.raises(ValueError, match="out shares memory"):
        detector.error_map(images, out=images)


# Seeds.


def test_the_seed_is_passed_on_unless_the_estimator_has_one(images):
    first, second, other = (
        tiny_detector().set_params(random_state=seed).fit(images)
        for seed in (7, np.int64(7), 8)
    )
    assert first.estimator_.random_state == 7
    assert_same_detector(first, second)
    assert first.offset_ != other.offset_
    own = tiny_detector(random_state=3).fit(images)
    assert own.estimator_.random_state == 3


def test_a_random_state_instance_gives_a_new_seed_each_time(images):
    one, two = np.random.RandomState(0), np.random.RandomState(0)
    detectors = [
        tiny_detector().set_params(random_state=rng).fit(images)
        for rng in (one, one, two)
    ]
    assert detectors[0].offset_ != detectors[1].offset_
    assert_same_detector(detectors[0], detectors[2])


def test_without_a_seed_fits_differ_and_the_global_state_stays(images):
    before = str(np.random.get_state())
    detectors = [
        tiny_detector().set_params(random_state=None).fit(images) for _ in range(2)
    ]
    assert detectors[0].offset_ != detectors[1].offset_
    assert str(np.random.get_state()) == before


# Errors.


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("contamination", 0, r"'contamination'.*range \(0.0, 0.5\]. Got 0 instead"),
        ("contamination", 0.6, "Got 0.6"),
        ("contamination", np.nan, "Got nan"),
        ("contamination", "auto", "Got 'auto'"),
        ("calibration_fraction", 0.0, r"'calibration_fraction'.*\(0.0, 1.0\). Got 0.0"),
        ("calibration_fraction", 1.0, "Got 1.0"),
        ("calibration_fraction", None, "Got None"),
        ("random_state", -1, "'random_state'"),
        ("random_state", "0", "'random_state'"),
        ("estimator", KernelDensity(), "'estimator'.*ConvVAE.*KernelDensity"),
        ("estimator", make_pipeline(ConvVAE()), "'estimator'.*ConvVAE.*Pipeline"),
        ("estimator", ConvVAE, "'estimator'.*instance"),
        ("estimator__latent_dim", 0, "latent_dim"),
    ],
)
def test_invalid_parameters_raise_in_fit(images, detector, name, value, message):
    before = deepcopy(detector)
    detector.set_params(**{name: value})
    with pytest.raises((ValueError, TypeError), match=message):
        detector.fit(images)
    assert_same_detector(detector, before)


def test_fewer_images_set_aside_than_one_outlier_needs_warn(images, detector):
    """14 of 70 images are set aside."""
    detector.set_params(contamination=0.07)
    message = "14 of 70, fewer than 1 / contamination. Give at least 75 images"
    with pytest.warns(UserWarning, match=message):
        detector.fit(images)
    detector.set_params(contamination=1 / 14).fit(images)


@pytest.mark.parametrize("n", [49, 98, 103])
def test_as_many_images_set_aside_as_needed_do_not_warn(images, n):
    """1 / (1 / n) is above n in floating point."""
    X = np.tile(images, (4, 1, 1))[: 2 * n]
    detector = tiny_detector().set_params(calibration_fraction=0.5)
    detector.set_params(contamination=1 / n).fit(X)


@pytest.mark.parametrize(
    ("X", "message"),
    [
        (np.ones((1, 8, 8)), "too few images to set some aside, got n_samples=1"),
        (np.ones((0, 8, 8)), r"0 sample\(s\)"),
        (np.ones(5), "X"),
        (3, "X"),
        ([["a"] * 4] * 5, "X"),
        (np.ones((50, 2, 2, 1, 1)), "5D array"),
        (np.full((5, 4), np.inf), "X contains infinity"),
    ],
)
def test_invalid_images_raise(detector, X, message):
    before = deepcopy(detector)
    with pytest.raises((ValueError, TypeError), match=message):
        detector.fit(X)
    assert_same_detector(detector, before)


@pytest.mark.parametrize("shape", [(0, 8, 8), (50, 0, 8), (1, 8, 8), ()])
def test_invalid_out_of_core_images_raise(shape):
    with pytest.raises((ValueError, TypeError), match="X"):
        tiny_detector().fit(Slices(np.ones(shape)))


def test_an_invalid_image_raises_before_training(images, spy):
    for row in range(0, 70, 7):
        X = images.copy()
        X[row, 0, 0] = np.nan
        with pytest.raises(ValueError, match="X contains NaN"):
            ConvVAEOutlierDetector(spy).fit(X)
    assert not Spy.fitted_on


class Interrupted(ConvVAE):
    def fit(self, X, y=None, X_val=None):
        raise KeyboardInterrupt


def test_ctrl_c_leaves_the_detector_as_it_was(images, detector):
    before = deepcopy(detector)
    detector.set_params(estimator=Interrupted())
    with pytest.raises(KeyboardInterrupt, match="The detector has not changed"):
        detector.fit(images)
    assert_same_detector(detector, before)
