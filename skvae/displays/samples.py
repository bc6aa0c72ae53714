"""Display of sampled images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np

from skvae.displays.common import check_estimator
from skvae.displays.image_grid import (
    arrange_in_rows,
    choose_n_cols,
    gap_size,
    height_to_width,
    is_strip,
    join_tiles,
    plot_image,
    to_tiles,
)
from skvae.estimator import ConvVAE


class SampleDisplay:
    """Grid of sampled images.

    Use `from_estimator` to create a display. All parameters are stored as attributes.

    Parameters
    ----------
    images : ndarray of shape (n, H, W, C)
        Images to plot, row by row.
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
    Images with three channels are plotted as red, green and blue, with four as red,
    green, blue and alpha. For any other number of channels their mean is plotted. To
    plot other channels, select them:
    ``SampleDisplay(display.images[..., :3], value_range=...).plot()``.

    Strips, images of one pixel's height or width, are plotted as bands.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skvae import ConvVAE, SampleDisplay
    >>> images = load_digits().images
    >>> vae = ConvVAE(latent_dim=8, hidden_layers=2, epochs=2, random_state=0)
    >>> display = SampleDisplay.from_estimator(vae.fit(images), n_samples=24)
    >>> display.images.shape
    (24, 8, 8, 1)
    >>> display.figure_.savefig("samples.png")
    """

    def __init__(self, images: np.ndarray, *, value_range: tuple[float, float]) -> None:
        self.images = images
        self.value_range = value_range

    def plot(
        self,
        ax: Any = None,
        *,
        n_cols: int | None = None,
        cmap: Any = "gray",
        im_kwargs: Mapping[str, Any] | None = None,
    ) -> Self:
        """Plot the images.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to plot on. If None, a new figure is created.
        n_cols : int, default=None
            Number of columns. If None, it is chosen so that the grid is about three
            quarters as high as wide.
        cmap : str or matplotlib Colormap, default="gray"
            Colormap of images that have neither three nor four channels.
        im_kwargs : dict, default=None
            Additional keyword arguments passed to matplotlib's `imshow`.

        Returns
        -------
        display : SampleDisplay

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        """
        tiles = to_tiles(self.images)
        _, height, width, _ = tiles.shape
        n_cols = choose_n_cols(n_cols, len(tiles), height_to_width(self.images))
        self.im_ = plot_image(
            type(self).__name__,
            ax,
            join_tiles(
                arrange_in_rows(tiles, n_cols), gap_size(height), gap_size(width)
            ),
            value_range=self.value_range,
            is_stretched=is_strip(self.images),
            cmap=cmap,
            im_kwargs=im_kwargs,
        )
        self.ax_ = self.im_.axes
        self.figure_ = self.ax_.figure
        return self

    @classmethod
    def from_estimator(
        cls,
        estimator: ConvVAE,
        *,
        n_samples: int = 64,
        random_state: int | np.random.RandomState | None = None,
        ax: Any = None,
        n_cols: int | None = None,
        cmap: Any = "gray",
        im_kwargs: Mapping[str, Any] | None = None,
    ) -> Self:
        """Sample images and plot them.

        Parameters
        ----------
        estimator : ConvVAE
            Fitted estimator.
        n_samples : int, default=64
            Number of images.
        random_state : int, RandomState instance or None, default=None
            Seed of the samples, as in `ConvVAE.sample`. None uses the estimator's
            `random_state`.
        ax, n_cols, cmap, im_kwargs
            See `plot`.

        Returns
        -------
        display : SampleDisplay

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        TypeError
            If the estimator is not a ConvVAE.
        ValueError
            If the estimator is not fitted, or for the reasons given in
            `ConvVAE.sample`.
        """
        check_estimator(cls.__name__, estimator)
        images = estimator.sample(n_samples, random_state)
        display = cls(
            images.reshape(-1, *estimator.input_shape_),
            value_range=estimator.value_range_,
        )
        return display.plot(ax, n_cols=n_cols, cmap=cmap, im_kwargs=im_kwargs)
