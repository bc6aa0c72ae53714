"""Many threads at a time, and processes that are forked off."""

import copy
import json
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from helpers import TINY, assert_same_fit
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
    with ThreadPoolExecutor(N_THREADS) as pool:
        threaded = list(pool.map(call, numbers, timeout=300))
    for one, many in zip(serial, threaded, strict=True):
        np.testing.assert_array_equal(one, many)


@pytest.fixture
def frequent_switches():
    """Threads take turns hundreds of times as often as usual."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.usefixtures("frequent_switches")
def test_a_fit_at_the_same_time_changes_no_call_that_is_under_way(images):
    """Another value range and architecture, in turns, while three threads score."""
    vae = ConvVAE(**{**TINY, "epochs": 1}).fit(images)
    kinds = [
        {"value_range": (0, 1), "latent_dim": 2},
        {"value_range": (0, 9), "latent_dim": 3},
    ]
    expected, fitted = [], []
    for kind in kinds:
        vae.set_params(**kind).fit(images)
        expected.append(vae.score_samples(images[:3], n_draws=2).tolist())
        fitted.append({name: vars(vae)[name] for name in vars(vae) if name[-1] == "_"})
    is_over = False

    def score_all_along():
        found = []
        while not is_over:
            found.append(vae.score_samples(images[:3], n_draws=2).tolist())
        return found

    with ThreadPoolExecutor(3) as pool:
        scoring = [pool.submit(score_all_along) for _ in range(3)]
        try:
            for i in range(20):
                vae.set_params(**kinds[i % 2]).fit(images)
                for j in range(1000):  # what a fit ends with
                    vae._take(fitted[j % 2])
        finally:
            is_over = True
        found = [scores for each in scoring for scores in each.result(timeout=60)]
    assert len(found) > 60
    assert all(scores in expected for scores in found)


@pytest.mark.usefixtures("frequent_switches")
def test_fits_of_one_estimator_at_a_time_are_each_as_alone(images):
    vae = ConvVAE(**TINY).fit(images)
    expected = copy.deepcopy(vae)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: vae.fit(images), range(40), timeout=300))
    assert_same_fit(vae, expected)


FORKED = """
import copy, json, multiprocessing
import joblib
import numpy as np
from skvae import ConvVAE

X = np.random.default_rng(0).random((20, 8, 8))
SERVED = {
    "transform": lambda vae: vae.transform(X).tolist(),
    "score_samples": lambda vae: vae.score_samples(X).tolist(),
    "inverse_transform": lambda vae: vae.inverse_transform(np.ones((2, 2))).tolist(),
    "sample": lambda vae: vae.sample(3).tolist(),
}
TRAINED = {
    "fit": lambda vae: vae.fit(X).n_iter_,
    "to_keras": lambda vae: len(vae.to_keras()),
}

def call(name):
    try:
        return {**SERVED, **TRAINED}[name](vae)
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


@pytest.mark.linux
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


@pytest.mark.linux
@pytest.mark.slow
@pytest.mark.parametrize("imported", ["", "from skvae import ConvVAE"])
def test_a_fork_off_another_users_tensorflow_says_what_to_do(run_python, imported):
    """skvae has computed nothing, or is imported in the fork only."""
    printed = run_python(
        f"""
import os
import numpy as np
import tensorflow as tf
{imported}
float(tf.ones(3)[0] + 1)
child = os.fork()
if child == 0:
    from skvae import ConvVAE
    try:
        ConvVAE(2, filters=2, hidden_layers=1, epochs=1).fit(np.zeros((20, 8, 8)))
    except RuntimeError as error:
        print(error, flush=True)
    os._exit(0)
os.waitpid(child, 0)
"""
    )
    assert "forked" in printed
    assert "loky" in printed


@pytest.mark.linux
def test_in_a_fork_after_a_fit_all_is_served_and_fits_say_what_to_do(run_python):
    """Also where the parent has served, and goes on to while it forks."""
    printed = run_python(
        FORKED
        + """
import threading
vae = ConvVAE(2, filters=2, hidden_layers=2, epochs=1, random_state=0).fit(X)
expected = {name: call(name) for name in SERVED}
is_over = False
def serve():
    while not is_over:
        copy.deepcopy(vae).score_samples(X)  # with sessions of its own
threads = [threading.Thread(target=serve) for _ in range(2)]
for thread in threads:
    thread.start()
served, trained = in_forks(SERVED), in_forks(TRAINED)
is_over = True
print(json.dumps([served == expected, trained]))
"""
    )
    is_same, trained = json.loads(printed)
    assert is_same
    for name, message in trained.items():
        assert "forked" in str(message), name
        assert "loky" in message, name


def test_a_thread_that_outlives_the_main_thread_can_go_on(run_python):
    printed = run_python(
        """
import threading
import time
import numpy as np
from skvae import ConvVAE
X = np.random.default_rng(0).random((4000, 8, 8))
# Load Keras in the main thread: imports of other libraries fail once it has ended.
vae = ConvVAE(2, filters=2, hidden_layers=1, epochs=1).fit(X[:100])
def use():
    # The main thread ends meanwhile. To join it would race with its end: Python then
    # waits for no thread (before 3.13).
    time.sleep(1)
    vae.fit(X)
    print(vae.transform(X).shape)
threading.Thread(target=use).start()
"""
    )
    assert printed.strip() == "(4000, 2)"
