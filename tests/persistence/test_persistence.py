"""Copies and files of an estimator compute and train the same."""

import copy
import pickle

import cloudpickle
import joblib
import numpy as np
import pytest
from helpers import TINY, assert_same_fit

from skvae import ConvVAE

COPIES = {
    "pickle": lambda vae: pickle.loads(pickle.dumps(vae)),
    "cloudpickle": lambda vae: cloudpickle.loads(cloudpickle.dumps(vae)),
    "deepcopy": copy.deepcopy,
    "copy": copy.copy,
}


@pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES)
@pytest.mark.parametrize(
    "parameters", [{"noise_type": "diag"}, {"likelihood": "bernoulli"}]
)
def test_copies_compute_the_same_bits_and_train_on_alike(images, copied, parameters):
    vae = ConvVAE(**TINY, **parameters).fit(images)
    other = copied(vae)
    assert_same_fit(vae, other)
    np.testing.assert_array_equal(vae.transform(images), other.transform(images))
    np.testing.assert_array_equal(vae.sample(3), other.sample(3))
    np.testing.assert_array_equal(
        vae.score_samples(images), other.score_samples(images)
    )
    assert_same_fit(other.partial_fit(images), vae.partial_fit(images))


def is_plain(value):
    if isinstance(value, dict):
        return all(isinstance(key, str) and is_plain(v) for key, v in value.items())
    if isinstance(value, list | tuple):
        return all(is_plain(v) for v in value)
    if isinstance(value, np.ndarray):
        return value.dtype != object
    return value is None or type(value) in (bool, int, float, str)


def test_state_is_arrays_and_plain_values(images):
    vae = ConvVAE(
        latent_dim=np.int64(2), filters=np.int32(2), epochs=2, early_stopping=True
    )
    vae.fit(images)
    fitted = {k: v for k, v in vars(vae).items() if k not in vae.get_params()}
    assert not [name for name, value in fitted.items() if not is_plain(value)]


@pytest.mark.parametrize("compress", [0, 3])
def test_a_file_loaded_in_a_fresh_process_gives_equal_bits(
    images, run_python, tmp_path, compress
):
    vae = ConvVAE(**TINY).fit(images)
    joblib.dump(vae, tmp_path / "vae.joblib", compress=compress)
    np.save(tmp_path / "images.npy", images)
    printed = run_python(
        """
import sys
import joblib, numpy as np
vae = joblib.load("vae.joblib")
print("tensorflow" in sys.modules, "keras" in sys.modules)
repr(vae), vae.get_params(), vae.history_, vae.get_feature_names_out()
print("tensorflow" in sys.modules, "keras" in sys.modules)
X = np.load("images.npy")
np.savez("out.npz", z=vae.transform(X), s=vae.sample(4), l=vae.score_samples(X),
         x=vae.inverse_transform(vae.transform(X)), m=vae.score(X))
"""
    )
    assert printed.split() == ["False"] * 4
    out = np.load(tmp_path / "out.npz")
    np.testing.assert_array_equal(out["z"], vae.transform(images))
    np.testing.assert_array_equal(out["s"], vae.sample(4))
    np.testing.assert_array_equal(out["l"], vae.score_samples(images))
    np.testing.assert_array_equal(out["x"], vae.inverse_transform(out["z"]))
    assert out["m"] == vae.score(images)


def test_memory_mapped_files_work(fitted, images, tmp_path):
    joblib.dump(fitted, tmp_path / "vae.joblib")
    mapped = joblib.load(tmp_path / "vae.joblib", mmap_mode="r")
    np.testing.assert_array_equal(mapped.transform(images), fitted.transform(images))
    assert_same_fit(mapped.partial_fit(images), fitted.partial_fit(images))


def test_keras_models_compute_what_the_estimator_does(images):
    vae = ConvVAE(**TINY).fit(images * 7 + 2)
    models = vae.to_keras()
    x = images[..., None].astype(np.float32)
    z_mean, z_log_var = vae.posterior(images * 7 + 2)
    encoded = [output.numpy() for output in models.encoder(x)]
    np.testing.assert_allclose(encoded[0], z_mean, atol=1e-5)
    np.testing.assert_allclose(encoded[1], z_log_var, atol=1e-5)
    decoded = models.decoder(z_mean).numpy()[..., 0] * 7 + 2
    np.testing.assert_allclose(decoded, vae.inverse_transform(z_mean), atol=1e-5)
    # z is drawn anew in each call, with the posterior's mean and variance.
    draws = np.array([models.encoder(x)[2].numpy() for _ in range(400)])
    standardised = (draws - z_mean) / np.exp(z_log_var / 2)
    assert abs(standardised.mean()) < 5 / np.sqrt(draws.size)
    assert standardised.std() == pytest.approx(1, abs=5 / np.sqrt(draws.size))
    assert not np.array_equal(models.vae(x), models.vae(x))


def test_keras_models_are_independent_of_the_estimator(fitted, images):
    before = fitted.transform(images)
    models = fitted.to_keras()
    for variable in models.vae.trainable_variables:
        variable.assign(variable * 0)
    np.testing.assert_array_equal(fitted.transform(images), before)


@pytest.mark.parametrize(
    "shape", [(8, 8), pytest.param((7, 5, 3), marks=pytest.mark.slow)]
)
def test_keras_models_are_saved_and_load_safely_in_a_fresh_process(
    run_python, tmp_path, shape
):
    X = np.random.default_rng(0).random((20, *shape), dtype=np.float32)
    models = ConvVAE(**TINY).fit(X).to_keras()
    for name, model in models._asdict().items():
        model.save(tmp_path / f"{name}.keras")
    x = X.reshape(20, *shape[:2], -1)
    np.save(tmp_path / "x.npy", x)
    run_python(
        """
import keras, numpy as np
import skvae.network
encoder, decoder, vae = (
    keras.saving.load_model(f"{name}.keras", safe_mode=True)
    for name in ("encoder", "decoder", "vae")
)
z_mean, z_log_var, z = encoder(np.load("x.npy"))
assert not np.array_equal(z, z_mean)
assert vae(np.load("x.npy")).shape == np.load("x.npy").shape
np.savez("out.npz", z_mean=z_mean, z_log_var=z_log_var, x=decoder(z_mean))
"""
    )
    out = np.load(tmp_path / "out.npz")
    z_mean, z_log_var, _ = (output.numpy() for output in models.encoder(x))
    np.testing.assert_allclose(out["z_mean"], z_mean, atol=1e-6)
    np.testing.assert_allclose(out["z_log_var"], z_log_var, atol=1e-6)
    np.testing.assert_allclose(out["x"], models.decoder(z_mean).numpy(), atol=1e-6)
