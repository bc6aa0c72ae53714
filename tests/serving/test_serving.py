"""Results of a fitted ConvVAE: values, reproducible bits, use of its arrays."""

import copy
import gc
import json
import pickle
import threading
import weakref

import joblib
import numpy as np
import pytest
import reference
from helpers import TINY, starting_weights
from scipy import stats
from scipy.special import expit, logsumexp

from skvae import ConvVAE
from skvae.architecture import Architecture
from skvae.serving import sessions
from skvae.serving.graphs import Graph
from skvae.serving.scores import elbo_terms, log_likelihoods
from skvae.serving.sessions import FittedNetwork, fitted_network
from skvae.streams import stream

RANGE = (-1.0, 4.0)

# Odd and even, tall and wide, smaller than a kernel, with and without channels.
SHAPES = [(8, 8, 1), (7, 5, 3), (27, 19, 3), (1, 40, 1), (1, 1, 1), (21, 10, 1)]


def network(image_shape, kernel_size=3, likelihood="gaussian", **choices):
    """A network with weights that no training made, biases included."""
    activation = "linear" if likelihood == "mse" else "sigmoid"
    architecture = Architecture(
        image_shape,
        **{"latent_dim": 3, "filters": 4, "hidden_layers": 3, **choices},
        kernel_size=kernel_size,
        last_activation=activation,
        likelihood=likelihood,
    )
    rng = np.random.default_rng(1)
    weights = {
        path: weight + rng.normal(0, 0.1, weight.shape).astype(np.float32)
        for path, weight in starting_weights(architecture, stream(0, 0)).items()
    }
    return FittedNetwork(architecture, weights, RANGE, seed=5)


def images_for(served, n=9):
    shape = served.architecture.image_shape
    return np.random.default_rng(2).uniform(*RANGE, (n, *shape))


def in_network_units(X):
    """float32, as networks take them: what float64 computes is then comparable."""
    low, high = RANGE
    return ((X - low) / (high - low)).astype(np.float32).astype(float)


def assert_near(value, expected, scale=1.0):
    atol = 1e-6 * scale * max(1.0, np.abs(expected / scale).max())
    np.testing.assert_allclose(value, expected, rtol=0, atol=atol)


@pytest.mark.parametrize("kernel_size", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("image_shape", SHAPES)
def test_encoder_and_decoder_are_those_of_float64(image_shape, kernel_size):
    served = network(image_shape, kernel_size)
    architecture, weights = served.architecture, served.weights
    X = images_for(served)
    expected = reference.encode(architecture, weights, in_network_units(X))
    for part, other in zip(served.encode(X), expected, strict=True):
        assert part.dtype == np.float32
        assert_near(part, other)
    z = np.random.default_rng(3).normal(size=(9, 3)).astype(np.float32)
    means = expit(reference.decode(architecture, weights, z.astype(float)))
    decoded = served.decode(z, image_shape)
    assert decoded.dtype == np.float32
    assert_near(decoded, -1 + 5 * means, scale=5)


@pytest.mark.parametrize("latent_dim", [9, 64])
def test_large_weights_are_those_of_float64(latent_dim):
    """More than a session takes from its serialized model, and kept alive by it."""
    served = network((16, 16, 1), filters=32, hidden_layers=2, latent_dim=latent_dim)
    assert max(weight.nbytes for weight in served.weights.values()) > 2**18
    X = images_for(served)
    expected = reference.encode(
        served.architecture, served.weights, in_network_units(X)
    )
    served.encode(X[:1])
    sizes = [weight.size for weight in served.weights.values()]
    served.weights = {}
    gc.collect()
    taken = [np.full(size, np.nan, np.float32) for size in sizes for _ in range(3)]
    assert_near(served.encode(X)[0], expected[0])
    del taken


@pytest.mark.parametrize("n_draws", [1, 64])
@pytest.mark.parametrize("likelihood", ["gaussian", "mse", "bernoulli"])
@pytest.mark.parametrize("image_shape", [(8, 8, 1), (7, 5, 3), (21, 10, 1)])
def test_scores_are_those_of_float64(image_shape, likelihood, n_draws):
    """Every term by scipy, of the same draws."""
    served = network(image_shape, likelihood=likelihood)
    architecture, weights = served.architecture, served.weights
    X = images_for(served, n=4)
    x = in_network_units(X)
    z_mean, z_log_var = reference.encode(architecture, weights, x)
    draws = served.draws(n_draws)
    rows = x.reshape(4, -1)
    epsilon = draws.normal(draws.shift(rows), range(n_draws))
    scale = np.exp(z_log_var / 2)[:, None]
    z = z_mean[:, None] + scale * epsilon
    outputs = reference.decode(architecture, weights, z.reshape(-1, 3))
    outputs = outputs.reshape(4, n_draws, -1)
    pixels, variance = rows[:, None], 0.01
    if likelihood == "bernoulli":
        log_p = pixels * np.log(expit(outputs)) + (1 - pixels) * np.log(expit(-outputs))
    else:
        means = outputs if likelihood == "mse" else expit(outputs)
        log_p = stats.norm(means, np.sqrt(variance)).logpdf(pixels) - np.log(5)
    log_ratio = stats.norm.logpdf(z) - stats.norm(z_mean[:, None], scale).logpdf(z)
    log_weights = log_p.sum(axis=2) + log_ratio.sum(axis=2)
    expected = logsumexp(log_weights, axis=1) - np.log(n_draws)
    noise_variance = 0.5 if likelihood == "bernoulli" else variance
    scores = log_likelihoods(served, X, noise_variance, n_draws)
    assert scores.dtype == np.float64
    np.testing.assert_allclose(scores, expected, rtol=1e-6, atol=1e-4)


def test_terms_of_the_bound_are_those_of_one_draw():
    """error / (2 v) + constant + KL: of the mean of many draws' log-weights."""
    served = network((8, 8, 1))
    X = images_for(served, n=3)
    errors, kl = elbo_terms(served, X, served.draws(1))
    z_mean, z_log_var = served.encode(X)
    expected = 0.5 * (
        z_mean.astype(float) ** 2 + np.exp(z_log_var.astype(float)) - 1 - z_log_var
    ).sum(axis=1)
    np.testing.assert_allclose(kl, expected, rtol=1e-5)
    assert (errors > 0).all()


# The same bits.


def all_results(served, X, Z):
    return [
        *served.encode(X),
        served.decode(Z, served.architecture.image_shape),
        log_likelihoods(served, X, 0.1, 3),
        log_likelihoods(served, X, 0.1, 100),
        *elbo_terms(served, X, served.draws(1)),
    ]


@pytest.mark.parametrize("n_cores", [1, 2, 5])
@pytest.mark.parametrize(
    ("image_shape", "choices"),
    [
        ((8, 8, 1), {"filters": 16}),
        ((27, 19, 3), {"latent_dim": 17, "filters": 3}),
        ((100, 101, 1), {"kernel_size": 5}),
        ((1, 1, 1), {"latent_dim": 1}),
        ((8, 8, 1), {"likelihood": "bernoulli", "hidden_layers": 1}),
    ],
)
def test_no_bit_depends_on_company_order_or_threads(
    image_shape, choices, n_cores, monkeypatch
):
    served = network(image_shape, **choices)
    X = images_for(served, n=23)
    Z = np.random.default_rng(4).normal(size=(23, served.architecture.latent_dim))
    Z = Z.astype(np.float32)
    monkeypatch.setattr(FittedNetwork, "images_at_once", 40)
    monkeypatch.setattr("skvae.serving.batches.n_cores", lambda: 1)
    expected = all_results(served, X, Z)
    monkeypatch.setattr("skvae.serving.batches.n_cores", lambda: n_cores)
    order = np.random.default_rng(6).permutation(23)
    for rows in (order, order[:1], order[:2], order[5:12], slice(None)):
        for result, whole in zip(
            all_results(served, X[rows], Z[rows]), expected, strict=True
        ):
            np.testing.assert_array_equal(result, whole[rows])


def test_no_bit_depends_on_how_many_thousands_there_are():
    served = network((8, 8, 1), filters=8)
    X = images_for(served, n=6000)
    whole = served.encode(X)
    decoded = served.decode(whole[0], (8, 8))
    for i in (0, 1, 2999, 5999):
        for part, all_parts in zip(served.encode(X[i : i + 1]), whole, strict=True):
            np.testing.assert_array_equal(part[0], all_parts[i])
        alone = served.decode(whole[0][i : i + 1], (8, 8))
        np.testing.assert_array_equal(alone[0], decoded[i])


@pytest.mark.filterwarnings("ignore:X has values from")
def test_errors_that_the_host_has_raised_are_not(images):
    vae = ConvVAE(**TINY).fit(images)
    expected = vae.score_samples(images), vae.transform(images)
    with np.errstate(all="raise"):
        for result, other in zip(
            (vae.score_samples(images), vae.transform(images)), expected, strict=True
        ):
            np.testing.assert_array_equal(result, other)
        vae.score_samples(np.full((1, 8, 8), 1e6), n_draws=300)


def test_terms_of_the_bound_that_overflow_are_an_error():
    served = network((8, 8, 1), likelihood="mse")
    served.weights["decoder_output/kernel"][...] = 3e38
    with pytest.raises(sessions.OutputOverflowError):
        elbo_terms(served, images_for(served), served.draws(1))


def test_scores_read_stored_images_a_few_times(images):
    class Stored:
        shape, dtype, n_reads = (70, 8, 8), images.dtype, 0

        def __getitem__(self, rows):
            self.n_reads += 1
            return images[rows]

    vae = ConvVAE(**TINY).fit(images)
    stored = Stored()
    np.testing.assert_array_equal(vae.score_samples(stored), vae.score_samples(images))
    assert stored.n_reads == 2  # the first chunk, for its units, and all


def test_spawned_processes_give_the_same_bits(images):
    vae = ConvVAE(**TINY).fit(images)
    calls = [
        (vae.transform, images),
        (vae.score_samples, images),
        (vae.inverse_transform, np.ones((4, 2))),
    ]
    spawned = joblib.Parallel(n_jobs=2)(
        joblib.delayed(method)(X[rows])
        for method, X in calls
        for rows in (slice(1), slice(1, None))
    )
    for i, (method, X) in enumerate(calls):
        parts = spawned[2 * i : 2 * i + 2]
        np.testing.assert_array_equal(np.concatenate(parts), method(X))


# What is kept.


@pytest.fixture
def sessions_made(monkeypatch):
    """Sessions made from here on, one entry each."""
    made = []
    make = Graph.to_session

    def counting(graph):
        made.append(graph)
        return make(graph)

    monkeypatch.setattr(Graph, "to_session", counting)
    return made


def use(vae, images):
    vae.transform(images), vae.posterior(images), vae.score_samples(images, 2)
    vae.sample(2), vae.inverse_transform(np.zeros((1, 2)))


def test_sessions_are_made_once_for_a_fitted_estimator(images, sessions_made):
    vae = ConvVAE(**TINY).fit(images)
    del sessions_made[:]
    for _ in range(2):
        use(vae, images)
        vae.set_params(verbose=0, epochs=7)
        use(copy.copy(vae), images)  # has the same arrays
    assert len(sessions_made) == 2
    other = pickle.loads(pickle.dumps(vae))
    use(other, images)
    assert len(sessions_made) == 4


def test_eight_threads_make_sessions_once(images, sessions_made):
    vae = ConvVAE(**TINY).fit(images)
    del sessions_made[:]
    barrier = threading.Barrier(8)

    def call():
        barrier.wait()
        use(vae, images)

    threads = [threading.Thread(target=call) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(sessions_made) == 2


@pytest.mark.parametrize(
    "change", ["fit", "warm_start", "partial_fit", "fit as before"]
)
def test_another_fit_is_used_at_once(images, change):
    vae = ConvVAE(**TINY).fit(images)
    before = vae.transform(images), vae.inverse_transform(np.ones((2, 2)))
    if change == "fit":
        vae.set_params(random_state=1).fit(images)
    elif change == "warm_start":
        vae.set_params(warm_start=True).fit(images)
    elif change == "partial_fit":
        vae.partial_fit(images)
    else:
        vae.fit(images)
    after = vae.transform(images), vae.inverse_transform(np.ones((2, 2)))
    fresh = pickle.loads(pickle.dumps(vae))
    np.testing.assert_array_equal(after[0], fresh.transform(images))
    np.testing.assert_array_equal(after[1], fresh.inverse_transform(np.ones((2, 2))))
    for one, other in zip(before, after, strict=True):
        assert np.array_equal(one, other) == (change == "fit as before")


COPIES = {
    "fitted": lambda vae: vae,
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": lambda vae: pickle.loads(pickle.dumps(vae)),
}


@pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES)
def test_fitted_arrays_are_read_only(images, copied):
    vae = copied(ConvVAE(**TINY).fit(images))
    arrays = [*vae.weights_.values(), vae.latent_kl_, *vae._state_["optimizer_arrays"]]
    for array in arrays:
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0


def test_replaced_weights_are_noticed(images):
    vae = ConvVAE(**TINY).fit(images)
    use(vae, images)
    z_mean = vae.transform(images)
    vae.weights_["encoder_z_mean/bias"] = vae.weights_["encoder_z_mean/bias"] + 1
    np.testing.assert_allclose(vae.transform(images), z_mean + 1, rtol=1e-5)
    # This one can be written to.
    vae.weights_["encoder_z_mean/bias"] += 1
    np.testing.assert_allclose(vae.transform(images), z_mean + 2, rtol=1e-5)
    vae.weights_ = {**vae.weights_, "decoder_output/kernel": np.zeros((3, 3, 1, 2))}
    assert len(np.unique(vae.sample(2))) == 1


def test_a_view_of_what_can_be_written_to_is_not_trusted(images):
    vae = ConvVAE(**TINY).fit(images)
    base = vae.weights_["encoder_z_mean/bias"].copy()
    view = base[:]
    view.flags.writeable = False
    vae.weights_["encoder_z_mean/bias"] = view
    z_mean = vae.transform(images)
    base += 1
    np.testing.assert_allclose(vae.transform(images), z_mean + 1, rtol=1e-5)


def test_a_copy_leaves_what_the_user_replaced_as_it_is(images):
    vae = ConvVAE(**TINY).fit(images)
    vae.weights_["encoder_z_mean/bias"] = bias = np.zeros(2, np.float32)
    copied = copy.copy(vae)
    bias += 1
    np.testing.assert_array_equal(copied.weights_["encoder_z_mean/bias"], 0)


@pytest.mark.parametrize(
    "weight", [np.zeros(3, np.float32), np.zeros((2, 1), np.float32), 0.0]
)
def test_replaced_weights_of_another_shape_are_refused(images, weight):
    vae = ConvVAE(**TINY).fit(images)
    vae.weights_["encoder_z_mean/bias"] = weight
    for call in (lambda: vae.transform(images), vae.to_onnx):
        with pytest.raises(ValueError, match=r"encoder_z_mean/bias.*\(2,\)"):
            call()


def arguments(architecture, seed):
    weights = starting_weights(architecture, stream(seed, 0))
    for weight in weights.values():
        weight.flags.writeable = False
    return architecture, weights, (0.0, 1.0), 0


@pytest.fixture
def kept(monkeypatch):
    """The cache, empty."""
    monkeypatch.setattr(sessions, "_networks", type(sessions._networks)())
    return sessions._networks


def test_kept_networks_are_bounded_in_number(kept, monkeypatch):
    monkeypatch.setattr(sessions, "MAX_NETWORKS", 2)
    architecture = Architecture((4, 4, 1), 1, 2, 1, 3, "linear", "mse")
    a, b, c = (arguments(architecture, seed) for seed in range(3))
    first = fitted_network(*a)
    fitted_network(*b)
    assert fitted_network(*a) is first
    fitted_network(*c)
    assert len(kept) == 2
    assert fitted_network(*a) is first  # b was used longest ago


def test_kept_networks_are_bounded_in_bytes(kept, monkeypatch):
    architecture = Architecture((8, 8, 1), 2, 2, 1, 3, "linear", "mse")
    X = np.zeros((1, 8, 8, 1))
    monkeypatch.setattr(sessions, "MAX_BYTES", 3 * 4 * architecture.n_weights)
    for seed in range(9):
        served = fitted_network(*arguments(architecture, seed))
        served.encode(X)
    # Weights and one session of each; the newest had none when it came.
    assert len(kept) == 2
    # One beyond the bound is kept nevertheless, but no other beside it.
    log_likelihoods(served, X, 0.5, 64)
    assert served.n_bytes > sessions.MAX_BYTES
    assert fitted_network(*arguments(architecture, 9)) is not served
    assert len(kept) == 1


def test_a_network_is_not_kept_for_ever_by_what_it_gives(kept, images):
    vae = ConvVAE(**TINY).fit(images)
    use(vae, images)
    network = weakref.ref(next(reversed(kept.values())))
    kept.clear()
    gc.collect()
    assert network() is None


# Interrupted.


@pytest.mark.linux
def test_scores_of_draws_without_end_can_be_interrupted(run_python):
    """2^31 - 1 draws take hours, of one row or of many."""
    run_python(
        """
import signal, threading
import numpy as np
from helpers import TINY
from skvae import ConvVAE
X = np.random.default_rng(0).random((30, 8, 8))
vae = ConvVAE(**TINY).fit(X)
def interrupt(*_):
    raise KeyboardInterrupt
signal.signal(signal.SIGALRM, interrupt)
for rows in (X[:1], X):
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    try:
        vae.score_samples(rows, n_draws=2**31 - 1)
    except KeyboardInterrupt:
        continue
    raise AssertionError("not interrupted")
assert np.isfinite(vae.score_samples(X)).all()
"""
    )


# Without TensorFlow.

WITHOUT_TENSORFLOW = """
import sys
sys.modules["tensorflow"] = sys.modules["keras"] = None
import json
import joblib, numpy as np, skops.io
from matplotlib import pyplot as plt
from skvae import (ConvVAE, LatentSpaceDisplay, ManifoldDisplay, ReconstructionDisplay,
                   SampleDisplay, TrainingDisplay)
X = np.load("images.npy")
pipeline = joblib.load("pipeline.joblib")
vae = skops.io.load("vae.skops", trusted=["skvae.estimator.ConvVAE"])
plt.switch_backend("agg")
for display in (LatentSpaceDisplay, ReconstructionDisplay):
    display.from_estimator(vae, X)
for display in (ManifoldDisplay, SampleDisplay, TrainingDisplay):
    display.from_estimator(vae)
np.savez("out.npz", pipeline.predict(X), vae.transform(X), vae.sample(3),
         vae.inverse_transform(vae.transform(X)), vae.score_samples(X))
vae.to_onnx(), vae.score(X), vae.posterior(X)
messages = []
for call in (lambda: vae.fit(X), lambda: vae.partial_fit(X), vae.to_keras,
             lambda: ConvVAE().fit(X)):
    try:
        call()
    except ImportError as error:
        messages.append(str(error))
print(json.dumps(messages))
"""


def test_what_is_fitted_works_without_tensorflow(images, run_python, tmp_path):
    import skops.io
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    vae = ConvVAE(**TINY).fit(images)
    labels = np.arange(len(images)) % 2
    pipeline = make_pipeline(vae, LogisticRegression()).fit(images, labels)
    vae = pipeline[0]
    np.save(tmp_path / "images.npy", images)
    joblib.dump(pipeline, tmp_path / "pipeline.joblib")
    skops.io.dump(vae, tmp_path / "vae.skops")
    messages = json.loads(run_python(WITHOUT_TENSORFLOW))
    with np.load(tmp_path / "out.npz") as out:
        predicted, *results = out.values()
    np.testing.assert_array_equal(predicted, pipeline.predict(images))
    for result, expected in zip(
        results,
        [
            vae.transform(images),
            vae.sample(3),
            vae.inverse_transform(vae.transform(images)),
            vae.score_samples(images),
        ],
        strict=True,
    ):
        np.testing.assert_array_equal(result, expected)
    assert len(messages) == 4
    for message in messages:
        assert "pip install" in message
        assert "tensorflow" in message
        assert "keras" in message
