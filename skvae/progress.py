"""What `verbose` prints while a network trains."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

# One value an epoch under "loss", "reconstruction", "kl" and perhaps "val_loss".
History = dict[str, list[float]]

# Called after each epoch with the history so far and whether that was the last epoch.
Report = Callable[[History, bool], None]

_BAR_WIDTH = 30


def reporter(verbose: int, epochs: int, n_epochs_before: int) -> Report:
    """Give a function to call after each epoch with the history, and whether it ends.

    0 prints nothing. 1 draws a progress bar, or prints some ten lines if the output is
    no terminal. 2 or more prints a line an epoch.
    """
    started = time.monotonic()
    line_every = 1 if verbose > 1 else max(1, epochs // 10)

    def report_line(history: History, is_last: bool) -> None:
        n_epochs = len(history["loss"])
        if is_last or n_epochs % line_every == 0:
            total = n_epochs_before + epochs
            print(
                f"[ConvVAE] epoch {n_epochs_before + n_epochs}/{total}, "
                f"{_newest(history)}",
                flush=True,
            )

    def draw_bar(history: History, is_last: bool) -> None:
        n_epochs = len(history["loss"])
        filled = _BAR_WIDTH * n_epochs // epochs
        left = (time.monotonic() - started) / n_epochs * (epochs - n_epochs)
        print(
            f"\r[{'#' * filled}{'.' * (_BAR_WIDTH - filled)}] epoch {n_epochs}/{epochs}"
            f", {left:.0f} s left, {_newest(history)}\033[K",
            end="\n" if is_last else "",
            flush=True,
        )

    if not verbose:
        return lambda _history, _is_last: None
    return draw_bar if verbose == 1 and sys.stdout.isatty() else report_line


def _newest(history: History) -> str:
    shown = [name for name in ("loss", "val_loss") if name in history]
    return ", ".join(f"{name} {history[name][-1]:.4g}" for name in shown)
