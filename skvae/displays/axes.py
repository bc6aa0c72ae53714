"""Axes to draw in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from skvae.displays.checks import check_matplotlib

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Inches of a figure's height for labels.
_LABELS_HEIGHT = 0.3


def axes_for(display: str, ax: Any, ratio: float | None = None) -> Axes:
    """Axes to draw in: the caller's or, if that is None, those of a new figure.

    Parameters
    ----------
    display : str
        The name of what draws in them.
    ax : Axes or None
    ratio : float or None
        Height by width of what is drawn, if it has one: a new figure is as high as that
        needs, but at most twice as high as it would be.

    Raises
    ------
    ImportError
        Without matplotlib.
    TypeError
        If `ax` is something else.
    """
    check_matplotlib(display)
    from matplotlib.axes import Axes  # noqa: PLC0415  an extra

    if ax is None:
        from matplotlib import pyplot as plt  # noqa: PLC0415

        figure, ax = plt.subplots(layout="constrained")
        if ratio is not None:
            width, height = figure.get_size_inches()
            figure.set_figheight(min(2 * height, width * ratio + _LABELS_HEIGHT))
    if not isinstance(ax, Axes):
        msg = f"ax must be one matplotlib Axes or None, got {type(ax).__name__}."
        raise TypeError(msg)
    return ax
