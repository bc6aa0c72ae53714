"""Processes that are forked off one in which TensorFlow has started.

A fork has none of its parent's threads, and TensorFlow waits for its own for ever. So
such a process is told, before TensorFlow is asked to fit anything.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

_is_without_threads = False


def check_not_forked() -> None:
    """See that TensorFlow has its threads in this process, if it has started.

    Raises
    ------
    RuntimeError
        If the process was forked off one in which TensorFlow had started.
    """
    if _is_without_threads:
        msg = (
            "This process was forked off one in which TensorFlow had started, and "
            "TensorFlow does not survive that. Start processes by joblib (its "
            "default, loky) or multiprocessing.get_context('spawn'), or fork before "
            "anything is fitted. What is fitted can be used in any process."
        )
        raise RuntimeError(msg)


def _has_started(tensorflow: object) -> bool:
    """Whether TensorFlow has started.

    It says so only by refusing another number of threads.
    """
    threading = tensorflow.config.threading  # type: ignore[attr-defined]
    n_threads = threading.get_inter_op_parallelism_threads()
    try:
        threading.set_inter_op_parallelism_threads(n_threads + 1)
    except RuntimeError:
        return True
    threading.set_inter_op_parallelism_threads(n_threads)
    return False


def _after_fork() -> None:
    global _is_without_threads  # noqa: PLW0603
    tensorflow = sys.modules.get("tensorflow")
    _is_without_threads = tensorflow is not None and _has_started(tensorflow)


if hasattr(os, "register_at_fork"):  # Windows has no forks
    os.register_at_fork(after_in_child=_after_fork)

# Where this is imported in a fork only: TensorFlow never starts with a single thread.
_threads = Path("/proc/self/task")
if _threads.is_dir() and len(list(_threads.iterdir())) == 1:
    _after_fork()
