"""Script for CI without TensorFlow: `python served.py vae.joblib`."""

import importlib.util
import sys

import joblib
import numpy as np
import pytest
from sklearn.datasets import load_digits

from skvae import ConvVAE


def main(path):
    for package in ("tensorflow", "keras"):
        assert importlib.util.find_spec(package) is None, package
    vae = joblib.load(path)
    images = load_digits().images[:50] / 16
    decoded = vae.inverse_transform(vae.transform(images))
    assert np.mean((decoded - images) ** 2) < 0.02
    assert vae.score(images) > 30
    assert vae.sample(3, random_state=0).shape == (3, 8, 8)
    assert len(vae.to_onnx()) == 2
    for call in (lambda: ConvVAE().fit(images), vae.to_keras):
        with pytest.raises(ImportError, match="pip install tensorflow keras"):
            call()


if __name__ == "__main__":
    main(*sys.argv[1:])
