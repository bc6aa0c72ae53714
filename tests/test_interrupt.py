"""Ctrl-C while a network trains."""

import os
import signal

import numpy as np
import pytest
from helpers import TINY
from sklearn.exceptions import ConvergenceWarning

from skvae import ConvVAE
from skvae.inference import FittedNetwork
from skvae.trainer import Trainer


@pytest.fixture
def interrupt(monkeypatch):
    """Interrupt as Ctrl-C does, in the n-th graph call of 32 images, from 0."""

    def during(n):
        train_steps = Trainer.train_steps
        calls = []

        def interrupted(self, *args, **kwargs):
            calls.append(args)
            if len(calls) == n + 1:
                os.kill(os.getpid(), signal.SIGINT)
            return train_steps(self, *args, **kwargs)

        monkeypatch.setattr("skvae.training._CALL_PIXELS", 64 * 32)
        monkeypatch.setattr(Trainer, "train_steps", interrupted)

    return during


@pytest.mark.parametrize(("call", "epoch"), [(0, 1), (1, 1), (2, 1), (3, 2), (7, 3)])
def test_what_was_trained_is_kept(images, interrupt, call, epoch):
    interrupt(call)
    vae = ConvVAE(**TINY)
    with pytest.warns(ConvergenceWarning, match=f"after {epoch} of 3 epochs"):
        assert vae.fit(images) is vae
    assert vae.n_iter_ == epoch
    assert {len(values) for values in vae.history_.values()} == {epoch}
    assert all(np.isfinite(values).all() for values in vae.history_.values())
    assert vae.latent_kl_.shape == (TINY["latent_dim"],)
    assert np.isfinite(vae.score(images))


def test_the_call_that_is_under_way_ends_and_counts(images, interrupt):
    """The last call of an epoch makes it a whole one."""
    expected = ConvVAE(**{**TINY, "epochs": 2}).fit(images)
    interrupt(5)
    with pytest.warns(ConvergenceWarning):
        vae = ConvVAE(**TINY).fit(images)
    assert vae.history_ == expected.history_
    for path, weight in vae.weights_.items():
        np.testing.assert_array_equal(weight, expected.weights_[path])


def test_training_goes_on_from_there(images, interrupt):
    interrupt(4)
    vae = ConvVAE(**TINY, warm_start=True)
    with pytest.warns(ConvergenceWarning):
        vae.fit(images)
    vae.fit(images)
    assert vae.n_iter_ == len(vae.history_["loss"]) == 5


def test_early_stopping_keeps_its_best_epoch(images, interrupt):
    params = {**TINY, "early_stopping": True, "validation_fraction": 0.5}
    expected = ConvVAE(**{**params, "epochs": 2}).fit(images)
    interrupt(4)
    with pytest.warns(ConvergenceWarning, match="after 3 of 3"):
        vae = ConvVAE(**params).fit(images)
    for path, weight in vae.weights_.items():
        np.testing.assert_array_equal(weight, expected.weights_[path])
    assert np.isnan(vae.history_["val_loss"][2])
    assert vae.history_["val_loss"][:2] == expected.history_["val_loss"]


def test_describing_the_latents_may_be_interrupted(images, monkeypatch):
    encode = FittedNetwork.encode
    calls = []

    def interrupted(self, images, *args):
        calls.append(len(images))
        if len(calls) == 1:
            raise KeyboardInterrupt
        return encode(self, images, *args)

    monkeypatch.setattr("skvae.training._CALL_PIXELS", 64 * 32)
    monkeypatch.setattr(FittedNetwork, "encode", interrupted)
    with pytest.warns(ConvergenceWarning, match="after 3 of 3 epochs"):
        vae = ConvVAE(**TINY).fit(images)
    assert calls == [70, 32]
    assert vae.n_iter_ == 3
    assert np.isfinite(vae.latent_kl_).all()


def test_before_anything_was_trained_there_is_nothing_to_keep(images, monkeypatch):
    vae = ConvVAE(**TINY).fit(images)
    before = dict(vae.__dict__)

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("skvae.training.shuffled_blocks", interrupted)
    with pytest.raises(KeyboardInterrupt):
        vae.fit(images)
    assert vae.__dict__ == before


def test_a_progress_bar_ends_its_line(images, interrupt, monkeypatch, capsys):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    interrupt(4)
    with pytest.warns(ConvergenceWarning):
        ConvVAE(**TINY, verbose=1).fit(images)
    assert capsys.readouterr().out.endswith("\n")
