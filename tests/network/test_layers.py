"""The layers that train are Keras's own in outputs and gradients."""

from dataclasses import replace

import numpy as np
import pytest
from helpers import starting_weights

from skvae import network
from skvae.architecture import Architecture
from skvae.network import layers
from skvae.network.models import FAST
from skvae.streams import stream

SHAPES = [(1, 1, 1), (1, 7, 1), (7, 5, 3), (28, 28, 1), (9, 16, 2), (21, 10, 5)]


def assert_same_function_and_gradients(ours, keras_model, weights, inputs):
    """Outputs, and their gradients for weights and inputs in a random direction."""
    import tensorflow as tf

    inputs = tf.constant(inputs)
    tensors = [tf.constant(weight) for weight in weights]
    with tf.GradientTape(persistent=True) as tape:
        tape.watch([inputs, *tensors])
        outputs = tf.nest.flatten(ours(tensors, inputs))
        expected = tf.nest.flatten(keras_model(inputs))[: len(outputs)]
        rng = np.random.default_rng(0)
        directions = [rng.normal(size=o.shape).astype(np.float32) for o in outputs]
        along = [
            sum(tf.reduce_sum(o * d) for o, d in zip(each, directions, strict=True))
            for each in (outputs, expected)
        ]
    for output, other in zip(outputs, expected, strict=True):
        assert output.shape == other.shape
        np.testing.assert_allclose(output, other, rtol=1e-4, atol=1e-5)
    gradients = tape.gradient(along[0], [inputs, *tensors])
    others = tape.gradient(along[1], [inputs, *keras_model.trainable_variables])
    for gradient, other in zip(gradients, others, strict=True):
        corner = tuple(slice(length) for length in gradient.shape)
        reference = other.numpy()[corner]
        scale = np.abs(reference).max() + 1e-6
        np.testing.assert_allclose(gradient / scale, reference / scale, atol=1e-5)


def stateless(model):
    return lambda tensors, x: model.stateless_call(tensors, [], x)[0]


def keras_models(architecture, weights):
    """Of Keras's own layers; a kernel of 1 is the corner of one of 2.

    Keras's convolution with a kernel of 1 and stride 2 corrupts TensorFlow's memory in
    its gradient.
    """
    if architecture.kernel_size == 1:
        architecture = replace(architecture, kernel_size=2)
        weights = {
            path: np.pad(weight, [(0, 1), (0, 1), (0, 0), (0, 0)])
            if weight.ndim == 4
            else weight
            for path, weight in weights.items()
        }
    return network.build_models(architecture, weights, seed=0)


def assert_is_keras(architecture):
    rng = np.random.default_rng(1)
    weights = {
        path: weight + rng.normal(0, 0.1, weight.shape).astype(np.float32)
        for path, weight in starting_weights(architecture, stream(0, 0)).items()
    }
    models = keras_models(architecture, weights)
    images = rng.random((3, *architecture.image_shape), dtype=np.float32)
    z = rng.normal(size=(3, architecture.latent_dim)).astype(np.float32)
    for build, model, inputs in (
        (network.build_encoder, models.encoder, images),
        (network.build_decoder, models.decoder, z),
    ):
        own = [w for path, w in weights.items() if path.startswith(model.name)]
        ours = stateless(build(architecture, FAST))
        assert_same_function_and_gradients(ours, model, own, inputs)


@pytest.mark.parametrize("form", ["plain", "lines", "matrices"])
@pytest.mark.parametrize("kernel_size", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("image_shape", SHAPES)
def test_every_form_of_every_layer_is_keras(
    image_shape, kernel_size, form, monkeypatch
):
    max_matrix_size = 2**30 if form == "matrices" else 0
    monkeypatch.setattr(layers, "_MAX_MATRIX_SIZE", max_matrix_size)
    monkeypatch.setattr(layers, "_computes_with_onednn", lambda: form != "lines")
    architecture = Architecture(image_shape, 2, 4, 3, kernel_size, "linear", "mse")
    assert_is_keras(architecture)


@pytest.mark.parametrize(
    ("image_shape", "filters", "hidden_layers"),
    [((8, 8, 1), 8, 2), ((32, 32, 3), 8, 4), ((64, 64, 1), 2, 3)],
)
def test_networks_of_mixed_forms_are_keras(image_shape, filters, hidden_layers):
    assert_is_keras(
        Architecture(image_shape, 2, filters, hidden_layers, 3, "linear", "mse")
    )


@pytest.mark.parametrize(("n_channels", "length"), [(1, 4), (3, 2), (4, 2), (16, 1)])
def test_blocks_have_the_fewest_multiplications(n_channels, length):
    """Counted by hand for a kernel of 3: lanes of 16, (length + 2)^2 / length^2."""
    assert layers._block_length(3, n_channels) == length


@pytest.mark.slow
@pytest.mark.parametrize("setting", ["0", "1"])
def test_whether_tensorflow_has_onednn_is_what_it_says_itself(setting, run_python):
    """It says so, where it does, in its log as it is imported."""
    code = (
        "import os; os.dup2(1, 2)\n"  # the log to stdout
        "from skvae.network import layers\n"
        "print(layers._computes_with_onednn())\n"
    )
    settings = {"TF_ENABLE_ONEDNN_OPTS": setting, "TF_CPP_MIN_LOG_LEVEL": "0"}
    *log, answer = run_python(code, **settings).splitlines()
    is_on = any("oneDNN custom operations are on" in line for line in log)
    assert answer == str(is_on)


@pytest.mark.slow
@pytest.mark.parametrize("image_shape", [(8, 8, 1), (33, 30, 1)])
def test_a_model_with_a_kernel_of_1_trains_without_harm(run_python, image_shape):
    """Keras's own layers end the process, if not in the first step."""
    run_python(
        f"""
import keras, numpy as np
from skvae import ConvVAE
X = np.random.default_rng(0).random((64, *{image_shape}), dtype=np.float32)
vae = ConvVAE(2, filters=4, hidden_layers=2, kernel_size=1, epochs=1).fit(X)
models = vae.to_keras()
models.vae.compile("adam", "mse")
models.vae.fit(X, X, epochs=20, verbose=0)
models.vae.save("vae.keras")
loaded = keras.saving.load_model("vae.keras")
z = np.zeros((3, 2), np.float32)
assert np.array_equal(loaded.get_layer("decoder")(z), models.decoder(z))
"""
    )
