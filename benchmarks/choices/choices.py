"""Effect of each hyperparameter, changed one at a time, on three sizes of images.

The images are scikit-learn's digits (8 x 8 pixels), and grey patches of its two sample
photographs (32 x 32 and 64 x 64). Training uses early stopping; scores are those of
held-out images. Training patches are from one half of each photograph, held-out patches
from the other half.

Usage (about 40 minutes on 2 cores):

    pip install -e '.[benchmarks]'
    python benchmarks/choices/choices.py

The script writes choices.csv to its folder and prints the same. All fits use the same
seed: differences of less than 0.02 nats per pixel have no meaning.
"""

from __future__ import annotations

import csv
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.datasets import load_digits, load_sample_images
from sklearn.model_selection import train_test_split

from benchmarks.common.machine import machine_lines
from skvae import ConvVAE
from skvae.exceptions import PosteriorCollapseWarning

if TYPE_CHECKING:
    from collections.abc import Iterator

# Number of patches per half of a photograph.
PATCHES_PER_HALF = 200

BASES: dict[int, dict[str, Any]] = {
    8: {"latent_dim": 8, "hidden_layers": 2, "filters": 32, "epochs": 200},
    32: {"latent_dim": 16, "hidden_layers": 3, "filters": 16, "epochs": 100},
    64: {"latent_dim": 32, "hidden_layers": 4, "filters": 16, "epochs": 100},
}
COLUMNS = (
    "image_size",
    "changed",
    "to",
    "nats_per_pixel",
    "mean_squared_error",
    "live_latents",
    "epochs",
)


def main() -> None:
    """Fit all models; write the csv file and print its rows."""
    path = Path(__file__).with_name("choices.csv")
    with path.open("w", newline="") as file:
        file.writelines(f"{line}\n" for line in machine_lines())
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        print(*COLUMNS)
        for row in rows():
            writer.writerow(row)
            print(*row, flush=True)


def rows() -> Iterator[tuple[Any, ...]]:
    """Generate one row per fit."""
    for size, base in BASES.items():
        train, test = images(size)
        for name, value in changes(base):
            changed = {**base, name: value} if name else base
            yield (size, name, value, *judged(changed, train, test))


def images(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Load training and held-out images, with values in [0, 1]."""
    if size == 8:
        return tuple(train_test_split(load_digits().images / 16, random_state=0))
    rng = np.random.default_rng(0)
    halves: tuple[list[np.ndarray], list[np.ndarray]] = [], []
    for photograph in load_sample_images().images:
        grey = photograph.mean(axis=-1) / 255  # (427, 640)
        for half, pixels in zip(halves, np.split(grey, 2, axis=1), strict=True):
            for _ in range(PATCHES_PER_HALF):
                top, left = (rng.integers(n - size + 1) for n in pixels.shape)
                half.append(pixels[top : top + size, left : left + size])
    train, test = halves
    return np.stack(train), np.stack(test)


def changes(base: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Generate no change, then changes of one parameter at a time."""
    yield "", ""
    for name in ("latent_dim", "filters"):
        yield name, base[name] // 2
        yield name, base[name] * 2
    yield "hidden_layers", base["hidden_layers"] - 1
    yield "hidden_layers", base["hidden_layers"] + 1
    yield "learning_rate", 3e-4
    yield "learning_rate", 3e-3
    yield "batch_size", 16
    yield "batch_size", 256
    yield "kl_warmup_epochs", 20
    yield "likelihood", "mse"


def judged(
    parameters: dict[str, Any], train: np.ndarray, test: np.ndarray
) -> tuple[str, str, int, int]:
    """Fit with these parameters and evaluate on held-out images."""
    vae = ConvVAE(**parameters, early_stopping=True, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PosteriorCollapseWarning)
        vae.fit(train)
    decoded = vae.inverse_transform(vae.transform(test))
    return (
        f"{vae.score(test) / test[0].size:.3f}",
        f"{((decoded - test) ** 2).mean():.5f}",
        int((vae.latent_kl_ > 0.1).sum()),
        vae.n_iter_,
    )


if __name__ == "__main__":
    main()
