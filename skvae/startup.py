"""Whether TensorFlow has started in this process, and the threads of the process.

It starts when it first computes something. From then on, its threads stay as they are.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any


def has_started(tensorflow: Any) -> bool:
    """Return whether the module `tensorflow` has started."""
    threading = tensorflow.config.threading
    n_threads = threading.get_inter_op_parallelism_threads()
    try:
        threading.set_inter_op_parallelism_threads(n_threads + 1)
    except RuntimeError:
        return True
    threading.set_inter_op_parallelism_threads(n_threads)
    return False


def n_os_threads() -> int:
    """Number of threads of this process, or 0 on other systems than Linux."""
    return len(list(Path("/proc/self/task").glob("*")))
