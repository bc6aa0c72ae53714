from __future__ import annotations

import os
import subprocess
import sys
from contextlib import contextmanager

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from skvae import ConvVAE

# A network that trains in milliseconds.
TINY = {
    "latent_dim": 2,
    "filters": 2,
    "hidden_layers": 2,
    "epochs": 3,
    "batch_size": 16,
    "random_state": 0,
}


@pytest.fixture(scope="session")
def digits():
    """Train and test rows in [0, 1], and their labels."""
    X, y = load_digits(return_X_y=True)
    return train_test_split(X / 16, y, random_state=0)


@pytest.fixture
def images():
    """70 grey images of 8 x 8 in [0, 1]: a last batch of 16 is a short one."""
    return load_digits().images[:70] / 16


@pytest.fixture
def fitted(images):
    return ConvVAE(**TINY).fit(images)


@pytest.fixture
def run_python(tmp_path):
    """Run code in a fresh process, in `tmp_path`; what it printed."""

    def run(code, **environment):
        completed = subprocess.run(
            [sys.executable, "-c", code],
            cwd=tmp_path,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            check=False,
        )
        assert completed.returncode == 0, completed.stderr
        return completed.stdout

    return run


@contextmanager
def counted_traces():
    """Count how often Python builds a network or runs the body of a graph function."""
    from skvae import engine, network

    counts = {"built": 0, "traced": 0}
    unpack, build = engine.Network.unpack, network.build_encoder

    def counting_unpack(self, weights):
        counts["traced"] += 1
        return unpack(self, weights)

    def counting_build(architecture):
        counts["built"] += 1
        return build(architecture)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine.Network, "unpack", counting_unpack)
        patch.setattr(network, "build_encoder", counting_build)
        yield counts


def assert_same_fit(first, second):
    """Equal bits in all that was fitted."""
    assert first.history_ == second.history_
    assert first.n_iter_ == second.n_iter_
    assert first.weights_.keys() == second.weights_.keys()
    for path, weight in first.weights_.items():
        np.testing.assert_array_equal(weight, second.weights_[path], err_msg=path)
    np.testing.assert_array_equal(first.latent_kl_, second.latent_kl_)
    assert vars(first).get("noise_variance_") == vars(second).get("noise_variance_")
