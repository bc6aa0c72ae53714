"""scikit-learn before 1.9 has no callbacks; all else works there as ever."""


def test_without_callbacks_in_scikit_learn_it_works_all_the_same(run_python):
    printed = run_python(
        """
import sys
sys.modules["sklearn.callback"] = None  # as before version 1.9
import skvae
del sys.modules["sklearn.callback"]
import numpy as np
X = np.random.default_rng(0).random((20, 8, 8))
vae = skvae.ConvVAE(2, filters=2, hidden_layers=2, epochs=2).fit(X).partial_fit(X)
print(vae.n_iter_, hasattr(vae, "set_callbacks"))
try:
    skvae.Checkpoint("vae.joblib")
except ImportError as error:
    print(error)
"""
    )
    first, second = printed.splitlines()
    assert first == "3 False"
    assert "scikit-learn 1.9" in second
