"""The network is the guide's, with its three faults mended."""

import keras
import numpy as np
import pytest
from helpers import gradient_step, leased, new_state, starting_weights

from skvae import network
from skvae.architecture import Architecture
from skvae.network.initializers import _convolution_fan_ins, initial_weights
from skvae.streams import stream
from skvae.training.trainer import GRADIENT_CLIP_NORM

GUIDE = Architecture((128, 128, 1), 4, 8, 4, 3, "sigmoid", "gaussian")
ODD_SHAPES = [(1, 1, 1), (1, 7, 1), (7, 5, 3), (28, 28, 1), (9, 16, 2)]


def test_the_guides_layers_in_name_shape_and_number_of_parameters():
    weights = starting_weights(GUIDE, stream(0, 0))
    encoder, decoder, _ = network.build_models(GUIDE, weights, seed=0)
    assert encoder.count_params() == 155_752
    assert decoder.count_params() == 81_729
    assert {layer.name: layer.output.shape[1:] for layer in encoder.layers[:6]} == {
        "encoder_input": (128, 128, 1),
        "encoder_conv_0": (64, 64, 8),
        "encoder_conv_1": (32, 32, 16),
        "encoder_conv_2": (16, 16, 32),
        "encoder_conv_3": (8, 8, 64),
        "encoder_flatten": (4096,),
    }
    assert {layer.name: layer.output.shape[1:] for layer in encoder.layers[6:]} == {
        "encoder_intermediate_layer": (32,),
        "encoder_z_mean": (4,),
        "encoder_z_log_var": (4,),
        "encoder_z": (4,),
    }
    assert {layer.name: layer.output.shape[1:] for layer in decoder.layers} == {
        "decoder_sampled_input": (4,),
        "decoder_intermediate": (4096,),
        "decoder_reshape": (8, 8, 64),
        "decoder_conv_0": (16, 16, 64),
        "decoder_conv_1": (32, 32, 32),
        "decoder_conv_2": (64, 64, 16),
        "decoder_conv_3": (128, 128, 8),
        "decoder_output": (128, 128, 1),
    }


@pytest.mark.parametrize("kernel_size", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("image_shape", ODD_SHAPES)
def test_any_image_shape_comes_back_and_the_weights_are_as_stated(
    image_shape, kernel_size
):
    architecture = Architecture(image_shape, 2, 4, 4, kernel_size, "linear", "mse")
    encoder = network.build_encoder(architecture)
    decoder = network.build_decoder(architecture)
    assert encoder.input_shape[1:] == decoder.output_shape[1:] == image_shape
    weights = [*encoder.trainable_variables, *decoder.trainable_variables]
    built = {weight.path: tuple(weight.shape) for weight in weights}
    assert list(built.items()) == list(architecture.weight_shapes.items())


@pytest.mark.parametrize("kernel_size", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("size", [(7, 5), (8, 9), (1, 4)])
def test_a_cropped_decoder_stage_is_the_transpose_of_the_encoders(size, kernel_size):
    """<conv(x), y> = <x, transposed(y)> for the same kernel and linear layers."""
    rng = np.random.default_rng(0)
    architecture = Architecture((*size, 1), 2, 3, 1, kernel_size, "linear", "mse")
    encoder = network.build_encoder(architecture)
    decoder = network.build_decoder(architecture)
    convolution = encoder.get_layer("encoder_conv_0")
    # The decoder's stage has 3 filters out where the encoder's has 1 channel in: give
    # the one channel to the first of them.
    transposed = decoder.get_layer("decoder_conv_0")
    kernel = rng.normal(size=(kernel_size, kernel_size, 1, 3)).astype(np.float32)
    convolution.kernel.assign(kernel)
    wide_kernel = np.zeros((kernel_size, kernel_size, 3, 3), np.float32)
    wide_kernel[:, :, :1] = kernel
    transposed.kernel.assign(wide_kernel)
    convolution.activation = transposed.activation = keras.activations.linear
    x = rng.normal(size=(1, *size, 1)).astype(np.float32)
    y = rng.normal(size=(1, *convolution.output.shape[1:])).astype(np.float32)
    back = transposed(y)
    for layer in decoder.layers:
        if layer.name == "decoder_crop_0":
            back = layer(back)
    np.testing.assert_allclose(
        np.vdot(convolution(x), y), np.vdot(x[..., 0], back[..., 0]), rtol=1e-4
    )


@pytest.mark.parametrize("kernel_size", [1, 2, 3, 4, 5])
def test_fan_in_counts_the_values_that_reach_an_output(kernel_size):
    """A convolution of ones with ones gives each output its number of inputs."""
    architecture = Architecture((7, 5, 3), 2, 4, 3, kernel_size, "linear", "mse")
    encoder = network.build_encoder(architecture)
    decoder = network.build_decoder(architecture)
    crops = {layer.name: layer for layer in decoder.layers if "crop" in layer.name}
    fan_ins = _convolution_fan_ins(architecture)
    assert len(fan_ins) == 2 * 3 + 1
    for name, fan_in in fan_ins.items():
        layer = (encoder if name.startswith("encoder") else decoder).get_layer(name)
        layer.kernel.assign(np.ones(layer.kernel.shape))
        outputs = layer(np.ones((1, *layer.input.shape[1:]), np.float32))
        crop = crops.get(name.replace("conv", "crop"))
        outputs = crop(outputs) if crop else outputs
        assert np.mean(outputs) == pytest.approx(fan_in), name


def test_starting_weights_have_the_stated_variance():
    weights = starting_weights(GUIDE, stream(0, 0))
    assert np.var(weights["encoder_intermediate_layer/kernel"]) == pytest.approx(
        2 / (4096 + 32), rel=0.02
    )
    # 64 filters, of which a pixel sees a quarter of the 3 x 3 kernel's places.
    assert np.var(weights["decoder_conv_1/kernel"]) == pytest.approx(
        2 ** (4 / 7) / (64 * 9 / 4), rel=0.05
    )
    biases = [path for path in weights if path.endswith("bias")]
    biases.remove("decoder_output/bias")
    assert not any(weights[path].any() for path in biases)
    # Few numbers each, hence of many seeds: 9 inputs but for padding, 8 filters.
    for path, variance in [
        ("encoder_conv_0/kernel", 0.5 / 9),
        ("decoder_output/kernel", 1 / (8 * 9)),
    ]:
        kernels = [starting_weights(GUIDE, stream(s, 0))[path] for s in range(50)]
        assert np.var(kernels) == pytest.approx(variance, rel=0.06)


@pytest.mark.parametrize("hidden_layers", [1, 2, 3, 5])
def test_convolutions_before_a_relu_start_with_an_eighth_of_hes_gain_in_all(
    hidden_layers,
):
    """Of the 2L - 1 of them, none with less than 1."""
    kind = Architecture((64, 64, 1), 2, 16, hidden_layers, 3, "sigmoid", "gaussian")
    weights, fan_ins = starting_weights(kind, stream(0, 0)), _convolution_fan_ins(kind)
    layers = [*fan_ins]
    for name in ("encoder_conv_0", "decoder_output"):
        layers.remove(name)
    assert len(layers) == 2 * hidden_layers - 1
    gains = [np.var(weights[f"{name}/kernel"]) * fan_ins[name] for name in layers]
    expected = (
        1.0 if hidden_layers == 1 else (2 ** len(layers) / 8) ** (1 / len(layers))
    )
    np.testing.assert_allclose(gains, expected, rtol=0.1)


@pytest.mark.parametrize("image_shape", [(8, 8, 1), (5, 7, 3)])
def test_mse_is_the_guides_loss_to_the_letter(image_shape):
    """One step's loss against the guide's formula on Keras models of its own."""
    architecture = Architecture(image_shape, 3, 2, 2, 3, "sigmoid", "mse")
    rng = np.random.default_rng(1)
    weights = starting_weights(architecture, rng)
    x = rng.random((6, *image_shape), dtype=np.float32)
    with leased(architecture, "adam", batch_size=6) as trainer:
        trainer.load(new_state(architecture.pack(weights)), learning_rate=1e-3)
        loss, reconstruction, kl = trainer.train_steps(
            x,
            0.0,
            1.0,
            kl_weight=1.0,
            free_bits=0.0,
            noise_factor=1.0,
            batch_size=6,
            noise_seed=7,
            first_step=0,
            n_images=6,
            sums=np.zeros(3),
        )
    import tensorflow as tf

    models = network.build_models(architecture, weights, seed=0)
    z_mean, z_log_var, _ = models.encoder(x)
    epsilon = tf.random.stateless_normal((6, 3), [7, 0])
    decoded = models.decoder(z_mean + tf.exp(0.5 * z_log_var) * epsilon).numpy()
    n_pixels = np.prod(image_shape)
    guides_reconstruction = n_pixels * np.mean((x - decoded) ** 2)
    guides_kl = -0.5 * np.sum(
        1 + z_log_var - np.square(z_mean) - np.exp(z_log_var), axis=-1
    )
    assert reconstruction / 6 == pytest.approx(guides_reconstruction, rel=1e-5)
    assert kl / 6 == pytest.approx(np.mean(guides_kl), rel=1e-5)
    assert loss == pytest.approx(reconstruction + kl, rel=1e-5)


def test_the_decoder_starts_at_the_mean_of_the_images():
    """Zeros before the output layer decode to it, within the sigmoid's reach."""
    for activation, decoded in [
        ("sigmoid", [0.01, 0.01, 0.3, 0.99, 0.99]),
        ("linear", [-4.0, 0.0, 0.3, 1.0, 5.0]),
    ]:
        kind = Architecture((4, 4, 5), 2, 2, 1, 3, activation, "gaussian")
        means = np.array([-4.0, 0.0, 0.3, 1.0, 5.0])
        weights = initial_weights(kind, stream(0, 0), means)
        weights["decoder_output/kernel"] *= 0
        decoder = network.build_models(kind, weights, seed=0).decoder
        expected = np.broadcast_to(decoded, (3, 4, 4, 5))
        np.testing.assert_allclose(decoder(np.ones((3, 2))), expected, rtol=1e-5)


def test_the_noise_factor_multiplies_the_noise_variance_of_the_loss():
    """Without the KL a gradient step is so much shorter."""
    architecture = Architecture((4, 4, 1), 2, 2, 1, 3, "sigmoid", "gaussian")
    weights = architecture.pack(starting_weights(architecture, stream(0, 0)))
    images = np.random.default_rng(0).random((5, 4, 4, 1), np.float32)
    steps = [
        gradient_step(
            architecture, weights, images, 1e-2, kl_weight=0.0, noise_factor=factor
        )
        - weights
        for factor in (1.0, 4.0)
    ]
    assert np.abs(steps[0]).max() > 1e-3
    np.testing.assert_allclose(steps[0], 4 * steps[1], rtol=0, atol=1e-6)


def test_gradients_are_clipped_to_the_stated_norm():
    """A step of plain gradient descent is as long as the clipped gradient."""
    architecture = Architecture((4, 4, 1), 2, 2, 1, 3, "linear", "mse")
    weights = architecture.pack(starting_weights(architecture, stream(0, 0)))
    images = np.full((5, 4, 4, 1), 1e4, np.float32)
    stepped = gradient_step(architecture, weights, images, learning_rate=0.01)
    length = np.linalg.norm(stepped.astype(float) - weights)
    assert length == pytest.approx(0.01 * GRADIENT_CLIP_NORM * 16, rel=1e-4)
