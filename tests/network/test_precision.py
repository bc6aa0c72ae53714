"""Layers may compute in 16 bits; what goes in and what comes out does not."""

import operator
from dataclasses import replace

import numpy as np
import pytest
from helpers import TINY, assert_same_fit, gradient_step, starting_weights
from sklearn.base import clone

from skvae import ConvVAE
from skvae.architecture import Architecture
from skvae.network import precision
from skvae.streams import stream
from skvae.training import compiled as engine
from skvae.training import trainer

POLICIES = ("mixed_float16", "mixed_bfloat16")
policies = pytest.mark.parametrize("policy", POLICIES)


@pytest.fixture
def architecture():
    """Convolutions in all forms: 32 x 32 is too large for the smallest's."""
    return Architecture((32, 32, 1), 3, 4, 4, 3, "sigmoid", "mse")


@pytest.fixture
def weights(architecture):
    return architecture.pack(starting_weights(architecture, stream(0, 0)))


@pytest.fixture
def in_16_bits(monkeypatch):
    """Have layers compute in 16 bits here, as they do where the processor has them.

    What few pixels give is right on any processor.
    """
    monkeypatch.setattr(precision, "adds_in_float32", lambda *_: True)
    monkeypatch.setattr(engine, "_networks", type(engine._networks)())


@policies
def test_a_step_is_near_that_of_float32(architecture, weights, policy):
    # Brighter than what is decoded at first: gradients add up rather than cancel.
    images = np.random.default_rng(0).uniform(0.8, 1, (8, 32, 32, 1))
    steps = []
    for p in ("float32", policy):
        mixed = replace(architecture, dtype_policy=p)
        stepped = gradient_step(mixed, weights, images.astype(np.float32), 1e-4)
        assert stepped.dtype == np.float32
        steps.append(stepped - weights)
    error = np.linalg.norm(steps[1] - steps[0]) / np.linalg.norm(steps[0])
    assert error < 0.01
    # Float32 itself, where the processor adds up in 16 bits.
    assert (error > 0) == precision.adds_in_float32(policy[6:], "CPU:0")


@pytest.mark.parametrize("operation", ["reduce_sum", "raw_ops.Conv2DBackpropFilter"])
def test_sums_that_stop_growing_are_noticed(monkeypatch, operation):
    import tensorflow as tf

    is_right = precision.adds_in_float32.__wrapped__
    assert is_right("float32", "CPU:0")
    compute = operator.attrgetter(operation)(tf)
    monkeypatch.setattr(
        f"tensorflow.{operation}", lambda *a, **k: tf.minimum(compute(*a, **k), 256.0)
    )
    assert not is_right("float32", "CPU:0")


def test_layers_compute_in_float32_where_sums_would_be_in_16_bits(
    architecture, weights, monkeypatch
):
    monkeypatch.setattr(precision, "adds_in_float32", lambda *_: False)
    monkeypatch.setattr(engine, "_networks", type(engine._networks)())
    images = np.random.default_rng(0).random((5, 32, 32, 1), dtype=np.float32)
    steps = [
        gradient_step(replace(architecture, dtype_policy=p), weights, images, 1e-4)
        for p in ("float32", *POLICIES)
    ]
    for step in steps[1:]:
        np.testing.assert_array_equal(step, steps[0])


@policies
def test_what_is_fitted_computes_in_float32(images, policy):
    vae = ConvVAE(**TINY).fit(images)
    mixed = ConvVAE(**TINY, dtype_policy=policy).fit(images)
    mixed.weights_ = vae.weights_
    np.testing.assert_array_equal(mixed.transform(images), vae.transform(images))


@policies
def test_training_goes_on_with_the_same_bits(images, policy):
    """The optimizer's state includes float16's loss scale."""
    vae = ConvVAE(**TINY, dtype_policy=policy, warm_start=True).fit(images).fit(images)
    whole = ConvVAE(**{**TINY, "epochs": 6}, dtype_policy=policy).fit(images)
    assert_same_fit(vae, whole)
    assert all(weight.dtype == np.float32 for weight in vae.weights_.values())
    assert vae.transform(images).dtype == np.float32
    # Keras's models have the weights and compute in float32.
    assert vae.to_keras().decoder(vae.transform(images[:2])).dtype == "float32"


@pytest.mark.usefixtures("in_16_bits")
def test_float16_gets_over_gradients_beyond_its_range(images, monkeypatch):
    """The loss scale falls until they fit; the steps in between are left out."""
    monkeypatch.setattr(trainer, "FLOAT16_LOSS_SCALE", 2.0**30)
    params = {**TINY, "dtype_policy": "mixed_float16"}
    vae = ConvVAE(**{**params, "epochs": 1}, likelihood="mse").fit(images)
    start = clone(vae).set_params(learning_rate=1e-30).fit(images)
    for path, weight in vae.weights_.items():
        np.testing.assert_array_equal(weight, start.weights_[path])
    losses = vae.set_params(epochs=30).fit(images).history_["loss"]
    assert losses[-1] < 0.95 * losses[0]


def test_a_policy_is_part_of_what_warm_start_goes_on_with(images):
    vae = ConvVAE(**TINY, warm_start=True).fit(images)
    with pytest.raises(ValueError, match="dtype_policy"):
        vae.set_params(dtype_policy="mixed_bfloat16").fit(images)
