"""How training went."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from skvae.displays.axes import axes_for
from skvae.displays.checks import check_estimator, check_matplotlib
from skvae.estimator import ConvVAE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

# What is drawn in the upper axes, and in the lower.
_PANELS = (("loss", "val_loss", "reconstruction"), ("kl",))

# Left, bottom, width and height of the two, as parts of the axes that are divided.
_PLACES = ((0, 0.37, 1, 0.63), (0, 0, 1, 0.32))


class TrainingDisplay:
    """Losses over epochs: above loss, validation loss and reconstruction, below the KL.

    Make it with `from_estimator`. All parameters are kept as attributes.

    Parameters
    ----------
    history : dict of str to ndarray of shape (n_epochs,)
        One value an epoch under "loss", "reconstruction", "kl" and perhaps "val_loss".
        NaN is left out.
    best_epoch : int, default=None
        The epoch to mark. The first is 1.

    Attributes
    ----------
    lines_ : dict of str to matplotlib Line2D
        Under the names of `history`.
    axes_ : ndarray of two matplotlib Axes
        The upper and the lower one.
    bounding_ax_ : matplotlib Axes or None
        What they divide, without an axis of its own. None if two were given.
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
        """Draw the lines.

        Parameters
        ----------
        ax : matplotlib Axes or two of them, default=None
            One is divided into two. Two are drawn in as they are: the `axes_` of a
            display, to compare another with it. None makes a new figure.
        line_kwargs : dict, default=None
            Further arguments of matplotlib's `plot`.

        Returns
        -------
        display : TrainingDisplay

        Raises
        ------
        ImportError
            Without matplotlib.
        ValueError
            If the axes were divided before, or are neither one nor two.
        """
        check_matplotlib(type(self).__name__)
        from matplotlib.ticker import MaxNLocator  # noqa: PLC0415  an extra

        if isinstance(ax, np.ndarray | list | tuple):
            if len(ax) != 2:
                msg = f"ax must be one matplotlib Axes or two, got {len(ax)}."
                raise ValueError(msg)
            self.bounding_ax_ = None
            upper, lower = (axes_for(type(self).__name__, each) for each in ax)
        else:
            self.bounding_ax_ = axes_for(type(self).__name__, ax)
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
        # Few enough to have room, and one if there is a single epoch.
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
        """Draw an estimator's `history_`.

        With early stopping the epoch of lowest "val_loss" after the KL's warm-up is
        marked, whose weights training returns to. For likelihood "mse", "val_loss" is
        drawn without the constant by which it exceeds "loss", the logarithm of the
        density's normaliser, so that the two compare.

        Parameters
        ----------
        estimator : ConvVAE
            Fitted.
        ax, line_kwargs
            As in `plot`.

        Returns
        -------
        display : TrainingDisplay

        Raises
        ------
        ImportError
            Without matplotlib.
        TypeError
            If the estimator is no ConvVAE.
        ValueError
            If it is not fitted.
        """
        check_estimator(cls.__name__, estimator)
        history = {name: np.array(each) for name, each in estimator.history_.items()}
        best_epoch = None
        if "val_loss" in history:
            # As fitted: the parameter may have been set anew.
            architecture = estimator._state_["architecture"]
            if architecture["likelihood"] == "mse":
                low, high = estimator.value_range_
                scale = math.log(math.sqrt(math.pi) * (high - low))
                history["val_loss"] -= estimator.n_features_in_ * scale
            # NaN where training went on without early stopping.
            if not math.isnan(history["val_loss"][-1]):
                best_epoch = _lowest(history["val_loss"], estimator.kl_warmup_epochs)
        display = cls(history, best_epoch=best_epoch)
        return display.plot(ax, line_kwargs=line_kwargs)


def _lowest(losses: np.ndarray, n_skipped: int) -> int | None:
    """The epoch of the lowest loss, but for the first ones and NaN."""
    candidates = np.where(np.isnan(losses), np.inf, losses)
    candidates[:n_skipped] = np.inf
    return int(candidates.argmin()) + 1 if np.isfinite(candidates).any() else None


def _divide(ax: Axes) -> tuple[Axes, Axes]:
    """Two axes with a common x axis in the place of one."""
    if not ax.axison:
        msg = (
            "ax was divided by an earlier plot, or has its axis off. Give other axes, "
            "or ax=display.axes_ to draw in the same ones."
        )
        raise ValueError(msg)
    ax.set_axis_off()
    upper = ax.inset_axes(_PLACES[0])
    lower = ax.inset_axes(_PLACES[1], sharex=upper)
    upper.tick_params(labelbottom=False)
    return upper, lower
