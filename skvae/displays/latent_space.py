"""Display of encoded images in the latent space."""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.utils import check_array, check_consistent_length, column_or_1d
from sklearn.utils.validation import check_is_fitted

from skvae.displays.common import (
    check_estimator,
    get_axes,
    latent_label,
    order_dimensions,
)
from skvae.estimator import ConvVAE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colorbar import Colorbar
    from numpy.typing import ArrayLike

# Maximum number of classes if y is numeric: more colours are hard to distinguish.
_MAX_CLASSES = 20

# Area of all markers together, and minimum and maximum of one, in square points.
_MARKERS_AREA = 5000
_MARKER_SIZES = (4, 36)


class LatentSpaceDisplay:
    """Scatter plot of images in two latent dimensions.

    Use `from_estimator` to create a display. All parameters are stored as attributes.

    Parameters
    ----------
    points : ndarray of shape (n, 2)
        Coordinates of the points.
    y : ndarray of shape (n,), default=None
        Classes or numbers that set the colours of the points.
    xlabel, ylabel : str, default=None
        Axis labels.

    Attributes
    ----------
    scatter_ : matplotlib PathCollection
    colorbar_ : matplotlib Colorbar or None
        Colorbar of the classes or numbers. None without y.
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure

    Notes
    -----
    Latent dimensions are labelled by their number and their KL in nats.

    If y has strings, bools or up to 20 distinct whole numbers, its values are classes,
    each with its own colour. Other numbers have a continuous colormap.

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

    Reduce all latent dimensions to two with another transformer:

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
        """Plot the points.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to plot on. If None, a new figure is created.
        cmap : str or matplotlib Colormap, default=None
            Colormap of y. If None, it is "tab10", "tab20" or "turbo" for classes,
            depending on their number, and "viridis" for numbers.
        scatter_kwargs : dict, default=None
            Additional keyword arguments passed to matplotlib's `scatter`.

        Returns
        -------
        display : LatentSpaceDisplay

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        """
        ax = get_axes(type(self).__name__, ax)
        size = np.clip(_MARKERS_AREA / len(self.points), *_MARKER_SIZES)
        settings: dict[str, Any] = {"s": size, "alpha": 0.8, "linewidths": 0}
        classes = None
        if self.y is not None:
            classes = _classes(self.y)
            settings |= {"c": self.y, "cmap": cmap or "viridis"}
            if classes is not None:
                settings |= _class_settings(self.y, classes, cmap)
        settings |= scatter_kwargs or {}
        self.scatter_ = ax.scatter(self.points[:, 0], self.points[:, 1], **settings)
        ax.set(xlabel=self.xlabel, ylabel=self.ylabel)
        # Axes span at least 1, the scale of the prior. A smaller span would magnify
        # rounding errors.
        middle = (self.points.min(axis=0) + self.points.max(axis=0)) / 2
        ax.update_datalim([middle - 0.5, middle + 0.5])
        ax.autoscale_view()
        self.colorbar_ = None
        if self.y is not None:
            self.colorbar_ = _plot_colorbar(ax, self.scatter_, classes)
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
        """Encode images and plot them as points.

        Parameters
        ----------
        estimator : ConvVAE
            Fitted estimator.
        X : array-like of shape (n, H*W*C) or in the layout that `fit` was given
            Images in the units that `fit` was given.
        y : array-like of shape (n,), default=None
            Classes or numbers that set the colours of the points.
        projection : (int, int) or transformer, default=None
            Two latent dimensions to plot, or a scikit-learn transformer that reduces
            all of them to two. A fitted transformer with `transform` is applied to the
            latents of X. Any other is cloned, and the clone is fitted on them. None
            plots the two dimensions of highest KL. A single latent dimension is plotted
            against the row number.
        ax, cmap, scatter_kwargs
            See `plot`.

        Returns
        -------
        display : LatentSpaceDisplay

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        TypeError
            If the estimator is not a ConvVAE, or if `projection` is neither a pair of
            dimensions nor a transformer.
        ValueError
            If the estimator is not fitted, if y does not have one value per image, if
            `projection` does not return two columns, or for the reasons given in
            `ConvVAE.transform`.
        """
        check_estimator(cls.__name__, estimator)
        Z = np.asarray(estimator.transform(X))
        y_checked = None if y is None else _check_y(y, Z)
        if projection is None:
            projection = tuple(order_dimensions(estimator.latent_kl_)[:2])
        else:
            _check_projection(projection, Z.shape[1])
        if isinstance(projection, tuple | list):
            points = Z[:, projection]
            labels = [latent_label(i, estimator.latent_kl_) for i in projection]
        else:
            points = _project(Z, projection)
            labels = [f"{type(projection).__name__} {i}" for i in range(2)]
        if points.shape[1] == 1:
            points = np.column_stack([points, np.arange(len(points))])
            labels.append("row of X")
        display = cls(points, y_checked, xlabel=labels[0], ylabel=labels[1])
        return display.plot(ax, cmap=cmap, scatter_kwargs=scatter_kwargs)


def _check_y(y: ArrayLike, Z: np.ndarray) -> np.ndarray:
    """Validate y: one value per row of Z, none of them missing."""
    if any(map(_is_missing, np.asarray(y, dtype=object).flat)):
        msg = "y has missing values. Leave these images out, or give them a class."
        raise ValueError(msg)
    y = check_array(y, ensure_2d=False, dtype=None, input_name="y")
    check_consistent_length(Z, y)
    values: np.ndarray = column_or_1d(y)
    types = {type(value) for value in values} if values.dtype == object else set()
    if len(types) > 1:
        msg = "y has values of several types. Convert them, with y.astype(str) for one."
        raise TypeError(msg)
    return values


def _is_missing(value: Any) -> bool:
    """Return whether a value is None, NaN, or pandas's NA or NaT."""
    is_nan = isinstance(value, Real) and math.isnan(value)
    return value is None or is_nan or type(value).__name__ in {"NAType", "NaTType"}


def _check_projection(projection: Any, latent_dim: int) -> None:
    """Check that `projection` is a transformer or two latent dimensions."""
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
    """Reduce latents (n, latent_dim) to two columns with a transformer."""
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
            f"projection must return two columns, got an array of shape "
            f"{points.shape} for latents of shape {Z.shape}."
        )
        raise ValueError(msg)
    return points


def _classes(y: np.ndarray) -> np.ndarray | None:
    """Sorted classes of y, or None if y is continuous."""
    values = np.unique(y)
    if y.dtype.kind not in "iuf":
        return values
    is_whole = bool((values == np.round(values)).all())
    return values if is_whole and len(values) <= _MAX_CLASSES else None


def _class_settings(y: np.ndarray, classes: np.ndarray, cmap: Any) -> dict[str, Any]:
    """Keyword arguments of `scatter` that give each class its own colour."""
    import matplotlib as mpl  # noqa: PLC0415  optional dependency
    from matplotlib.colors import ListedColormap  # noqa: PLC0415

    n = len(classes)
    if cmap is None:
        cmap = "tab10" if n <= 10 else "tab20" if n <= _MAX_CLASSES else "turbo"
    colours = mpl.colormaps.get_cmap(cmap)
    # Colormaps of few colours are qualitative and indexed. Others are continuous.
    positions = np.arange(n) if n <= colours.N <= _MAX_CLASSES else np.linspace(0, 1, n)
    return {
        "c": np.searchsorted(classes, y),
        "cmap": ListedColormap(colours(positions)),
        "vmin": -0.5,
        "vmax": n - 0.5,
    }


def _plot_colorbar(ax: Axes, scatter: Any, classes: np.ndarray | None) -> Colorbar:
    """Add a colorbar beside the axes."""
    if classes is None:
        colorbar = ax.figure.colorbar(scatter, ax=ax)
    else:
        # The colorbar of few classes is shorter.
        shrink = min(1.0, len(classes) / 10)
        colorbar = ax.figure.colorbar(scatter, ax=ax, shrink=shrink, aspect=20 * shrink)
        labelled = range(0, len(classes), math.ceil(len(classes) / _MAX_CLASSES))
        labels = [str(classes[i]) for i in labelled]
        colorbar.set_ticks([*labelled], labels=labels)
        colorbar.ax.tick_params(length=0)
        colorbar.ax.invert_yaxis()
        colorbar.outline.set_visible(False)
    return colorbar
