"""Training: reproducible, resumable, early-stopped, on every row."""

import math

import joblib
import numpy as np
import pytest
from helpers import TINY, assert_same_fit, counted_traces, flat
from sklearn.datasets import load_digits

from skvae import ConvVAE
from skvae.data.value_range import to_graph_dtype
from skvae.streams import Stream, stream
from skvae.training.early_stopping import split_rows
from skvae.training.loop import Training
from skvae.training.trainer import Trainer


def test_same_seed_same_bits_another_seed_others(images):
    first = ConvVAE(**TINY).fit(images)
    np.random.seed(3)
    ConvVAE(**{**TINY, "random_state": 1}).fit(images)
    assert_same_fit(first, ConvVAE(**TINY).fit(images))
    other = ConvVAE(**{**TINY, "random_state": 1}).fit(images)
    assert other.history_["loss"] != first.history_["loss"]


def test_random_state_instances_and_none():
    X = np.random.default_rng(0).random((8, 4))
    vae = ConvVAE(**{**TINY, "random_state": np.random.RandomState(0)})
    losses = [vae.fit(X).history_["loss"] for _ in range(2)]
    assert losses[0] != losses[1]
    vae.set_params(random_state=np.random.RandomState(0))
    assert vae.fit(X).history_["loss"] == losses[0]
    vae.set_params(random_state=None)
    assert vae.fit(X).history_["loss"] != vae.fit(X).history_["loss"]


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"noise_type": "diag"},
        {"likelihood": "mse"},
        {"likelihood": "bernoulli", "optimizer": "nadam"},
        {"optimizer": "sgd"},
        {"optimizer": "adagrad"},
    ],
)
def test_3_and_3_epochs_are_6(images, parameters):
    whole = ConvVAE(**{**TINY, **parameters, "epochs": 6}).fit(images)
    parts = ConvVAE(**TINY, **parameters, warm_start=True).fit(images).fit(images)
    assert_same_fit(whole, parts)
    calls = ConvVAE(**TINY, **parameters)
    for _ in range(6):
        calls.partial_fit(images)
    assert_same_fit(whole, calls)


def test_3_and_3_epochs_are_6_across_processes(images, run_python, tmp_path):
    import joblib

    whole = ConvVAE(**{**TINY, "epochs": 6}).fit(images)
    joblib.dump(ConvVAE(**TINY, warm_start=True).fit(images), tmp_path / "vae")
    np.save(tmp_path / "images.npy", images)
    run_python(
        "import joblib, numpy as np\n"
        "vae = joblib.load('vae').fit(np.load('images.npy'))\n"
        "joblib.dump(vae, 'vae')\n"
    )
    assert_same_fit(whole, joblib.load(tmp_path / "vae"))


def test_fit_without_warm_start_starts_anew(images):
    vae = ConvVAE(**TINY).fit(images)
    first = vae.history_
    assert vae.fit(images).history_ == first
    assert vae.n_iter_ == 3


def test_a_refit_with_another_likelihood_leaves_nothing_behind(images):
    vae = ConvVAE(**TINY).fit(images)
    assert vae.noise_variance_ > 0
    assert not hasattr(
        vae.set_params(likelihood="bernoulli").fit(images), "noise_variance_"
    )


@pytest.mark.parametrize(
    "change",
    [
        {"latent_dim": 3},
        {"filters": 3},
        {"hidden_layers": 1},
        {"kernel_size": 2},
        {"last_activation": "linear"},
        {"likelihood": "mse"},
        {"optimizer": "sgd"},
        {"input_shape": (4, 16)},
        {"value_range": (0, 2)},
    ],
)
def test_going_on_with_another_architecture_is_refused(images, change):
    vae = ConvVAE(**TINY, warm_start=True).fit(images)
    before = ConvVAE(**TINY).fit(images)
    vae.set_params(**change)
    (name,) = change
    with pytest.raises(ValueError, match=f"{name}=.*warm_start=False"):
        vae.fit(images)
    with pytest.raises(ValueError, match=name):
        vae.partial_fit(images)
    assert_same_fit(vae, before)


def test_going_on_may_change_numbers_that_are_no_architecture(images):
    vae = ConvVAE(**TINY, warm_start=True).fit(images)
    vae.set_params(learning_rate=0.1, beta=0.0, batch_size=5, epochs=1).fit(images)
    assert vae.n_iter_ == 4


def test_every_row_is_used_in_every_epoch_the_short_last_batch_too(images, monkeypatch):
    seen = []
    train_steps = Trainer.train_steps

    def spy(self, block, *args, **kwargs):
        seen.append(block.reshape(len(block), -1))
        return train_steps(self, block, *args, **kwargs)

    monkeypatch.setattr(Trainer, "train_steps", spy)
    monkeypatch.setattr(Training, "_whole_batches", lambda *_: 2)
    ConvVAE(**TINY).fit(images)
    assert [len(block) for block in seen] == [32, 32, 6] * 3
    rows = images.reshape(len(images), -1)
    epochs = [np.concatenate(seen[i : i + 3]) for i in (0, 3, 6)]
    for epoch in epochs:
        np.testing.assert_array_equal(
            epoch[np.lexsort(epoch.T)], rows[np.lexsort(rows.T)]
        )
    assert not np.array_equal(epochs[0], epochs[1])


def test_the_short_last_batch_takes_a_step(images):
    """70 rows in batches of 16 are 5 steps an epoch."""
    vae = ConvVAE(**TINY).fit(images)
    assert vae._state_["n_steps"] == 5 * 3


def test_graph_calls_do_not_change_the_bits(images, monkeypatch):
    """The number of graph calls depends on the speed of the machine."""
    monkeypatch.setattr(Training, "_whole_batches", lambda *_: 9)
    whole = ConvVAE(**TINY).fit(images)
    monkeypatch.setattr(Training, "_whole_batches", lambda *_: 2)
    assert_same_fit(whole, ConvVAE(**TINY).fit(images))


@pytest.mark.parametrize("likelihood", ["gaussian", "mse", "bernoulli"])
def test_loss_is_reconstruction_and_beta_kl(images, likelihood):
    vae = ConvVAE(**TINY, likelihood=likelihood, beta=0.25).fit(images)
    history = {name: np.array(values) for name, values in vae.history_.items()}
    np.testing.assert_allclose(
        history["loss"], history["reconstruction"] + 0.25 * history["kl"]
    )
    assert len(history["loss"]) == vae.n_iter_ == 3


def test_beta_weighs_the_kl(images):
    parameters = {**TINY, "epochs": 60, "learning_rate": 1e-2}
    kls = [
        ConvVAE(**parameters, beta=beta).fit(images).latent_kl_.sum()
        for beta in (0.1, 1.0, 10.0)
    ]
    assert kls[0] > kls[1] > kls[2]


def drawn_error(vae, X, n_draws=100):
    """Mean squared error of decoded draws from the posteriors of images."""
    z_mean, z_log_var = (a.astype(float) for a in vae.posterior(X))
    epsilons = np.random.default_rng(0).standard_normal((n_draws, *z_mean.shape))
    z = z_mean + np.exp(z_log_var / 2) * epsilons
    return np.mean([(vae.inverse_transform(draw) - X) ** 2 for draw in z])


def test_noise_variance_follows_the_mean_squared_error(images):
    """At the end of long training it is the error of the drawn reconstructions."""
    vae = ConvVAE(**{**TINY, "epochs": 150, "learning_rate": 3e-3}).fit(images)
    assert vae.noise_variance_ == pytest.approx(drawn_error(vae, images), rel=0.1)


def drawn_pixel_errors(vae, X, n_draws=100):
    """Mean squared error of each pixel of decoded draws."""
    z_mean, z_log_var = (a.astype(float) for a in vae.posterior(X))
    epsilons = np.random.default_rng(0).standard_normal((n_draws, *z_mean.shape))
    z = z_mean + np.exp(z_log_var / 2) * epsilons
    errors = [np.square(vae.inverse_transform(each) - X).mean(axis=0) for each in z]
    return np.mean(errors, axis=0)


@pytest.mark.parametrize("early_stopping", [False, True])
def test_noise_variances_of_pixels_are_that_of_all_by_their_squared_errors(
    images, early_stopping
):
    X, X_val = images[:40] * 16, images[40:] * 16
    parameters = {**TINY, "latent_dim": 4, "filters": 8, "epochs": 100}
    parameters |= {"learning_rate": 5e-3, "early_stopping": early_stopping}
    held_out = {"X_val": X_val} if early_stopping else {}
    s = ConvVAE(**parameters).fit(X, **held_out).noise_variance_
    vae = ConvVAE(**parameters, noise_type="diag").fit(X, **held_out)
    expected = []
    for each in (X, X_val):
        m = drawn_pixel_errors(vae, each)
        expected.append(np.maximum(s * (40 * m / m.mean() + 4) / 44, 1e-4 * 16**2))
    # One draw an image stands behind it, hence some noise.
    errors = [np.abs(np.log(vae.noise_variance_ / each)).mean() for each in expected]
    assert errors[0] < 0.1 < errors[1]
    assert vae.noise_variance_.min() == pytest.approx(expected[0].min(), rel=0.1)
    assert not vae.noise_variance_.flags.writeable


def test_the_noise_type_changes_nothing_of_training(images):
    spherical = ConvVAE(**TINY, early_stopping=True).fit(images)
    diag = ConvVAE(**TINY, early_stopping=True, noise_type="diag").fit(images)
    assert diag.history_ == spherical.history_
    for path, weight in spherical.weights_.items():
        np.testing.assert_array_equal(diag.weights_[path], weight)
    assert diag._state_["noise_variance"] == spherical._state_["noise_variance"]


@pytest.mark.parametrize("likelihood", ["mse", "bernoulli"])
def test_a_noise_variance_of_each_pixel_needs_the_gaussian(images, likelihood):
    vae = ConvVAE(**TINY, noise_type="diag", likelihood=likelihood)
    with pytest.raises(ValueError, match=f"noise_type='diag' .* got .*'{likelihood}'"):
        vae.fit(images)
    assert not hasattr(vae, "weights_")


def test_noise_variance_has_its_floor():
    X = np.full((20, 4, 4), 0.5)
    vae = ConvVAE(**{**TINY, "epochs": 400, "learning_rate": 0.01}, value_range=(0, 2))
    assert vae.fit(X).noise_variance_ >= 1e-6 * 2**2 * (1 - 1e-6)
    assert np.isfinite(vae.score(X))


def test_latent_kl_is_the_mean_over_the_training_rows(images):
    vae = ConvVAE(**TINY, early_stopping=True, validation_fraction=0.3).fit(images)
    held_out = stream(0, Stream.VALIDATION_SPLIT).permutation(70)[:21]
    z_mean, z_log_var = np.delete(np.array(vae.posterior(images)), held_out, axis=1)
    expected = -0.5 * (1 + z_log_var - z_mean**2 - np.exp(z_log_var)).mean(axis=0)
    np.testing.assert_allclose(vae.latent_kl_, expected, rtol=1e-4)


def elbo_by_hand(vae, X, rng, n_draws=300):
    """Monte Carlo in numpy over the fitted encoder and decoder, float64."""
    z_mean, z_log_var = (a.astype(float) for a in vae.posterior(X))
    n_pixels = X[0].size
    variance = vae.noise_variance_
    total = np.zeros(len(X))
    for _ in range(n_draws):
        z = z_mean + np.exp(z_log_var / 2) * rng.standard_normal(z_mean.shape)
        errors = ((vae.inverse_transform(z) - X) ** 2).sum(axis=(1, 2))
        total -= errors / (2 * variance)
    log_likelihood = total / n_draws - n_pixels / 2 * np.log(2 * np.pi * variance)
    kl = -0.5 * (1 + z_log_var - z_mean**2 - np.exp(z_log_var)).sum(axis=1)
    return log_likelihood - kl


@pytest.mark.parametrize("likelihood", ["gaussian", "mse"])
def test_val_loss_is_the_negative_elbo_of_the_validation_images(images, likelihood):
    images = images.repeat(2, axis=1).repeat(2, axis=2)  # errors outweigh the KL
    X, X_val = images[:40] * 16, images[40:] * 16
    parameters = {**TINY, "filters": 8, "epochs": 60, "learning_rate": 1e-2}
    vae = ConvVAE(**parameters, likelihood=likelihood, early_stopping=True, beta=0.03)
    vae.fit(X, X_val=X_val)
    assert vae.latent_kl_.sum() > 1  # so that its weight counts
    expected = elbo_by_hand(vae, X_val, np.random.default_rng(0))
    one_draw = vae.score_samples(X_val, n_draws=1)
    tolerance = 4 * np.std(one_draw - expected) / np.sqrt(len(X_val)) + 0.05
    assert -min(vae.history_["val_loss"]) == pytest.approx(
        expected.mean(), abs=tolerance
    )


def test_val_loss_has_fixed_draws(images):
    """With a learning rate of almost nothing it does not move."""
    parameters = {**TINY, "learning_rate": 1e-30, "likelihood": "mse"}
    vae = ConvVAE(**parameters, early_stopping=True).fit(images)
    assert len(set(vae.history_["val_loss"])) == 1
    assert len(set(vae.history_["loss"])) == 3


def test_overfitting_stops_and_the_best_weights_come_back(images):
    parameters = {
        **TINY,
        "latent_dim": 8,
        "filters": 16,
        "learning_rate": 5e-3,
        "early_stopping": True,
        "n_iter_no_change": 5,
    }
    X, X_val = images[:40], images[40:]
    vae = ConvVAE(**{**parameters, "epochs": 500}).fit(X, X_val=X_val)
    loss, val_loss = vae.history_["loss"], vae.history_["val_loss"]
    best = int(np.argmin(val_loss))
    assert vae.n_iter_ == len(val_loss) == best + 1 + 5 < 500
    assert loss[-1] < loss[best]
    assert val_loss[-1] > val_loss[best]
    until_best = ConvVAE(**{**parameters, "epochs": best + 1}).fit(X, X_val=X_val)
    for path, weight in until_best.weights_.items():
        np.testing.assert_array_equal(weight, vae.weights_[path])
    last_weights = vae._state_["last_weights"]
    np.testing.assert_array_equal(last_weights, until_best._state_["last_weights"])
    assert vae.noise_variance_ == until_best.noise_variance_


def test_early_stopping_goes_on_from_the_restored_weights(images):
    parameters = {**TINY, "early_stopping": True, "warm_start": True}
    vae = ConvVAE(**{**parameters, "learning_rate": 1e-2}).fit(images)
    best = min(vae.history_["val_loss"])
    # From here on training does harm: what was best comes back.
    before = {path: weight.copy() for path, weight in vae.weights_.items()}
    vae.set_params(learning_rate=5.0).fit(images)
    assert min(vae.history_["val_loss"]) == best
    assert vae.n_iter_ == len(vae.history_["val_loss"]) == 6
    for path, weight in before.items():
        np.testing.assert_array_equal(weight, vae.weights_[path])


def test_history_has_a_value_an_epoch_when_early_stopping_comes_later(images):
    vae = ConvVAE(**TINY, warm_start=True).fit(images)
    vae.set_params(early_stopping=True).fit(images)
    assert np.isnan(vae.history_["val_loss"]).tolist() == [True] * 3 + [False] * 3


def test_partial_fit_keeps_layout_and_range_of_the_first_call(images):
    vae = ConvVAE(**TINY).partial_fit(images * 10)
    vae.partial_fit(images[:9] * 2)
    assert vae.value_range_ == (0, 10)
    assert vae.n_iter_ == 2


def test_partial_fit_with_early_stopping_raises(images):
    with pytest.raises(AttributeError):
        ConvVAE(early_stopping=True).partial_fit(images)


def test_divergence_is_an_error_and_leaves_the_estimator(images):
    vae = ConvVAE(**TINY, warm_start=True).fit(images)
    before = ConvVAE(**TINY).fit(images)
    vae.set_params(learning_rate=1e30)
    with pytest.raises(ValueError, match="learning_rate"):
        vae.fit(images)
    assert_same_fit(vae, before)
    # The next fit finds the shared network in order.
    assert_same_fit(ConvVAE(**TINY).fit(images), before)


@pytest.mark.parametrize(
    "optimizer",
    ["adagrad", "adam", "adamax", "adamw", "lion", "nadam", "rmsprop", "sgd"],
)
def test_each_optimizer_lowers_the_loss(images, optimizer):
    rate = {"sgd": 1e-5, "adagrad": 1e-2}.get(optimizer, 1e-3)
    parameters = {**TINY, "epochs": 20, "learning_rate": rate, "optimizer": optimizer}
    losses = ConvVAE(**parameters).fit(images).history_["loss"]
    assert losses[-1] < losses[0]


def test_one_variable_for_all_weights_steps_like_kerass_optimizer_on_each(images):
    """Three Adam steps against Keras's on variables of their own."""
    import keras
    import tensorflow as tf

    parameters = {**TINY, "filters": 4, "likelihood": "mse", "batch_size": 70}
    vae = ConvVAE(**parameters)
    start = ConvVAE(**{**parameters, "learning_rate": 1e-30}).partial_fit(images)
    models = start.to_keras()
    optimizer = keras.optimizers.Adam(1e-3)
    for epoch in range(3):
        order = stream(0, Stream.PERMUTATION, epoch).permutation(70)
        noise_seed = int(stream(0, Stream.NOISE, epoch).integers(2**63))
        epsilon = tf.random.stateless_normal((70, 2), [noise_seed, 0])
        batch = images[order].astype(np.float32)[..., None]
        with tf.GradientTape() as tape:
            z_mean, z_log_var, _ = models.encoder(batch)
            decoded = models.decoder(z_mean + tf.exp(0.5 * z_log_var) * epsilon)
            kl = -0.5 * tf.reduce_sum(
                1 + z_log_var - z_mean**2 - tf.exp(z_log_var), axis=1
            )
            error = tf.reduce_sum((batch - decoded) ** 2, axis=(1, 2, 3))
            loss = tf.reduce_mean(error + kl)
        variables = models.vae.trainable_variables
        optimizer.apply_gradients(
            zip(tape.gradient(loss, variables), variables, strict=True)
        )
        vae.partial_fit(images)
        assert vae.history_["loss"][-1] == pytest.approx(float(loss), rel=1e-5)
    # A hundredth of what three steps can move a weight: Adam turns the rounding of a
    # gradient near zero into a visible part of a step.
    expected = np.concatenate([variable.numpy().ravel() for variable in variables])
    last_weights = vae._state_["last_weights"]
    np.testing.assert_allclose(last_weights, expected, rtol=0, atol=3e-5)


def test_weights_are_a_moving_average_over_steps(images):
    """TensorFlow's formula: min(0.98, (1 + n) / (10 + n)) of the average remains."""
    parameters = {**TINY, "batch_size": 70, "learning_rate": 1e-2}
    start = ConvVAE(**{**parameters, "learning_rate": 1e-30}).partial_fit(images)
    average = flat(start.weights_).astype(float)
    vae = ConvVAE(**parameters)
    for n in range(1, 450):
        vae.partial_fit(images)
        remaining = min(0.98, (1 + n) / (10 + n))
        last_weights = vae._state_["last_weights"]
        average = remaining * average + (1 - remaining) * last_weights
        if n in (1, 2, 30, 449):
            np.testing.assert_allclose(flat(vae.weights_), average, atol=1e-5)
            assert np.abs(last_weights - average).max() > 1e-3


def test_training_goes_on_from_the_last_weights_or_from_those_that_replace_them(
    images,
):
    vae = ConvVAE(**TINY).fit(images)
    last_weights, still = vae._state_["last_weights"], {"learning_rate": 1e-30}
    vae.set_params(**still).partial_fit(images)
    np.testing.assert_array_equal(vae._state_["last_weights"], last_weights)
    # Other dtypes of the same values are no others.
    vae.weights_ = {p: weight.astype(float) for p, weight in vae.weights_.items()}
    vae.partial_fit(images)
    np.testing.assert_array_equal(vae._state_["last_weights"], last_weights)
    vae.weights_ = {path: weight / 2 for path, weight in vae.weights_.items()}
    replaced = flat(vae.weights_)
    vae.partial_fit(images)
    np.testing.assert_array_equal(vae._state_["last_weights"], replaced)
    np.testing.assert_array_equal(flat(vae.weights_), replaced)


@pytest.mark.filterwarnings("ignore:X has values from")
def test_the_gradients_norm_is_clipped_at_10_nats_a_pixel(images):
    """A step of gradient descent on images far outside the value range."""
    parameters = {**TINY, "epochs": 1, "batch_size": 70, "likelihood": "mse"}
    vae = ConvVAE(
        **{**parameters, "learning_rate": 1e-30, "optimizer": "sgd"},
        last_activation="linear",
        value_range=(0, 1e-4),
        warm_start=True,
    ).fit(images)
    before = vae._state_["last_weights"]
    vae.set_params(learning_rate=1e-6).fit(images)
    step = np.linalg.norm(vae._state_["last_weights"] - before)
    assert step == pytest.approx(1e-6 * 10 * 64, rel=1e-3)


def test_later_calls_of_partial_fit_check_the_parameters(images):
    vae = ConvVAE(**TINY).partial_fit(images)
    with pytest.raises(ValueError, match="learning_rate"):
        vae.set_params(learning_rate=-1.0).partial_fit(images)


def test_a_subclass_keeps_its_own_attributes(images):
    vae = ConvVAE(**TINY)
    vae.mine_ = 5
    assert vae.fit(images).mine_ == 5


def test_a_second_fit_of_an_architecture_builds_and_traces_nothing(images):
    vae = ConvVAE(3, filters=3, hidden_layers=2, epochs=2, early_stopping=True)

    def use(X, batch_size, n_draws):
        vae.set_params(batch_size=batch_size).fit(X)
        vae.inverse_transform(vae.transform(X))
        vae.score_samples(X, n_draws=n_draws)
        vae.sample(n_draws)

    floats, bytes_ = images, (images * 255).astype(np.uint8)
    with counted_traces() as counts:
        use(floats, 16, 8)
        use(bytes_, 16, 8)
    assert counts["built"] == 1
    assert counts["traced"] > 0
    with counted_traces() as counts:
        for X, batch_size, n_draws in [
            (floats, 16, 8),
            (bytes_, 5, 1),
            (floats[:33], 70, 3),
            (floats.astype(int), 64, 100),
            (floats > 0.5, 1, 2),
        ]:
            vae.set_params(learning_rate=0.01, beta=0.5, random_state=batch_size)
            vae.set_params(kl_warmup_epochs=batch_size, free_bits=0.1 * batch_size)
            use(X, batch_size, n_draws)
    assert counts == {"built": 0, "traced": 0}


@pytest.mark.parametrize("batch_size", [71, 2**70])
def test_a_batch_larger_than_the_data_is_all_of_it(images, batch_size):
    first, second = (
        ConvVAE(**{**TINY, "batch_size": size}).fit(images)
        for size in (batch_size, len(images))
    )
    assert_same_fit(first, second)


@pytest.mark.slow
def test_memory_and_traces_stay_flat_over_500_fits_of_40_architectures(run_python):
    """Once all are compiled, as in a large random search."""
    printed = run_python(
        """
import random
import numpy as np, psutil
from helpers import counted_traces
from skvae import ConvVAE
random.seed(0)
X = np.random.default_rng(0).random((24, 4, 4))
grid = [(latent_dim, filters) for latent_dim in range(1, 5) for filters in range(1, 11)]
memory = []
with counted_traces() as counts:
    for i in range(500):
        latent_dim, filters = grid[i] if i < 40 else random.choice(grid)
        vae = ConvVAE(latent_dim, filters=filters, hidden_layers=1, epochs=1)
        vae.fit(X).transform(X)
        memory.append(psutil.Process().memory_info().rss)
        if i == 39:
            after_all = dict(counts)
print(memory[499] / memory[59], after_all == counts, counts["built"])
""",
    )
    growth, is_flat, n_built = printed.split()
    assert abs(float(growth) - 1) < 0.05
    assert (is_flat, n_built) == ("True", "40")


def test_graph_dtypes_hold_the_values():
    for dtype in ("?", "u1", "i1", "i2", "u2", "f2", "f4", "i4", "u4", "f8", ">f4"):
        X = np.array([0, 1, 2**31 - 1]).clip(0, largest_value(dtype)).astype(dtype)
        converted = to_graph_dtype(X)
        assert converted.dtype in (np.uint8, np.float32, np.float64)
        np.testing.assert_array_equal(converted, X)


def largest_value(dtype):
    if dtype == "?":
        return 1
    return (np.finfo if "f" in dtype else np.iinfo)(dtype).max


def test_the_kls_weight_rises_over_the_warm_up(images):
    parameters = {**TINY, "beta": 2.0, "epochs": 6}
    vae = ConvVAE(**parameters, kl_warmup_epochs=4).fit(images)
    history = {name: np.array(values) for name, values in vae.history_.items()}
    weights = (history["loss"] - history["reconstruction"]) / history["kl"]
    np.testing.assert_allclose(weights, [0, 0.5, 1, 1.5, 2, 2], atol=1e-3)
    parts = ConvVAE(**parameters, kl_warmup_epochs=4, warm_start=True)
    assert_same_fit(vae, parts.set_params(epochs=3).fit(images).fit(images))


def test_without_the_kls_weight_the_latents_say_more(images):
    """A warm-up that lasts: the KL grows as if it cost nothing."""
    parameters = {**TINY, "epochs": 40, "learning_rate": 1e-2}
    kl = ConvVAE(**parameters).fit(images).latent_kl_.sum()
    warm = ConvVAE(**parameters, kl_warmup_epochs=10**6).fit(images)
    assert warm.latent_kl_.sum() > 1.5 * kl


def test_free_bits_keep_every_latent_at_that_many_nats(images):
    parameters = {**TINY, "epochs": 400, "learning_rate": 2e-3, "beta": 20.0}
    assert np.all(ConvVAE(**parameters).fit(images).latent_kl_ < 0.1)
    vae = ConvVAE(**parameters, free_bits=0.7).fit(images)
    np.testing.assert_allclose(vae.latent_kl_, 0.7, atol=0.2)


def test_the_loss_counts_no_less_than_the_free_bits(images):
    """One batch an epoch, so that the batch's mean KL is the history's."""
    parameters = {**TINY, "batch_size": 70, "beta": 3.0, "epochs": 1}
    vae = ConvVAE(**parameters, free_bits=5.0).fit(images)
    (loss,), (reconstruction,) = vae.history_["loss"], vae.history_["reconstruction"]
    assert loss - reconstruction == pytest.approx(3.0 * 2 * 5.0, abs=1e-3)
    assert vae.history_["kl"][0] < 2.0


@pytest.fixture
def still():
    """Parameters of training without gain."""
    parameters = {**TINY, "early_stopping": True, "n_iter_no_change": 2, "epochs": 30}
    return parameters | {"learning_rate": 1e-30}


def test_early_stopping_waits_for_the_end_of_the_warm_up(images, still):
    still["batch_size"] = 1  # 63 steps an epoch
    assert ConvVAE(**still).fit(images).n_iter_ == 3
    assert ConvVAE(**still, kl_warmup_epochs=8).fit(images).n_iter_ == 8 + 3


def test_early_stopping_does_not_count_epochs_of_the_first_100_steps(images, still):
    """Epochs have 4 steps: the 25th and the 26th are counted."""
    assert ConvVAE(**still).fit(images).n_iter_ == 26


def test_the_best_epoch_is_none_of_the_warm_up():
    """With beta = 8 the loss (beta = 1) is lowest where the KL weighs less."""
    X = load_digits().images[:300] / 16  # of which 270 make 17 steps an epoch
    parameters = {**TINY, "latent_dim": 4, "filters": 8, "learning_rate": 5e-3}
    parameters |= {"beta": 8.0, "early_stopping": True, "kl_warmup_epochs": 30}
    vae = ConvVAE(**{**parameters, "epochs": 45}).fit(X)
    assert np.argmin(vae.history_["val_loss"]) < 30
    steps, *_ = vae._state_["optimizer_arrays"]
    assert steps > 30 * 17
    # Training that ends within the warm-up gives its last epoch.
    vae = ConvVAE(**{**parameters, "epochs": 25}).fit(X)
    assert np.argmin(vae.history_["val_loss"]) < 24
    steps, *_ = vae._state_["optimizer_arrays"]
    assert steps == 25 * 17


def test_with_early_stopping_the_noise_variance_is_that_of_the_validation_images(
    images,
):
    X, X_val = images[:40], images[40:]
    parameters = {**TINY, "latent_dim": 8, "filters": 16, "learning_rate": 5e-3}
    vae = ConvVAE(**{**parameters, "epochs": 300}, early_stopping=True)
    vae.fit(X, X_val=X_val)
    # One draw an image stands behind it, hence some noise.
    assert vae.noise_variance_ == pytest.approx(drawn_error(vae, X_val), rel=0.1)
    # The training images' own is smaller.
    assert vae._state_["noise_variance"] < 0.9 * vae.noise_variance_


@pytest.fixture
def noise_factors(monkeypatch):
    """Noise factors of all steps, which are one an epoch with 40 images."""
    factors = []
    train_steps = Trainer.train_steps

    def noted(self, *args, noise_factor, **kwargs):
        factors.append(noise_factor)
        return train_steps(self, *args, noise_factor=noise_factor, **kwargs)

    monkeypatch.setattr(Trainer, "train_steps", noted)
    return factors


def test_training_uses_the_noise_variance_of_the_validation_images(
    images, noise_factors
):
    """From the first epoch's end on, and in a later fit from its start."""
    X, X_val = images[:40], images[40:]
    parameters = {**TINY, "latent_dim": 8, "filters": 16, "learning_rate": 5e-3}
    parameters |= {"batch_size": 40, "early_stopping": True, "warm_start": True}
    vae = ConvVAE(**{**parameters, "epochs": 300}).fit(X, X_val=X_val)
    best = int(np.argmin(vae.history_["val_loss"]))
    assert len(noise_factors) == len(vae.history_["loss"]) > best + 1
    assert min(noise_factors) == noise_factors[0] == 1.0
    of_best = vae.noise_variance_ / vae._state_["noise_variance"]
    assert noise_factors[best + 1] == of_best > 1.1
    vae.set_params(epochs=1).fit(X, X_val=X_val)
    assert noise_factors[-1] == of_best


def test_few_validation_images_and_fixed_noise_leave_training_alone(
    images, noise_factors
):
    parameters = {**TINY, "latent_dim": 8, "filters": 16, "learning_rate": 5e-3}
    parameters |= {"early_stopping": True, "epochs": 60}
    ConvVAE(**parameters).fit(images[:40], X_val=images[40:60])
    ConvVAE(**parameters, likelihood="mse").fit(images[:40], X_val=images[30:])
    assert set(noise_factors) == {1.0}


def test_the_decoder_starts_at_the_mean_of_the_training_images(images):
    X = np.stack([images, images / 4], axis=-1)
    X_val = np.ones_like(X)
    still = {**TINY, "epochs": 1, "learning_rate": 1e-30}
    for linear in (False, True):
        activation = "linear" if linear else "sigmoid"
        vae = ConvVAE(**still, early_stopping=True, last_activation=activation)
        bias = vae.fit(X, X_val=X_val).weights_["decoder_output/bias"]
        mean = X.mean(axis=(0, 1, 2))
        expected = mean if linear else np.log(mean / (1 - mean))
        np.testing.assert_allclose(bias, expected, rtol=1e-4)


def test_appended_images_extend_the_validation_set():
    """No image that was trained on is held out later, and the fraction is kept."""
    trained, held_out, sizes = split_rows(40, 0.2, 0)
    assert len(held_out) == 8
    for n in (40, 41, 45, 70, 70, 1000):
        later_trained, later_held_out, sizes = split_rows(n, 0.2, 0, sizes)
        assert not set(trained) & set(later_held_out)
        assert set(held_out) <= set(later_held_out)
        assert len(later_held_out) == math.ceil(0.2 * n)
        both = np.concatenate([later_trained, later_held_out])
        np.testing.assert_array_equal(np.sort(both), np.arange(n))
        trained, held_out = later_trained, later_held_out
    assert sizes == (40, 41, 45, 70, 1000)


def test_a_fit_continues_with_appended_images(images, tmp_path):
    """Held-out images that are replaced by noise leave training as it is."""
    *_, sizes = split_rows(40, 0.2, 0)
    _, held_out, _ = split_rows(70, 0.2, 0, sizes)
    replaced = images.copy()
    replaced[held_out] = 1 - images[held_out]
    params = {**TINY, "epochs": 1, "early_stopping": True, "validation_fraction": 0.2}
    vaes = [ConvVAE(**params, warm_start=True, value_range=(0, 1)) for _ in range(2)]
    for vae, X in zip(vaes, (images, replaced), strict=True):
        vae.fit(X[:40])
        joblib.dump(vae, tmp_path / "vae.joblib")
        vae.fit(X)
        assert_same_fit(joblib.load(tmp_path / "vae.joblib").fit(X), vae)
    one, other = (vae.history_ for vae in vaes)
    assert one["loss"] == other["loss"]
    assert one["val_loss"] != other["val_loss"]
