"""A process of its own for one side of a benchmark, which works when it is asked to.

Thread settings are read when TensorFlow starts, and the thread pools of TensorFlow and
of PyTorch disturb each other in one process.
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

QUIET = {"TF_CPP_MIN_LOG_LEVEL": "3"}


class Worker:
    """An object in a process of its own.

    Parameters
    ----------
    target : str
        What makes the object: "module:class".
    *arguments
        The class's arguments.
    environment : dict of str to str
        Variables that the process has besides those of this one.
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
        # Without this copy of it, the end of the process ends the waiting for it.
        its_end.close()
        self._connection.recv()

    def ask(self, method: str, *arguments: Any) -> Any:
        """Call a method of the object and wait for what it returns."""
        self._connection.send((method, arguments))
        return self._connection.recv()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.join()


@contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    """Set variables for the processes that are started within."""
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
