"""Progress of training, printed according to `verbose`."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Mapping
from typing import Self

_BAR_WIDTH = 30


class Report:
    """Progress report of a fit, as a context manager.

    Parameters
    ----------
    verbose : int
        0 prints nothing. 1 draws a progress bar, or prints a line after each tenth of
        the fit if the output is not a terminal. 2 or more prints a line per epoch.
    epochs : int
        Number of epochs of this fit.
    n_epochs_before : int
        Number of epochs of the earlier fits that this one continues.
    """

    def __init__(self, verbose: int, epochs: int, n_epochs_before: int) -> None:
        self._verbose = verbose
        self._epochs = epochs
        self._n_epochs_before = n_epochs_before
        self._is_bar = verbose == 1 and sys.stdout is not None and sys.stdout.isatty()
        # Latest state, and if it has been printed.
        self._newest: tuple[float, str] = 0.0, ""
        self._is_shown = True
        self._n_tenths = 0
        # Start of the time measurement, after the first call, which traces the graph.
        self._first: tuple[float, float] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        n_epochs, losses = self._newest
        if not losses:
            return
        text = f"{self._epoch(n_epochs)}{losses}"  # without the time left
        if self._is_bar:
            self._draw_bar(n_epochs / self._epochs, text)
            print(flush=True)
        elif not self._is_shown:
            print(f"[ConvVAE] {text}", flush=True)

    def update(self, n_epochs: float, losses: Mapping[str, float]) -> None:
        """Report progress.

        Parameters
        ----------
        n_epochs : float
            Number of epochs of this fit completed, including a part of the current one.
        losses : mapping of str to float
            Losses of the last completed or the current epoch.
        """
        if not self._verbose or n_epochs == self._newest[0]:
            return
        now = time.monotonic()
        if self._first is None:
            self._first = now, n_epochs
        shown = "".join(
            f", {name} {losses[name]:.4g}"
            for name in ("loss", "val_loss")
            if name in losses
        )
        self._newest = n_epochs, shown
        text = f"{self._epoch(n_epochs)}{self._time_left(now, n_epochs)}{shown}"
        if self._is_bar:
            self._draw_bar(n_epochs / self._epochs, text)
        else:
            self._print_line(n_epochs, text)

    def _draw_bar(self, part: float, text: str) -> None:
        n_columns = shutil.get_terminal_size().columns - 1
        width = min(_BAR_WIDTH, n_columns // 3)
        filled = int(width * part)
        bar = f"[{'#' * filled}{'.' * (width - filled)}] {text}"
        print(f"\r{bar[:n_columns]}\033[K", end="", flush=True)

    def _print_line(self, n_epochs: float, text: str) -> None:
        n_tenths = int(10 * n_epochs / self._epochs)
        if self._verbose == 1:
            self._is_shown = n_tenths > self._n_tenths
        else:
            self._is_shown = n_epochs == int(n_epochs)
        self._n_tenths = n_tenths
        if self._is_shown:
            print(f"[ConvVAE] {text}", flush=True)

    def _epoch(self, n_epochs: float) -> str:
        """Number of the epoch, with a percentage if it is not complete."""
        is_over = n_epochs == int(n_epochs)
        number = self._n_epochs_before + int(n_epochs) + (not is_over)
        text = f"epoch {number}/{self._n_epochs_before + self._epochs}"
        return text if is_over else f"{text} ({int(100 * (n_epochs % 1))}%)"

    def _time_left(self, now: float, n_epochs: float) -> str:
        started, n_before = self._first or (now, n_epochs)
        if n_epochs in (n_before, self._epochs):
            return ""
        left = (now - started) / (n_epochs - n_before) * (self._epochs - n_epochs)
        for unit, seconds in (("h", 3600), ("min", 60)):
            if left >= 2 * seconds:
                return f", {left / seconds:.0f} {unit} left"
        return f", {left:.0f} s left"
