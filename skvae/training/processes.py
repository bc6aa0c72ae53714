"""Processes forked after TensorFlow has started, in which it waits forever.

A forked process has none of its parent's threads, and TensorFlow needs its own.
"""

from __future__ import annotations

import os
import sys

from skvae.startup import has_started, n_os_threads


def check_process() -> None:
    """Check that TensorFlow can run in this process.

    Raises
    ------
    RuntimeError
        If the process was forked after TensorFlow had started.
    """
    global _process  # noqa: PLW0603
    if os.getpid() == _process:
        return
    tensorflow = sys.modules.get("tensorflow")
    if tensorflow is not None and has_started(tensorflow):
        msg = (
            "Cannot train in a process that was forked after TensorFlow had started. "
            "Start processes by joblib's default backend (loky) or by "
            "multiprocessing.get_context('spawn'), or fork before the first fit. "
            "Fitted estimators can be used in any process."
        )
        raise RuntimeError(msg)
    _process = os.getpid()


def _is_forked_after_start() -> bool:
    """Return whether TensorFlow has started, but has no threads here.

    On Linux alone. Other systems rarely fork.
    """
    return (
        "tensorflow" in sys.modules
        and n_os_threads() == 1
        and has_started(sys.modules["tensorflow"])
    )


# The process in which TensorFlow may have started and can run: this one, unless skvae
# is imported after a fork.
_process = None if _is_forked_after_start() else os.getpid()
