"""Functions common to all displays: validation, axes and latent dimensions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from skvae.estimator import ConvVAE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Height of the axis labels, in inches.
_LABELS_HEIGHT = 0.3


def check_matplotlib(caller: str) -> None:
    """Check that matplotlib is installed.

    Parameters
    ----------
    caller : str
        Name of the class or step that needs matplotlib, for the error message.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    """
    try:
        import matplotlib as mpl  # noqa: F401, PLC0415  optional dependency
    except ImportError as error:
        msg = f"{caller} needs matplotlib: pip install matplotlib"
        raise ImportError(msg) from error


def check_estimator(display: str, estimator: Any, kind: type = ConvVAE) -> None:
    """Validate the estimator of a display.

    Parameters
    ----------
    display : str
        Class name of the display, for error messages.
    estimator : object
    kind : type, default=ConvVAE
        Class of the estimator.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    TypeError
        If the estimator is not of that class.
    NotFittedError
        If the estimator is not fitted.
    """
    check_matplotlib(display)
    if not isinstance(estimator, kind):
        name = kind.__name__
        msg = (
            f"{display} requires a {name}, got {type(estimator).__name__}. For a "
            f"pipeline, pass its {name} step, and X as transformed by the steps "
            f"before it."
        )
        raise TypeError(msg)
    check_is_fitted(estimator)


def get_axes(display: str, ax: Any, height_to_width: float | None = None) -> Axes:
    """Validate `ax`, or create a figure with one axes.

    Parameters
    ----------
    display : str
        Class name of the display, for error messages.
    ax : matplotlib Axes or None
        None creates a new figure.
    height_to_width : float or None
        Ratio of the plotted image. A new figure gets the height that it needs, up to
        twice matplotlib's default.

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    TypeError
        If `ax` is neither an Axes nor None.
    """
    check_matplotlib(display)
    from matplotlib.axes import Axes  # noqa: PLC0415  optional dependency

    if ax is None:
        from matplotlib import pyplot as plt  # noqa: PLC0415

        figure, ax = plt.subplots(layout="constrained")
        if height_to_width is not None:
            width, height = figure.get_size_inches()
            needed = width * height_to_width + _LABELS_HEIGHT
            figure.set_figheight(min(2 * height, needed))
    if not isinstance(ax, Axes):
        msg = f"ax must be a matplotlib Axes or None, got {type(ax).__name__}."
        raise TypeError(msg)
    return ax


def order_dimensions(latent_kl: np.ndarray) -> np.ndarray:
    """Order of the latent dimensions in a plot.

    One or two dimensions keep their order. More are sorted by KL, highest first.
    """
    if len(latent_kl) <= 2:
        return np.arange(len(latent_kl))
    return np.argsort(-latent_kl, kind="stable")


def latent_label(dimension: int, latent_kl: np.ndarray) -> str:
    """Axis label of a latent dimension: its number and its KL."""
    return f"latent {dimension} ({latent_kl[dimension]:.2f} nats)"
