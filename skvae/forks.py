"""Processes that are forked off one in which TensorFlow is loaded.

A fork has none of its parent's threads, and TensorFlow waits for its own for ever. So
such a process is told, before TensorFlow is asked for anything.
"""

from __future__ import annotations

import os
import sys

_is_without_threads = False


def check_not_forked() -> None:
    """See that this process has TensorFlow's threads, if TensorFlow is loaded.

    Raises
    ------
    RuntimeError
        If it has been forked off one in which TensorFlow was loaded.
    """
    if _is_without_threads:
        msg = (
            "This process was forked off one in which TensorFlow was loaded, and "
            "TensorFlow does not survive that. Start processes by joblib (its "
            "default, loky) or multiprocessing.get_context('spawn'), or fork before "
            "anything is fitted or transformed."
        )
        raise RuntimeError(msg)


def _after_fork() -> None:
    global _is_without_threads  # noqa: PLW0603
    _is_without_threads = "tensorflow" in sys.modules


if hasattr(os, "register_at_fork"):  # Windows has no forks
    os.register_at_fork(after_in_child=_after_fork)
