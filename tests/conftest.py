from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import TINY
from hypothesis import settings
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from skvae import ConvVAE

# The same examples each time, and some thousand new ones with
# --hypothesis-profile=thorough.
settings.register_profile(
    "quick", max_examples=60, deadline=None, database=None, derandomize=True
)
settings.register_profile("thorough", max_examples=2500, deadline=None)
settings.load_profile("quick")


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
    """Run code in a fresh process, in `tmp_path`; what it printed.

    It can import the modules beside this one.
    """

    def run(code, **environment):
        completed = subprocess.run(
            [sys.executable, "-c", code],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parent), **environment},
            capture_output=True,
            text=True,
            check=False,
        )
        assert completed.returncode == 0, completed.stderr
        return completed.stdout

    return run
