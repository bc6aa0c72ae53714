"""Threads of training: one per operation, and the host's left as they are."""

import json

import joblib
import numpy as np
import pytest
from helpers import assert_same_fit

from skvae import configure_threads
from skvae.architecture import Architecture
from skvae.training import threads

ONE_STEP = """
import numpy as np
from skvae import ConvVAE
X = np.random.default_rng(0).random((21, 32, 32))
vae = ConvVAE(2, filters=4, hidden_layers=2, epochs=1, random_state=0)
"""


@pytest.mark.slow
def test_one_step_agrees_across_thread_counts_with_and_without_onednn(
    run_python, tmp_path
):
    """Batches of 19 and of 2 images, which no number of threads here divides."""
    script = ONE_STEP + (
        "vae.set_params(batch_size=19, optimizer='sgd').fit(X)\n"
        "from skvae.architecture import Architecture\n"
        "from skvae.training import threads\n"
        "architecture = Architecture(**vae._state_['architecture'])\n"
        "split = threads.split_of_batch(architecture, 19, can_use_session=True)\n"
        "print(split.n_parts)\n"
        "np.savez({!r}, **vae.weights_)\n"
    )
    within, between = "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"
    onednn = "TF_ENABLE_ONEDNN_OPTS"
    settings = {
        "one": {within: "1", between: "1", onednn: "0"},
        "2": {within: "1", between: "2", onednn: "1"},
        "4": {within: "1", between: "4"},
        "wide 2": {within: "2", onednn: "1"},
        "wide 4": {within: "4"},
        "default": {},
    }
    n_parts = {
        name: int(run_python(script.format(f"{name}.npz"), **setting))
        for name, setting in settings.items()
    }
    expected = {"one": 1, "2": 2, "4": 4, "wide 2": 1, "wide 4": 1}
    assert n_parts == {**expected, "default": min(joblib.cpu_count(), 4)}
    one, *others = (np.load(tmp_path / f"{name}.npz") for name in settings)
    for other in others:
        for path in one.files:
            np.testing.assert_allclose(other[path], one[path], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("batch_size", "n_parts"), [(1, 1), (32, 1), (33, 2), (64, 2), (65, 3), (999, 8)]
)
def test_a_batch_is_cut_into_parts_that_fill_no_large_arrays_up_to_eight(
    monkeypatch, batch_size, n_parts
):
    """The last layers of 32 such images have 32 x 128 x 128 x 8 values: 2^24 bytes."""
    monkeypatch.setattr(threads, "_n_threads", lambda _: 0)
    architecture = Architecture((128, 128, 1), 4, 8, 4, 3, "sigmoid", "gaussian")
    split = threads.split_of_batch(architecture, batch_size, can_use_session=False)
    assert split == (n_parts, 0)


@pytest.mark.parametrize(
    ("n_cores", "batch_size", "split"),
    [
        (1, 128, (1, 1)),
        (2, 128, (2, 2)),
        (2, 4, (1, 2)),  # 4 images have 4,096 pixels, which is one part
        (12, 128, (8, 12)),
        (16, 128, (8, 16)),
        (17, 128, (1, 0)),  # eight parts would leave most cores idle
        (64, 32, (8, 64)),  # more parts than eight would be too small
    ],
)
def test_parts_are_computed_side_by_side_in_a_session(
    monkeypatch, n_cores, batch_size, split
):
    monkeypatch.setattr(threads, "_n_threads", lambda _: 0)
    monkeypatch.setattr(threads, "_sessions_have_threads", lambda: True)
    monkeypatch.setattr(threads, "n_cores", lambda: n_cores)
    architecture = Architecture((32, 32, 1), 4, 8, 2, 3, "sigmoid", "gaussian")
    found = threads.split_of_batch(architecture, batch_size, can_use_session=True)
    assert found == split


SMALL_FIT = """
import os, sys
import joblib
import numpy as np
import tensorflow as tf
{before}
from skvae import ConvVAE
X = np.random.default_rng(0).random((128, 8, 8))
# One batch, of two parts.
vae = ConvVAE(2, filters=32, hidden_layers=2, epochs=3, batch_size=128, random_state=0)
environment = dict(os.environ)
joblib.dump(vae.fit(X), {file!r})
vae.partial_fit(X)  # in the same session
assert dict(os.environ) == environment
threading = tf.config.threading
print(threading.get_intra_op_parallelism_threads(),
      threading.get_inter_op_parallelism_threads())
"""


def test_a_fit_has_one_thread_per_operation_and_the_host_its_own(run_python, tmp_path):
    """Sums over two or more threads would have other bits."""
    settings = {
        "default": ("", {}),
        "one": ("", {"TF_NUM_INTRAOP_THREADS": "1"}),
        "started": ("tf.zeros(3) + 1", {}),
        # As `list_local_devices` of TensorFlow does, which old notebooks call.
        "has a device": ("tf.compat.v1.Session(graph=tf.Graph()).close()", {}),
    }
    fits = {}
    for name, (before, environment) in settings.items():
        script = SMALL_FIT.format(before=before, file=name)
        assert run_python(script, **environment).split() == ["0", "0"]
        fits[name] = joblib.load(tmp_path / name)
    assert_same_fit(fits["default"], fits["one"])
    assert_same_fit(fits["has a device"], fits["started"])
    for path, weights in fits["default"].weights_.items():
        np.testing.assert_allclose(
            fits["started"].weights_[path], weights, rtol=0, atol=1e-4
        )


@pytest.mark.parametrize(
    ("image_shape", "latent_dim", "hidden_layers", "n_values"),
    [
        ((64, 64, 1), 4, 4, 64 * 64 * 8),  # before the output
        ((64, 64, 16), 4, 4, 64 * 64 * 16),  # the image
        ((1, 1, 1), 4, 4, 64),  # the last convolution
        ((8, 8, 1), 100, 2, 800),  # beside the latents
    ],
)
def test_the_largest_layer_is_found(image_shape, latent_dim, hidden_layers, n_values):
    architecture = Architecture(
        image_shape, latent_dim, 8, hidden_layers, 3, "sigmoid", "gaussian"
    )
    assert architecture.largest_layer == n_values


def test_configured_threads_are_those_that_training_uses(run_python):
    printed = run_python(
        """
import numpy as np, skvae, tensorflow as tf
from skvae.architecture import Architecture
from skvae.training.threads import split_of_batch
skvae.configure_threads(3)
skvae.configure_threads(3)  # a cell of a notebook that runs again
print(tf.config.threading.get_intra_op_parallelism_threads())
print(tf.config.threading.get_inter_op_parallelism_threads())
X = np.random.default_rng(0).random((8, 64, 64))
vae = skvae.ConvVAE(2, filters=2, epochs=1).fit(X)
architecture = Architecture(**vae._state_["architecture"])
print(split_of_batch(architecture, 64, can_use_session=True).n_parts)
try:
    skvae.configure_threads(2)
except RuntimeError as error:
    print(error)
"""
    )
    intra, inter, n_parts, error = printed.splitlines()
    assert (intra, inter, n_parts) == ("1", "3", "3")
    assert "Restart Python and call skvae.configure_threads before" in error


@pytest.mark.slow
def test_all_cores_are_configured_by_default(run_python):
    printed = run_python(
        """
import joblib, skvae, tensorflow as tf
skvae.configure_threads()
print(tf.config.threading.get_inter_op_parallelism_threads() == joblib.cpu_count())
"""
    )
    assert printed.strip() == "True"


@pytest.mark.parametrize("n_threads", [0, -1, 2.5, "2"])
def test_what_is_no_number_of_threads_is_refused(n_threads):
    with pytest.raises((ValueError, TypeError), match="n_threads"):
        configure_threads(n_threads)


REPORT = """
import json, os, sys, joblib, psutil, tensorflow as tf
def report(X):
    from skvae import ConvVAE
    vae = ConvVAE(2, filters=2, hidden_layers=2, epochs=1, batch_size=4).fit(X)
    vae.score_samples(X)
    return (tf.config.threading.get_intra_op_parallelism_threads(),
            tf.config.threading.get_inter_op_parallelism_threads(),
            psutil.Process().num_threads())
def in_workers(**options):
    import numpy as np
    X = np.random.default_rng(0).random((12, 8, 8))
    with joblib.parallel_config("loky", **{"n_jobs": 2, **options}):
        calls = (joblib.delayed(report)(X) for _ in range(4))
        print(json.dumps(joblib.Parallel()(calls)))
"""


def reports(run_python, call, **environment):
    return json.loads(run_python(REPORT + call, **environment))


@pytest.mark.slow
@pytest.mark.parametrize("n_threads", [1, 3])
def test_a_worker_keeps_to_the_cores_that_are_its_own(run_python, n_threads):
    for intra, inter, _ in reports(
        run_python, f"in_workers(inner_max_num_threads={n_threads})"
    ):
        assert (intra, inter) == (1, n_threads)


@pytest.mark.slow
def test_a_worker_of_one_core_starts_few_threads(run_python):
    """Of four. Beside Python's and joblib's own, TensorFlow has some that wait."""
    threads = [n for *_, n in reports(run_python, "in_workers(n_jobs=4)")]
    assert max(threads) <= 16


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "expected"), [("INTRA", [0, 3]), ("INTER", [1, 0])])
def test_what_the_user_set_for_tensorflow_stands_in_workers(run_python, kind, expected):
    """TensorFlow's settings say 0 for what a variable of the environment says."""
    variable = {f"TF_NUM_{kind}OP_THREADS": "2"}
    call = "in_workers(inner_max_num_threads=3)"
    for *found, _ in reports(run_python, call, **variable):
        assert found == expected
