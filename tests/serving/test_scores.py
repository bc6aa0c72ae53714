"""Scores are log-likelihoods: against closed forms, quadrature, and each other."""

import itertools

import numpy as np
import pytest
from helpers import TINY
from scipy import stats
from scipy.special import expit, logsumexp
from sklearn.base import clone
from sklearn.datasets import load_digits

from skvae import ConvVAE
from skvae.architecture import Z_LOG_VAR_BOUNDS, Architecture
from skvae.network.objective import (
    MIN_NOISE_VARIANCE,
    kl_divergence,
    normaliser,
    pixel_error,
)
from skvae.serving import densities
from skvae.serving.row_draws import row_draws
from skvae.serving.sessions import FittedNetwork

RNG = np.random.default_rng(0)


def architecture(likelihood, last_activation="sigmoid"):
    return Architecture((3, 4, 2), 2, 2, 1, 3, last_activation, likelihood)


def test_kl_is_that_of_normal_distributions():
    z_mean, z_log_var = RNG.normal(size=(2, 5, 3))
    posterior = stats.norm(z_mean, np.exp(z_log_var / 2))
    grid = posterior.ppf((np.arange(20_000) + 0.5)[:, None, None] / 20_000)
    expected = (posterior.logpdf(grid) - stats.norm.logpdf(grid)).mean(axis=0)
    for kl in (kl_divergence, densities.kl_divergence):
        np.testing.assert_allclose(kl(z_mean, z_log_var), expected, atol=1e-3)


def test_float32_holds_the_kl_over_all_that_an_encoder_may_give():
    """Latents hardly used as well, whose KL is next to nothing."""
    z_mean, z_log_var = np.meshgrid(
        [0.0, 1e-3, 0.1, -1.0, 30.0, 1e4, -1e15],
        [*Z_LOG_VAR_BOUNDS, -5.0, -0.1, 1e-3, 0.1, 1.0, 10.0, 29.0],
    )
    z_mean, z_log_var = z_mean.astype(np.float32), z_log_var.astype(np.float32)
    kl = kl_divergence(z_mean, z_log_var).numpy()
    assert kl.dtype == np.float32
    wide = z_log_var.astype(float)
    expected = 0.5 * (np.square(z_mean, dtype=float) + np.expm1(wide) - wide)
    np.testing.assert_allclose(kl, expected, rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("likelihood", ["gaussian", "bernoulli"])
def test_float32_holds_likelihoods_at_the_smallest_noise_and_extreme_outputs(
    likelihood,
):
    """Linear outputs from 1e-6 to 1e4 times the value range, and logits beyond."""
    kind = architecture(likelihood, "linear")
    x = RNG.random((9, 3, 4, 2))
    y = (x + RNG.normal(size=x.shape)) * np.logspace(-6, 4, 9)[:, None, None, None]
    wide_x, wide_y = (
        x.astype(np.float32).astype(float),
        y.astype(np.float32).astype(float),
    )
    if likelihood == "bernoulli":
        errors = (np.logaddexp(0, wide_y) - wide_x * wide_y).sum(axis=(1, 2, 3))
        noise_variance = 0.5
    else:
        errors = np.square(wide_x - wide_y).sum(axis=(1, 2, 3))
        noise_variance = MIN_NOISE_VARIANCE
    given = pixel_error(kind, np.float32(x), np.float32(y)).numpy()
    assert given.dtype == np.float32
    constant = float(normaliser(kind, np.float64(noise_variance)))
    terms = given / np.float32(2 * noise_variance) + np.float32(constant)
    assert np.isfinite(terms).all()
    np.testing.assert_allclose(
        terms, errors / (2 * noise_variance) + constant, rtol=1e-4
    )


@pytest.mark.parametrize("last_activation", ["sigmoid", "linear"])
def test_gaussian_terms_are_scipys(last_activation):
    x, y = RNG.random((2, 5, 3, 4, 2))
    kind = architecture("gaussian", last_activation)
    mean = expit(y) if last_activation == "sigmoid" else y
    error = pixel_error(kind, x, y).numpy() / (2 * 0.3)
    expected = -stats.norm(mean, np.sqrt(0.3)).logpdf(x).sum(axis=(1, 2, 3))
    np.testing.assert_allclose(error + normaliser(kind, 0.3).numpy(), expected)
    rows, decoded = x.reshape(5, -1), mean.reshape(5, 1, -1)
    error = densities.pixel_errors(kind, rows, decoded, 0.3)[:, 0]
    np.testing.assert_allclose(error + densities.normaliser(kind, 0.3), expected)
    variances = RNG.random(24) + 0.1
    error = densities.pixel_errors(kind, rows, decoded, variances)[:, 0]
    expected = -stats.norm(decoded[:, 0], np.sqrt(variances)).logpdf(rows).sum(axis=1)
    np.testing.assert_allclose(error + densities.normaliser(kind, variances), expected)


def test_bernoulli_terms_are_scipys():
    x = RNG.integers(2, size=(5, 3, 4, 2)).astype(float)
    y = 5 * RNG.normal(size=x.shape)
    expected = -stats.bernoulli(expit(y)).logpmf(x.astype(int))
    kind = architecture("bernoulli")
    np.testing.assert_allclose(
        pixel_error(kind, x, y).numpy(), expected.sum(axis=(1, 2, 3)), rtol=1e-6
    )
    assert normaliser(kind, np.array(0.5)).numpy() == 0
    errors = densities.pixel_errors(kind, x.reshape(5, -1), y.reshape(5, 1, -1), 0.5)
    np.testing.assert_allclose(errors[:, 0], expected.sum(axis=(1, 2, 3)), rtol=1e-12)
    assert densities.normaliser(kind, 0.5) == 0


def transposed_convolution(x, kernel, bias, stride):
    """A 3 x 3 kernel on even sizes, in float64, by what each input pixel adds."""
    n, height, width, _ = x.shape
    before = 1 if stride == 1 else 0
    y = np.zeros((n, stride * height + 2, stride * width + 2, kernel.shape[2]))
    for i, j, k, m in itertools.product(
        range(height), range(width), range(3), range(3)
    ):
        y[:, stride * i + k, stride * j + m] += x[:, i, j] @ kernel[k, m].T
    rows, columns = (slice(before, before + stride * s) for s in (height, width))
    return y[:, rows, columns] + bias


def decoded_by_hand(vae, z):
    """The decoder of a 4 x 4 image with one hidden layer, in float64."""
    weights = {path: w.astype(float) for path, w in vae.weights_.items()}

    def layer(name):
        return weights[f"{name}/kernel"], weights[f"{name}/bias"]

    kernel, bias = layer("decoder_intermediate")
    x = np.maximum(z @ kernel + bias, 0).reshape(len(z), 2, 2, -1)
    x = np.maximum(transposed_convolution(x, *layer("decoder_conv_0"), stride=2), 0)
    x = transposed_convolution(x, *layer("decoder_output"), stride=1)
    return expit(x).reshape(len(z), 16)


def log_density_by_quadrature(vae, X, likelihood):
    """log p(x) of images X (n, 4, 4) by the rectangle rule over z, in float64."""
    axis, step = np.linspace(
        -6.5, 6.5, 601 if vae.latent_dim == 1 else 121, retstep=True
    )
    z = np.stack(np.meshgrid(*[axis] * vae.latent_dim), axis=-1)
    z = z.reshape(-1, vae.latent_dim)
    means = decoded_by_hand(vae, z)
    rows = X.reshape(len(X), 16)
    if likelihood == "bernoulli":
        log_likelihood = rows @ np.log(means).T + (1 - rows) @ np.log(1 - means).T
    else:
        variance = np.ravel(vae.noise_variance_ if likelihood == "gaussian" else 0.5)
        inverse = np.broadcast_to(1 / variance, 16)
        errors = (
            (rows**2 @ inverse)[:, None]
            - 2 * (rows * inverse) @ means.T
            + means**2 @ inverse
        )  # (n, len(z))
        log_likelihood = -(errors - np.log(inverse / (2 * np.pi)).sum()) / 2
    log_prior = stats.norm.logpdf(z).sum(axis=1) + vae.latent_dim * np.log(step)
    return logsumexp(log_likelihood + log_prior, axis=1)


def test_the_decoder_by_hand_is_the_estimators():
    X = RNG.random((20, 4, 4))
    vae = ConvVAE(2, filters=4, hidden_layers=1, epochs=5, random_state=0).fit(X)
    z = RNG.normal(size=(50, 2))
    np.testing.assert_allclose(
        decoded_by_hand(vae, z), vae.inverse_transform(z).reshape(50, 16), atol=1e-6
    )


def waves(seed):
    """200 images of 4 x 4 pixels."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(200, 2, 1, 1))
    wave = np.sin(np.arange(16).reshape(4, 4) / 3 + 2 * z[:, 0])
    return expit(3 * wave + z[:, 1] + rng.normal(size=(200, 4, 4)) / 2)


WAVES = {"filters": 4, "hidden_layers": 1, "epochs": 25, "learning_rate": 0.01}


@pytest.mark.parametrize("noise_type", ["spherical", "diag"])
def test_many_draws_come_to_the_integral_over_the_latents(noise_type):
    X = waves(0)
    vae = ConvVAE(1, **WAVES, noise_type=noise_type, random_state=0).fit(X)
    expected = log_density_by_quadrature(vae, X[:40], "gaussian")
    scores = vae.score_samples(X[:40], n_draws=4000)
    np.testing.assert_allclose(scores, expected, atol=0.2)
    assert abs(np.mean(scores - expected)) < 0.02


@pytest.mark.slow
@pytest.mark.parametrize(
    ("likelihood", "noise_type"),
    [
        ("gaussian", "spherical"),
        ("gaussian", "diag"),
        ("mse", "spherical"),
        ("bernoulli", "spherical"),
    ],
)
@pytest.mark.parametrize("latent_dim", [1, 2])
def test_scores_bound_the_integral_over_the_latents_and_come_to_it(
    likelihood, noise_type, latent_dim
):
    """20 fits, 200 images: see Burda et al. (2016), theorem 1."""
    X = waves(latent_dim)
    vae = ConvVAE(latent_dim, **WAVES, likelihood=likelihood, noise_type=noise_type)
    excess = np.empty((20, 4))
    for seed in range(20):
        vae.set_params(random_state=seed).fit(X)
        expected = log_density_by_quadrature(vae, X, likelihood)
        excess[seed] = [
            np.mean(vae.score_samples(X[rows], n_draws=n) - expected[rows])
            for n, rows in [(1, ...), (8, ...), (64, ...), (2000, slice(0, 50))]
        ]
    standard_error = excess.std(axis=0, ddof=1) / np.sqrt(20)
    assert np.all(excess.mean(axis=0) <= 3 * standard_error)
    assert abs(excess[:, -1].mean()) < 0.05


def test_more_draws_give_higher_scores():
    """As the posterior that a normal distribution stands for is not normal."""
    vae = ConvVAE(8, filters=16, hidden_layers=2, epochs=60, random_state=0)
    X = load_digits().images / 16
    vae.fit(X[:600])
    scores = [vae.score_samples(X[600:900], n_draws=n) for n in (1, 8, 64, 512)]
    rises = np.diff(scores, axis=0)  # (3, 300)
    assert np.all(rises.mean(axis=1) > 3 * rises.std(axis=1) / np.sqrt(300))


def drawn(images, n_draws, seed=3, latent_dim=4):
    """The draws for images (n, H, W, C): (n, n_draws, latent_dim)."""
    draws = row_draws(seed, n_draws, images[0].size, latent_dim)
    rows = images.astype(np.float32).reshape(len(images), -1)
    return draws.normal(draws.shift(rows.astype(float)), range(n_draws))


@pytest.mark.parametrize("kind", ["digits", "noise", "nearly the same"])
def test_draws_are_standard_normal_and_independent_between_rows(kind):
    images = load_digits().images[:1500, ..., None] / 16
    if kind == "noise":
        images = RNG.random(images.shape)
    if kind == "nearly the same":
        images = images[:1] + RNG.random(images.shape) / 100
    z = drawn(images, n_draws=8)
    for k, j in itertools.product(range(8), range(4)):
        # One draw of all rows; neighbouring rows, and in digits the same digits.
        column = z[:, k, j]
        assert stats.kstest(column, "norm").pvalue > 1e-4
        for lag in (1, 10):
            assert stats.pearsonr(column[lag:], column[:-lag]).pvalue > 1e-4
            pairs = np.histogram2d(
                *(stats.norm.cdf(c) for c in (column[lag:], column[:-lag])), bins=5
            )
            assert stats.chisquare(pairs[0].ravel()).pvalue > 1e-4
    # Dimensions are independent of each other, too.
    correlation = np.corrcoef(z.reshape(-1, 4).T)[np.triu_indices(4, 1)]
    assert np.all(np.abs(correlation) < 0.05)
    # In each dimension a row has one draw in each of 8 intervals of equal mass.
    ordered = np.sort(stats.norm.cdf(z[0]), axis=0)
    np.testing.assert_allclose(np.diff(ordered, axis=0), 1 / 8, atol=1e-9)


def test_another_seed_draws_something_else(images):
    first, second = (drawn(images[..., None], 8, seed=s) for s in (0, 1))
    assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 0.1


def test_a_score_depends_on_the_row_alone(fitted, images):
    scores = fitted.score_samples(images)
    np.testing.assert_array_equal(fitted.score_samples(images), scores)
    order = RNG.permutation(len(images))
    np.testing.assert_array_equal(fitted.score_samples(images[order]), scores[order])
    for rows in (slice(5, 6), slice(3, 40)):
        np.testing.assert_array_equal(fitted.score_samples(images[rows]), scores[rows])
    assert len(set(scores)) == len(scores)


@pytest.mark.parametrize("size", [1, 7, 50, 64])
def test_chunks_of_draws_do_not_change_a_score(fitted, images, monkeypatch, size):
    scores = fitted.score_samples(images, n_draws=50)
    monkeypatch.setattr(FittedNetwork, "images_at_once", size)
    chunked = fitted.score_samples(images, n_draws=50)
    np.testing.assert_allclose(chunked, scores, rtol=1e-12)


def test_points_that_come_round_again_are_turned_further(images, monkeypatch):
    """Many draws hold no more points than a few, and estimate as well."""
    vae = ConvVAE(8, filters=8, hidden_layers=2, epochs=30, random_state=0).fit(images)
    scores = vae.score_samples(images, n_draws=2048)
    few = vae.score_samples(images, n_draws=32)
    monkeypatch.setattr("skvae.serving.row_draws._MAX_POINTS", 32)
    vae = clone(vae).fit(images)  # keeps no draws yet
    assert row_draws(0, 2048, 64, 8).points.shape == (32, 8)
    turned = vae.score_samples(images, n_draws=2048)
    # 33 draws are 33, not two rounds of 32.
    assert abs(np.mean(vae.score_samples(images, n_draws=33) - few)) < 0.3
    # The same 32 draws over and over would score as 32 draws do.
    assert np.mean((turned - scores) ** 2) < 0.2 * np.mean((few - scores) ** 2)
    assert turned.mean() - few.mean() > 0.9 * (scores.mean() - few.mean())


@pytest.mark.parametrize("likelihood", ["gaussian", "mse"])
@pytest.mark.parametrize(
    ("rescale", "log_factor"),
    [
        (lambda X: X * 1000.0, np.log(1000)),
        (lambda X: X * 1e-3 + 5.0, np.log(1e-3)),
        (lambda X: np.round(X * 255).astype(np.uint8), np.log(255)),
    ],
    ids=["x 1000", "x 0.001 + 5", "uint8"],
)
def test_scores_are_densities_in_the_callers_units(likelihood, rescale, log_factor):
    """The same weights on rescaled images: a density falls by the factor a pixel."""
    X = np.round(load_digits().images[:100] / 16 * 255) / 255
    vae = ConvVAE(**{**TINY, "epochs": 20}, likelihood=likelihood).fit(X)
    scaled = clone(vae).fit(rescale(X))
    scaled.weights_ = vae.weights_
    width = np.ptp(scaled.value_range_)
    assert width == pytest.approx(np.exp(log_factor))
    scaled.noise_variance_ = vae.noise_variance_ * width**2
    np.testing.assert_allclose(
        scaled.score_samples(rescale(X)),
        vae.score_samples(X) - 64 * log_factor,
        rtol=0,
        atol=1e-3,
    )


def test_score_is_the_mean_of_score_samples(fitted, images):
    assert fitted.score(images) == np.mean(fitted.score_samples(images))


@pytest.mark.filterwarnings("ignore:X has values from")
def test_outliers_score_low_and_finite(fitted, images):
    outlier = np.full((1, 8, 8), 1e6)
    score = fitted.score_samples(outlier)[0]
    assert np.isfinite(score)
    assert score < fitted.score_samples(images).min()


@pytest.mark.filterwarnings("ignore:X has values from")
def test_values_that_overflow_the_network_are_an_error(images):
    vae = ConvVAE(**{**TINY, "filters": 16}).fit(images)
    with pytest.raises(ValueError, match="value_range_"):
        vae.transform(np.full((1, 8, 8), 1e300))
