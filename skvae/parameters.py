"""Validation of parameters, as scikit-learn validates those of its own estimators.

Its messages are those that users know, and nothing public gives them. `_fit_context`
and `_param_validation` are private, and this module alone imports them.
"""

from __future__ import annotations

from collections.abc import Callable
from numbers import Integral, Real
from typing import Any, TypeVar

import numpy as np
from sklearn.base import _fit_context
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions

__all__ = [
    "COUNT",
    "NOT_NEGATIVE",
    "POSITIVE",
    "HasMethods",
    "Interval",
    "StrOptions",
    "validates_parameters",
]

_Method = TypeVar("_Method", bound=Callable[..., Any])

# scikit-learn's decorators have no types; they leave those of a method as they are.
validates_parameters: Callable[[_Method], _Method] = _fit_context(
    prefer_skip_nested_validation=False
)

COUNT = Interval(Integral, 1, None, closed="left")
# Graphs compute in float32. The bounds are float64: Python's floats would be cast to a
# float16 that is compared with them, and overflow.
_FLOAT32 = np.finfo(np.float32)
_TINY, _MAX = np.float64(_FLOAT32.tiny), np.float64(_FLOAT32.max)
NOT_NEGATIVE = Interval(Real, 0, _MAX, closed="both")
POSITIVE = Interval(Real, _TINY, _MAX, closed="both")
