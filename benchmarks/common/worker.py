"""Worker process for one side of a benchmark.

Each side needs a separate process: TensorFlow reads its thread settings only once, and
the thread pools of TensorFlow and PyTorch interfere within one process.
"""

from __future__ import annotations

import multiprocessing
import os
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Iterator
    from multiprocessing.connection import Connection

# Environment of all processes: no log messages of TensorFlow.
QUIET = {"TF_CPP_MIN_LOG_LEVEL": "3"}


class Worker:
    """Object that lives in a separate process.

    Parameters
    ----------
    target : str
        Class of the object, as "module:class".
    *arguments
        Arguments of the class.
    environment : dict of str to str
        Variables that are added to the environment of the process.
    """

    def __init__(
        self, target: str, *arguments: Any, environment: dict[str, str]
    ) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, its_end = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(its_end, target, arguments), daemon=True
        )
        with _environment(QUIET | environment):
            self._process.start()
        # With the copy closed, `recv` raises EOFError if the process ends.
        its_end.close()
        self._connection.recv()

    def ask(self, method: str, *arguments: Any) -> Any:
        """Call a method of the object and return its result."""
        self._connection.send((method, arguments))
        return self._connection.recv()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.join()


@contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    """Set environment variables for processes started in this context."""
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _serve(connection: Connection, target: str, arguments: tuple[Any, ...]) -> None:
    module, _, name = target.partition(":")
    side = getattr(import_module(module), name)(*arguments)
    connection.send("ready")
    while True:
        method, arguments = connection.recv()
        connection.send(getattr(side, method)(*arguments))
