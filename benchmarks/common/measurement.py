"""Time and memory of calls within one process, and images to measure with."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING, TypeVar

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

Form = TypeVar("Form")

# Minimum duration over which calls are repeated.
_UNIT_SECONDS = 0.3

# Forms slower than this multiple of the fastest are timed only once.
_HOPELESS = 1.5


def seconds_of(call: Callable[[], object]) -> float:
    """Duration of one call."""
    start = perf_counter()
    call()
    return perf_counter() - start


def seconds_per_call(call: Callable[[], object]) -> float:
    """Mean duration of a call, which is repeated for at least 0.3 s."""
    n_calls = 0
    start = perf_counter()
    while (duration := perf_counter() - start) < _UNIT_SECONDS:
        call()
        n_calls += 1
    return duration / n_calls


def fastest(forms: Iterable[Form], seconds: Callable[[Form], float]) -> Form:
    """Select the form with the smallest median of three timings, after a warm-up."""
    forms = list(forms)
    for form in forms:
        seconds(form)
    times = {form: [seconds(form)] for form in forms}
    limit = _HOPELESS * min(times.values())[0]
    rivals = [form for form in forms if times[form][0] <= limit]
    for form in 2 * rivals:
        times[form].append(seconds(form))
    return min(rivals, key=lambda form: median(times[form]))


def memory(name: str) -> float:
    """Read an entry of /proc/self/status in MB; available on Linux only.

    VmRSS is the resident memory, RssAnon its anonymous part, and VmHWM the peak of the
    resident memory since the last reset.
    """
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) / 1024
    msg = f"/proc/self/status has no {name}."
    raise RuntimeError(msg)


def random_images(n_images: int, size: int) -> np.ndarray:
    """Uniform noise of shape (n_images, size, size) and dtype uint8.

    The duration of training does not depend on the pixel values.
    """
    generator = np.random.default_rng(0)
    return generator.integers(0, 256, (n_images, size, size), np.uint8)
