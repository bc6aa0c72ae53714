"""Timing within one process: a call, and which of several forms is the fastest."""

from __future__ import annotations

from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

Form = TypeVar("Form")

# Calls are repeated for at least this long.
_UNIT_SECONDS = 0.3

# A form that takes this many times as long as the fastest gets no second turn.
_HOPELESS = 1.5


def seconds_a_call(call: Callable[[], object]) -> float:
    """Mean duration of a call, over as many calls as a timed unit takes."""
    n_calls = 0
    start = perf_counter()
    while (duration := perf_counter() - start) < _UNIT_SECONDS:
        call()
        n_calls += 1
    return duration / n_calls


def fastest(forms: Iterable[Form], seconds: Callable[[Form], float]) -> Form:
    """The form with the least median of three turns, after one to warm up."""
    forms = list(forms)
    for form in forms:
        seconds(form)
    times = {form: [seconds(form)] for form in forms}
    limit = _HOPELESS * min(times.values())[0]
    rivals = [form for form in forms if times[form][0] <= limit]
    for form in 2 * rivals:
        times[form].append(seconds(form))
    return min(rivals, key=lambda form: median(times[form]))
