"""Effect of each hyperparameter, changed one at a time, on five sets of images.

The images are scikit-learn's digits (8 x 8 pixels), 300 and 3,000 clothes of
Fashion-MNIST (28 x 28), and grey patches of scikit-learn's two sample photographs
(32 x 32 and 64 x 64). Scores are those of held-out images. Training patches are from
one half of each photograph, held-out patches from the other half.

Usage (about 30 minutes on 2 cores):

    pip install -e '.[benchmarks]'
    python benchmarks/choices/choices.py FOLDER

FOLDER has the four files of Fashion-MNIST, such as train-images-idx3-ubyte.gz
(https://github.com/zalandoresearch/fashion-mnist; Debian's package
dataset-fashion-mnist has them, too). The script writes choices.csv to its folder and
prints the same. All fits use the same seed: differences of less than 0.02 nats per
pixel have no meaning.
"""

from __future__ import annotations

import argparse
import csv
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from sklearn.datasets import load_digits, load_sample_images
from sklearn.model_selection import train_test_split

from benchmarks.common.idx import read_images_and_labels
from benchmarks.common.machine import machine_lines
from skvae import ConvVAE
from skvae.exceptions import PosteriorCollapseWarning

if TYPE_CHECKING:
    from collections.abc import Iterator

# Number of patches per half of a photograph.
PATCHES_PER_HALF = 200

# Held-out clothes.
N_TEST_CLOTHES = 1000

COLUMNS = (
    "image_size",
    "images",
    "changed",
    "to",
    "nats_per_pixel",
    "mean_squared_error",
    "live_latents",
    "epochs",
)


class Task(NamedTuple):
    """Images (n, H, W) with values in [0, 1], and parameters to change."""

    train: np.ndarray
    test: np.ndarray
    base: dict[str, Any]


def main() -> None:
    """Fit all models; write the csv file and print its rows."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, help="folder of Fashion-MNIST's files")
    folder = parser.parse_args().folder
    path = Path(__file__).with_name("choices.csv")
    with path.open("w", newline="") as file:
        file.writelines(f"{line}\n" for line in machine_lines())
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        print(*COLUMNS)
        for row in rows(folder):
            writer.writerow(row)
            file.flush()
            print(*row, flush=True)


def rows(folder: Path) -> Iterator[tuple[Any, ...]]:
    """Generate one row per fit."""
    for train, test, base in tasks(folder):
        for name, value in changes(base):
            changed = {**base, name: value} if name else base
            yield (
                train.shape[1],
                len(train),
                name,
                value,
                *judged(changed, train, test),
            )


def tasks(folder: Path) -> Iterator[Task]:
    """Generate the sets of images."""
    digits = train_test_split(load_digits().images / 16, random_state=0)
    base = {"latent_dim": 8, "hidden_layers": 2, "filters": 32, "epochs": 200}
    yield Task(*digits, base)
    base = {"latent_dim": 16, "hidden_layers": 3, "filters": 16, "epochs": 100}
    clothes = read_images_and_labels(folder, "train")[0] / np.float32(255)
    test = read_images_and_labels(folder, "t10k")[0][:N_TEST_CLOTHES] / np.float32(255)
    for n_images in (300, 3000):
        yield Task(clothes[:n_images], test, base)
    yield Task(*patches(32), base)
    base = {"latent_dim": 32, "hidden_layers": 4, "filters": 16, "epochs": 100}
    yield Task(*patches(64), base)


def patches(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Cut patches (n, size, size), to train on and held out."""
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
    yield "early_stopping", False
    yield "n_iter_no_change", 30
    yield "kl_warmup_epochs", 20
    yield "likelihood", "mse"


def judged(
    parameters: dict[str, Any], train: np.ndarray, test: np.ndarray
) -> tuple[str, str, int, int]:
    """Fit with these parameters and evaluate on held-out images."""
    vae = ConvVAE(**{"early_stopping": True, "random_state": 0, **parameters})
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
