"""Ctrl-C while a network trains."""

import os
import signal

import numpy as np
import pytest
from helpers import TINY
from sklearn.exceptions import ConvergenceWarning

from skvae import ConvVAE
from skvae.engine import Trainer


@pytest.fixture
def interrupt(monkeypatch):
    """Interrupt as Ctrl-C does, after so many graph calls of 32 images."""

    def after(n_calls):
        train_steps = Trainer.train_steps
        calls = []

        def interrupted(self, *args, **kwargs):
            calls.append(args)
            if len(calls) == n_calls + 1:
                os.kill(os.getpid(), signal.SIGINT)
            return train_steps(self, *args, **kwargs)

        monkeypatch.setattr("skvae.training._CALL_PIXELS", 64 * 32)
        monkeypatch.setattr(Trainer, "train_steps", interrupted)

    return after


@pytest.mark.parametrize(("n_calls", "epoch"), [(1, 1), (2, 1), (3, 1), (4, 2), (7, 3)])
def test_what_was_trained_is_kept(images, interrupt, n_calls, epoch):
    interrupt(n_calls)
    vae = ConvVAE(**TINY)
    with pytest.warns(ConvergenceWarning, match=f"in epoch {epoch} of 3"):
        assert vae.fit(images) is vae
    assert vae.n_iter_ == epoch
    assert {len(values) for values in vae.history_.values()} == {epoch}
    assert all(np.isfinite(values).all() for values in vae.history_.values())
    assert vae.latent_kl_.shape == (TINY["latent_dim"],)
    assert np.isfinite(vae.score(images))


def test_whole_epochs_are_those_of_a_fit_that_ends_with_them(images, interrupt):
    expected = ConvVAE(**{**TINY, "epochs": 2}).fit(images)
    interrupt(6)
    with pytest.warns(ConvergenceWarning):
        vae = ConvVAE(**TINY).fit(images)
    assert vae.history_ == expected.history_
    for path, weight in vae.weights_.items():
        np.testing.assert_array_equal(weight, expected.weights_[path])


def test_training_goes_on_from_there(images, interrupt):
    interrupt(5)
    vae = ConvVAE(**TINY, warm_start=True)
    with pytest.warns(ConvergenceWarning):
        vae.fit(images)
    vae.fit(images)
    assert vae.n_iter_ == len(vae.history_["loss"]) == 5


def test_early_stopping_keeps_its_best_epoch(images, interrupt):
    params = {**TINY, "early_stopping": True, "validation_fraction": 0.5}
    expected = ConvVAE(**{**params, "epochs": 2}).fit(images)
    interrupt(5)
    with pytest.warns(ConvergenceWarning, match="in epoch 3 of 3"):
        vae = ConvVAE(**params).fit(images)
    for path, weight in vae.weights_.items():
        np.testing.assert_array_equal(weight, expected.weights_[path])
    assert np.isnan(vae.history_["val_loss"][2])
    assert vae.history_["val_loss"][:2] == expected.history_["val_loss"]


def test_before_anything_was_trained_there_is_nothing_to_keep(images, interrupt):
    vae = ConvVAE(**TINY).fit(images)
    before = dict(vae.__dict__)
    interrupt(0)
    with pytest.raises(KeyboardInterrupt):
        vae.fit(images)
    assert vae.__dict__ == before
