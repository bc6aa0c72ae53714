"""Where images lie in the latent space."""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Integral
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.utils import check_array, check_consistent_length, column_or_1d
from sklearn.utils.validation import check_is_fitted

from skvae.displays.axes import axes_for
from skvae.displays.checks import check_estimator
from skvae.displays.latents import axis_label, ordered
from skvae.estimator import ConvVAE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colorbar import Colorbar
    from numpy.typing import ArrayLike

# Whole numbers are classes up to so many, which have colours that can be told apart.
_MAX_CLASSES = 20

# Square points of all markers together, and the limits of one's.
_MARKERS_AREA = 5000
_MARKER_SIZES = (4, 36)


class LatentSpaceDisplay:
    """Scatter of images in two latent dimensions.

    Make it with `from_estimator`. All parameters are kept as attributes.

    Parameters
    ----------
    points : ndarray of shape (n, 2)
    y : ndarray of shape (n,), default=None
        What points are coloured by.
    xlabel, ylabel : str, default=None
        Names of the axes.

    Attributes
    ----------
    scatter_ : matplotlib PathCollection
    colorbar_ : matplotlib Colorbar or None
        Beside the axes: which colour is which class or number. None without y.
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure

    Notes
    -----
    Axes along latent dimensions are named by their number and their KL in nats.

    Strings, bools and up to 20 different whole numbers are classes, with a colour each.
    Other numbers are drawn on a continuous scale.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skvae import ConvVAE, LatentSpaceDisplay
    >>> images, labels = load_digits().images, load_digits().target
    >>> vae = ConvVAE(latent_dim=8, hidden_layers=2, epochs=2, random_state=0)
    >>> vae = vae.fit(images)
    >>> display = LatentSpaceDisplay.from_estimator(vae, images, labels)
    >>> display.points.shape
    (1797, 2)
    >>> display.figure_.savefig("latent_space.png")

    All latents, brought to two by another transformer:

    >>> from sklearn.decomposition import PCA
    >>> display = LatentSpaceDisplay.from_estimator(
    ...     vae, images, labels, projection=PCA(2)
    ... )
    >>> display.xlabel
    'PCA 0'
    """

    def __init__(
        self,
        points: np.ndarray,
        y: np.ndarray | None = None,
        *,
        xlabel: str | None = None,
        ylabel: str | None = None,
    ) -> None:
        self.points = points
        self.y = y
        self.xlabel = xlabel
        self.ylabel = ylabel

    def plot(
        self,
        ax: Any = None,
        *,
        cmap: Any = None,
        scatter_kwargs: Mapping[str, Any] | None = None,
    ) -> Self:
        """Draw the points.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw in. None makes a new figure.
        cmap : str or matplotlib Colormap, default=None
            Colours of y. None takes "tab10", "tab20" or "turbo" for classes, as many as
            there are, and "viridis" for numbers.
        scatter_kwargs : dict, default=None
            Further arguments of matplotlib's `scatter`.

        Returns
        -------
        display : LatentSpaceDisplay

        Raises
        ------
        ImportError
            Without matplotlib.
        """
        ax = axes_for(type(self).__name__, ax)
        size = np.clip(_MARKERS_AREA / len(self.points), *_MARKER_SIZES)
        settings: dict[str, Any] = {"s": size, "alpha": 0.8, "linewidths": 0}
        classes = None
        if self.y is not None:
            classes = _classes(self.y)
            settings |= {"c": self.y, "cmap": cmap or "viridis"}
            if classes is not None:
                settings |= _class_colours(self.y, classes, cmap)
        settings |= scatter_kwargs or {}
        self.scatter_ = ax.scatter(self.points[:, 0], self.points[:, 1], **settings)
        ax.set(xlabel=self.xlabel, ylabel=self.ylabel)
        # At least a unit, the scale of the prior: less would be of rounding errors.
        middle = (self.points.min(axis=0) + self.points.max(axis=0)) / 2
        ax.update_datalim([middle - 0.5, middle + 0.5])
        ax.autoscale_view()
        self.colorbar_ = None
        if self.y is not None:
            self.colorbar_ = _draw_colorbar(ax, self.scatter_, classes)
        self.ax_ = ax
        self.figure_ = ax.figure
        return self

    @classmethod
    def from_estimator(
        cls,
        estimator: ConvVAE,
        X: ArrayLike,
        y: ArrayLike | None = None,
        *,
        projection: Any = None,
        ax: Any = None,
        cmap: Any = None,
        scatter_kwargs: Mapping[str, Any] | None = None,
    ) -> Self:
        """Encode images and draw them as points.

        Parameters
        ----------
        estimator : ConvVAE
            Fitted.
        X : array-like of shape (n, H*W*C) or in the layout that `fit` was given
            Images in the units that `fit` was given.
        y : array-like of shape (n,), default=None
            Classes or numbers to colour them by.
        projection : (int, int) or transformer, default=None
            Which two latent dimensions, or what makes two of all: a scikit-learn
            transformer, of which a clone is fitted to the latents of X unless it is
            fitted and has `transform`. None takes both dimensions or, of more, the two
            of highest KL. A single one is drawn against the number of the row.
        ax, cmap, scatter_kwargs
            As in `plot`.

        Returns
        -------
        display : LatentSpaceDisplay

        Raises
        ------
        ImportError
            Without matplotlib.
        TypeError
            If the estimator is no ConvVAE, or `projection` nothing of the above.
        ValueError
            If the estimator is not fitted, if y is not one value an image, if
            `projection` gives no two dimensions, or as `ConvVAE.transform`.
        """
        check_estimator(cls.__name__, estimator)
        Z = np.asarray(estimator.transform(X))
        colouring = None if y is None else _check_y(y, Z)
        if projection is None:
            projection = tuple(ordered(estimator.latent_kl_)[:2])
        else:
            _check_projection(projection, Z.shape[1])
        if isinstance(projection, tuple | list):
            points = Z[:, projection]
            labels = [axis_label(i, estimator.latent_kl_) for i in projection]
        else:
            points = _project(Z, projection)
            labels = [f"{type(projection).__name__} {i}" for i in range(2)]
        if points.shape[1] == 1:
            points = np.column_stack([points, np.arange(len(points))])
            labels.append("row of X")
        display = cls(points, colouring, xlabel=labels[0], ylabel=labels[1])
        return display.plot(ax, cmap=cmap, scatter_kwargs=scatter_kwargs)


def _check_y(y: ArrayLike, Z: np.ndarray) -> np.ndarray:
    """See that y is one value, not missing, for each row of latents."""
    y = check_array(y, ensure_2d=False, dtype=None, input_name="y")
    check_consistent_length(Z, y)
    return column_or_1d(y)


def _check_projection(projection: Any, latent_dim: int) -> None:
    """See that it is a transformer, or two latent dimensions."""
    if isinstance(projection, tuple | list):
        if len(projection) != 2 or not all(
            isinstance(i, Integral)
            and not isinstance(i, bool)
            and 0 <= int(i) < latent_dim
            for i in projection
        ):
            msg = (
                f"projection must be two of the latent dimensions 0 to "
                f"{latent_dim - 1}, got {projection!r}."
            )
            raise ValueError(msg)
    elif not hasattr(projection, "fit_transform"):
        msg = (
            f"projection must be two latent dimensions (int, int) or a transformer "
            f"with fit_transform, such as PCA(2), got {projection!r}."
        )
        raise TypeError(msg)


def _project(Z: np.ndarray, projection: Any) -> np.ndarray:
    """Latents (n, latent_dim) brought to two by a transformer."""
    try:
        check_is_fitted(projection)
        is_fitted = hasattr(projection, "transform")
    except NotFittedError:
        is_fitted = False
    if is_fitted:
        points = np.asarray(projection.transform(Z))
    else:
        points = np.asarray(clone(projection).fit_transform(Z))
    if points.shape != (len(Z), 2):
        msg = (
            f"projection must give two columns, got an array of shape {points.shape} "
            f"for latents of shape {Z.shape}."
        )
        raise ValueError(msg)
    return points


def _classes(y: np.ndarray) -> np.ndarray | None:
    """The classes in y, sorted, or None if y is a quantity."""
    values = np.unique(y)
    if y.dtype.kind not in "iuf":
        return values
    is_whole = bool((values == np.round(values)).all())
    return values if is_whole and len(values) <= _MAX_CLASSES else None


def _class_colours(y: np.ndarray, classes: np.ndarray, cmap: Any) -> dict[str, Any]:
    """What `scatter` is to be told, for a colour a class."""
    import matplotlib as mpl  # noqa: PLC0415  an extra
    from matplotlib.colors import ListedColormap  # noqa: PLC0415

    n = len(classes)
    if cmap is None:
        cmap = "tab10" if n <= 10 else "tab20" if n <= _MAX_CLASSES else "turbo"
    colours = mpl.colormaps.get_cmap(cmap)
    # Maps of few colours are lists of them, others a scale.
    places = np.arange(n) if n <= colours.N <= _MAX_CLASSES else np.linspace(0, 1, n)
    return {
        "c": np.searchsorted(classes, y),
        "cmap": ListedColormap(colours(places)),
        "vmin": -0.5,
        "vmax": n - 0.5,
    }


def _draw_colorbar(ax: Axes, scatter: Any, classes: np.ndarray | None) -> Colorbar:
    """Say beside the axes, which it makes narrower, what the colours mean."""
    if classes is None:
        colorbar = ax.figure.colorbar(scatter, ax=ax)
    else:
        # Of few classes a short one.
        shrink = min(1.0, len(classes) / 10)
        colorbar = ax.figure.colorbar(scatter, ax=ax, shrink=shrink, aspect=20 * shrink)
        named = range(0, len(classes), math.ceil(len(classes) / _MAX_CLASSES))
        colorbar.set_ticks([*named], labels=[str(classes[i]) for i in named])
        colorbar.ax.tick_params(length=0)
        colorbar.ax.invert_yaxis()
        colorbar.outline.set_visible(False)
    return colorbar
