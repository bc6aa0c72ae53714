"""The forward pass that skvae computes is that of the Keras models it gives."""

from dataclasses import replace

import numpy as np
import pytest

from skvae import forward, network
from skvae.architecture import Architecture
from skvae.draws import stream
from skvae.inference import FittedNetwork
from skvae.initialization import initial_weights

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


def build_models(architecture, weights):
    """Keras's models; a kernel of 1 is the corner of one of 2.

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
        for path, weight in initial_weights(architecture, stream(0, 0)).items()
    }
    models = build_models(architecture, weights)
    encoder = [w for path, w in weights.items() if path.startswith("encoder")]
    decoder = [w for path, w in weights.items() if path.startswith("decoder")]
    images = rng.random((3, *architecture.image_shape), dtype=np.float32)
    z = rng.normal(size=(3, architecture.latent_dim)).astype(np.float32)
    assert_same_function_and_gradients(
        lambda tensors, x: forward.encoder(architecture, tensors)(x),
        models.encoder,
        encoder,
        images,
    )
    assert_same_function_and_gradients(
        lambda tensors, z: forward.decoder(architecture, tensors)(z),
        models.decoder,
        decoder,
        z,
    )


@pytest.mark.parametrize("form", ["plain", "lines", "matrices"])
@pytest.mark.parametrize("kernel_size", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("image_shape", SHAPES)
def test_every_form_of_every_layer_is_keras(
    image_shape, kernel_size, form, monkeypatch
):
    max_matrix_size = 2**30 if form == "matrices" else 0
    monkeypatch.setattr(forward, "_MAX_MATRIX_SIZE", max_matrix_size)
    monkeypatch.setattr(forward, "_computes_with_onednn", lambda: form != "lines")
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


@pytest.mark.parametrize(
    ("n_channels", "rows"),
    [(1, [range(4)]), (3, [range(2)]), (4, [range(2)]), (16, [])],
)
def test_blocks_have_the_fewest_multiplications(n_channels, rows):
    """Counted by hand for a kernel of 3: lanes of 16, (length + 2)^2 / length^2."""
    kernel = np.zeros((3, 3, n_channels, 8))
    assert forward._block_rows(kernel, 1) == rows


@pytest.mark.parametrize(
    ("stride", "block", "pixels"),
    [(1, 2, range(2)), (1, 4, range(4)), (2, 2, range(1)), (2, 2, range(1, 2))],
)
@pytest.mark.parametrize("kernel_size", [2, 3, 4, 5])
@pytest.mark.parametrize("size", [1, 2, 5, 8, 9])
def test_blocks_take_no_input_that_none_of_their_pixels_needs(
    size, kernel_size, stride, block, pixels
):
    taps, padding = forward._block_taps(size, stride, kernel_size, block, pixels)
    assert min(padding) >= 0
    is_needed = taps.any(axis=(0, 2))
    assert is_needed[0]
    assert is_needed[-1]


@pytest.mark.parametrize("setting", ["0", "1"])
def test_whether_tensorflow_has_onednn_is_what_it_says_itself(setting, run_python):
    """It says so, where it does, in its log as it is imported."""
    code = (
        "import os; os.dup2(1, 2)\n"  # the log to stdout
        "from skvae import forward\n"
        "print(forward._computes_with_onednn())\n"
    )
    settings = {"TF_ENABLE_ONEDNN_OPTS": setting, "TF_CPP_MIN_LOG_LEVEL": "0"}
    *log, answer = run_python(code, **settings).splitlines()
    is_on = any("oneDNN custom operations are on" in line for line in log)
    assert answer == str(is_on)


@pytest.mark.parametrize("n_images", [1, 7, 20, 32, 50])
@pytest.mark.parametrize("image_shape", [(1, 3, 1), (8, 8, 1), (5, 7, 2)])
def test_no_bit_of_what_is_encoded_depends_on_an_images_place(image_shape, n_images):
    """Where all is matrix products, whether rows fill their tiles or not."""
    architecture = Architecture(image_shape, 3, 8, 2, 3, "sigmoid", "gaussian")
    weights = initial_weights(architecture, stream(0, 0))
    sizes = zip(
        architecture.stage_sizes,
        (weight for weight in weights.values() if weight.ndim == 4),
        strict=False,
    )
    for size, kernel in sizes:
        assert forward._matrix_size(size, 2, kernel) <= forward._MAX_MATRIX_SIZE
    fitted = FittedNetwork(architecture, architecture.pack(weights), (0.0, 1.0), 0)
    rng = np.random.default_rng(0)
    images = rng.random((n_images, *image_shape), dtype=np.float32)
    order = rng.permutation(n_images)
    for part, reordered in zip(
        fitted.encode(images), fitted.encode(images[order]), strict=True
    ):
        np.testing.assert_array_equal(reordered, part[order])
