"""scikit-learn's callbacks: told of a fit and its epochs, and able to end it."""

from collections import defaultdict

import joblib
import numpy as np
import pytest
from helpers import TINY, Hooks, assert_same_fit
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from skvae import Checkpoint, ConvVAE

pytestmark = pytest.mark.callbacks


class Log:
    """Notes what it is told, and ends training after some epochs."""

    def __init__(self, stop_after=None):
        self.stop_after = stop_after
        self.events = []

    def setup(self, estimator, context):
        self.events.append(("setup", context.task_name))

    def on_fit_task_begin(self, estimator, context):
        self.events.append(("begin", context.task_name, context.task_id))

    def on_fit_task_end(self, estimator, context):
        self.events.append(("end", context.task_name, context.task_id))
        return context.task_name == "epoch" and context.task_id + 1 == self.stop_after

    def teardown(self, estimator, context):
        self.events.append(("teardown", context.task_name))


class Use(Hooks):
    """Calls a function with the estimator as fitted so far, at each end of a task."""

    def __init__(self, function):
        self.function = function
        self.results = []

    def on_fit_task_end(self, estimator, context, *, X=None, fitted_estimator=None):
        self.results.append(self.function(fitted_estimator, X))


class Propagated(Log):
    max_propagation_depth = None


def epochs_of(log):
    return [event for event in log.events if event[1] == "epoch"]


def test_an_epoch_is_a_task(images):
    log = Log()
    ConvVAE(**TINY).set_callbacks(log).fit(images)
    epochs = [(what, "epoch", i) for i in range(3) for what in ("begin", "end")]
    assert log.events == [
        ("setup", "fit"),
        ("begin", "fit", 0),
        *epochs,
        ("end", "fit", 0),
        ("teardown", "fit"),
    ]


def test_callbacks_change_no_bit(images):
    vae = ConvVAE(**TINY, sampler=GaussianMixture(2)).set_callbacks(
        Use(lambda fitted, X: fitted.score(X))
    )
    expected = ConvVAE(**TINY, sampler=GaussianMixture(2)).fit(images)
    assert_same_fit(vae.fit(images), expected)
    np.testing.assert_array_equal(vae.sample(3), expected.sample(3))


def test_a_callback_ends_training(images):
    log = Log(stop_after=2)
    vae = ConvVAE(**TINY).set_callbacks(log).fit(images)
    assert_same_fit(vae, ConvVAE(**{**TINY, "epochs": 2}).fit(images))
    assert len(epochs_of(log)) == 4
    assert log.events[-2:] == [("end", "fit", 0), ("teardown", "fit")]


def test_a_bar_that_a_callback_ends_ends_its_line(images, monkeypatch, capsys):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    ConvVAE(**TINY, verbose=1).set_callbacks(Log(stop_after=2)).fit(images)
    assert capsys.readouterr().out.endswith("\n")


def test_early_stopping_ends_before_a_callback(images):
    log = Log()
    params = {**TINY, "epochs": 9, "n_iter_no_change": 1, "tol": 1e9, "batch_size": 1}
    ConvVAE(**params, early_stopping=True).set_callbacks(log).fit(images)
    assert len(epochs_of(log)) == 2 * 2


@pytest.mark.parametrize("early_stopping", [False, True])
def test_what_is_fitted_so_far_is_what_fewer_epochs_give(images, early_stopping):
    """With the same calls as ever, and it trains on as such."""
    params = {**TINY, "early_stopping": early_stopping}
    use = Use(clone_fitted)
    ConvVAE(**params).set_callbacks(use).fit(images)
    for n, (fitted, z, score) in zip((1, 2, 3, 3), use.results, strict=True):
        expected = ConvVAE(**{**params, "epochs": n}).fit(images)
        assert_same_fit(fitted, expected)
        np.testing.assert_array_equal(z, expected.transform(images))
        assert score == expected.score(images)


def clone_fitted(fitted, X):
    """Copy and results of the estimator at the time of the callback."""
    copy = clone(fitted).set_callbacks()
    copy.__dict__.update({k: v for k, v in vars(fitted).items() if k.endswith("_")})
    return copy, fitted.transform(X), fitted.score(X)


def test_nothing_is_computed_for_callbacks_that_do_not_ask(images):
    """A sampler is fitted for each fitted estimator that a callback gets."""
    fits = []

    class CountedMixture(GaussianMixture):
        def fit(self, X, y=None):
            fits.append(len(X))
            return super().fit(X, y)

    vae = ConvVAE(**TINY, sampler=CountedMixture(1))
    vae.set_callbacks(Log()).fit(images)
    assert fits == [len(images)] * 2  # one is the check before training
    vae.set_callbacks(Use(lambda *_: None)).fit(images)
    assert len(fits) > 4


def test_an_earlier_fit_shows_nowhere(images):
    """Not every fit has a sampler, a noise variance and names of columns."""

    def sees(fitted, X):
        return getattr(fitted, "sampler_", None), fitted.score(X), fitted.sample(2)

    use = Use(sees)
    new = {"sampler": None, "likelihood": "bernoulli"}
    expected = ConvVAE(**TINY, **new).fit(images)
    vae = ConvVAE(**TINY, sampler=GaussianMixture(2)).fit(images)
    vae.set_params(**new).set_callbacks(use).fit(images)
    for sampler, score, sample in use.results[-2:]:
        assert sampler is None
        assert score == expected.score(images)
        np.testing.assert_array_equal(sample, expected.sample(2))
    assert not hasattr(vae, "sampler_")
    assert not hasattr(vae, "noise_variance_")


def test_partial_fit_is_a_fit_of_one_epoch(images):
    log = Log()
    vae = ConvVAE(**TINY).set_callbacks(log).partial_fit(images)
    assert len(epochs_of(log)) == 2
    vae.partial_fit(images)
    assert len(epochs_of(log)) == 4


@pytest.mark.parametrize("task", ["epoch", "fit"])
def test_an_error_in_a_callback_leaves_the_estimator_as_it_was(images, task):
    class Failing(Log):
        def on_fit_task_end(self, estimator, context):
            super().on_fit_task_end(estimator, context)
            if context.task_name == task:
                raise OSError("no space")

    vae = ConvVAE(**TINY).fit(images)
    log = Failing()
    vae.set_params(latent_dim=3).set_callbacks(log)
    before = dict(vars(vae))
    with pytest.raises(OSError, match="no space"):
        vae.fit(images)
    assert vars(vae) == before
    assert log.events[-1] == ("teardown", "fit")
    # The network that was leased is there for the next.
    vae.set_callbacks()
    assert_same_fit(vae.fit(images), ConvVAE(**{**TINY, "latent_dim": 3}).fit(images))


class FitsAgain(Hooks):
    """Fits the estimator once more, at the end of its second epoch."""

    has_fitted = False

    def on_fit_task_end(self, estimator, context):
        if context.task_id == 1 and not self.has_fitted:
            self.has_fitted = True
            estimator.fit(np.zeros((20, 8, 8)))


def test_a_callback_that_fits_leaves_the_fit_that_called_it_whole(images, tmp_path):
    vae = ConvVAE(**TINY)
    vae.set_callbacks(FitsAgain(), Checkpoint(tmp_path / "vae.joblib")).fit(images)
    expected = ConvVAE(**TINY).fit(images)
    assert_same_fit(vae, expected)
    assert_same_fit(joblib.load(tmp_path / "vae.joblib"), expected)


def test_callbacks_reach_it_through_a_pipeline_and_a_search():
    X, y = load_digits(return_X_y=True)
    X, y = X[:60], y[:60]
    pipeline = make_pipeline(ConvVAE(**TINY), LogisticRegression(max_iter=1000))
    log = Propagated()
    pipeline.set_callbacks(log).fit(X, y)
    assert len(epochs_of(log)) == 2 * 3
    log = Propagated()
    search = GridSearchCV(ConvVAE(**TINY), {"latent_dim": [2, 3]}, cv=2)
    search.set_callbacks(log).fit(X)
    assert len(epochs_of(log)) == 2 * 3 * 5
    assert not hasattr(search.best_estimator_, "_skl_callbacks")


def score(vae, X, _):
    return vae.score(X)


@pytest.mark.parametrize("is_piped", [False, True])
def test_a_scoring_monitor_sees_each_epochs_score(is_piped):
    from sklearn.callback import ScoringMonitor

    X, y = digits_and_labels()
    monitor = ScoringMonitor(scoring={"score": score})
    vae = ConvVAE(**TINY).set_callbacks(monitor)
    estimator = make_pipeline(vae, LogisticRegression(max_iter=1000))
    (estimator if is_piped else vae).fit(X, y)
    rows = monitor.get_logs().data
    seen = [row["score"] for row in rows if row["task_name"] == "epoch"]
    assert seen == scores_by_epoch(X, latent_dim=2)


@pytest.mark.slow
def test_a_scoring_monitor_and_a_progress_bar_in_a_search_in_two_processes(capsys):
    from sklearn.callback import ProgressBar, ScoringMonitor

    X, y = digits_and_labels()
    monitor = ScoringMonitor(scoring={"score": score})
    bar = ProgressBar(max_propagation_depth=None)
    vae = ConvVAE(**TINY).set_callbacks(monitor)
    search = GridSearchCV(vae, {"latent_dim": [2, 3]}, cv=2, n_jobs=2)
    search.set_callbacks(bar).fit(X, y)
    fits = defaultdict(list)
    for row in monitor.get_logs().data:
        if row["task_name"] == "epoch":
            fits[row["parent_task_id_path"]].append(row["score"])
    halves = [X[:30], X[30:]]  # the second fold is left out first
    expected = [
        scores_by_epoch(half, latent_dim=n) for n in (2, 3) for half in halves[::-1]
    ]
    best = scores_by_epoch(X, **search.best_params_)
    # Workers have other numbers of threads.
    np.testing.assert_allclose(sorted(fits.values()), sorted([*expected, best]), 1e-4)
    bars = [line for line in capsys.readouterr().out.splitlines() if "%" in line]
    assert sum("ConvVAE - fit" in line for line in bars) == 5
    assert all("100%" in line for line in bars)


def digits_and_labels():
    X, y = load_digits(return_X_y=True)
    return X[:60] / 16, y[:60]


def scores_by_epoch(X, **parameters):
    params = {**TINY, **parameters}
    return [ConvVAE(**{**params, "epochs": n}).fit(X).score(X) for n in (1, 2, 3)]
