"""Comparison with PCA on digits, with the network of README.md."""

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression

from skvae import ConvVAE


@pytest.fixture(scope="module")
def fits(digits):
    """Three seeds for a number of latent features, fitted once."""
    kept = {}

    def fit(latent_dim):
        if latent_dim not in kept:
            kept[latent_dim] = [
                ConvVAE(
                    latent_dim,
                    filters=32,
                    hidden_layers=2,
                    epochs=300,
                    early_stopping=True,
                    random_state=seed,
                ).fit(digits[0])
                for seed in range(3)
            ]
        return kept[latent_dim]

    return fit


@pytest.mark.slow
@pytest.mark.parametrize(("latent_dim", "gain"), [(2, 14), (8, 25)])
def test_held_out_digits_are_likelier_than_under_ppca(digits, fits, latent_dim, gain):
    _, X_test, _, _ = digits
    ppca = PCA(latent_dim, random_state=0).fit(digits[0]).score(X_test)
    scores = [vae.score(X_test) for vae in fits(latent_dim)]
    assert np.median(scores) > ppca + gain


@pytest.mark.slow
def test_digits_are_better_compressed_than_by_pca(digits, fits):
    X_train, X_test, y_train, y_test = digits

    def judge(model):
        z = model.transform(X_test)
        error = np.mean((model.inverse_transform(z) - X_test) ** 2)
        classifier = LogisticRegression(max_iter=5000)
        classifier.fit(model.transform(X_train), y_train)
        return error, classifier.score(z, y_test)

    error, accuracy = np.median([judge(vae) for vae in fits(8)], axis=0)
    pca_error, pca_accuracy = judge(PCA(8, random_state=0).fit(X_train))
    assert error <= 0.5 * pca_error
    assert accuracy >= pca_accuracy
