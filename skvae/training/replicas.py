"""Replicas: the devices that share the batches of a fit, in one or several processes.

TensorFlow's distribution strategies define the devices and sum across them. Each device
computes the gradient of its part of a batch. The gradients are summed, and each process
takes the same step with the sum. Variables are therefore local to a process, and the
strategies' own types of variables are not needed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np

from skvae.background import Task
from skvae.data.storage import Selection
from skvae.network.backend import tf

T = TypeVar("T")

STRATEGIES = (
    tf.distribute.MirroredStrategy,
    tf.distribute.MultiWorkerMirroredStrategy,
    tf.distribute.OneDeviceStrategy,
)

_LOST = (
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.InternalError,
    tf.errors.UnavailableError,
)

# Value that a failed process contributes to the sum of flags, which are 0 or 1.
_FAILED = 1e6


class OtherWorkerError(RuntimeError):
    """Error for another process that has failed or cannot be reached."""


def current_strategy() -> tf.distribute.Strategy:
    """Strategy whose scope this thread is in, or TensorFlow's default.

    Raises
    ------
    RuntimeError
        If the strategy is not supported.
    """
    strategy = tf.distribute.get_strategy()
    if tf.distribute.has_strategy() and not isinstance(strategy, STRATEGIES):
        msg = (
            f"ConvVAE supports the scopes of MirroredStrategy, OneDeviceStrategy and "
            f"MultiWorkerMirroredStrategy, got {type(strategy).__name__}."
        )
        raise RuntimeError(msg)
    return strategy


def outside_scopes(function: Callable[[], T], discard: Callable[[], None]) -> T:
    """Call a function outside of all strategy scopes.

    Its variables then belong to no strategy. A scope applies to one thread and cannot
    be left from within, so the function is called in another thread.

    Parameters
    ----------
    function : callable
    discard : callable
        Makes the function end soon. It is called if a signal handler raises while this
        thread waits, and after an error of the function.
    """
    if not tf.distribute.has_strategy():
        return function()
    task = Task(function)
    try:
        task.start()
        return task.result()
    except BaseException:
        discard()
        task.stop()
        raise


class Replicas:
    """Replicas of a strategy, as seen from one process.

    Of n rows, replica r of R has the rows from r n / R to (r + 1) n / R.

    Parameters
    ----------
    strategy : tf.distribute.Strategy
    """

    def __init__(self, strategy: tf.distribute.Strategy) -> None:
        self._strategy = strategy
        # True for one replica, too: OneDeviceStrategy selects its device.
        self.has_strategy = isinstance(strategy, STRATEGIES)
        here = self._local(strategy.run(_replica_id))
        self._first = int(here[0])
        self._n_here = len(here)
        self.n = int(strategy.num_replicas_in_sync)
        self.n_processes = self.n // self._n_here
        # Compiled for each shape, because TensorFlow warns if a strategy runs eagerly.
        self._add = tf.function(self._add_on_first, autograph=False)

    # Assignment of rows to processes.

    def rows_here(self, n_rows: Any) -> tuple[Any, Any]:
        """Start and stop of the rows of this process, of n rows."""
        if self.n_processes == 1:
            return 0, n_rows
        last = self._first + self._n_here
        return self._first * n_rows // self.n, last * n_rows // self.n

    def n_here(self, n_rows: int, batch_size: int) -> int:
        """Number of rows of this process, of n rows split into batches."""
        n_batches, n_left = divmod(n_rows, batch_size)
        return n_batches * _length(self.rows_here(batch_size)) + _length(
            self.rows_here(n_left)
        )

    def batches_here(self, rows: np.ndarray, batch_size: int) -> np.ndarray:
        """Select the rows of this process from an array that is split into batches."""
        if self.n_processes == 1:
            return rows
        batches = np.split(rows, range(batch_size, len(rows), batch_size))
        return np.concatenate(
            [batch[slice(*self.rows_here(len(batch)))] for batch in batches]
        )

    # Graph calls.

    def run(self, function: Callable[[], tuple[Any, ...]]) -> tuple[Any, ...]:
        """Run a function on each replica, return the result of the first one here."""
        return tuple(self._local(each)[0] for each in self._strategy.run(function))

    # The next two methods are called within the graph of a replica.

    def own_rows(self, rows: Any, first: Any, n_rows: Any) -> Any:
        """Select the replica's own rows of a batch.

        Parameters
        ----------
        rows : tensor of shape (n_here, ...)
            Rows of this process.
        first : int
            Index in the batch of the first row of this process.
        n_rows : int
            Number of rows in the batch.
        """
        if self.n == 1:
            return rows
        replica = tf.cast(_replica_id(), tf.int64)
        start, stop = replica * n_rows // self.n, (replica + 1) * n_rows // self.n
        # Sliced on the CPU, so that only these rows are copied to the device.
        with tf.device("CPU:0"):
            return rows[start - first : stop - first]

    def total(self, value: Any) -> Any:
        """Sum a value over all replicas."""
        if self.n == 1:
            return value
        context = tf.distribute.get_replica_context()
        return context.all_reduce(tf.distribute.ReduceOp.SUM, value)

    # Outside of graphs. Each process must make the same calls in the same order.

    def sum_of_processes(self, array: np.ndarray) -> np.ndarray:
        """Sum an array over all processes."""
        # TensorFlow's collective operations crash on empty arrays.
        if self.n_processes == 1 or array.size == 0:
            return array
        self.any(False)
        return self._sum(array.ravel()).reshape(array.shape)

    def any(self, flag: bool) -> bool:
        """Check if a flag is set in any process.

        Called before each other collective operation, so that no process waits for one
        that has failed (see `failing_together`).

        Raises
        ------
        OtherWorkerError
            If another process has failed.
        """
        if self.n_processes == 1:
            return flag
        n_set = self._sum(np.array([float(flag)]))[0]
        if n_set >= _FAILED:
            msg = (
                "Another worker of the strategy has failed; see the error there. "
                "Training can be continued from a Checkpoint."
            )
            raise OtherWorkerError(msg)
        return bool(n_set)

    @contextmanager
    def failing_together(self) -> Iterator[None]:
        """Context in which an error is reported to the other processes."""
        try:
            yield
        except OtherWorkerError:
            raise
        except BaseException:
            if self.n_processes > 1:
                self._sum(np.array([_FAILED]))
            raise

    def check_same(self, number: int) -> None:
        """Check that a number below 2^32 is the same in all processes.

        Raises
        ------
        ValueError
            If it differs.
        """
        total = self.sum_of_processes(np.array([float(number)]))[0]
        if total != number * self.n_processes:
            msg = (
                "The workers of the strategy must all make the same fit, but data, "
                "parameters, random_state or the earlier fit differ. Make them equal, "
                "with an integer as random_state."
            )
            raise ValueError(msg)

    def shared(
        self, function: Callable[[Any], tuple[np.ndarray, ...]], images: Any
    ) -> tuple[np.ndarray, ...]:
        """Apply a function to images, of which each process computes a part."""
        if self.n_processes == 1:
            return function(images)
        start, stop = self.rows_here(len(images))
        arrays = []
        for part in function(Selection(images, range(start, stop))):
            array = np.zeros((len(images), *part.shape[1:]), part.dtype)
            array[start:stop] = part
            arrays.append(self.sum_of_processes(array))
        return tuple(arrays)

    @contextmanager
    def lost_worker_named(self) -> Iterator[None]:
        """Context in which the error of a lost process is translated."""
        try:
            yield
        except _LOST as error:
            if self.n_processes == 1:
                raise
            msg = (
                "Another worker of the strategy has ended or cannot be reached. "
                "Restart all workers; training can be continued from a Checkpoint."
            )
            raise OtherWorkerError(msg) from error

    def _sum(self, array: np.ndarray) -> np.ndarray:
        """Sum an array of shape (n,) over all processes."""
        with self.lost_worker_named():
            return self._add(tf.convert_to_tensor(array)).numpy()

    def _add_on_first(self, array: Any) -> Any:
        def add() -> tuple[Any]:
            is_first = tf.equal(_replica_id(), self._first)
            return (self.total(tf.where(is_first, array, tf.zeros_like(array))),)

        return self.run(add)[0]

    def _local(self, value: Any) -> tuple[Any, ...]:
        return self._strategy.experimental_local_results(value)


def _replica_id() -> Any:
    return tf.convert_to_tensor(
        tf.distribute.get_replica_context().replica_id_in_sync_group
    )


def _length(span: tuple[int, int]) -> int:
    start, stop = span
    return stop - start
