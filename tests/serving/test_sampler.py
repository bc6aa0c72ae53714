"""Samplers: any scikit-learn density estimator, fitted on posterior draws."""

import joblib
import numpy as np
import pytest
from helpers import TINY, assert_same_fit
from scipy import stats
from sklearn.base import BaseEstimator, clone
from sklearn.decomposition import PCA
from sklearn.mixture import BayesianGaussianMixture, GaussianMixture
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KernelDensity

from skvae import ConvVAE
from skvae.streams import Stream, stream

SAMPLERS = [
    GaussianMixture(3),
    BayesianGaussianMixture(n_components=2, max_iter=1000),
    KernelDensity(bandwidth=0.2),
]


class Recorder(BaseEstimator):
    """Keeps what it is fitted on, and draws it again."""

    def fit(self, X):
        self.X_ = X  # and returns nothing: fitted it is all the same

    def sample(self, n_samples=1):
        return self.X_[:n_samples]


class Within(BaseEstimator):
    """An estimator within an estimator, as a search or a pipeline has."""

    def __init__(self, inner=None):
        self.inner = inner

    def fit(self, X):
        self.inner_ = clone(self.inner).fit(X)
        return self

    def sample(self, n_samples=1):
        inner = self.inner_.set_params(**self.inner.get_params())
        return inner.sample(n_samples)[0]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_samples_are_decoded_draws_of_the_sampler(images, sampler):
    vae = ConvVAE(**TINY, sampler=sampler).fit(images)
    assert vae.sampler is sampler
    assert not hasattr(sampler, "n_features_in_")
    assert type(vae.sampler_) is type(sampler)
    first = vae.sample(5, random_state=1)
    assert first.shape == (5, 8, 8)
    np.testing.assert_array_equal(vae.sample(5, random_state=1), first)
    assert not np.array_equal(vae.sample(5, random_state=2), first)
    np.testing.assert_array_equal(vae.sample(5), vae.sample(5, random_state=0))
    state = np.random.RandomState(0)
    assert not np.array_equal(vae.sample(5, state), vae.sample(5, state))


def test_the_sampler_learns_draws_from_the_training_rows_posteriors(images):
    parameters = {**TINY, "filters": 8, "epochs": 100, "learning_rate": 1e-2}
    parameters["early_stopping"] = True
    vae = ConvVAE(**parameters, sampler=Recorder()).fit(images)
    held_out = stream(0, Stream.VALIDATION_SPLIT).permutation(70)[:7]
    z_mean, z_log_var = np.delete(np.array(vae.posterior(images)), held_out, axis=1)
    assert z_log_var.mean() < -1.5  # far from the prior's
    epsilon = (vae.sampler_.X_ - z_mean) / np.exp(z_log_var / 2)
    assert epsilon.shape == (63, 2)
    assert vae.sampler_.X_.dtype == np.float64
    assert stats.kstest(epsilon.ravel(), "norm").pvalue > 0.01


def test_samples_follow_the_sampler_and_scores_do_not(images):
    """A sampler far from the prior: what it draws encodes to where it is."""
    vae = ConvVAE(**{**TINY, "epochs": 60}).fit(images)
    near = ConvVAE(**{**TINY, "epochs": 60}, sampler=KernelDensity(bandwidth=1e-3))
    near.fit(images)
    assert_same_fit(vae, near)
    np.testing.assert_array_equal(vae.score_samples(images), near.score_samples(images))
    samples = near.sample(50).reshape(50, -1)
    decoded = near.inverse_transform(near.sampler_.sample(2000)).reshape(2000, -1)
    distances = np.linalg.norm(samples[:, None] - decoded[None], axis=2).min(axis=1)
    prior = vae.sample(50).reshape(50, -1)
    of_prior = np.linalg.norm(prior[:, None] - decoded[None], axis=2).min(axis=1)
    assert np.median(distances) < 0.2 * np.median(of_prior)


def test_a_seed_makes_the_samplers_fit_the_same_too(images):
    vaes = [ConvVAE(**TINY, sampler=GaussianMixture(3)).fit(images) for _ in range(2)]
    np.testing.assert_array_equal(vaes[0].sampler_.means_, vaes[1].sampler_.means_)
    assert isinstance(vaes[0].sampler_.random_state, int)
    own = ConvVAE(**TINY, sampler=GaussianMixture(3, random_state=7)).fit(images)
    assert own.sampler_.random_state == 7


def test_a_draw_changes_nothing_that_was_fitted(images):
    vae = ConvVAE(**TINY, sampler=GaussianMixture(3, random_state=7)).fit(images)
    vae.sample(4, random_state=1)
    assert vae.sampler_.random_state == 7


def test_random_states_within_the_sampler_count_too(images):
    sampler = Within(GaussianMixture(2))
    vae = ConvVAE(**TINY, sampler=sampler).fit(images)
    assert isinstance(vae.sampler_.inner.random_state, int)
    first = vae.sample(5, random_state=1)
    np.testing.assert_array_equal(vae.sample(5, random_state=1), first)
    assert not np.array_equal(vae.sample(5, random_state=2), first)
    assert sampler.inner.random_state is None


def test_partial_fit_and_warm_start_fit_the_sampler_anew(images):
    whole = ConvVAE(**TINY, sampler=GaussianMixture(2)).fit(images)
    calls = ConvVAE(**TINY, sampler=GaussianMixture(2))
    for _ in range(3):
        calls.partial_fit(images)
    np.testing.assert_array_equal(whole.sampler_.means_, calls.sampler_.means_)
    calls.set_params(sampler=None, warm_start=True).fit(images)
    assert not hasattr(calls, "sampler_")
    calls.set_params(sampler=KernelDensity()).fit(images)
    assert isinstance(calls.sampler_, KernelDensity)


def test_clone_search_and_file(images, tmp_path):
    vae = ConvVAE(**TINY, sampler=GaussianMixture(2))
    assert clone(vae).sampler is not vae.sampler
    search = GridSearchCV(vae, {"sampler__n_components": [1, 4]}, cv=2).fit(images)
    # Scores are under the prior, whatever the sampler.
    assert len(set(search.cv_results_["mean_test_score"])) == 1
    best = search.best_estimator_
    assert best.sampler_.n_components == search.best_params_["sampler__n_components"]
    joblib.dump(best, tmp_path / "vae")
    loaded = joblib.load(tmp_path / "vae")
    np.testing.assert_array_equal(loaded.sample(3), best.sample(3))


@pytest.mark.parametrize("sampler", [PCA(), 3, GaussianMixture, "gmm"])
def test_what_is_no_sampler_is_an_error_before_training(images, sampler):
    vae = ConvVAE(**{**TINY, "epochs": 10**9}, sampler=sampler)
    with pytest.raises((ValueError, TypeError), match="sampler"):
        vae.fit(images)
    assert not hasattr(vae, "weights_")


def test_a_sampler_that_cannot_be_fitted_leaves_the_estimator(images):
    vae = ConvVAE(**TINY).fit(images)
    before = ConvVAE(**TINY).fit(images)
    with pytest.raises(ValueError, match="n_components") as caught:
        vae.set_params(sampler=GaussianMixture(500)).fit(images)
    assert "sampler=GaussianMixture" in caught.value.__notes__[0]
    assert_same_fit(vae, before)


def test_a_sampler_that_draws_something_else_is_an_error(images):
    vae = ConvVAE(**TINY, sampler=Recorder()).fit(images)
    vae.sampler_.X_ = np.zeros((70, 3))
    with pytest.raises(ValueError, match=r"shape \(5, 3\).*\(5, 2\)"):
        vae.sample(5)
    vae.sampler_.X_ = np.full((70, 2), np.nan)
    with pytest.raises(ValueError, match="samples of sampler_ contains NaN"):
        vae.sample(5)


@pytest.mark.parametrize(
    ("sampler", "n_images"),
    [(GaussianMixture(10), 8), (GaussianMixture(30), 29), (GaussianMixture(3), 2)],
)
def test_too_few_images_for_a_sampler_are_an_error_before_training(
    images, sampler, n_images, capsys
):
    vae = ConvVAE(**TINY, sampler=sampler, verbose=2)
    with pytest.raises(ValueError, match=f"{n_images} sample"):
        vae.fit(images[:n_images])
    assert "epoch" not in capsys.readouterr().out


def test_a_sampler_that_fails_after_training_leaves_what_was_trained(images):
    class Failing(GaussianMixture):
        n_fits = 0

        def fit(self, X, y=None):
            Failing.n_fits += 1
            if Failing.n_fits > 1:  # the first is the check before training
                msg = "no such mixture"
                raise FloatingPointError(msg)
            return super().fit(X)

    vae = ConvVAE(**TINY, sampler=Failing(2))
    with pytest.raises(FloatingPointError, match="no such mixture") as raised:
        vae.fit(images)
    assert "The estimator is fitted" in raised.value.__notes__[-1]
    assert not hasattr(vae, "sampler_")
    assert_same_fit(vae, ConvVAE(**TINY).fit(images))
    assert vae.sample(2).shape == (2, 8, 8)
    assert vae.set_params(sampler=None).partial_fit(images).n_iter_ == 4


@pytest.mark.parametrize(
    "sampler", [GaussianMixture(covariance_type="x"), KernelDensity(bandwidth=-1)]
)
def test_parameters_of_the_sampler_are_checked_by_itself(images, sampler):
    with pytest.raises(ValueError, match="must be"):
        ConvVAE(**TINY, sampler=sampler).fit(images)
