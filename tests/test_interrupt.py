"""Ctrl-C while a network trains."""

import os
import signal
import sys
import time
import weakref
from concurrent.futures import CancelledError
from pathlib import Path
from queue import SimpleQueue
from threading import Event, main_thread

import numpy as np
import pytest
import tensorflow as tf
from helpers import TINY, Hooks, assert_same_fit
from sklearn.exceptions import ConvergenceWarning

from skvae import ConvVAE
from skvae.data.shuffling import shuffled_blocks
from skvae.data.storage import StoredImages
from skvae.serving.fitted import FittedNetwork
from skvae.training import compiled as engine
from skvae.training.interruption import UninterruptedThreads
from skvae.training.loop import _Run, _Totals
from skvae.training.trainer import Trainer


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

        monkeypatch.setattr("skvae.training.loop._CALL_PIXELS", 64 * 32)
        monkeypatch.setattr(_Run, "_whole_batches", lambda *_: 2)
        monkeypatch.setattr(Trainer, "train_steps", interrupted)

    # It is ignored where the tests run in the background of a shell.
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield during
    signal.signal(signal.SIGINT, handler)


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


def test_a_second_ctrl_c_ends_it_at_once(images, interrupt, monkeypatch):
    vae = ConvVAE(**TINY).fit(images)
    before = dict(vae.__dict__)
    interrupt(-1)  # none of the calls; the fifth does it itself
    train_steps = Trainer.train_steps
    has_left, ended = Event(), SimpleQueue()
    calls = []

    def long(self, *args, **kwargs):
        calls.append(args)
        if len(calls) < 5:
            return train_steps(self, *args, **kwargs)
        for _ in range(2):
            time.sleep(0.5)
            signal.pthread_kill(main_thread().ident, signal.SIGINT)
        ended.put(has_left.wait(60))
        return train_steps(self, *args, **kwargs)

    monkeypatch.setattr(Trainer, "train_steps", long)
    with pytest.raises(KeyboardInterrupt):
        vae.fit(images)
    has_left.set()
    assert ended.get(timeout=60)
    assert vae.__dict__ == before


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

    monkeypatch.setattr("skvae.training.loop._CALL_PIXELS", 64 * 32)
    monkeypatch.setattr("skvae.training.loop._MIN_RUN", 2)
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

    monkeypatch.setattr("skvae.training.loop.shuffled_blocks", interrupted)
    with pytest.raises(KeyboardInterrupt):
        vae.fit(images)
    assert vae.__dict__ == before


def test_an_epoch_counts_once_whenever_ctrl_c_comes(images, monkeypatch):
    """It is in the history, and its sums are still there."""
    expected = ConvVAE(**{**TINY, "epochs": 2}).fit(images)
    epochs = []

    class InterruptedTotals(_Totals):
        def __init__(self, epoch):
            epochs.append(epoch)
            if epoch == 2:
                raise KeyboardInterrupt
            super().__init__(epoch)

    monkeypatch.setattr("skvae.training.loop._Totals", InterruptedTotals)
    with pytest.warns(ConvergenceWarning, match="after 2 of 3 epochs"):
        vae = ConvVAE(**TINY).fit(images)
    assert epochs == [0, 1, 2]
    assert_same_fit(vae, expected)


def test_a_call_in_another_thread_gives_what_it_gives():
    with UninterruptedThreads(2) as threads:
        calls = [threads.submit(divmod, 17, n) for n in (5, 0, 3)]
        assert calls[0].result() == (3, 2)
        with pytest.raises(ZeroDivisionError):
            calls[1].result()
        assert calls[2].result() == (5, 2)
    with pytest.raises(RuntimeError, match="ended"):
        threads.submit(int)


@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_calls_under_way_are_waited_for_and_others_not_made(n_threads, error):
    """After Ctrl-C they are not waited for."""
    made, started, go_on = SimpleQueue(), SimpleQueue(), SimpleQueue()

    def work(n):
        started.put(n)
        go_on.get(timeout=60)
        time.sleep(0.1)
        made.put(n)

    def fail():
        with UninterruptedThreads(n_threads) as threads:
            for n in range(5):
                threads.submit(work, n)
            for _ in range(n_threads):
                started.get(timeout=60)
            threads.end()
            if error is not KeyboardInterrupt:
                let_go()
            raise error

    def let_go():
        for _ in range(n_threads):
            go_on.put(None)

    with pytest.raises(error):
        fail()
    if error is KeyboardInterrupt:
        let_go()
    else:
        assert made.qsize() == n_threads
    assert sorted(made.get(timeout=60) for _ in range(n_threads)) == [0, 1][:n_threads]
    assert started.empty()


def test_a_thread_keeps_nothing_of_its_last_call():
    with UninterruptedThreads(1) as threads:
        array = np.zeros(3)
        kept = weakref.ref(array)
        threads.submit(np.sum, array).result()
        del array
        deadline = time.monotonic() + 30
        while kept() is not None and time.monotonic() < deadline:
            time.sleep(0.01)
        assert kept() is None


def test_no_array_becomes_a_tensor_where_signal_handlers_run(images):
    """TensorFlow does not survive an exception there: about one Ctrl-C in 500."""
    params = {**TINY, "early_stopping": True, "validation_fraction": 0.5}
    expected = ConvVAE(**params).fit(images)
    engine._networks.clear()

    def called_here(function):
        """Files of TensorFlow and Keras that it makes this thread run."""
        called = set()

        def note(frame, *_):
            path = Path(frame.f_code.co_filename)
            if {"tensorflow", "keras"} & set(path.parts):
                called.add(path.name)

        sys.setprofile(note)
        try:
            function()
        finally:
            sys.setprofile(None)
        return called

    made_in = {"constant_op.py", "tensor_conversion.py", "resource_variable_ops.py"}
    assert made_in <= called_here(
        lambda: tf.Variable(tf.convert_to_tensor(np.ones(2))).numpy()
    )
    vae = ConvVAE(**params)
    assert not made_in & called_here(lambda: vae.fit(images))
    assert_same_fit(vae, expected)


def test_a_progress_bar_ends_its_line(images, interrupt, monkeypatch, capsys):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    interrupt(4)
    with pytest.warns(ConvergenceWarning):
        ConvVAE(**TINY, verbose=1).fit(images)
    assert capsys.readouterr().out.endswith("\n")


def test_a_graph_call_is_as_long_as_it_may_take(images, monkeypatch):
    """Calls grow while they are quick, and shrink when they are not."""
    lengths = []
    train_steps = Trainer.train_steps

    def noted(self, block, *args, **kwargs):
        lengths.append(len(block))
        return train_steps(self, block, *args, **kwargs)

    monkeypatch.setattr(Trainer, "train_steps", noted)
    monkeypatch.setattr("skvae.training.loop._CALL_PIXELS", 16 * 16 * 64)
    many = np.tile(images, (10, 1, 1))
    params = {**TINY, "epochs": 1}
    for seconds, expected in [(1e9, [16, 64, 256, 256, 108]), (0, [16] * 43 + [12])]:
        monkeypatch.setattr("skvae.training.loop._CALL_SECONDS", seconds)
        lengths.clear()
        ConvVAE(**params).fit(many)
        assert lengths == expected


@pytest.mark.callbacks
def test_ctrl_c_in_a_callback_at_the_end_keeps_what_was_trained(images):
    class Interrupted(Hooks):
        def on_fit_task_end(self, estimator, context):
            if context.task_name == "fit":
                raise KeyboardInterrupt

    vae = ConvVAE(**TINY).set_callbacks(Interrupted())
    with pytest.warns(ConvergenceWarning, match="after 3 of 3"):
        vae.fit(images)
    assert_same_fit(vae, ConvVAE(**TINY).fit(images))


def test_who_stops_reads_no_further_ahead():
    read = []

    class Images:
        shape, dtype = (7000, 8, 8), np.dtype(np.uint8)

        def __getitem__(self, key):
            read.append(key)
            return np.ones((key.stop - key.start, 8, 8), np.uint8)

    stored = StoredImages(Images(), lambda rows: rows[..., None], (8, 8, 1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("skvae.data.storage._CHUNK_BYTES", 64)
        with pytest.raises(CancelledError):
            stored.gather(np.arange(9), lambda: len(read) < 3)
    assert len(read) == 3


def test_training_tells_who_reads_ahead_that_it_is_over(monkeypatch):
    is_wanted = []

    def gather(_, rows, wanted):
        is_wanted.append(wanted)
        return np.zeros((len(rows), 8, 8, 1), np.uint8)

    monkeypatch.setattr(StoredImages, "gather", gather)
    monkeypatch.setattr("skvae.data.shuffling._BLOCK_BYTES", 64 * 16)
    stored = StoredImages(np.zeros((99, 8, 8), np.uint8), None, (8, 8, 1))
    rng = np.random.default_rng(0)
    blocks = shuffled_blocks(stored, range(99), 16, rng, lambda rows: rows)
    next(blocks)
    assert is_wanted[0]()
    blocks.close()
    assert not is_wanted[0]()
