"""Warnings attributed to the user's line, and errors that name the argument."""

from __future__ import annotations

import inspect
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

# Packages between the user's line and the code that warns: decorators, pipelines,
# searches and their worker threads or processes.
_BETWEEN = {"skvae", "sklearn", "joblib"}


class PosteriorCollapseWarning(UserWarning):
    """Warning for a fit that leaves all or most latent dimensions unused.

    `ConvVAE.fit` gives it. Its message names the parameters to change.

    Examples
    --------
    Make it an error, as a script may want:

    >>> import warnings
    >>> from skvae.exceptions import PosteriorCollapseWarning
    >>> warnings.simplefilter("error", PosteriorCollapseWarning)
    """


def warn_user(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn at the innermost line outside of skvae, scikit-learn and joblib."""
    level = 0
    frame = inspect.currentframe()
    while frame and frame.f_back and _package(frame.f_globals) in _BETWEEN:
        frame = frame.f_back
        level += 1
    warnings.warn(message, category, stacklevel=level + 1)


@contextmanager
def naming(name: str) -> Iterator[None]:
    """Context in which an argument is validated, so that each error has its name.

    Validation may raise other errors, or errors without the name. numpy's overflow
    warnings are suppressed, because infinities are reported as errors.

    Parameters
    ----------
    name : str
        Name of the argument.

    Raises
    ------
    ValueError, TypeError
        In place of the original error.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        try:
            yield
        except (TypeError, ValueError, OverflowError, RuntimeError) as error:
            is_clear = isinstance(error, TypeError | ValueError)
            if is_clear and re.search(rf"\b{name}\b", str(error)):
                raise
            msg = f"Invalid {name}: {error}"
            if isinstance(error, TypeError):
                raise TypeError(msg) from error
            raise ValueError(msg) from error


def _package(module_globals: dict[str, object]) -> str:
    return str(module_globals.get("__name__", "")).partition(".")[0]
