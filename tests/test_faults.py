"""Faults in the middle of `fit`: nothing is lost, and the next fit is as any."""

import copy
import gc
import pkgutil
import subprocess
import sys
from pathlib import Path

import joblib
import numpy as np
import pytest
from helpers import TINY, assert_same_fit, assert_unchanged
from sklearn.exceptions import ConvergenceWarning, FitFailedWarning
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV

from skvae import ConvVAE

PARAMS = {
    **TINY,
    "filters": 3,
    "early_stopping": True,
    "validation_fraction": 0.4,
    "sampler": GaussianMixture(2),
}

# Where a fit can fail, and in which call.
STAGES = [
    ("skvae.training.compiled.Network.__init__", 0),
    ("skvae.training.trainer.Trainer.__init__", 0),
    ("skvae.training.trainer.Trainer._step", 0),  # traced
    ("skvae.training.gradient.BatchGradient.__call__", 0),  # traced within that
    ("skvae.training.loop.initial_weights", 0),
    ("skvae.training.trainer.Trainer.load", 0),
    ("skvae.training.loop.shuffled_blocks", 0),
    ("skvae.training.loop.shuffled_blocks", 2),
    ("skvae.training.trainer.Trainer.train_steps", 0),
    ("skvae.training.trainer.Trainer.train_steps", 2),
    ("skvae.training.trainer.Trainer.state", 1),
    ("skvae.training.loop.elbo_terms", 0),
    ("skvae.training.report.Report.update", 1),
    ("skvae.serving.graphs.Graph.to_session", 0),
    ("skvae.serving.fitted.FittedNetwork.encode", 0),
    ("skvae.training.result.fit_sampler", 0),
    ("skvae.training.callbacks.FitTasks.end", 0),
]


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """A fit in a fresh process."""
    path = tmp_path_factory.mktemp("fresh") / "vae.joblib"
    code = (
        "import joblib, test_faults\n"
        "from skvae import ConvVAE\n"
        "X = test_faults.images_to_fit()\n"
        f"joblib.dump(ConvVAE(**test_faults.PARAMS).fit(X), {str(path)!r})\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parent)
    return joblib.load(path)


def images_to_fit():
    return np.random.default_rng(0).random((60, 8, 8))


def assert_nothing_is_leased():
    from skvae.training import compiled as engine

    gc.collect()
    assert not any(list(each.leased_trainers) for each in engine._networks.values())


@pytest.mark.parametrize("error", [MemoryError, OSError, KeyboardInterrupt])
@pytest.mark.parametrize(("stage", "call"), STAGES)
def test_a_fault_at_any_stage_leaves_all_as_it_was(
    expected, monkeypatch, stage, call, error
):
    from skvae.training import compiled as engine

    X = images_to_fit()
    vae = ConvVAE(**TINY).fit(X[:20]).set_params(**PARAMS)
    before = copy.deepcopy(vae)
    owner, _, name = stage.rpartition(".")
    if name in ("__init__", "_step", "__call__"):
        monkeypatch.setattr(engine, "_networks", type(engine._networks)())
    monkeypatch.setattr("skvae.training.loop._CALL_PIXELS", 16 * 64)
    calls = []

    def failing(*args, **kwargs):
        calls.append(args)
        if len(calls) == call + 1:
            raise error
        return original(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        owner = pkgutil.resolve_name(owner)
        original = getattr(owner, name)
        patch.setattr(owner, name, failing)
        # What Ctrl-C ends once anything is trained is kept, as a warning says.
        with pytest.raises((error, ConvergenceWarning)) as raised:
            vae.fit(X)
    if raised.type is error:
        assert_unchanged(vae, before)
    else:
        assert error is KeyboardInterrupt
    assert_nothing_is_leased()
    assert_same_fit(ConvVAE(**PARAMS).fit(X), expected)


def test_what_ctrl_c_took_from_a_fit_is_not_used_again():
    """A call may still be under way in it; after other errors none is."""
    from skvae.architecture import Architecture
    from skvae.training.trainer import leased_trainer

    lease = Architecture((2, 2, 1), 1, 7, 1, 1, "linear", "mse"), "sgd", 4
    with pytest.raises(KeyboardInterrupt), leased_trainer(*lease) as taken:
        raise KeyboardInterrupt
    with pytest.raises(MemoryError), leased_trainer(*lease) as kept:
        raise MemoryError
    with leased_trainer(*lease) as newest:
        assert newest is kept
        assert newest is not taken


INTERRUPTED = """
import copy, random, signal, time, warnings
import numpy as np
from helpers import TINY, assert_same_fit, assert_unchanged
from sklearn.exceptions import ConvergenceWarning
from skvae import ConvVAE
from test_faults import PARAMS, assert_nothing_is_leased, images_to_fit

def interrupt(*_):
    raise KeyboardInterrupt

signal.signal(signal.SIGALRM, interrupt)
random.seed(0)
X = images_to_fit()
expected = ConvVAE(**PARAMS).fit(X)
durations = []
for _ in range(5):
    started = time.perf_counter()
    ConvVAE(**PARAMS).fit(X)
    durations.append(time.perf_counter() - started)
seconds = min(durations)
earlier = ConvVAE(**TINY).fit(X[:20]).set_params(**PARAMS)
counts = dict.fromkeys(["lost", "kept", "whole"], 0)
for turn in range(100):
    vae = copy.deepcopy(earlier)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-4, 1.8 * seconds))
            vae.fit(X)
            signal.setitimer(signal.ITIMER_REAL, 0)
        except KeyboardInterrupt:
            pass
    if vae.latent_kl_.tolist() == earlier.latent_kl_.tolist():
        counts["lost"] += 1
        assert_unchanged(vae, earlier)
    elif any(issubclass(each.category, ConvergenceWarning) for each in caught):
        counts["kept"] += 1
        assert 1 <= vae.n_iter_ <= 3
        assert np.isfinite(vae.score_samples(X)).all()
        vae.sample(2)
    else:
        counts["whole"] += 1
        assert_same_fit(vae, expected)
    if turn % 5 == 0:
        assert_nothing_is_leased()
        assert_same_fit(ConvVAE(**PARAMS).fit(X), expected)
print(*counts.values())
"""


def test_ctrl_c_at_random_moments_keeps_all_or_nothing(run_python):
    counts = run_python(INTERRUPTED).split()
    assert sum(map(int, counts)) == 100
    assert min(map(int, counts)) >= 5


@pytest.mark.filterwarnings("ignore:One or more of the test scores are non-finite")
def test_what_diverges_costs_a_search_one_candidate():
    X = images_to_fit()
    grid = {"learning_rate": [1e-3, 1e6]}
    search = GridSearchCV(ConvVAE(**TINY), grid, cv=2)
    with pytest.warns(FitFailedWarning, match="Lower learning_rate"):
        search.set_params(error_score=np.nan).fit(X)
    scores = search.cv_results_["mean_test_score"]
    assert np.isfinite(scores).tolist() == [True, False]
    assert search.best_params_ == {"learning_rate": 1e-3}


@pytest.mark.parametrize(
    "parameters",
    [
        {"learning_rate": 1e6},
        {"learning_rate": 1e6, "batch_size": 60, "epochs": 2},
        {"value_range": (0.0, 1e-30)},
        {"beta": 1e38, "learning_rate": 1.0},
    ],
)
def test_what_diverges_stops_and_keeps_the_earlier_fit(parameters):
    X = images_to_fit()
    vae = ConvVAE(**TINY).fit(X)
    vae.set_params(**{"last_activation": "linear", "epochs": 100, **parameters})
    before = copy.deepcopy(vae)
    name = next(iter(parameters))
    with pytest.raises(ValueError, match=rf"Training diverged.*{name}"):
        vae.fit(X)
    assert_unchanged(vae, before)
