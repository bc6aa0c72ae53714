"""The devices that share a fit's batches, of this process and of others.

TensorFlow's distribution strategies say which these are, and add up across them. Each
device computes its part of a batch, and its part of the gradient; the gradients are
added up, and each process takes the same step with the sum. So variables are those of
one process alone, and the strategies' own kinds of variables are not needed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np

from skvae.data.storage import Selection
from skvae.network.backend import tf

T = TypeVar("T")

_STRATEGIES = (
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

# What a process that has failed says in place of 0 or 1.
_FAILED = 1e6


class OtherWorkerError(RuntimeError):
    """Another process has failed, or cannot be reached."""


def current_strategy() -> tf.distribute.Strategy:
    """Strategy in whose scope this thread is, or TensorFlow's default.

    Raises
    ------
    RuntimeError
        If it is of a kind that is not supported.
    """
    strategy = tf.distribute.get_strategy()
    if tf.distribute.has_strategy() and not isinstance(strategy, _STRATEGIES):
        msg = (
            f"ConvVAE can be fitted in the scope of a MirroredStrategy or a "
            f"MultiWorkerMirroredStrategy, got {type(strategy).__name__}."
        )
        raise RuntimeError(msg)
    return strategy


def outside_scopes(function: Callable[..., T], *args: Any) -> T:
    """Call a function outside of the strategy scopes that this thread is in.

    Variables are no strategy's. Scopes are a thread's own, and cannot be left.
    """
    if not tf.distribute.has_strategy():
        return function(*args)
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function, *args).result()


class Replicas:
    """The replicas of a strategy, as one of the processes sees them.

    Replica r of R takes the rows from r n / R to (r + 1) n / R of n rows.

    Parameters
    ----------
    strategy : tf.distribute.Strategy
    """

    def __init__(self, strategy: tf.distribute.Strategy) -> None:
        self._strategy = strategy
        # Of one replica, too: a strategy of one device says which.
        self.has_strategy = isinstance(strategy, _STRATEGIES)
        here = self._local(strategy.run(_replica_id))
        self._first = int(here[0])
        self._n_here = len(here)
        self.n = int(strategy.num_replicas_in_sync)
        self.n_processes = self.n // self._n_here
        # A graph for each shape; without one, TensorFlow warns of the time it takes.
        self._add = tf.function(self._add_on_first, autograph=False)

    # What rows are whose.

    def rows_here(self, n_rows: Any) -> tuple[Any, Any]:
        """First row, and the one after the last, of n that are for this process."""
        if self.n_processes == 1:
            return 0, n_rows
        last = self._first + self._n_here
        return self._first * n_rows // self.n, last * n_rows // self.n

    def n_here(self, n_rows: int, batch_size: int) -> int:
        """How many of n rows, cut into batches, are for this process."""
        n_batches, n_left = divmod(n_rows, batch_size)
        return n_batches * _length(self.rows_here(batch_size)) + _length(
            self.rows_here(n_left)
        )

    def batches_here(self, rows: np.ndarray, batch_size: int) -> np.ndarray:
        """Of an array that is cut into batches, the rows that are for this process."""
        if self.n_processes == 1:
            return rows
        batches = np.split(rows, range(batch_size, len(rows), batch_size))
        return np.concatenate(
            [batch[slice(*self.rows_here(len(batch)))] for batch in batches]
        )

    # In graphs.

    def run(self, function: Callable[[], tuple[Any, ...]]) -> tuple[Any, ...]:
        """Call a function on each replica; what the first one of this process gives."""
        return tuple(self._local(each)[0] for each in self._strategy.run(function))

    # The next two are for the replica in whose graph they are called.

    def own_rows(self, rows: Any, first: Any, n_rows: Any) -> Any:
        """Of n rows, given from the first one on that is here, the replica's own."""
        if self.n == 1:
            return rows
        replica = tf.cast(_replica_id(), tf.int64)
        start, stop = replica * n_rows // self.n, (replica + 1) * n_rows // self.n
        # Other devices get no more than what is theirs.
        with tf.device("CPU:0"):
            return rows[start - first : stop - first]

    def total(self, value: Any) -> Any:
        """Sum of the values of all replicas."""
        if self.n == 1:
            return value
        context = tf.distribute.get_replica_context()
        return context.all_reduce(tf.distribute.ReduceOp.SUM, value)

    # Between graph calls, in all processes alike.

    def sum_of_processes(self, array: np.ndarray) -> np.ndarray:
        """Sum of an array over the processes, for each of them."""
        # TensorFlow's collective operations crash on nothing to add.
        if self.n_processes == 1 or array.size == 0:
            return array
        self.any(False)
        return self._sum(array.ravel()).reshape(array.shape)

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process.

        Called before whatever else the processes do together, so that one that has
        failed (`say_failed`) keeps no other waiting.

        Raises
        ------
        RuntimeError
            If another process has failed.
        """
        if self.n_processes == 1:
            return flag
        n_set = self._sum(np.array([float(flag)]))[0]
        if n_set >= _FAILED:
            msg = (
                "Another worker of the strategy has failed, and says why. From a "
                "Checkpoint, training goes on where it was."
            )
            raise OtherWorkerError(msg)
        return bool(n_set)

    @contextmanager
    def failing_together(self) -> Iterator[None]:
        """Let the other processes know of an error in this one."""
        try:
            yield
        except OtherWorkerError:
            raise
        except BaseException:
            if self.n_processes > 1:
                self._sum(np.array([_FAILED]))
            raise

    def check_same(self, number: int) -> None:
        """See that a number below 2^32 is the same in all processes.

        Raises
        ------
        ValueError
            If it is not.
        """
        total = self.sum_of_processes(np.array([float(number)]))[0]
        if total != number * self.n_processes:
            msg = (
                "The workers of the strategy are to call fit alike, but data, "
                "parameters, random_state or what was fitted before differ. Give each "
                "the same, with an integer as random_state."
            )
            raise ValueError(msg)

    def shared(
        self, function: Callable[[Any], tuple[np.ndarray, ...]], images: Any
    ) -> tuple[np.ndarray, ...]:
        """Arrays that a function gives of images, each process working on some."""
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
        """Say what it means that another process no longer answers."""
        try:
            yield
        except _LOST as error:
            if self.n_processes == 1:
                raise
            msg = (
                "Another worker of the strategy has ended or cannot be reached. Start "
                "all workers again; from a Checkpoint, training goes on where it was."
            )
            raise OtherWorkerError(msg) from error

    def _sum(self, array: np.ndarray) -> np.ndarray:
        """Sum of an array (n,) over the processes."""
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
