"""One fit on several devices and in several processes, by TensorFlow's strategies."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack

import joblib
import numpy as np
import pytest
from pages import scripts

from skvae.training.callbacks import HAS_CALLBACKS
from skvae.training.replicas import Replicas


def replicas_of(n_processes, n_here, process):
    """Replicas as a process of a strategy sees them, without the strategy."""
    replicas = object.__new__(Replicas)
    replicas.n, replicas.n_processes = n_processes * n_here, n_processes
    replicas._first, replicas._n_here = process * n_here, n_here
    return replicas


@pytest.mark.parametrize("n_here", [1, 3])
@pytest.mark.parametrize("n_processes", [1, 2, 5])
@pytest.mark.parametrize(("n_rows", "batch_size"), [(40, 8), (43, 8), (3, 64), (7, 1)])
def test_each_row_of_a_batch_is_for_one_process(
    n_rows, batch_size, n_processes, n_here
):
    rows = np.random.default_rng(0).permutation(n_rows)
    processes = [replicas_of(n_processes, n_here, w) for w in range(n_processes)]
    shares = [each.batches_here(rows, batch_size) for each in processes]
    for each, share in zip(processes, shares, strict=True):
        assert len(share) == each.n_here(n_rows, batch_size)
    # Process w of W has rows wB/W to (w + 1)B/W of each batch of B.
    for start in range(0, n_rows, batch_size):
        batch = rows[start : start + batch_size]
        for w, each in enumerate(processes):
            before = each.n_here(start, batch_size)
            here = shares[w][before : before + len(each.batches_here(batch, 99))]
            first, last = (i * len(batch) // n_processes for i in (w, w + 1))
            np.testing.assert_array_equal(here, batch[first:last])


FIT = """
import json, os, sys, warnings
import numpy as np
import tensorflow as tf
warnings.simplefilter("ignore")
X = np.random.default_rng(0).random((67, 8, 8))
FITS = {
    "sgd": {"optimizer": "sgd", "free_bits": 0.01},
    "early": {"early_stopping": True, "validation_fraction": 0.5},
    "diag": {"noise_type": "diag"},
    "bernoulli": {"likelihood": "bernoulli", "kl_warmup_epochs": 1},
}
def fit(**params):
    from skvae import ConvVAE
    # Last batches of 1 row leave some without any.
    params = {"epochs": 2, "batch_size": 11, "random_state": 0, **params}
    vae = ConvVAE(2, filters=2, hidden_layers=2, **params).fit(X)
    weights = np.concatenate([w.ravel() for w in vae.weights_.values()])
    return [vae.history_, weights.tolist(), vae.latent_kl_.tolist(), vae.score(X)]
def fits():
    return {name: fit(**params) for name, params in FITS.items()}
"""

TWO_WORKERS = (
    FIT
    + """
strategy = tf.distribute.MultiWorkerMirroredStrategy()
worker = json.loads(os.environ["TF_CONFIG"])["task"]["index"]
from skvae import ConvVAE
from skvae.training import loop as training
from skvae.training.callbacks import HAS_CALLBACKS

blocks = []
shuffled_blocks = training.shuffled_blocks

def noted(*args, **kwargs):
    for block in shuffled_blocks(*args, **kwargs):
        blocks.append(block[1])
        yield block

class Stop:
    "Ends training after an epoch, in one of the workers."
    def setup(self, estimator, context): pass
    def teardown(self, estimator, context): pass
    def on_fit_task_begin(self, estimator, context): pass
    def on_fit_task_end(self, estimator, context, *, fitted_estimator=None):
        return worker == 1

with strategy.scope():
    results = fits()
    training.shuffled_blocks = noted
    fit(epochs=1)
    training.shuffled_blocks = shuffled_blocks
    order = np.concatenate(blocks).reshape(-1, 64)
    rows = [int(np.flatnonzero((X.reshape(-1, 64) == row).all(1))[0]) for row in order]
    stopped = ConvVAE(2, filters=2, hidden_layers=2, epochs=3, random_state=0)
    if worker == 1 and HAS_CALLBACKS:
        stopped.set_callbacks(Stop())
    n_epochs = stopped.fit(X).n_iter_
    try:
        fit(random_state=None)
    except ValueError as error:
        refused = str(error)
    try:
        ConvVAE(2, filters=2, hidden_layers=2, random_state=0).fit(
            np.concatenate([X[:-1], X[[worker]]])
        )
    except ValueError as error:
        refused_images = str(error)
    # What fails in one worker ends the fit in all, and they may try again.
    np.save(f"images{worker}.npy", X)
    stored = np.load(f"images{worker}.npy", mmap_mode="r+")
    stored[66] = np.nan if worker else 1
    small = ConvVAE(2, filters=2, hidden_layers=2, batch_size=1, random_state=0)
    small.set_params(epochs=1, value_range=(0, 1))
    try:
        small.fit(stored)
    except (RuntimeError, ValueError) as error:
        failed = str(error)
    stored[66] = X[66]
    is_same = small.fit(stored).history_ == small.fit(X).history_
print(json.dumps([results, rows, n_epochs, refused, refused_images, failed, is_same]))
"""
)


@pytest.fixture
def start_workers(tmp_path):
    """Start the same script in several processes that find each other."""
    with ExitStack() as processes:

        def start(script, n_workers=2):
            with ExitStack() as sockets:
                listeners = [
                    sockets.enter_context(socket.create_server(("127.0.0.1", 0)))
                    for _ in range(n_workers)
                ]
                ports = [each.getsockname()[1] for each in listeners]
            cluster = {"worker": [f"127.0.0.1:{port}" for port in ports]}
            started = []
            for index in range(n_workers):
                task = {"cluster": cluster, "task": {"type": "worker", "index": index}}
                process = subprocess.Popen(
                    [sys.executable, "-c", script],
                    cwd=tmp_path,
                    env={**os.environ, "TF_CONFIG": json.dumps(task)},
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                )
                processes.enter_context(process)
                processes.callback(process.kill)
                started.append(process)
            return started

        yield start


def finished(process):
    printed, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    return printed


def assert_close(results, expected):
    assert results.keys() == expected.keys()
    for name, (history, *arrays) in results.items():
        expected_history, *expected_arrays = expected[name]
        assert history.keys() == expected_history.keys()
        for key, values in history.items():
            np.testing.assert_allclose(values, expected_history[key], rtol=1e-5)
        for array, expected_array in zip(arrays, expected_arrays, strict=True):
            np.testing.assert_allclose(array, expected_array, rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def alone():
    """Results of one process."""
    completed = subprocess.run(
        [sys.executable, "-c", FIT + "print(json.dumps(fits()))"],
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(completed.stdout)


@pytest.mark.slow
def test_two_workers_train_as_one_does(start_workers, alone):
    workers = start_workers(TWO_WORKERS)
    first, second = (json.loads(finished(worker)) for worker in workers)
    results, rows, n_epochs, refused, refused_images, failed, is_same = first
    others, other_rows, *_, failed_itself, _ = second
    assert_close(results, alone)
    # Both take the same steps, to the bit.
    assert others == results
    # Each reads its half of every batch, and no other row.
    assert sorted(rows + other_rows) == list(range(67))
    assert (len(rows), len(other_rows)) == (6 * 5 + 0, 6 * 6 + 1)
    # One ends training for both.
    assert n_epochs == (1 if HAS_CALLBACKS else 3)
    assert "integer as random_state" in refused
    assert refused_images == refused
    assert "Another worker of the strategy has failed" in failed
    assert "NaN" in failed_itself
    # Batches of one image, from a file: some workers have none.
    assert is_same


@pytest.mark.slow
def test_three_devices_train_as_one_does(run_python, alone):
    """And what was compiled for them is for no other fit."""
    printed = run_python(
        FIT
        + """
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(
    cpu, [tf.config.LogicalDeviceConfiguration()] * 3
)
before = fit()
with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1", "CPU:2"]).scope():
    results = fits()
with tf.distribute.OneDeviceStrategy("CPU:1").scope():
    other = fit()
print(json.dumps([results, before == fit(), before == other]))
"""
    )
    results, is_as_before, is_as_on_one = json.loads(printed)
    assert_close(results, alone)
    assert is_as_before
    assert is_as_on_one


@pytest.mark.slow
def test_another_kind_of_strategy_is_refused_and_harms_no_later_fit(run_python):
    run_python(
        FIT
        + """
with tf.distribute.experimental.CentralStorageStrategy(["CPU:0"]).scope():
    try:
        fit()
        raise AssertionError
    except RuntimeError as error:
        assert "got CentralStorageStrategy" in str(error)
fit()
"""
    )


@pytest.mark.callbacks
@pytest.mark.slow
def test_the_script_of_the_guide_trains_on_two_workers(start_workers, tmp_path):
    *_, script = scripts("docs/user_guide/clusters.md")
    printed, quick = 'Path("cluster.joblib"), 20', 'Path("cluster.joblib"), 2'
    assert script.count(printed) == 1
    script = script.replace(printed, quick)
    images = np.random.default_rng(0).integers(0, 256, (67, 8, 8), dtype=np.uint8)
    np.save(tmp_path / "images.npy", images)
    for _ in range(2):  # the second time there is nothing left to do
        for worker in start_workers(script):
            finished(worker)
        assert joblib.load(tmp_path / "cluster.joblib").n_iter_ == 2


LONG = """
import json, os, sys, time, warnings
import joblib
import numpy as np
import tensorflow as tf
warnings.simplefilter("ignore")
strategy = tf.distribute.MultiWorkerMirroredStrategy()
from skvae import Checkpoint, ConvVAE
worker = json.loads(os.environ["TF_CONFIG"])["task"]["index"]
X = np.random.default_rng(0).random((67, 8, 8))

class Tell:
    def setup(self, estimator, context): pass
    def teardown(self, estimator, context): pass
    def on_fit_task_begin(self, estimator, context): pass
    def on_fit_task_end(self, estimator, context):
        print("epoch", flush=True)

path = f"vae{worker}.joblib"
if os.path.exists(path):
    vae = joblib.load(path).set_params(warm_start=True, epochs=2)
else:
    vae = ConvVAE(2, filters=2, hidden_layers=2, epochs=10**6, random_state=0)
vae.set_callbacks(Checkpoint(path), Tell())
with strategy.scope():
    try:
        vae.fit(X)
    except RuntimeError as error:
        print("error", error)
"""


@pytest.mark.callbacks
@pytest.mark.slow
def test_a_worker_that_dies_ends_the_others_and_all_go_on_from_a_checkpoint(
    start_workers, tmp_path
):
    workers = start_workers(LONG)
    for worker in workers:
        assert worker.stdout.readline() == "epoch\n"
    workers[1].send_signal(signal.SIGKILL)
    killed = time.monotonic()
    assert "Another worker of the strategy has ended" in finished(workers[0])
    assert time.monotonic() - killed < 60
    # One may have come an epoch further: its file is for both.
    epochs = [joblib.load(tmp_path / f"vae{w}.joblib").n_iter_ for w in (0, 1)]
    first, last = np.argsort(epochs, kind="stable")
    (tmp_path / f"vae{last}.joblib").replace(tmp_path / "last.joblib")
    kept = joblib.load(tmp_path / "last.joblib")
    for w in (0, 1):
        joblib.dump(kept, tmp_path / f"vae{w}.joblib")
    for worker in start_workers(LONG):
        assert finished(worker).count("epoch\n") == 3  # and the fit
    first, second = (joblib.load(tmp_path / f"vae{w}.joblib") for w in (0, 1))
    assert first.n_iter_ == kept.n_iter_ + 2
    assert first.history_ == second.history_
