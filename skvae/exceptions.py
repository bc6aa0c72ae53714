"""Warnings: a category of skvae's own, and whose line a warning names."""

from __future__ import annotations

import sys
import warnings

# What stands between the user's line and the code that warns: decorators, pipelines,
# searches and the threads or processes that they work in.
_BETWEEN = {"skvae", "sklearn", "joblib"}


class PosteriorCollapseWarning(UserWarning):
    """Training has left all or most latent dimensions without use."""


def warn_user(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn, and blame the line outside of skvae and scikit-learn that led here."""
    level = 1
    frame = sys._getframe(1)  # noqa: SLF001  warnings and logging do it so, too
    while frame.f_back and _package(frame.f_globals) in _BETWEEN:
        frame = frame.f_back
        level += 1
    warnings.warn(message, category, stacklevel=level + 1)


def _package(module_globals: dict[str, object]) -> str:
    return str(module_globals.get("__name__", "")).partition(".")[0]
