"""Odd images found by ConvVAEOutlierDetector and by scikit-learn's detectors.

Each detector is fitted on normal images alone. Its measure is the area under the ROC
curve (AUC) of its scores on test images, normal and odd:

1. scikit-learn's digits 0 to 8 (8 x 8); nines, noise and shuffled digits are odd;
2. faces of scikit-image's subset of LFW (25 x 25); its non-faces are odd;
3. Fashion-MNIST (28 x 28): class 0, classes 0 to 2 or classes 0 to 6 are normal, and
   all ten classes are in the test set. At most 10,000 training images of the normal
   classes are used, and with --all also all of them. OneClassSVM and
   LocalOutlierFactor take too long for more than 10,000.

ConvVAEOutlierDetector has one noise variance for all pixels, or one for each ("diag").
For it there are also the parts of the normal and of the odd test images that `predict`
finds; of the normal ones it should be `contamination`, 0.1.

Usage (about 45 minutes on 2 cores, and more with --all):

    pip install -e '.[benchmarks]'
    python benchmarks/outliers/outliers.py FOLDER [--all]

FOLDER has the four files of Fashion-MNIST, such as train-images-idx3-ubyte.gz
(https://github.com/zalandoresearch/fashion-mnist; Debian's package
dataset-fashion-mnist has them, too). The script writes outliers.csv and outliers.png to
its own folder and prints means. There are three seeds; faces have four folds, with the
number of the fold as seed. The scikit-learn detectors have their default parameters,
on pixels and on the features of a PCA with as many components as a row says.
"""

from __future__ import annotations

import argparse
import csv
from collections import defaultdict
from pathlib import Path
from statistics import mean
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple

import matplotlib as mpl
import numpy as np
from skimage.data import lfw_subset
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import KFold, train_test_split
from sklearn.neighbors import LocalOutlierFactor
from sklearn.pipeline import make_pipeline
from sklearn.svm import OneClassSVM

from benchmarks.common.idx import read_images_and_labels
from benchmarks.common.machine import machine_lines
from skvae import ConvVAE, ConvVAEOutlierDetector

mpl.use("Agg")
from matplotlib import pyplot as plt

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MAX_TRAINING_IMAGES = 10_000
FASHION_NORMAL = {"0": 1, "0-2": 3, "0-6": 7}
N_SEEDS = 3

# Those of benchmarks/quality for digits and faces.
VAES: dict[str, dict[str, Any]] = {
    "digits": {"latent_dim": 8, "filters": 32, "hidden_layers": 2, "epochs": 300},
    "faces": {
        "latent_dim": 16,
        "filters": 32,
        "hidden_layers": 2,
        "epochs": 1500,
        "batch_size": 16,
        "n_iter_no_change": 50,
    },
    "fashion": {"latent_dim": 8, "filters": 16, "hidden_layers": 3, "epochs": 15},
}
# Names in the results, and noise types.
OWN_MODELS = {
    "ConvVAEOutlierDetector": "spherical",
    "ConvVAEOutlierDetector, diag": "diag",
}
N_COMPONENTS = {"digits": 8, "faces": 16, "fashion": 32}

COLUMNS = ("dataset", "normal", "training_images", "seed", "model", "measure", "value")
Row = tuple[str, str, int, int, str, str, float]


class Task(NamedTuple):
    """Images of one fit of all detectors."""

    dataset: str
    normal: str
    seed: int
    train: np.ndarray  # (n, H, W)
    normal_test: np.ndarray
    odd_test: dict[str, np.ndarray]  # by kind


# Data.


def digit_tasks() -> Iterator[Task]:
    """Generate tasks on digits: one split, three seeds."""
    digits = load_digits()
    train, test, train_labels, test_labels = train_test_split(
        digits.images / 16, digits.target, random_state=0
    )
    known = test[test_labels != 9]
    for seed in range(N_SEEDS):
        rng = np.random.default_rng(seed)
        odd = {
            "nines": test[test_labels == 9],
            "noise": rng.uniform(size=known.shape),
            "shuffled": rng.permuted(rows(known), axis=1).reshape(known.shape),
        }
        yield Task("digits", "0-8", seed, train[train_labels != 9], known, odd)


def face_tasks() -> Iterator[Task]:
    """Generate tasks on faces: four folds."""
    images = lfw_subset()
    faces, others = images[:100], images[100:]
    folds = KFold(4, shuffle=True, random_state=0).split(faces)
    for fold, (train, test) in enumerate(folds):
        odd = {"non-faces": others}
        yield Task("faces", "faces", fold, faces[train], faces[test], odd)


def fashion_tasks(folder: Path, sizes: list[int]) -> Iterator[Task]:
    """Generate tasks on Fashion-MNIST: three seeds, normal classes and sizes."""
    images, labels = read_images_and_labels(folder, "train")
    test, test_labels = read_images_and_labels(folder, "t10k")
    for size in sizes:
        for seed in range(N_SEEDS):
            rng = np.random.default_rng(seed)
            for normal, n_classes in FASHION_NORMAL.items():
                available = np.flatnonzero(labels < n_classes)
                if size > MAX_TRAINING_IMAGES >= len(available):
                    continue  # all of them are in the smaller size
                chosen = rng.permutation(available)[:size]
                is_normal = test_labels < n_classes
                odd = {"other classes": test[~is_normal]}
                yield Task(
                    "fashion", normal, seed, images[chosen], test[is_normal], odd
                )


def rows(images: np.ndarray) -> np.ndarray:
    """Reshape to rows of pixels (n, H*W), in [0, 1] if they are bytes."""
    scale = 255 if images.dtype == np.uint8 else 1
    return images.reshape(len(images), -1) / scale


# Detectors.


def fitted_scores(task: Task) -> Iterator[tuple[str, Callable[[np.ndarray], Any]]]:
    """Fit scikit-learn's detectors; generate names and scores, low for odd images."""
    train, n = rows(task.train), N_COMPONENTS[task.dataset]
    pca = PCA(n, random_state=task.seed).fit(train)

    def negative_pca_error(images: np.ndarray) -> np.ndarray:
        X = rows(images)
        return -((pca.inverse_transform(pca.transform(X)) - X) ** 2).sum(axis=1)

    yield f"PCA({n}) error", negative_pca_error
    detectors: list[Any] = [IsolationForest(random_state=task.seed)]
    if len(train) <= MAX_TRAINING_IMAGES:
        # Their time grows with the square of the number of images.
        detectors += [OneClassSVM(), LocalOutlierFactor(novelty=True)]
    for detector in detectors:
        name = type(detector).__name__
        fitted = detector.fit(train)
        yield name, lambda images, fitted=fitted: fitted.score_samples(rows(images))
        on_features = make_pipeline(PCA(n, random_state=task.seed), clone(detector))
        fitted = on_features.fit(train)
        yield (
            f"PCA({n}), {name}",
            lambda images, fitted=fitted: fitted.score_samples(rows(images)),
        )


def measured(task: Task) -> Iterator[Row]:
    """Fit all detectors and generate their measures."""

    def row(model: str, measure: str, value: float) -> Row:
        n_train = len(task.train)
        return (task.dataset, task.normal, n_train, task.seed, model, measure, value)

    detectors = {}
    for name, noise_type in OWN_MODELS.items():
        parameters = VAES[task.dataset] | {"noise_type": noise_type}
        vae = ConvVAE(**parameters, early_stopping=True)
        detector = ConvVAEOutlierDetector(vae, random_state=task.seed)
        detectors[name] = detector.fit(task.train)
    own = {name: detector.score_samples for name, detector in detectors.items()}
    for model, score in (*own.items(), *fitted_scores(task)):
        normal = score(task.normal_test)
        if model in detectors:
            part = float((normal < detectors[model].offset_).mean())
            yield row(model, "normal found", part)
        for kind, images in task.odd_test.items():
            odd = score(images)
            is_normal = np.repeat([1, 0], [len(normal), len(odd)])
            auc = roc_auc_score(is_normal, np.concatenate([normal, odd]))
            yield row(model, f"AUC, {kind}", float(auc))
            if model in detectors:
                part = float((odd < detectors[model].offset_).mean())
                yield row(model, f"{kind} found", part)


# Results.


def compute(folder: Path, sizes: list[int], path: Path) -> list[Row]:
    """Measure all detectors, and write each measure to the csv file at once."""
    results = []
    start = perf_counter()
    with path.open("w", newline="") as file:
        file.writelines(f"{line}\n" for line in machine_lines())
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for tasks in (digit_tasks(), face_tasks(), fashion_tasks(folder, sizes)):
            for task in tasks:
                for row in measured(task):
                    results.append(row)
                    writer.writerow([*row[:-1], f"{row[-1]:.4f}"])
                    file.flush()
                name = f"{task.dataset} {task.normal}, {len(task.train)} images"
                print(f"{perf_counter() - start:5.0f} s  {name}", flush=True)
    return results


def means(results: list[Row]) -> dict[tuple[str, ...], dict[str, float]]:
    """Means over seeds by column (dataset, normal, images, measure) and model."""
    values: dict[Any, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for dataset, normal, n_train, _, model, measure, value in results:
        # Digits and faces have other components, but the same models.
        name = model.replace(f"({N_COMPONENTS[dataset]})", "")
        n_images = f"{n_train:,}" if dataset == "fashion" else ""
        values[dataset, normal, n_images, measure][name].append(value)
    return {
        column: {model: mean(numbers) for model, numbers in by_model.items()}
        for column, by_model in values.items()
    }


def print_table(results: list[Row]) -> None:
    """Print means, the best first."""
    for column, by_model in means(results).items():
        print(f"\n{' '.join(column)}")
        for model, value in sorted(by_model.items(), key=lambda item: -item[1]):
            print(f"  {model:<40}{value:.3f}")


def draw_picture(results: list[Row], path: Path) -> None:
    """Draw the mean AUC of each model in each column."""
    columns = {k: v for k, v in means(results).items() if k[-1].startswith("AUC")}
    labels = [
        f"{dataset} {normal}\n{measure.removeprefix('AUC, ')}\n{n_images}"
        for dataset, normal, n_images, measure in columns
    ]
    models = list(next(iter(columns.values())))
    figure, axis = plt.subplots(
        figsize=(2 + 1.4 * len(columns), 5), layout="constrained"
    )
    for i, model in enumerate(models):
        is_own = model in OWN_MODELS
        axis.plot(
            [by_model.get(model, np.nan) for by_model in columns.values()],
            ls="",
            marker="o*_v^<>sd"[i],
            ms=9 if is_own else 6,
            color="C3" if is_own else f"C{i + 2}",
            label=model,
        )
    axis.set_xticks(range(len(columns)), labels, fontsize=8)
    axis.set_ylabel("AUC, mean over seeds")
    axis.grid(axis="y", alpha=0.3)
    figure.legend(fontsize=8, loc="outside right upper")
    figure.savefig(path, dpi=100)
    plt.close(figure)


def main() -> None:
    """Measure all detectors; write csv file and figure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, help="folder of Fashion-MNIST's files")
    parser.add_argument(
        "--all", action="store_true", help="also fit on all training images"
    )
    options = parser.parse_args()
    sizes = [MAX_TRAINING_IMAGES, 60_000] if options.all else [MAX_TRAINING_IMAGES]
    here = Path(__file__).parent
    results = compute(options.folder, sizes, here / "outliers.csv")
    draw_picture(results, here / "outliers.png")
    print_table(results)


if __name__ == "__main__":
    main()
