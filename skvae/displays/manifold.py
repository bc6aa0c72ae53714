"""Display of images decoded from a grid of latents."""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Integral
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from sklearn.utils import check_scalar

from skvae.displays.common import check_estimator, latent_label, order_dimensions
from skvae.displays.image_grid import (
    gap_size,
    height_to_width,
    is_strip,
    join_tiles,
    plot_image,
    tile_centres,
    to_tiles,
)
from skvae.estimator import ConvVAE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

# Height and width of a tick label such as "12 (0.34)", in points.
_LABEL_HEIGHT, _LABEL_WIDTH = 12, 50

# Width to height of images above which traversals are plotted as columns.
_MAX_ROW_RATIO = 2


class ManifoldDisplay:
    """Images decoded from a grid of latents.

    With two latent dimensions, the display is the plane of [1]_, figure 4: the
    coordinates of the grid are quantiles of the standard normal prior at equal steps
    of probability. With one dimension it is a row of images. With more, it has one row
    for each dimension, a traversal: this dimension takes the values of the quantiles,
    and all others are 0. Traversals are sorted by KL, highest first.

    Use `from_estimator` to create a display. All parameters are stored as attributes.

    Parameters
    ----------
    images : ndarray of shape (n_rows, n_steps, H, W, C)
        Decoded images. In the plane, the second latent dimension decreases from row to
        row.
    latents : ndarray of shape (n_rows, n_steps, latent_dim)
        Latents that the images are decoded from.
    latent_kl : ndarray of shape (latent_dim,)
        KL of each latent dimension, in nats.
    value_range : (float, float)
        Values that are plotted as black and white.

    Attributes
    ----------
    im_ : matplotlib AxesImage
        The grid as one image.
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure

    Notes
    -----
    Latent dimensions are labelled by their number and, in brackets, their KL in nats.
    If there is not enough room for all labels, some are omitted.

    Images with three channels are plotted as red, green and blue, with four as red,
    green, blue and alpha. For any other number of channels their mean is plotted. If
    images are more than twice as wide as high, as strips are, traversals are plotted as
    columns, from bottom to top.

    References
    ----------
    .. [1] Kingma and Welling, "Auto-Encoding Variational Bayes", ICLR 2014,
       https://arxiv.org/abs/1312.6114

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skvae import ConvVAE, ManifoldDisplay
    >>> images = load_digits().images
    >>> vae = ConvVAE(latent_dim=2, hidden_layers=2, epochs=2, random_state=0)
    >>> display = ManifoldDisplay.from_estimator(vae.fit(images))
    >>> display.images.shape
    (15, 15, 8, 8, 1)
    >>> display.figure_.savefig("manifold.png")
    """

    def __init__(
        self,
        images: np.ndarray,
        latents: np.ndarray,
        *,
        latent_kl: np.ndarray,
        value_range: tuple[float, float],
    ) -> None:
        self.images = images
        self.latents = latents
        self.latent_kl = latent_kl
        self.value_range = value_range

    def plot(
        self,
        ax: Any = None,
        *,
        cmap: Any = "gray",
        im_kwargs: Mapping[str, Any] | None = None,
    ) -> Self:
        """Plot the images.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to plot on. If None, a new figure is created.
        cmap : str or matplotlib Colormap, default="gray"
            Colormap of images that have neither three nor four channels.
        im_kwargs : dict, default=None
            Additional keyword arguments passed to matplotlib's `imshow`.

        Returns
        -------
        display : ManifoldDisplay

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        """
        tiles = to_tiles(self.images)
        is_plane = len(self.latent_kl) == 2
        is_upright = not is_plane and height_to_width(self.images) * _MAX_ROW_RATIO < 1
        if is_upright:
            tiles = tiles.swapaxes(0, 1)[::-1]
        n_rows, n_cols, height, width, _ = tiles.shape
        gap_y, gap_x = gap_size(height), gap_size(width)
        grid = join_tiles(tiles, gap_y, gap_x)
        self.im_ = plot_image(
            type(self).__name__,
            ax,
            grid,
            value_range=self.value_range,
            is_stretched=is_strip(self.images),
            cmap=cmap,
            im_kwargs=im_kwargs,
        )
        self.ax_ = self.im_.axes
        self.figure_ = self.ax_.figure
        columns = tile_centres(n_cols, width, gap_x)
        rows = tile_centres(n_rows, height, gap_y)
        x, y, kl = self.ax_.xaxis, self.ax_.yaxis, self.latent_kl
        dimensions = order_dimensions(kl)
        values = self.latents[0, :, dimensions[0]]
        label = "value of the latent" if len(kl) > 2 else latent_label(0, kl)
        points_y, points_x = _size_in_points(self.ax_, grid.shape[:2])
        if is_upright:
            _label_values(y, rows[::-1], values, label)
            _label_dimensions(x, columns, dimensions, kl, points_x / _LABEL_WIDTH)
        elif is_plane:
            _label_values(x, columns, values, label)
            _label_values(y, rows[::-1], values, latent_label(1, kl))
        else:
            _label_values(x, columns, values, label)
            _label_dimensions(y, rows, dimensions, kl, points_y / _LABEL_HEIGHT)
        return self

    @classmethod
    def from_estimator(
        cls,
        estimator: ConvVAE,
        *,
        n_steps: int = 15,
        ax: Any = None,
        cmap: Any = "gray",
        im_kwargs: Mapping[str, Any] | None = None,
    ) -> Self:
        """Decode a grid of latents and plot the images.

        Parameters
        ----------
        estimator : ConvVAE
            Fitted estimator.
        n_steps : int, default=15
            Number of values of each latent dimension. They are the quantiles of the
            standard normal distribution at the middle of `n_steps` intervals of equal
            probability.
        ax, cmap, im_kwargs
            See `plot`.

        Returns
        -------
        display : ManifoldDisplay

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        TypeError
            If the estimator is not a ConvVAE.
        ValueError
            If the estimator is not fitted, or if `n_steps` is less than 1.
        """
        check_estimator(cls.__name__, estimator)
        n_steps = check_scalar(n_steps, "n_steps", Integral, min_val=1)
        probabilities = (np.arange(n_steps) + 0.5) / n_steps
        quantiles = np.array([NormalDist().inv_cdf(p) for p in probabilities])
        latents = _manifold_latents(quantiles, order_dimensions(estimator.latent_kl_))
        decoded = estimator.inverse_transform(latents.reshape(-1, latents.shape[-1]))
        display = cls(
            decoded.reshape(*latents.shape[:2], *estimator.input_shape_),
            latents,
            latent_kl=estimator.latent_kl_,
            value_range=estimator.value_range_,
        )
        return display.plot(ax, cmap=cmap, im_kwargs=im_kwargs)


def _manifold_latents(values: np.ndarray, dimensions: np.ndarray) -> np.ndarray:
    """Latents (n_rows, n_steps, latent_dim): a plane, or a row for each dimension."""
    n_steps, latent_dim = len(values), len(dimensions)
    if latent_dim == 2:
        return np.stack(np.meshgrid(values, values[::-1]), axis=-1)
    latents = np.zeros((latent_dim, n_steps, latent_dim))
    latents[np.arange(latent_dim), :, dimensions] = values
    return latents


def _size_in_points(ax: Axes, shape: tuple[int, int]) -> tuple[float, float]:
    """Height and width of the plot of an image of that shape, in points."""
    height, width = ax.bbox.height, ax.bbox.width
    if ax.get_aspect() != "auto":
        scale = min(height / shape[0], width / shape[1])
        height, width = scale * shape[0], scale * shape[1]
    return height * 72 / ax.figure.dpi, width * 72 / ax.figure.dpi


def _label_values(
    axis: Axis, positions: np.ndarray, values: np.ndarray, label: str
) -> None:
    """Label the first, middle and last value of a latent dimension."""
    shown = sorted({0, len(values) // 2, len(values) - 1})
    axis.set_ticks(positions[shown], [f"{values[i]:.1f}" for i in shown])
    axis.set_label_text(label)


def _label_dimensions(
    axis: Axis,
    positions: np.ndarray,
    dimensions: np.ndarray,
    kl: np.ndarray,
    max_labels: float,
) -> None:
    """Label the traversed latent dimensions with at most `max_labels` labels."""
    if len(dimensions) > 1:
        step = math.ceil(len(dimensions) / max(max_labels, 1))
        labels = [f"{i} ({kl[i]:.2f})" for i in dimensions[::step]]
        axis.set_ticks(positions[::step], labels)
        axis.set_label_text("latent (nats)")
