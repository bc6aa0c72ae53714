"""What users are told: a warning of skvae's own, at their own line, errors by name."""

from __future__ import annotations

import inspect
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

# What stands between the user's line and the code that warns: decorators, pipelines,
# searches and the threads or processes that they work in.
_BETWEEN = {"skvae", "sklearn", "joblib"}


class PosteriorCollapseWarning(UserWarning):
    """Training has left all or most latent dimensions without use."""


def warn_user(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn, and blame the line outside of skvae and scikit-learn that led here."""
    level = 0
    frame = inspect.currentframe()
    while frame and frame.f_back and _package(frame.f_globals) in _BETWEEN:
        frame = frame.f_back
        level += 1
    warnings.warn(message, category, stacklevel=level + 1)


@contextmanager
def naming(name: str) -> Iterator[None]:
    """Let an argument be refused by its name, and by nothing else than an error.

    What validates it may raise errors of other kinds or without that name, and numpy
    warns of infinities before they are refused.

    Raises
    ------
    ValueError, TypeError
        In place of what was raised.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        try:
            yield
        except (TypeError, ValueError, OverflowError, RuntimeError) as error:
            is_clear = isinstance(error, TypeError | ValueError)
            if is_clear and re.search(rf"\b{name}\b", str(error)):
                raise
            msg = f"{name} is refused: {error}"
            if isinstance(error, TypeError):
                raise TypeError(msg) from error
            raise ValueError(msg) from error


def _package(module_globals: dict[str, object]) -> str:
    return str(module_globals.get("__name__", "")).partition(".")[0]
