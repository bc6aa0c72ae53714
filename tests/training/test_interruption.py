"""Ctrl-C during `fit`."""

import itertools
import random
import signal
import sys
import threading
import time
from concurrent.futures import CancelledError
from contextlib import suppress
from copy import deepcopy

import numpy as np
import pytest
from helpers import TINY, Hooks, assert_same_fit, assert_unchanged
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV

from skvae import ConvVAE
from skvae.serving.scores import squared_errors
from skvae.training.interruption import deferred_interrupt
from skvae.training.trainer import Trainer


@pytest.fixture(autouse=True)
def _python_s_own_handler():
    # Ctrl-C is ignored where the tests run in the background of a shell.
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    signal.signal(signal.SIGINT, handler)


@pytest.fixture
def in_calls(monkeypatch):
    """Call a function in each graph call, of 32 images, with its number from 0."""

    def call(function):
        train_steps = Trainer.train_steps
        numbers = iter(range(10**9))

        def calling(self, *args, **kwargs):
            function(next(numbers))
            return train_steps(self, *args, **kwargs)

        monkeypatch.setattr("skvae.training.loop._CALL_PIXELS", 64 * 32)
        monkeypatch.setattr("skvae.training.loop._CALL_SECONDS", 1e9)
        monkeypatch.setattr(Trainer, "train_steps", calling)

    return call


def ctrl_c():
    signal.raise_signal(signal.SIGINT)


def raise_alarm():
    raise TimeoutError


def run_context(line, function):
    """Enter and leave the context, and call a function in one of its lines."""
    n_lines = itertools.count()

    def calling(_frame, event, _argument):
        if event == "line" and next(n_lines) == line:
            function()
        return calling

    def trace(frame, _event, _argument):
        is_context = frame.f_code is deferred_interrupt.__wrapped__.__code__
        return calling if is_context else None

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        with deferred_interrupt():
            pass
    finally:
        sys.settrace(before)


def ctrl_c_in(call):
    return lambda number: ctrl_c() if number == call else None


# The first call is of one batch, others are of two: 16, 32 and 22 images an epoch.
@pytest.mark.parametrize(("call", "epoch"), [(0, 1), (1, 1), (2, 1), (3, 2), (6, 3)])
def test_training_so_far_is_kept_and_keyboard_interrupt_raised(
    images, in_calls, call, epoch
):
    in_calls(ctrl_c_in(call))
    vae = ConvVAE(**TINY)
    with pytest.raises(KeyboardInterrupt, match=f"after {epoch} of 3 epochs"):
        vae.fit(images)
    assert vae.n_iter_ == epoch
    assert {len(values) for values in vae.history_.values()} == {epoch}
    assert all(np.isfinite(values).all() for values in vae.history_.values())
    assert np.isfinite(vae.latent_kl_).all()
    assert np.isfinite(vae.score(images))


def test_the_graph_call_under_way_is_finished_and_counts(images, in_calls):
    """The last call of an epoch makes it a whole one."""
    expected = ConvVAE(**{**TINY, "epochs": 2}).fit(images)
    n_calls = []
    in_calls(n_calls.append)
    ConvVAE(**{**TINY, "epochs": 2}).fit(images)
    last = len(n_calls) - 1
    in_calls(lambda number: ctrl_c() if number == last else None)
    vae = ConvVAE(**TINY)
    with pytest.raises(KeyboardInterrupt):
        vae.fit(images)
    assert vae.history_ == expected.history_
    for path, weight in vae.weights_.items():
        np.testing.assert_array_equal(weight, expected.weights_[path])


@pytest.mark.parametrize("how", ["warm_start", "partial_fit"])
def test_training_continues_from_there(images, in_calls, how):
    in_calls(ctrl_c_in(4))
    vae = ConvVAE(**TINY, warm_start=True)
    with pytest.raises(KeyboardInterrupt):
        vae.fit(images)
    assert vae.n_iter_ == 2
    vae.fit(images) if how == "warm_start" else vae.partial_fit(images)
    n_epochs = {"warm_start": 5, "partial_fit": 3}[how]
    assert vae.n_iter_ == len(vae.history_["loss"]) == n_epochs


def test_early_stopping_keeps_its_best_epoch(images, in_calls):
    params = {**TINY, "early_stopping": True, "validation_fraction": 0.5}
    expected = ConvVAE(**{**params, "epochs": 2}).fit(images)
    in_calls(ctrl_c_in(4))  # calls of 16 and 19 images: in the third epoch
    vae = ConvVAE(**params)
    with pytest.raises(KeyboardInterrupt, match="after 3 of 3"):
        vae.fit(images)
    for path, weight in vae.weights_.items():
        np.testing.assert_array_equal(weight, expected.weights_[path])
    assert np.isnan(vae.history_["val_loss"][2])
    assert vae.history_["val_loss"][:2] == expected.history_["val_loss"]


def test_a_second_ctrl_c_raises_at_once_and_leaves_the_estimator(images, in_calls):
    vae = ConvVAE(**TINY).fit(images)
    before = deepcopy(vae)
    numbers = []

    def twice(number):
        numbers.append(number)
        if number == 4:
            ctrl_c()
            ctrl_c()

    in_calls(twice)
    with pytest.raises(KeyboardInterrupt):
        vae.fit(images)
    assert numbers[-1] == 4
    assert_unchanged(vae, before)
    in_calls(lambda _: None)
    assert_same_fit(vae.fit(images), before)


def test_a_second_ctrl_c_within_tensorflow_raises_after_its_call(images, in_calls):
    """An exception within TensorFlow could end the process."""
    import tensorflow as tf

    returned = []

    def twice(number):
        if number == 4:

            def interrupt():
                ctrl_c()
                ctrl_c()
                return 0

            # TensorFlow calls Python from C++ here.
            returned.append(tf.py_function(interrupt, [], tf.int32))

    vae = ConvVAE(**TINY).fit(images)
    before = deepcopy(vae)
    in_calls(twice)
    with pytest.raises(KeyboardInterrupt, match="does not change"):
        vae.fit(images)
    assert len(returned) == 1
    assert_unchanged(vae, before)


def test_a_third_ctrl_c_does_not_interrupt_the_clean_up():
    cleaned = []

    def interrupted():
        with deferred_interrupt():
            ctrl_c()
            try:
                ctrl_c()
            finally:
                ctrl_c()
                cleaned.append(True)

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert cleaned


# More lines than the context has.
@pytest.mark.parametrize("line", range(20))
def test_ctrl_c_works_after_a_context_that_was_interrupted(line):
    """An alarm of the host may raise in any line."""
    with suppress(TimeoutError):
        run_context(line, raise_alarm)
    with pytest.raises(KeyboardInterrupt):
        ctrl_c()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("line", range(20))
def test_the_handler_is_python_s_after_ctrl_c_in_any_line(line):
    with suppress(KeyboardInterrupt):
        run_context(line, ctrl_c)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_second_ctrl_c_once_the_estimator_has_changed_says_so(images, monkeypatch):
    expected, take = ConvVAE(**TINY).fit(images), ConvVAE._take

    def taking(self, fitted):
        take(self, fitted)
        ctrl_c()
        ctrl_c()

    monkeypatch.setattr(ConvVAE, "_take", taking)
    vae = ConvVAE(**TINY)
    with pytest.raises(KeyboardInterrupt, match="The estimator is fitted"):
        vae.fit(images)
    assert_same_fit(vae, expected)


def test_a_second_ctrl_c_leaves_the_estimator_also_if_the_sampler_fails(images):
    import tensorflow as tf

    class Failing(GaussianMixture):
        n_fits = 0

        def fit(self, X, y=None):
            Failing.n_fits += 1
            if Failing.n_fits == 2:  # the first is the check before training
                tf.py_function(lambda: (ctrl_c(), ctrl_c(), 0)[2], [], tf.int32)
                raise ValueError
            return super().fit(X)

    vae = ConvVAE(**TINY, sampler=Failing(1))
    before = deepcopy(vae)
    with pytest.raises(KeyboardInterrupt, match="does not change"):
        vae.fit(images)
    assert_unchanged(vae, before)


@pytest.mark.parametrize("error", [ValueError, RuntimeError])
def test_an_error_after_ctrl_c_does_not_hide_it(images, error):
    """A search would go on with its next candidate."""

    class Failing(GaussianMixture):
        n_fits = 0

        def fit(self, X, y=None):
            Failing.n_fits += 1
            if Failing.n_fits == 2:
                ctrl_c()
                raise error
            return super().fit(X)

    vae = ConvVAE(**TINY, sampler=Failing(1))
    with pytest.raises(KeyboardInterrupt) as raised:
        vae.fit(images)
    assert isinstance(raised.value.__cause__, error)
    assert_same_fit(vae, ConvVAE(**TINY).fit(images))


def test_errors_of_stored_images_are_raised_whatever_their_type(images):
    """Also those that mean a cancelled task, of dask for instance."""

    class Cancelled:
        shape, dtype = images.shape, images.dtype
        n_reads = 0

        def __getitem__(self, rows):
            self.n_reads += 1
            if self.n_reads > 1:
                raise CancelledError
            return images[rows]

    vae = ConvVAE(**TINY, value_range=(0, 1))
    with pytest.raises(CancelledError):
        vae.fit(Cancelled())
    assert not hasattr(vae, "weights_")


def test_ctrl_c_ends_a_pass_over_the_validation_images(images):
    class Counted:
        X = np.tile(images, (500, 1, 1))
        shape, dtype = X.shape, X.dtype
        n_reads = 0

        def __getitem__(self, rows):
            self.n_reads += 1
            if self.n_reads == self.last:
                ctrl_c()
                time.sleep(0.1)  # the main thread handles it
            return self.X[rows]

    params = {**TINY, "epochs": 1, "early_stopping": True}
    whole, interrupted = Counted(), Counted()
    whole.last, interrupted.last = None, 3
    ConvVAE(**params).fit(images, X_val=whole)
    vae = ConvVAE(**params)
    with pytest.raises(KeyboardInterrupt, match="after 1 of 1 epochs"):
        vae.fit(images, X_val=interrupted)
    assert interrupted.n_reads <= 4 < whole.n_reads
    assert np.isnan(vae.history_["val_loss"]).all()
    assert np.isfinite(vae.history_["loss"]).all()


def test_a_handler_set_during_fit_stays(images, in_calls):
    def handler(*_):
        pass

    in_calls(lambda _: signal.signal(signal.SIGINT, handler))
    ConvVAE(**TINY).fit(images)
    assert signal.getsignal(signal.SIGINT) is handler
    signal.signal(signal.SIGINT, signal.default_int_handler)


def test_ctrl_c_before_the_first_step_leaves_the_estimator(images):
    class Interrupted:
        shape, dtype = images.shape, images.dtype

        def __getitem__(self, rows):
            ctrl_c()
            return images[rows]

    vae = ConvVAE(**TINY, value_range=(0, 1)).fit(images)
    before = deepcopy(vae)
    with pytest.raises(KeyboardInterrupt):
        vae.fit(Interrupted())
    assert_unchanged(vae, before)


def test_ctrl_c_while_latents_are_described_keeps_the_whole_training(images):
    fits = []

    class Interrupted(GaussianMixture):
        def fit(self, X, y=None):
            fits.append(len(X))
            if len(fits) == 2:  # the first is the check before training
                ctrl_c()
            return super().fit(X)

    vae = ConvVAE(**TINY, sampler=Interrupted(1))
    with pytest.raises(KeyboardInterrupt, match="after 3 of 3 epochs"):
        vae.fit(images)
    assert_same_fit(vae, ConvVAE(**TINY).fit(images))
    assert len(vae.sample(2)) == 2


@pytest.mark.parametrize("n_read", [0, 1])
def test_ctrl_c_while_the_noise_is_measured_keeps_the_whole_training(
    images, monkeypatch, n_read
):
    """Some images then stand for all."""
    measured = []

    def interrupted(network, some, draws):
        measured.append(len(some))
        if len(measured) == n_read + 1:
            ctrl_c()
        return squared_errors(network, some, draws)

    expected = ConvVAE(**TINY).fit(images)
    monkeypatch.setattr("skvae.training.result.squared_errors", interrupted)
    monkeypatch.setattr("skvae.training.result._PART_PIXELS", 64 * 20)
    vae = ConvVAE(**TINY, noise_type="diag")
    with pytest.raises(KeyboardInterrupt, match="after 3 of 3 epochs"):
        vae.fit(images)
    # The reading of the next 20 of 70 is stopped.
    assert measured[: n_read + 1] == [20] * (n_read + 1)
    assert sum(measured[n_read + 1 :]) == 70  # a part of few images is all of them
    assert vae.noise_variance_.shape == (8, 8)
    assert vae.history_ == expected.history_


def test_a_search_ends_and_no_half_trained_candidate_gets_a_score(images, in_calls):
    in_calls(ctrl_c_in(7))
    search = GridSearchCV(ConvVAE(**TINY), {"latent_dim": [1, 2, 3]}, cv=2)
    started = []
    in_calls(lambda number: (started.append(number), ctrl_c_in(7)(number)))
    with pytest.raises(KeyboardInterrupt):
        search.fit(images)
    assert len(started) == 8
    assert not hasattr(search, "cv_results_")


def test_a_handler_of_the_host_stays_in_place(images, in_calls):
    """Whatever it raises interrupts fit as it does any Python code."""

    class Stop(Exception):  # noqa: N818
        pass

    def handler(*_):
        raise Stop

    in_calls(ctrl_c_in(2))
    vae = ConvVAE(**TINY)
    before = deepcopy(vae)
    signal.signal(signal.SIGINT, handler)
    try:
        with pytest.raises(Stop):
            vae.fit(images)
        assert signal.getsignal(signal.SIGINT) is handler
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    assert_unchanged(vae, before)
    vae.fit(images)  # what it had leased is not lost


@pytest.mark.linux
def test_an_alarm_limits_the_time_of_a_fit(images):
    def handler(*_):
        raise TimeoutError

    vae = ConvVAE(**{**TINY, "epochs": 10**6})
    previous = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 1.0)
    try:
        with pytest.raises(TimeoutError):
            vae.fit(images)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    assert not hasattr(vae, "weights_")


def test_an_alarm_in_any_line_of_a_graph_call_ends_the_fit(images, monkeypatch):
    """TensorFlow's own calls catch what is raised while they bind arguments."""
    train_steps = Trainer.train_steps
    n_lines = itertools.count()
    alarms = set()

    def trace(_frame, event, _argument):
        if event == "line" and next(n_lines) in alarms:
            raise_alarm()
        return trace

    def traced(*args, **kwargs):
        before = sys.gettrace()
        sys.settrace(trace)
        try:
            return train_steps(*args, **kwargs)
        finally:
            sys.settrace(before)

    vae = ConvVAE(**{**TINY, "epochs": 1, "batch_size": len(images)}).fit(images)
    monkeypatch.setattr(Trainer, "train_steps", traced)
    vae.fit(images)
    n_all = next(n_lines)
    assert n_all > 20
    for line in range(n_all):
        n_lines, alarms = itertools.count(), {line}
        with pytest.raises(TimeoutError):
            vae.fit(images)


@pytest.mark.linux
def test_an_alarm_limits_the_time_of_a_fit_under_a_strategy(run_python):
    """The fit is in another thread then, which ends before the error is raised."""
    run_python(
        """
import signal
import threading
import time
import numpy as np
import tensorflow as tf
from skvae import ConvVAE
from skvae.background import Task
from skvae.training.trainer import Trainer
def handler(*_):
    raise TimeoutError
X = np.random.default_rng(0).random((60, 8, 8))
vae = ConvVAE(2, filters=2, hidden_layers=1, epochs=10**6)
signal.signal(signal.SIGALRM, handler)
n_epochs = 0
def check_that_the_fit_has_ended():
    before = n_epochs
    time.sleep(0.1)
    assert n_epochs == before
    assert not hasattr(vae, "weights_")
with tf.distribute.OneDeviceStrategy("CPU:0").scope():
    ConvVAE(2, filters=2, hidden_layers=1, epochs=1).fit(X)
    train_steps = Trainer.train_steps
    def training(*args, **kwargs):
        global n_epochs
        n_epochs += 1
        if n_epochs == 1:
            # Armed here: code of other libraries may catch an earlier alarm.
            signal.setitimer(signal.ITIMER_REAL, 0.2)
        return train_steps(*args, **kwargs)
    Trainer.train_steps = training
    try:
        vae.fit(X)
    except TimeoutError:
        assert n_epochs
        check_that_the_fit_has_ended()
    else:
        raise AssertionError
    start = Task.start
    def starting(task):
        start(task)
        if threading.current_thread() is threading.main_thread():
            raise TimeoutError
    Task.start = starting
    try:
        vae.fit(X)
    except TimeoutError:
        check_that_the_fit_has_ended()
    else:
        raise AssertionError
"""
    )


def test_fit_works_in_another_thread(images):
    vaes = []
    thread = threading.Thread(target=lambda: vaes.append(ConvVAE(**TINY).fit(images)))
    thread.start()
    thread.join()
    assert_same_fit(vaes[0], ConvVAE(**TINY).fit(images))


def test_a_progress_bar_ends_its_line(images, in_calls, monkeypatch, capsys):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    in_calls(ctrl_c_in(4))
    with pytest.raises(KeyboardInterrupt):
        ConvVAE(**TINY, verbose=1).fit(images)
    assert capsys.readouterr().out.endswith("\n")


@pytest.mark.callbacks
def test_ctrl_c_in_a_callback_ends_training_after_it(images):
    class Interrupted(Hooks):
        def on_fit_task_end(self, estimator, context):
            if context.task_name == "epoch" and context.task_id == 1:
                ctrl_c()

    vae = ConvVAE(**TINY).set_callbacks(Interrupted())
    with pytest.raises(KeyboardInterrupt, match="after 2 of 3"):
        vae.fit(images)
    vae.set_callbacks()
    assert_same_fit(vae, ConvVAE(**{**TINY, "epochs": 2}).fit(images))


@pytest.mark.linux
@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_ctrl_c_at_any_moment_leaves_the_estimator_as_after_an_epoch(images, seed):
    """500 fits each, interrupted in the time that one takes."""
    params = {**TINY, "epochs": 30}
    if seed % 2:
        params |= {"early_stopping": True, "sampler": GaussianMixture(2)}
    durations = []
    for _ in range(5):
        started = time.perf_counter()
        ConvVAE(**params).fit(images)
        durations.append(time.perf_counter() - started)
    seconds = min(durations)  # whatever else the machine does
    moments = random.Random(seed)
    n_interrupted = 0
    previous = signal.signal(
        signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGINT)
    )
    try:
        for _ in range(500):
            vae = ConvVAE(**params)
            try:
                moment = moments.uniform(1e-6, 1.2 * seconds)
                signal.setitimer(signal.ITIMER_REAL, moment)
                vae.fit(images)
                signal.setitimer(signal.ITIMER_REAL, 0)
            except KeyboardInterrupt:
                n_interrupted += 1
            if hasattr(vae, "weights_"):
                n_epochs = vae.n_iter_
                assert {len(v) for v in vae.history_.values()} == {n_epochs}
                assert np.isfinite(vae.score(images[:5]))
                vae.sample(2)
            else:
                assert vars(vae).keys() == ConvVAE().get_params().keys()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    assert n_interrupted > 250


def test_graph_calls_grow_while_they_are_quick(images, monkeypatch):
    """And shrink when they are not."""
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
