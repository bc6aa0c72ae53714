"""Posterior collapse is said, with what to do about it, and only where it is."""

import warnings

import numpy as np
import pytest
from helpers import TINY
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from skvae import ConvVAE
from skvae.exceptions import PosteriorCollapseWarning
from skvae.training.collapse import collapse_message

COLLAPSED = {"latent_dim": 8, "filters": 16, "hidden_layers": 2, "epochs": 40}


@pytest.mark.slow
def test_digits_collapse_with_mse_and_its_remedies_help(digits):
    X = digits[0]
    vae = ConvVAE(**COLLAPSED, likelihood="mse", random_state=0)
    with pytest.warns(PosteriorCollapseWarning, match="0 of 8 latent") as caught:
        vae.fit(X)
    assert caught[0].filename == __file__
    assert np.all(vae.latent_kl_ < 0.1)
    message = str(caught[0].message)
    for remedy in (
        {"likelihood": "gaussian"},
        {"beta": 0.1},
        {"free_bits": 0.25},
    ):
        (name,) = remedy
        assert name in message
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            helped = clone(vae).set_params(**remedy).fit(X)
        assert np.count_nonzero(helped.latent_kl_ > 0.1) > 2


def test_digits_do_not_collapse_with_the_defaults(digits):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        vae = ConvVAE(epochs=30, random_state=0).fit(digits[0])
    assert np.all(vae.latent_kl_ > 0.5)


def test_the_warning_counts_what_is_alive():
    parameters = ConvVAE().get_params()
    for n_alive, is_collapsed in [(0, True), (1, True), (2, True), (3, False)]:
        latent_kl = np.where(np.arange(8) < n_alive, 0.5, 0.01)
        message = collapse_message(
            latent_kl, parameters, n_steps=10**4, suitable_range=None
        )
        assert (message is not None) == is_collapsed
        if message:
            assert f"{n_alive} of 8 latent dimensions are active" in message
    assert collapse_message(np.array([0.2]), parameters, 10**4, None) is None


@pytest.mark.parametrize(
    ("parameters", "named", "not_named"),
    [
        (
            {},
            ["kl_warmup_epochs", "free_bits=0.25"],
            ["more epochs", "beta", "likelihood"],
        ),
        ({"beta": 4}, ["a lower beta than 4"], ["likelihood", "kl_warmup"]),
        ({"likelihood": "mse"}, ["likelihood='gaussian'", "beta than 1"], []),
        ({"likelihood": "mse", "beta": 0}, ["likelihood='gaussian'"], ["beta than"]),
        ({"likelihood": "bernoulli"}, ["likelihood='gaussian', unless"], ["beta"]),
        ({"kl_warmup_epochs": 3}, ["free_bits"], ["kl_warmup_epochs"]),
        (
            {"free_bits": 0.1, "kl_warmup_epochs": 3},
            ["more free_bits than 0.1"],
            ["free_bits=", "kl_warmup_epochs"],
        ),
    ],
)
def test_the_remedies_fit_the_parameters(parameters, named, not_named):
    vae = ConvVAE(**parameters)
    message = collapse_message(
        np.zeros(4), vae.get_params(), n_steps=10**4, suitable_range=None
    )
    assert [name for name in named if name not in message] == []
    assert [name for name in not_named if name in message] == []


def test_few_steps_are_named_with_what_makes_them_more():
    for early_stopping in (False, True):
        vae = ConvVAE(early_stopping=early_stopping)
        message = collapse_message(
            np.zeros(4), vae.get_params(), n_steps=150, suitable_range=None
        )
        assert "a smaller batch_size, as there were only 150" in message
        assert ("more epochs" in message) == (not early_stopping)
        assert "kl_warmup_epochs" not in message


def test_few_images_need_more_steps(digits):
    X = digits[0][:50]
    with pytest.warns(PosteriorCollapseWarning, match="only 100 training steps"):
        ConvVAE(random_state=0).fit(X)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        vae = ConvVAE(random_state=0, batch_size=8).fit(X)
    assert np.count_nonzero(vae.latent_kl_ > 0.1) > 1


@pytest.mark.parametrize(
    "fit",
    [
        lambda vae, X: vae.fit(X),
        lambda vae, X: vae.fit_transform(X),
        lambda vae, X: make_pipeline(vae, PCA(1)).fit(X),
        lambda vae, X: GridSearchCV(vae, {"beta": [1.0]}, cv=2).fit(X),
    ],
    ids=["fit", "fit_transform", "pipeline", "search"],
)
def test_the_warning_names_the_users_line(images, fit):
    vae = ConvVAE(**TINY, likelihood="mse")
    with pytest.warns(PosteriorCollapseWarning) as caught:
        fit(vae, images)
    assert {warning.filename for warning in caught} == {__file__}


def test_a_warning_made_an_error_loses_nothing_that_was_fitted(images):
    vae = ConvVAE(**TINY, likelihood="mse")
    with warnings.catch_warnings():
        warnings.simplefilter("error", PosteriorCollapseWarning)
        with pytest.raises(PosteriorCollapseWarning):
            vae.fit(images)
    assert vae.transform(images).shape == (70, 2)


def test_partial_fit_does_not_warn_at_every_call(images):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        vae = ConvVAE(**TINY).partial_fit(images)
    assert np.all(vae.latent_kl_ < 0.1)
