"""Calls in other threads: none goes on unattended."""

import gc
import signal
import threading
import time
import weakref

import numpy as np
import pytest

from skvae.background import Task
from skvae.data.shuffling import shuffled_blocks
from skvae.data.storage import StoredImages
from skvae.serving.batches import in_batches


class Alarm(Exception):  # noqa: N818
    pass


@pytest.fixture
def alarm_in_start(monkeypatch):
    """A signal handler raises while a thread starts."""
    start = Task.start

    def starting(task):
        start(task)
        raise Alarm

    monkeypatch.setattr(Task, "start", starting)


def test_a_stopped_task_that_has_not_begun_is_not_called():
    calls = []
    task = Task(calls.append, 1)
    task.stop()
    task.start()
    time.sleep(0.05)
    assert calls == []


def test_stop_waits_for_a_task_that_has_begun():
    begun, calls = threading.Event(), []

    def function():
        begun.set()
        time.sleep(0.05)
        calls.append(1)

    task = Task(function)
    task.start()
    begun.wait()
    task.stop()
    assert calls == [1]


def test_arguments_do_not_outlive_a_task():
    """Blocks of large data would pile up until Python looks for cycles."""
    array = np.zeros(3)
    reference = weakref.ref(array)
    task = Task(np.sum, array)
    gc.disable()
    try:
        task.start()
        assert task.result() == 0
        del array, task
        deadline = time.monotonic() + 10
        while reference() is not None:  # until the thread has ended
            assert time.monotonic() < deadline
            time.sleep(0.001)
    finally:
        gc.enable()


@pytest.mark.linux
def test_stop_waits_through_alarms():
    """Otherwise a fit would leave its variables while they are still trained."""
    begun, calls = threading.Event(), []

    def function():
        begun.set()
        time.sleep(0.3)
        calls.append(1)

    def handler(*_):
        raise Alarm

    task = Task(function)
    previous = signal.signal(signal.SIGALRM, handler)
    try:
        task.start()
        begun.wait()
        signal.setitimer(signal.ITIMER_REAL, 0.1, 0.05)
        with pytest.raises(Alarm):
            task.stop()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    assert calls == [1]


@pytest.mark.usefixtures("alarm_in_start")
def test_an_alarm_in_the_start_of_a_read_ends_it(monkeypatch):
    monkeypatch.setattr("skvae.data.shuffling._BLOCK_BYTES", 2**12)

    class Slow:
        shape, dtype = (40, 8, 8, 1), np.dtype(np.float32)
        n_under_way = 0

        def __getitem__(self, rows):
            self.n_under_way += 1
            time.sleep(0.05)
            self.n_under_way -= 1
            return np.zeros(self.shape, self.dtype)[rows]

    slow = Slow()
    blocks = shuffled_blocks(
        StoredImages(slow, lambda chunk: chunk, (8, 8, 1)),
        range(40),
        8,
        np.random.default_rng(0),
        choose=lambda rows: rows,
        is_wanted=lambda: True,
    )
    with pytest.raises(Alarm):
        next(blocks)  # it reads the first block, and then starts to read the second
    assert slow.n_under_way == 0


@pytest.mark.usefixtures("alarm_in_start")
def test_an_alarm_in_the_start_of_a_batch_ends_all(monkeypatch):
    monkeypatch.setattr("skvae.serving.batches.n_cores", lambda: 3)
    n_under_way = []

    def function(rows):
        n_under_way.append(1)
        time.sleep(0.05)
        n_under_way.pop()
        return [rows]

    rows = np.zeros((64, 2))
    with pytest.raises(Alarm):
        in_batches(function, rows, [np.zeros_like(rows)], 8)
    assert n_under_way == []
