"""Execution of a trainer's graphs: by TensorFlow's context, or by a session."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import numpy as np

from skvae.background import Task
from skvae.network.backend import tf
from skvae.training.compiled import GraphFunction, lock

Call = Callable[..., np.ndarray]


def is_on_cpu() -> bool:
    """Check if TensorFlow computes on the CPU here, by its devices and scopes."""
    return tf.zeros(()).device.endswith("CPU:0")


class ContextExecution:
    """Execution by TensorFlow's eager context, with its threads and devices."""

    def scope(self) -> AbstractContextManager[Any]:
        """Context in which variables are made."""
        return nullcontext()

    def function(
        self, body: Callable[..., Any], row_shape: tuple[int, ...], *signature: Any
    ) -> Call:
        """Compile a function of rows (n, *row_shape) and of a signature."""
        function = GraphFunction(body, row_shape, *signature)
        return lambda rows, *args: function(rows, *args).numpy()

    def assign(self, variables: Sequence[Any], arrays: Sequence[Any]) -> None:
        """Set variables."""
        for variable, array in zip(variables, arrays, strict=True):
            variable.assign(array)

    def read(self, variables: Sequence[Any]) -> list[Any]:
        """Copy the values of variables."""
        return [np.array(variable.numpy()) for variable in variables]


class SessionExecution:
    """Execution by a session, whose operations have one thread each.

    The context's threads are those of all that TensorFlow computes in this process. A
    session has its own (see `backend.SESSIONS_HAVE_THREADS`). It has the interface of
    ContextExecution, and computes on the CPU.

    Parameters
    ----------
    n_threads : int
        Number of operations that are computed at the same time. Sessions with the same
        number share these threads.
    """

    def __init__(self, n_threads: int) -> None:
        v1 = tf.compat.v1
        config = v1.ConfigProto(
            # No GPU, so that the session does not allocate its memory.
            device_count={"GPU": 0},
            intra_op_parallelism_threads=1,
        )
        config.session_inter_op_thread_pool.add(
            num_threads=n_threads, global_name=f"skvae {n_threads}"
        )
        # The graph only calls functions, which TensorFlow optimizes on their own.
        config.graph_options.rewrite_options.disable_meta_optimizer = True
        self._graph = tf.Graph()
        self._session = v1.Session(graph=self._graph, config=config)

    @contextmanager
    def scope(self) -> Iterator[None]:
        """Context in which variables are made."""
        with self._graph.as_default():
            yield
            self._run(tf.compat.v1.global_variables_initializer())

    def function(
        self, body: Callable[..., Any], row_shape: tuple[int, ...], *signature: Any
    ) -> Call:
        """Compile a function of rows (n, *row_shape) and of a signature."""
        function = GraphFunction(body, row_shape, *signature)
        # Inputs and outputs in the graph, by the dtype of the rows.
        built: dict[np.dtype, tuple[list[Any], Any]] = {}

        def build(dtype: np.dtype) -> tuple[list[Any], Any]:
            specs = (tf.TensorSpec((None, *row_shape), dtype), *signature)
            placeholder = tf.compat.v1.placeholder
            with lock, self._graph.as_default():
                inputs = [placeholder(spec.dtype, spec.shape) for spec in specs]
                return inputs, function(*inputs)

        def call(rows: np.ndarray, *args: Any) -> np.ndarray:
            if rows.dtype not in built:
                built[rows.dtype] = build(rows.dtype)
            inputs, outputs = built[rows.dtype]
            return self._run(outputs, dict(zip(inputs, (rows, *args), strict=True)))

        return call

    def assign(self, variables: Sequence[Any], arrays: Sequence[Any]) -> None:
        """Set variables."""
        # Fed to the initializers in place of the initial values.
        initializers = [variable.initializer for variable in variables]
        values = [initializer.inputs[1] for initializer in initializers]
        self._run(initializers, dict(zip(values, arrays, strict=True)))

    def read(self, variables: Sequence[Any]) -> list[Any]:
        """Copy the values of variables."""
        return [np.array(value) for value in self._run(list(variables))]

    def _run(self, fetches: Any, feeds: dict[Any, Any] | None = None) -> Any:
        """Run the session in another thread.

        TensorFlow ends the process, or raises another error, if a signal handler raises
        in some lines of `Session.run`. Handlers run in the main thread only.
        """
        task = Task(self._session.run, fetches, feeds)
        try:
            task.start()
            return task.result()
        finally:
            task.stop()
