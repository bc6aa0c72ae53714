"""Display of the oddest images, their reconstructions and their error maps."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Integral
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from sklearn.utils import check_scalar

from skvae.data.arrays import as_array, take_rows
from skvae.displays.common import check_estimator
from skvae.displays.image_grid import (
    gap_size,
    is_strip,
    join_tiles,
    plot_image,
    tile_centres,
    to_tiles,
)
from skvae.outliers import ConvVAEOutlierDetector

if TYPE_CHECKING:
    from skvae.estimator import Images

# Height of the text below the images, and of each character of the scores, in inches.
_TEXT_HEIGHT, _CHARACTER_HEIGHT = 0.35, 0.07


class OutlierDisplay:
    """The oddest images, each above its reconstruction and its error map.

    Use `from_estimator` to create a display. All parameters are stored as attributes.

    Parameters
    ----------
    images : ndarray of shape (n, H, W, C)
        The oddest image first.
    reconstructions : ndarray of shape (n, H, W, C)
        Decoded latents of the images.
    error_maps : ndarray of shape (n, H, W, C)
        `ConvVAEOutlierDetector.error_map` of the images.
    scores : ndarray of shape (n,)
        `ConvVAEOutlierDetector.score_samples` of the images.
    threshold : float
        Score below which images are outliers.
    value_range : (float, float)
        Values that are plotted as black and white.
    indices : ndarray of shape (n,), default=None
        Row of X for each image.

    Attributes
    ----------
    im_ : matplotlib AxesImage
        The grid as one image.
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure

    Notes
    -----
    The score minus the threshold, in nats, is negative for outliers. Colours are as in
    `ReconstructionDisplay`. The mean of an error map over the channels is plotted, from
    0 in black to the highest of all maps in white.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skvae import ConvVAE, ConvVAEOutlierDetector, OutlierDisplay
    >>> images = load_digits().images
    >>> vae = ConvVAE(latent_dim=8, hidden_layers=2, epochs=2)
    >>> detector = ConvVAEOutlierDetector(vae, random_state=0).fit(images)
    >>> display = OutlierDisplay.from_estimator(detector, images)
    >>> display.indices.shape, display.error_maps.shape
    ((10,), (10, 8, 8, 1))
    >>> display.figure_.savefig("oddest.png")
    """

    def __init__(
        self,
        images: np.ndarray,
        reconstructions: np.ndarray,
        error_maps: np.ndarray,
        *,
        scores: np.ndarray,
        threshold: float,
        value_range: tuple[float, float],
        indices: np.ndarray | None = None,
    ) -> None:
        self.images = images
        self.reconstructions = reconstructions
        self.error_maps = error_maps
        self.scores = scores
        self.threshold = threshold
        self.value_range = value_range
        self.indices = indices

    def plot(
        self,
        ax: Any = None,
        *,
        cmap: Any = "gray",
        im_kwargs: Mapping[str, Any] | None = None,
    ) -> Self:
        """Plot a column for each image, with its score minus the threshold below.

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
        display : OutlierDisplay

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        """
        rows = [self.images, self.reconstructions, self._errors_as_images()]
        tiles = to_tiles(np.stack(rows))  # (3, n, H, W, C)
        _, n, height, width, _ = tiles.shape
        gap_y, gap_x = gap_size(height), gap_size(width)
        self.im_ = plot_image(
            type(self).__name__,
            ax,
            join_tiles(tiles, gap_y, gap_x),
            value_range=self.value_range,
            is_stretched=is_strip(self.images),
            cmap=cmap,
            im_kwargs=im_kwargs,
        )
        self.ax_ = self.im_.axes
        # Scores of large images differ in digits that a score alone would not show.
        labels = [_in_nats(score - self.threshold) for score in self.scores]
        self.ax_.set_xticks(
            tile_centres(n, width, gap_x), labels, rotation=90, fontsize="small"
        )
        self.ax_.set_xlabel(
            f"original over decoded over error,\n"
            f"score minus the threshold of {_in_nats(self.threshold)}"
        )
        self.figure_ = self.ax_.figure
        if ax is None:
            _make_room_for_scores(self.ax_, max(map(len, labels)))
        return self

    def _errors_as_images(self) -> np.ndarray:
        """Error maps scaled to the value range, in as many channels as images have."""
        low, high = self.value_range
        errors = self.error_maps.mean(axis=-1, keepdims=True)
        shares = errors / max(errors.max(), np.finfo(float).tiny)
        scaled = np.repeat(low + (high - low) * shares, self.images.shape[-1], axis=-1)
        if scaled.shape[-1] == 4:
            scaled[..., 3] = high  # opaque
        return scaled

    @classmethod
    def from_estimator(
        cls,
        estimator: ConvVAEOutlierDetector,
        X: Images,
        *,
        n_samples: int = 10,
        ax: Any = None,
        cmap: Any = "gray",
        im_kwargs: Mapping[str, Any] | None = None,
    ) -> Self:
        """Score images, and plot those with the lowest scores, the lowest first.

        Parameters
        ----------
        estimator : ConvVAEOutlierDetector
            Fitted detector.
        X : array-like of shape (n, H*W*C) or in the layout that `fit` was given
            Images in the units that `fit` was given, in memory or out-of-core.
        n_samples : int, default=10
            Number of images. If X has fewer, all are plotted.
        ax, cmap, im_kwargs
            See `plot`.

        Returns
        -------
        display : OutlierDisplay

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        TypeError
            If the estimator is not a ConvVAEOutlierDetector.
        ValueError
            If the estimator is not fitted, or for the reasons given in
            `ConvVAE.transform`.
        """
        check_estimator(cls.__name__, estimator, ConvVAEOutlierDetector)
        n_samples = check_scalar(n_samples, "n_samples", Integral, min_val=1)
        array = as_array(X)
        scores = estimator.score_samples(array)
        indices = np.argsort(scores, kind="stable")[:n_samples]
        odd = take_rows(array, indices)
        vae = estimator.estimator_
        decoded = vae.inverse_transform(np.asarray(vae.transform(odd)))
        images, reconstructions, error_maps = (
            np.asarray(each).reshape(-1, *vae.input_shape_)
            for each in (odd, decoded, estimator.error_map(odd))
        )
        display = cls(
            images,
            reconstructions,
            error_maps,
            scores=scores[indices],
            threshold=estimator.offset_,
            value_range=vae.value_range_,
            indices=indices,
        )
        return display.plot(ax, cmap=cmap, im_kwargs=im_kwargs)


def _in_nats(score: float) -> str:
    return f"{score:.1f}" if 0.1 <= abs(score) < 1e6 else f"{score:.2g}"


def _make_room_for_scores(ax: Any, n_characters: int) -> None:
    """Enlarge a new figure, below the images."""
    ax.set_anchor("N")
    height = _TEXT_HEIGHT + _CHARACTER_HEIGHT * n_characters
    ax.figure.set_figheight(ax.figure.get_figheight() + height)
    # The constrained layout of images and rotated text settles at the second drawing.
    ax.figure.draw_without_rendering()
