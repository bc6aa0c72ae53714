"""Scores are log-likelihoods: against closed forms, quadrature, and each other."""

import numpy as np
import pytest
from helpers import TINY
from scipy import stats
from scipy.special import expit, logsumexp, ndtri

from skvae import ConvVAE
from skvae.architecture import Architecture
from skvae.draws import row_draws
from skvae.objective import kl_divergence, normaliser, pixel_error

RNG = np.random.default_rng(0)


def architecture(likelihood, last_activation="sigmoid"):
    return Architecture((3, 4, 2), 2, 2, 1, 3, last_activation, likelihood)


def test_kl_is_that_of_normal_distributions():
    z_mean, z_log_var = RNG.normal(size=(2, 5, 3))
    posterior = stats.norm(z_mean, np.exp(z_log_var / 2))
    grid = posterior.ppf((np.arange(20_000) + 0.5)[:, None, None] / 20_000)
    expected = (posterior.logpdf(grid) - stats.norm.logpdf(grid)).mean(axis=0)
    np.testing.assert_allclose(
        kl_divergence(z_mean, z_log_var).numpy(), expected, atol=1e-3
    )


@pytest.mark.parametrize("last_activation", ["sigmoid", "linear"])
def test_gaussian_terms_are_scipys(last_activation):
    x, y = RNG.random((2, 5, 3, 4, 2))
    kind = architecture("gaussian", last_activation)
    mean = expit(y) if last_activation == "sigmoid" else y
    error = pixel_error(kind, x, y).numpy() / (2 * 0.3)
    expected = -stats.norm(mean, np.sqrt(0.3)).logpdf(x).sum(axis=(1, 2, 3))
    np.testing.assert_allclose(error + normaliser(kind, 0.3).numpy(), expected)


def test_bernoulli_terms_are_scipys():
    x = RNG.integers(2, size=(5, 3, 4, 2)).astype(float)
    y = 5 * RNG.normal(size=x.shape)
    expected = -stats.bernoulli(expit(y)).logpmf(x.astype(int))
    kind = architecture("bernoulli")
    np.testing.assert_allclose(
        pixel_error(kind, x, y).numpy(), expected.sum(axis=(1, 2, 3)), rtol=1e-6
    )
    assert normaliser(kind, np.array(0.5)).numpy() == 0


@pytest.mark.parametrize("likelihood", ["gaussian", "mse", "bernoulli"])
@pytest.mark.parametrize("latent_dim", [1, 2])
def test_many_draws_come_to_the_integral_over_the_latents(likelihood, latent_dim):
    """log p(x) by the rectangle rule over z, with the fitted decoder, in float64."""
    X = RNG.random((30, 4, 4)) ** 2
    vae = ConvVAE(
        latent_dim,
        filters=4,
        hidden_layers=1,
        epochs=100,
        likelihood=likelihood,
        random_state=0,
    ).fit(X)
    axis = np.linspace(-7, 7, 701 if latent_dim == 1 else 281)
    z = np.stack(np.meshgrid(*[axis] * latent_dim), axis=-1).reshape(-1, latent_dim)
    means = vae.inverse_transform(z).astype(float).reshape(len(z), 16)
    rows = X.reshape(30, 16)
    if likelihood == "bernoulli":
        log_likelihood = rows @ np.log(means).T + (1 - rows) @ np.log(1 - means).T
    else:
        scale = np.sqrt(vae.noise_variance_)
        log_likelihood = np.array(
            [stats.norm.logpdf(row, means, scale).sum(axis=1) for row in rows]
        )
    log_prior = stats.norm.logpdf(z).sum(axis=1) + latent_dim * np.log(
        axis[1] - axis[0]
    )
    expected = logsumexp(log_likelihood + log_prior, axis=1)
    scores = vae.score_samples(X, n_draws=2000)
    assert np.mean(scores) == pytest.approx(np.mean(expected), abs=0.05)
    np.testing.assert_allclose(scores, expected, atol=0.5)
    # Fewer draws bound it from below, in expectation.
    for n_draws in (1, 8, 64):
        excess = vae.score_samples(X, n_draws=n_draws) - expected
        assert excess.mean() < 3 * excess.std() / np.sqrt(len(X))


def test_draws_are_standard_normal_and_independent_between_rows():
    X = RNG.random((400, 64))
    draws = row_draws(seed=3, n_draws=8, n_pixels=64, latent_dim=4)
    shift = X @ draws.projection + draws.offset
    z = ndtri((draws.points + shift[:, None]) % 1)  # (400, 8, 4)
    assert stats.kstest(z[:, 0].ravel(), "norm").pvalue > 0.01
    between = np.corrcoef(z.reshape(400, -1))[np.triu_indices(400, 1)]
    assert abs(between.mean()) < 4 * between.std() / np.sqrt(len(between))
    # In each dimension the points of a row have one in each of 8 equal intervals.
    assert np.array_equal(np.sort(np.floor(draws.points * 8), axis=0)[:, 0], range(8))


def test_a_score_depends_on_the_row_alone(fitted, images):
    scores = fitted.score_samples(images)
    np.testing.assert_array_equal(fitted.score_samples(images), scores)
    order = RNG.permutation(len(images))
    np.testing.assert_array_equal(fitted.score_samples(images[order]), scores[order])
    for subset in (images[5:6], images[3:40]):
        start = 5 if len(subset) == 1 else 3
        np.testing.assert_allclose(
            fitted.score_samples(subset), scores[start : start + len(subset)], atol=1e-6
        )
    assert len(set(scores)) == len(scores)


def test_memory_bounding_chunks_change_nothing(images, monkeypatch):
    scores = ConvVAE(**TINY).fit(images).score_samples(images, n_draws=50)
    from skvae import engine

    # Chunks are part of the graph, so a network of its own is needed.
    monkeypatch.setattr(engine, "_networks", type(engine._networks)())
    monkeypatch.setattr(engine, "DECODED_PIXELS", 64 * 7)
    chunked = ConvVAE(**TINY).fit(images).score_samples(images, n_draws=50)
    np.testing.assert_allclose(chunked, scores, rtol=1e-6)


@pytest.mark.parametrize("likelihood", ["gaussian", "mse"])
def test_scores_are_densities_in_the_callers_units(images, likelihood):
    scores = ConvVAE(**TINY, likelihood=likelihood).fit(images).score_samples(images)
    scaled = ConvVAE(**TINY, likelihood=likelihood).fit(images * 8 + 1)
    np.testing.assert_allclose(
        scaled.score_samples(images * 8 + 1), scores - 64 * np.log(8), rtol=1e-3
    )


def test_score_is_the_mean_of_score_samples(fitted, images):
    assert fitted.score(images) == np.mean(fitted.score_samples(images))


def test_outliers_score_low_and_finite(fitted, images):
    outlier = np.full((1, 8, 8), 1e6)
    score = fitted.score_samples(outlier)[0]
    assert np.isfinite(score)
    assert score < fitted.score_samples(images).min()


def test_values_that_overflow_the_network_are_an_error(images):
    vae = ConvVAE(**{**TINY, "filters": 16}).fit(images)
    with pytest.raises(ValueError, match="value_range_"):
        vae.transform(np.full((1, 8, 8), 1e300))
