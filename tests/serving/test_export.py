"""Exported models compute what the estimator does, where skvae is not."""

import numpy as np
import onnx
import onnxruntime
import pytest
from helpers import TINY
from sklearn.datasets import load_digits

from skvae import ConvVAE

# Some values of rows are meant to be clipped.
pytestmark = pytest.mark.filterwarnings("ignore:likelihood='bernoulli' is for values")

# Images and parameters: value ranges that are not (0, 1), and sizes that are cropped.
CASES = {
    "grey": (load_digits().images[:70], {}),
    "rows": (
        load_digits().data[:70],
        {"likelihood": "bernoulli", "value_range": (0, 9)},
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


def fitted_on(name):
    X, params = CASES[name]
    return ConvVAE(**TINY, **params).fit(X)


def as_images(vae, X):
    return X.reshape(-1, *vae.input_shape_).astype(np.float32)


def in_network_units(vae, X):
    low, high = vae.value_range_
    x = (as_images(vae, X) - low) / (high - low)
    return x.clip(0, 1) if vae.likelihood == "bernoulli" else x


def test_saved_models_are_served_by_a_process_without_skvae(run_python, tmp_path):
    vaes = {name: fitted_on(name) for name in CASES}
    for name, vae in vaes.items():
        models = vae.to_keras()
        models.encoder.export(tmp_path / name / "encoder", verbose=False)
        models.decoder.export(tmp_path / name / "decoder", verbose=False)
        np.save(tmp_path / name / "x.npy", in_network_units(vae, CASES[name][0]))
        np.save(tmp_path / name / "z.npy", LATENTS)
    assert run_python(SERVER).split() == ["False"]
    for name, vae in vaes.items():
        X = CASES[name][0]
        with np.load(tmp_path / name / "out.npz") as out:
            z_mean, z_log_var, z, other_z, decoded = out.values()
        np.testing.assert_allclose(z_mean, vae.transform(X), atol=1e-5)
        np.testing.assert_allclose(z_log_var, vae.posterior(X)[1], atol=1e-5)
        low, high = vae.value_range_
        expected = as_images(vae, vae.inverse_transform(LATENTS))
        np.testing.assert_allclose(low + decoded * (high - low), expected, atol=1e-5)
        assert z.shape == z_mean.shape
        assert (z != other_z).all()  # drawn anew


@pytest.mark.parametrize("name", CASES)
def test_onnx_models_compute_the_same_in_the_callers_units(name, tmp_path):
    vae, (X, _) = fitted_on(name), CASES[name]
    models = vae.to_onnx()
    for part, model in models._asdict().items():
        onnx.checker.check_model(model, full_check=True)
        onnx.save(model, tmp_path / f"{part}.onnx")
    encoder, decoder = (
        onnxruntime.InferenceSession(tmp_path / f"{part}.onnx")
        for part in ("encoder", "decoder")
    )
    images = as_images(vae, X)
    z_mean, z_log_var = encoder.run(["z_mean", "z_log_var"], {"images": images})
    np.testing.assert_allclose(z_mean, vae.transform(X), atol=1e-5)
    np.testing.assert_allclose(z_log_var, vae.posterior(X)[1], atol=1e-5)
    (decoded,) = decoder.run(["images"], {"z": LATENTS})
    assert decoded.shape[1:] == vae.input_shape_
    expected = as_images(vae, vae.inverse_transform(LATENTS))
    np.testing.assert_allclose(decoded, expected, atol=1e-5)


def test_onnx_models_say_what_they_are(fitted):
    encoder, decoder = fitted.to_onnx()
    for model, inputs, outputs in (
        (encoder, {"images": (8, 8, 1)}, {"z_mean": (2,), "z_log_var": (2,)}),
        (decoder, {"z": (2,)}, {"images": (8, 8, 1)}),
    ):
        assert "variational autoencoder" in model.doc_string
        assert "0.0 to 1.0" in model.doc_string
        for values, expected in (
            (model.graph.input, inputs),
            (model.graph.output, outputs),
        ):
            shapes = {
                value.name: [d.dim_value for d in value.type.tensor_type.shape.dim]
                for value in values
            }
            assert shapes == {name: [0, *shape] for name, shape in expected.items()}
        weights = {initializer.name for initializer in model.graph.initializer}
        assert f"{model.graph.name}_conv_0/kernel" in weights


def test_onnx_models_beyond_their_format_are_refused(fitted, monkeypatch):
    monkeypatch.setattr(onnx.checker, "MAXIMUM_PROTOBUF", 1000)
    with pytest.raises(ValueError, match="bytes of weights"):
        fitted.to_onnx()
