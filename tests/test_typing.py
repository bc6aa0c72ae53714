"""Type hints as a user's type checker sees them."""

import re
import subprocess
import sys

import numpy as np
import pytest
from sklearn.mixture import GaussianMixture

from skvae import ConvVAE

RIGHT = """
from pathlib import Path
from typing import Any, assert_type

import numpy as np
from numpy.typing import NDArray

from skvae import Checkpoint, ConvVAE, ConvVAEOutlierDetector, __version__
from skvae.exceptions import PosteriorCollapseWarning

X = np.zeros((20, 8, 8))
vae = ConvVAE(2, filters=4, input_shape=(8, 8), value_range=(0, 255), random_state=0)

assert_type(vae.fit(X), ConvVAE)
assert_type(vae.fit(X, X_val=X).partial_fit(X), ConvVAE)
assert_type(vae.set_params(epochs=3).set_output(transform="default"), ConvVAE)
assert_type(vae.set_callbacks(Checkpoint(Path("vae.joblib"), every=3)), ConvVAE)
assert_type(vae.get_params(), dict[str, Any])

assert_type(vae.transform(X), NDArray[np.float32])
assert_type(vae.fit_transform(X), NDArray[np.float32])
assert_type(vae.posterior(X), tuple[NDArray[np.float32], NDArray[np.float32]])
assert_type(vae.inverse_transform([[0.0, 1.0]]), NDArray[np.float32])
assert_type(vae.sample(3, random_state=np.random.RandomState(0)), NDArray[np.float32])
assert_type(vae.score_samples(X, n_draws=8), NDArray[np.float64])
assert_type(vae.score(X), float)
assert_type(vae.get_feature_names_out(), NDArray[np.object_])
vae.to_keras().decoder.save("decoder.keras")

assert_type(vae.latent_dim, int)
assert_type(vae.weights_["encoder_z_mean/kernel"], NDArray[np.float32])
assert_type(vae.history_["loss"], list[float])
assert_type(vae.n_iter_, int)
assert_type(vae.input_shape_, tuple[int, int, int])
assert_type(vae.value_range_, tuple[float, float])
assert_type(vae.noise_variance_, float | NDArray[np.float64])
assert_type(vae.latent_kl_, NDArray[np.float32])
assert_type(vae.n_features_in_, int)

detector = ConvVAEOutlierDetector(vae, contamination=0.05, random_state=0)
assert_type(detector.fit(X), ConvVAEOutlierDetector)
assert_type(detector.set_params(estimator__latent_dim=3), ConvVAEOutlierDetector)
assert_type(detector.score_samples(X), NDArray[np.float64])
assert_type(detector.decision_function(X), NDArray[np.float64])
assert_type(detector.predict(X), NDArray[np.int64])
assert_type(detector.fit_predict(X), NDArray[np.int64])
assert_type(detector.error_map(X), NDArray[np.float64])
assert_type(detector.estimator_, ConvVAE)
assert_type(detector.offset_, float)
assert_type(detector.n_features_in_, int)

assert_type(__version__, str)
assert_type(PosteriorCollapseWarning("collapsed"), PosteriorCollapseWarning)


class InAFile:
    shape = (20, 8, 8)
    dtype = np.dtype(np.uint8)

    def __getitem__(self, rows: slice) -> NDArray[np.uint8]:
        return np.zeros((20, 8, 8), np.uint8)[rows]


vae.fit(InAFile()).fit([[0, 1], [1, 0]]).transform(np.load("X.npy", mmap_mode="r"))
"""

# With what is wrong in each line.
WRONG = """
ConvVAE("2")  # arg-type
ConvVAE(epoch=3)  # call-arg
ConvVAE(value_range=255)  # arg-type
Checkpoint(3)  # arg-type
Checkpoint("vae.joblib", every="3")  # arg-type
vae.fit(X, x_val=X)  # call-arg
vae.fit(object())  # arg-type
vae.partial_fit()  # call-arg
vae.sample("3")  # arg-type
vae.score_samples(X, n_draws=None)  # arg-type
ConvVAEOutlierDetector(3)  # arg-type
loss: float = vae.history_["loss"]  # assignment
features: str = vae.fit(X).transform(X)  # assignment
"""


def test_a_users_type_checker_knows_the_types_and_finds_what_is_wrong(tmp_path):
    source = RIGHT + WRONG
    (tmp_path / "user.py").write_text(source)
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "user.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.stderr == ""
    found = re.findall(r"^(.+):(\d+): error.*\[(.+)\]$", checked.stdout, re.MULTILINE)
    expected = [
        ("user.py", str(n), line.partition("  # ")[2])
        for n, line in enumerate(source.splitlines(), 1)
        if "  # " in line
    ]
    assert found == expected, checked.stdout


@pytest.mark.parametrize("early_stopping", [False, True])
def test_what_is_fitted_has_the_types_that_are_said(images, early_stopping):
    vae = ConvVAE(2, filters=2, hidden_layers=2, epochs=1, sampler=GaussianMixture())
    vae.set_params(early_stopping=early_stopping).fit(images)
    assert {weight.dtype for weight in vae.weights_.values()} == {np.dtype("float32")}
    assert {type(n) for losses in vae.history_.values() for n in losses} == {float}
    assert type(vae.n_iter_) is type(vae.n_features_in_) is int
    assert [type(n) for n in vae.input_shape_] == [int, int, int]
    assert [type(n) for n in vae.value_range_] == [float, float]
    assert type(vae.noise_variance_) is float
    assert vae.latent_kl_.dtype == np.float32
    assert isinstance(vae.sampler_, GaussianMixture)
    assert vae.get_feature_names_out().dtype == object
