"""What the latent space decodes to."""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Integral
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from sklearn.utils import check_scalar

from skvae.displays.checks import check_estimator
from skvae.displays.latents import axis_label, ordered
from skvae.displays.mosaic import (
    centres,
    gap,
    height_by_width,
    is_strip,
    join,
    show,
    to_tiles,
)
from skvae.estimator import ConvVAE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

# Points that a label such as "12 (0.34)" takes of the height and the width.
_LABEL_HEIGHT, _LABEL_WIDTH = 12, 50

# Images wider than this, by their height, go from bottom to top.
_WIDE = 2


class ManifoldDisplay:
    """What the latent space decodes to.

    With two latent dimensions the plane of [1]_, figure 4: images decoded from a grid
    of equal probabilities, whose coordinates are quantiles of the standard normal
    prior. With one, a row. With more, a row for each dimension along which latents take
    these values, while the others are 0; the dimension of highest KL comes first.

    Make it with `from_estimator`. All parameters are kept as attributes.

    Parameters
    ----------
    images : ndarray of shape (n_rows, n_steps, H, W, C)
        Decoded images: of the plane, the rows from high to low in the second dimension;
        or of one dimension a row.
    latents : ndarray of shape (n_rows, n_steps, latent_dim)
        What they are decoded from.
    latent_kl : ndarray of shape (latent_dim,)
        KL of each latent dimension, in nats.
    value_range : (float, float)
        Values that are drawn black and white.

    Attributes
    ----------
    im_ : matplotlib AxesImage
        All images as one picture.
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure

    Notes
    -----
    Axes name dimensions by their number and, in brackets, their KL in nats; of many,
    those for which there is room.

    Images with three channels are drawn in colour, with four as red, green, blue and
    alpha; of any other number the mean is drawn in grey. Of images more than twice as
    wide as high, strips for example, the rows of a traversal are drawn as columns, from
    bottom to top.

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
        """Draw the images.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw in. None makes a new figure.
        cmap : str or matplotlib Colormap, default="gray"
            Colours of images that are not drawn in their own.
        im_kwargs : dict, default=None
            Further arguments of matplotlib's `imshow`.

        Returns
        -------
        display : ManifoldDisplay

        Raises
        ------
        ImportError
            Without matplotlib.
        """
        tiles = to_tiles(self.images)
        is_plane = len(self.latent_kl) == 2
        is_upright = not is_plane and height_by_width(self.images) * _WIDE < 1
        if is_upright:
            tiles = tiles.swapaxes(0, 1)[::-1]
        n_rows, n_cols, height, width, _ = tiles.shape
        gap_y, gap_x = gap(height), gap(width)
        picture = join(tiles, gap_y, gap_x)
        self.im_ = show(
            type(self).__name__,
            ax,
            picture,
            value_range=self.value_range,
            is_stretched=is_strip(self.images),
            cmap=cmap,
            im_kwargs=im_kwargs,
        )
        self.ax_ = self.im_.axes
        self.figure_ = self.ax_.figure
        columns, rows = centres(n_cols, width, gap_x), centres(n_rows, height, gap_y)
        x, y, kl = self.ax_.xaxis, self.ax_.yaxis, self.latent_kl
        dimensions = ordered(kl)
        values = self.latents[0, :, dimensions[0]]
        label = "value of the latent" if len(kl) > 2 else axis_label(0, kl)
        points_y, points_x = _points(self.ax_, picture.shape[:2])
        if is_upright:
            _name_values(y, rows[::-1], values, label)
            _name_dimensions(x, columns, dimensions, kl, points_x / _LABEL_WIDTH)
        elif is_plane:
            _name_values(x, columns, values, label)
            _name_values(y, rows[::-1], values, axis_label(1, kl))
        else:
            _name_values(x, columns, values, label)
            _name_dimensions(y, rows, dimensions, kl, points_y / _LABEL_HEIGHT)
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
        """Decode latents and draw the images.

        Parameters
        ----------
        estimator : ConvVAE
            Fitted.
        n_steps : int, default=15
            Values that a latent takes: the quantiles of the standard normal
            distribution in the middle of so many intervals of equal probability.
        ax, cmap, im_kwargs
            As in `plot`.

        Returns
        -------
        display : ManifoldDisplay

        Raises
        ------
        ImportError
            Without matplotlib.
        TypeError
            If the estimator is no ConvVAE.
        ValueError
            If it is not fitted, or if `n_steps` is less than 1.
        """
        check_estimator(cls.__name__, estimator)
        n_steps = check_scalar(n_steps, "n_steps", Integral, min_val=1)
        probabilities = (np.arange(n_steps) + 0.5) / n_steps
        quantiles = np.array([NormalDist().inv_cdf(p) for p in probabilities])
        latents = _manifold_latents(quantiles, ordered(estimator.latent_kl_))
        decoded = estimator.inverse_transform(latents.reshape(-1, latents.shape[-1]))
        display = cls(
            decoded.reshape(*latents.shape[:2], *estimator.input_shape_),
            latents,
            latent_kl=estimator.latent_kl_,
            value_range=estimator.value_range_,
        )
        return display.plot(ax, cmap=cmap, im_kwargs=im_kwargs)


def _manifold_latents(values: np.ndarray, dimensions: np.ndarray) -> np.ndarray:
    """Latents (n_rows, n_steps, latent_dim): the plane, or of each dimension a row."""
    n_steps, latent_dim = len(values), len(dimensions)
    if latent_dim == 2:
        return np.stack(np.meshgrid(values, values[::-1]), axis=-1)
    latents = np.zeros((latent_dim, n_steps, latent_dim))
    latents[np.arange(latent_dim), :, dimensions] = values
    return latents


def _points(ax: Axes, shape: tuple[int, int]) -> tuple[float, float]:
    """Height and width in which a picture of that shape is shown, in points."""
    height, width = ax.bbox.height, ax.bbox.width
    if ax.get_aspect() != "auto":
        scale = min(height / shape[0], width / shape[1])
        height, width = scale * shape[0], scale * shape[1]
    return height * 72 / ax.figure.dpi, width * 72 / ax.figure.dpi


def _name_values(axis: Axis, places: np.ndarray, values: np.ndarray, name: str) -> None:
    """Name the first, middle and last of the values that a latent takes."""
    shown = sorted({0, len(values) // 2, len(values) - 1})
    axis.set_ticks(places[shown], [f"{values[i]:.1f}" for i in shown])
    axis.set_label_text(name)


def _name_dimensions(
    axis: Axis, places: np.ndarray, dimensions: np.ndarray, kl: np.ndarray, room: float
) -> None:
    """Name the dimensions along which latents vary, as many as there is room for."""
    if len(dimensions) > 1:
        step = math.ceil(len(dimensions) / max(room, 1))
        labels = [f"{i} ({kl[i]:.2f})" for i in dimensions[::step]]
        axis.set_ticks(places[::step], labels)
        axis.set_label_text("latent (nats)")
