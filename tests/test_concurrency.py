"""Many threads at a time, and processes that are forked off."""

import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from helpers import TINY, counted_traces
from sklearn.mixture import GaussianMixture

from skvae import ConvVAE

N_THREADS, N_CALLS = 8, 200


def test_eight_threads_on_fitted_estimators_give_what_one_gives(images):
    vaes = [
        ConvVAE(**{**TINY, **parameters}).fit(images)
        for parameters in (
            {},
            {"random_state": 1},
            {"filters": 3, "likelihood": "bernoulli"},
            {"latent_dim": 3, "hidden_layers": 1, "sampler": GaussianMixture(2)},
        )
    ]

    def call(i):
        vae, n = vaes[i % 7 % len(vaes)], 1 + i % 5
        X = images[i % 30 : i % 30 + n]
        what = i % 4
        if what == 0:
            return vae.transform(X)
        if what == 1:
            return vae.score_samples(X, n_draws=4)
        if what == 2:
            return vae.sample(n, random_state=i)
        return vae.inverse_transform(np.full((n, vae.latent_dim), i / 999))

    numbers = range(N_THREADS * N_CALLS)
    serial = [call(i) for i in numbers]
    with counted_traces() as counts, ThreadPoolExecutor(N_THREADS) as pool:
        threaded = list(pool.map(call, numbers, timeout=300))
    for one, many in zip(serial, threaded, strict=True):
        np.testing.assert_array_equal(one, many)
    assert counts == {"built": 0, "traced": 0}


FORKED = """
import json, multiprocessing
import joblib
import numpy as np
from skvae import ConvVAE

X = np.random.default_rng(0).random((20, 8, 8))
CALLS = {
    "fit": lambda vae: vae.fit(X).n_iter_,
    "transform": lambda vae: vae.transform(X).shape[0],
    "score_samples": lambda vae: len(vae.score_samples(X)),
    "inverse_transform": lambda vae: len(vae.inverse_transform(np.zeros((2, 2)))),
    "sample": lambda vae: len(vae.sample(3)),
    "to_keras": lambda vae: len(vae.to_keras()),
}

def call(name):
    try:
        return CALLS[name](vae)
    except RuntimeError as error:
        return str(error)

def in_forks(names):
    # A pool for each call, in which nothing was done before.
    given = {}
    for name in names:
        with multiprocessing.get_context("fork").Pool(1) as pool:
            given[name] = pool.apply_async(call, (name,)).get(timeout=120)
    return given
"""


def test_a_fork_before_tensorflow_has_started_works(run_python, images, tmp_path):
    import joblib

    vae = ConvVAE(**TINY).fit(images)
    joblib.dump(vae, tmp_path / "vae.joblib")
    printed = run_python(
        FORKED
        + """
import tensorflow
vae = joblib.load("vae.joblib")
print(json.dumps(in_forks(["fit"])))
"""
    )
    assert json.loads(printed) == {"fit": 3}


def test_a_fork_after_tensorflow_has_started_says_what_to_do(run_python):
    printed = run_python(
        FORKED
        + """
vae = ConvVAE(2, filters=2, hidden_layers=2, epochs=1, random_state=0).fit(X)
print(json.dumps(in_forks(CALLS)))
vae.transform(X)
"""
    )
    for name, message in json.loads(printed).items():
        assert "forked" in str(message), name
        assert "loky" in message, name
