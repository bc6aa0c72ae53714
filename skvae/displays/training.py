"""Display of the training history."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from skvae.displays.common import check_estimator, check_matplotlib, get_axes
from skvae.estimator import ConvVAE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

# Names in `history` that are plotted in the upper and in the lower axes.
_PANELS = (("loss", "val_loss", "reconstruction"), ("kl",))

# Left, bottom, width and height of the two axes, as fractions of the bounding axes.
_BOUNDS = ((0, 0.37, 1, 0.63), (0, 0, 1, 0.32))


class TrainingDisplay:
    """Losses over epochs.

    The upper axes has the loss, the validation loss and the reconstruction term, the
    lower axes has the KL.

    Use `from_estimator` to create a display. All parameters are stored as attributes.

    Parameters
    ----------
    history : dict of str to ndarray of shape (n_epochs,)
        One value per epoch for "loss", "reconstruction", "kl" and, optionally,
        "val_loss". NaN is not plotted.
    best_epoch : int, default=None
        Epoch to mark, counted from 1.

    Attributes
    ----------
    lines_ : dict of str to matplotlib Line2D
        Lines by their names in `history`.
    axes_ : ndarray of two matplotlib Axes
        Upper and lower axes.
    bounding_ax_ : matplotlib Axes or None
        Axes that is divided into the two. None if two axes were given.
    figure_ : matplotlib Figure

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skvae import ConvVAE, TrainingDisplay
    >>> images = load_digits().images
    >>> vae = ConvVAE(
    ...     hidden_layers=2, epochs=3, early_stopping=True, random_state=0
    ... )
    >>> display = TrainingDisplay.from_estimator(vae.fit(images))
    >>> sorted(display.lines_)
    ['kl', 'loss', 'reconstruction', 'val_loss']
    >>> display.figure_.savefig("training.png")
    """

    def __init__(
        self, history: Mapping[str, np.ndarray], *, best_epoch: int | None = None
    ) -> None:
        self.history = history
        self.best_epoch = best_epoch

    def plot(
        self, ax: Any = None, *, line_kwargs: Mapping[str, Any] | None = None
    ) -> Self:
        """Plot the lines.

        Parameters
        ----------
        ax : matplotlib Axes or two of them, default=None
            Axes to plot on. A single axes is divided into an upper and a lower one. To
            compare with another display, pass its `axes_`. If None, a new figure is
            created.
        line_kwargs : dict, default=None
            Additional keyword arguments passed to matplotlib's `plot`.

        Returns
        -------
        display : TrainingDisplay

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        ValueError
            If the axes was divided by an earlier plot, or if there are neither one nor
            two axes.
        """
        check_matplotlib(type(self).__name__)
        from matplotlib.ticker import MaxNLocator  # noqa: PLC0415  optional dependency

        if isinstance(ax, np.ndarray | list | tuple):
            if len(ax) != 2:
                msg = f"ax must be one or two matplotlib Axes, got {len(ax)}."
                raise ValueError(msg)
            self.bounding_ax_ = None
            upper, lower = (get_axes(type(self).__name__, each) for each in ax)
        else:
            self.bounding_ax_ = get_axes(type(self).__name__, ax)
            upper, lower = _divide(self.bounding_ax_)
        epochs = np.arange(1, len(self.history["loss"]) + 1)
        settings = {"marker": ".", "markersize": 4, **(line_kwargs or {})}
        self.lines_: dict[str, Line2D] = {}
        for panel, names in zip((upper, lower), _PANELS, strict=True):
            for name in names:
                if name in self.history:
                    (self.lines_[name],) = panel.plot(
                        epochs, self.history[name], **{"label": name, **settings}
                    )
            if self.best_epoch is not None:
                panel.axvline(self.best_epoch, color="gray", linestyle=":", zorder=0)
        upper.legend(fontsize="small", handlelength=1)
        upper.set_ylabel("loss")
        lower.set_ylabel("KL (nats)")
        is_best = f" (best: {self.best_epoch})" if self.best_epoch is not None else ""
        lower.set_xlabel(f"epoch{is_best}")
        # The axis of a single epoch needs min_n_ticks=1 to have a tick.
        steps = [1, 2, 5, 10]
        lower.xaxis.set_major_locator(
            MaxNLocator("auto", steps=steps, integer=True, min_n_ticks=1)
        )
        self.axes_ = np.array([upper, lower])
        self.figure_ = upper.figure
        return self

    @classmethod
    def from_estimator(
        cls,
        estimator: ConvVAE,
        *,
        ax: Any = None,
        line_kwargs: Mapping[str, Any] | None = None,
    ) -> Self:
        """Plot the `history_` of an estimator.

        With early stopping, the epoch of lowest "val_loss" after `kl_warmup_epochs` is
        marked, whose weights training returns to.

        For a fit with likelihood "mse", "val_loss" is plotted without the constant of
        the Gaussian density, to be comparable with "loss". The fit is recognized by its
        `noise_variance_`, which is half the squared width of the value range.

        Parameters
        ----------
        estimator : ConvVAE
            Fitted estimator.
        ax, line_kwargs
            See `plot`.

        Returns
        -------
        display : TrainingDisplay

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        TypeError
            If the estimator is not a ConvVAE.
        ValueError
            If the estimator is not fitted.
        """
        check_estimator(cls.__name__, estimator)
        history = {name: np.array(each) for name, each in estimator.history_.items()}
        best_epoch = None
        if "val_loss" in history:
            history["val_loss"] -= _mse_constant(estimator)
            # The last is NaN if the last fit had no early stopping.
            if not math.isnan(history["val_loss"][-1]):
                best_epoch = _lowest(history["val_loss"], estimator.kl_warmup_epochs)
        display = cls(history, best_epoch=best_epoch)
        return display.plot(ax, line_kwargs=line_kwargs)


def _mse_constant(estimator: ConvVAE) -> float:
    """Difference of "val_loss" and "loss" for likelihood "mse", 0 for any other.

    For "mse", "loss" omits the constant of the Gaussian density. The parameter may have
    changed since the fit, but `noise_variance_` has not: for "mse" it is exactly half
    the squared width of the value range, for "gaussian" it is a mean over pixels or an
    array, and for "bernoulli" it is absent.
    """
    noise_variance = getattr(estimator, "noise_variance_", None)
    low, high = estimator.value_range_
    is_one = not isinstance(noise_variance, np.ndarray)
    if not (is_one and noise_variance == 0.5 * (high - low) ** 2):
        return 0.0
    return 0.5 * estimator.n_features_in_ * math.log(2 * math.pi * noise_variance)


def _lowest(losses: np.ndarray, n_skipped: int) -> int | None:
    """Epoch of the lowest loss, without the first `n_skipped` epochs and NaN."""
    candidates = np.where(np.isnan(losses), np.inf, losses)
    candidates[:n_skipped] = np.inf
    return int(candidates.argmin()) + 1 if np.isfinite(candidates).any() else None


def _divide(ax: Axes) -> tuple[Axes, Axes]:
    """Replace one axes by two with a shared x axis."""
    if not ax.axison:
        msg = (
            "ax was divided by an earlier plot, or its axis is off. Pass another axes, "
            "or ax=display.axes_ to plot on the same axes."
        )
        raise ValueError(msg)
    ax.set_axis_off()
    upper = ax.inset_axes(_BOUNDS[0])
    lower = ax.inset_axes(_BOUNDS[1], sharex=upper)
    upper.tick_params(labelbottom=False)
    return upper, lower
