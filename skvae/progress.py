"""What `verbose` prints while a network trains."""

from __future__ import annotations

from collections.abc import Callable

import keras


Report = Callable[[dict[str, list[float]], bool], None]

_SHOWN = ("loss", "val_loss")


def reporter(verbose: int, epochs: int, n_epochs_before: int) -> Report:
    """Give a function to call after each epoch with the history, and whether it ends.

    0 prints nothing, 1 a progress bar, 2 or more a line an epoch.
    """

    def newest(history: dict[str, list[float]]) -> list[tuple[str, float]]:
        return [(name, history[name][-1]) for name in _SHOWN if name in history]

    def print_line(history: dict[str, list[float]], _: bool) -> None:
        epoch = n_epochs_before + len(history["loss"])
        values = (f"{name} {value:.4f}" for name, value in newest(history))
        print(f"[ConvVAE] Epoch {epoch}:", ", ".join(values), flush=True)

    if verbose == 1:
        bar = keras.utils.Progbar(epochs, unit_name="epoch", stateful_metrics=_SHOWN)
        return lambda history, is_last: bar.update(
            len(history["loss"]), newest(history), finalize=is_last
        )
    return print_line if verbose else lambda _history, _is_last: None
