"""Exported Keras models compute what the estimator does, where skvae is not."""

import keras
import numpy as np
import onnxruntime
import pytest
from helpers import TINY
from sklearn.datasets import load_digits

from skvae import ConvVAE

# Images and parameters: value ranges that are not (0, 1), and sizes that are cropped.
CASES = {
    "grey": (load_digits().images[:70], {}),
    "rows": (
        load_digits().data[:70],
        {"likelihood": "bernoulli", "value_range": (0, 16)},
    ),
    "colour": (
        np.random.default_rng(0).uniform(-1, 3, (40, 25, 19, 3)),
        {"likelihood": "mse", "last_activation": "linear", "value_range": (-1, 3)},
    ),
}

LATENTS = np.random.default_rng(1).normal(size=(9, 2)).astype(np.float32)

SERVER = """
import pathlib, sys
import numpy as np, tensorflow as tf
for folder in pathlib.Path().iterdir():
    encoder = tf.saved_model.load(folder / "encoder")
    decoder = tf.saved_model.load(folder / "decoder")
    x = np.load(folder / "x.npy")
    np.savez(folder / "out.npz", *encoder.serve(x), encoder.serve(x)[2],
             decoder.serve(np.load(folder / "z.npy")))
print("skvae" in sys.modules)
"""


def in_network_units(vae, X):
    low, high = vae.value_range_
    x = (X - low) / (high - low)
    return x.reshape(-1, *vae.input_shape_).astype(np.float32)


def assert_same(vae, X, z_mean, z_log_var, decoded):
    """Encoded X and decoded LATENTS, in the network's units, are the estimator's."""
    np.testing.assert_allclose(z_mean, vae.transform(X), atol=1e-5)
    np.testing.assert_allclose(z_log_var, vae.posterior(X)[1], atol=1e-5)
    expected = vae.inverse_transform(LATENTS)
    low, high = vae.value_range_
    decoded = low + decoded.reshape(expected.shape) * (high - low)
    np.testing.assert_allclose(decoded, expected, atol=1e-5)


def test_saved_models_are_served_by_a_process_without_skvae(run_python, tmp_path):
    vaes = {name: ConvVAE(**TINY, **p).fit(X) for name, (X, p) in CASES.items()}
    for name, vae in vaes.items():
        models = vae.to_keras()
        models.encoder.export(tmp_path / name / "encoder", verbose=False)
        models.decoder.export(tmp_path / name / "decoder", verbose=False)
        np.save(tmp_path / name / "x.npy", in_network_units(vae, CASES[name][0]))
        np.save(tmp_path / name / "z.npy", LATENTS)
    assert run_python(SERVER).split() == ["False"]
    for name, vae in vaes.items():
        with np.load(tmp_path / name / "out.npz") as out:
            z_mean, z_log_var, z, other_z, decoded = out.values()
        assert_same(vae, CASES[name][0], z_mean, z_log_var, decoded)
        assert z.shape == z_mean.shape
        assert (z != other_z).all()  # drawn anew


@pytest.mark.parametrize(("X", "params"), CASES.values(), ids=CASES)
def test_onnx_files_compute_the_same(X, params, tmp_path):
    vae = ConvVAE(**TINY, **params).fit(X)
    models = vae.to_keras()
    # Without z: the operation that draws it has no converter.
    posterior = keras.Model(models.encoder.input, models.encoder.output[:2])
    sessions = []
    for model in (posterior, models.decoder):
        path = tmp_path / f"{len(sessions)}.onnx"
        model.export(path, format="onnx", input_signature=model.inputs, verbose=False)
        sessions.append(onnxruntime.InferenceSession(path))
    encoder, decoder = sessions
    z_mean, z_log_var = encoder.run(None, {"encoder_input": in_network_units(vae, X)})
    (decoded,) = decoder.run(None, {"decoder_sampled_input": LATENTS})
    assert_same(vae, X, z_mean, z_log_var, decoded)
