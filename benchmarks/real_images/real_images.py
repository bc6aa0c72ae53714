"""ConvVAE on images of clothes or colour patches, compared to other decompositions.

The images are those of a folder in the format of MNIST, such as Fashion-MNIST
(28 x 28, grey, ten classes), or, without a folder, patches of photographs of
scikit-image (32 x 32 and 64 x 64, in colour). Patches to train on are from the left
half of each photograph, the others from its right half. Their class is the photograph.
All measures are those of held-out images:

1. log density, in nats per image with values in [0, 1], of the first 1,000 images;
2. mean squared error (MSE) of reconstructions;
3. accuracy of 10 nearest neighbours and of a logistic regression on the features;
4. normalized mutual information (NMI) and accuracy of the clusters of k-means and of a
   Gaussian mixture on the features, as many as classes, fitted on the training images;
5. distance of 1,000 samples from 1,000 images: squared MMD, and accuracy of a
   1-NN classifier (0.5 for samples of the same distribution), for samples from the
   prior and from a Gaussian mixture of 10 components on the latents;
6. time of `fit`, in seconds and in seconds of processor time of all threads. ConvVAE's
   is without the start of TensorFlow and the compilation of the network.

Usage (about half an hour on one core for 10,000 images and 16 latents; a short run with
--images 1000 --seeds 1):

    pip install -e '.[benchmarks]'
    python benchmarks/real_images/real_images.py FOLDER [--images N ...]
        [--latent-dims N ...] [--seeds N]
    python benchmarks/real_images/real_images.py  # colour patches

FOLDER has four files such as train-images-idx3-ubyte.gz (Fashion-MNIST:
https://github.com/zalandoresearch/fashion-mnist; Debian's package
dataset-fashion-mnist has them, too). The script writes real_images.csv and pictures to
its own folder, and prints means. What is in real_images.csv already is not computed
again, so an interrupted run continues, also on another machine. Each row has the
processor, on which the times depend.

A seed selects the training images, and is that of all models. The VAEs have the same
network and the same number of epochs, and keep the weights of the best epoch on a tenth
of the training images. pythae's VAE has its default loss, with a noise variance of 1;
its BetaVAE has the noise variance of ConvVAE.
"""

from __future__ import annotations

import argparse
import csv
import math
import sys
import warnings
from collections import defaultdict
from pathlib import Path
from statistics import mean
from time import perf_counter, process_time
from typing import TYPE_CHECKING, Any, NamedTuple

import matplotlib as mpl
import numpy as np
import skimage.data
import torch
from scipy.optimize import linear_sum_assignment, minimize_scalar
from scipy.spatial.distance import pdist
from scipy.special import logsumexp
from sklearn.cluster import KMeans
from sklearn.decomposition import NMF, PCA, FactorAnalysis
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.manifold import TSNE
from sklearn.metrics import confusion_matrix, normalized_mutual_info_score
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.common.idx import read_images_and_labels
from benchmarks.common.machine import processor, version_lines
from benchmarks.common.samples import (
    nearest_neighbour_accuracy,
    ppca_samples,
    prior_samples,
    squared_mmd,
)
from benchmarks.networks.pythae_vae import PythaeVAE
from skvae import ConvVAE, LatentSpaceDisplay, ReconstructionDisplay, SampleDisplay
from skvae.exceptions import PosteriorCollapseWarning

mpl.use("Agg")
from matplotlib import pyplot as plt

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# Networks and epochs. Few images need more epochs.
CLOTHES = {"filters": 16, "hidden_layers": 3}
MANY_IMAGES = 20_000
EPOCHS, EPOCHS_OF_MANY = 15, 10
PATCHES: dict[int, dict[str, Any]] = {
    32: {"filters": 16, "hidden_layers": 3},
    64: {"filters": 16, "hidden_layers": 4},
}
PATCH_LATENT_DIM = 32
PATCH_EPOCHS = 100
PHOTOGRAPHS = ("astronaut", "chelsea", "coffee")
PATCHES_PER_HALF = 600

MODELS = (
    "pixels",
    "PCA",
    "FactorAnalysis",
    "NMF",
    "ConvVAE",
    "ConvVAE diag",
    "pythae VAE",
    "pythae BetaVAE",
)
N_DRAWS = 64
N_DENSITIES = 1000  # scored images
N_VALIDATION = 250  # images that choose the noise variance of pythae's models
N_SAMPLES = 1000
N_SHOWN = 12
N_IN_MAP = 2000
# A full covariance of all pixels has more values than there are images.
MAX_MIXTURE_FEATURES = 64

COLUMNS = (
    "dataset",
    "training_images",
    "latent_dim",
    "seed",
    "model",
    "measure",
    "value",
    "processor",
)
# (dataset, training_images, latent_dim, seed, model) of one fit.
Fit = tuple[str, int, int, int, str]
Measures = dict[str, float]


class Task(NamedTuple):
    """Images and hyperparameters of one fit of all models."""

    dataset: str
    seed: int
    network: dict[str, Any]  # latent_dim, filters, hidden_layers
    epochs: int
    train: np.ndarray  # (n, H, W) or (n, H, W, C), float32, in [0, 1]
    test: np.ndarray
    train_labels: np.ndarray
    test_labels: np.ndarray

    @property
    def n_classes(self) -> int:
        """Number of classes, and of clusters."""
        return len(np.unique(self.test_labels))

    def fit_name(self, model: str) -> Fit:
        """Name of the fit of a model; pixels are the same for any latent_dim."""
        latent_dim = 0 if model == "pixels" else self.network["latent_dim"]
        return (self.dataset, len(self.train), latent_dim, self.seed, model)


# Data.


def folder_tasks(
    folder: Path, sizes: list[int], latent_dims: list[int], n_seeds: int
) -> Iterator[Task]:
    """Generate tasks on a data set in the format of MNIST."""
    images, labels = read_images_and_labels(folder, "train")
    test, test_labels = read_images_and_labels(folder, "t10k")
    for size in sizes:
        epochs = EPOCHS if size < MANY_IMAGES else EPOCHS_OF_MANY
        for latent_dim in latent_dims:
            for seed in range(n_seeds):
                rows_of_seed = np.random.default_rng(seed).permutation(len(images))
                chosen = rows_of_seed[:size]
                yield Task(
                    folder.resolve().name,
                    seed,
                    {**CLOTHES, "latent_dim": latent_dim},
                    epochs,
                    unit_range(images[chosen]),
                    unit_range(test),
                    labels[chosen],
                    test_labels,
                )


def patch_tasks(n_seeds: int) -> Iterator[Task]:
    """Generate tasks on colour patches of photographs."""
    for size, network in PATCHES.items():
        for seed in range(n_seeds):
            train, test, labels = photograph_patches(size, seed)
            yield Task(
                f"patches {size} x {size}",
                seed,
                {**network, "latent_dim": PATCH_LATENT_DIM},
                PATCH_EPOCHS,
                unit_range(train),
                unit_range(test),
                labels,
                labels,
            )


def photograph_patches(
    size: int, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cut patches (n, size, size, 3) from left and from right halves.

    The third array has the photographs of both, as labels.
    """
    rng = np.random.default_rng(seed)
    halves: tuple[list[np.ndarray], list[np.ndarray]] = [], []
    for name in PHOTOGRAPHS:
        photograph = getattr(skimage.data, name)()
        middle = photograph.shape[1] // 2
        parts = photograph[:, :middle], photograph[:, middle:]
        for half, pixels in zip(halves, parts, strict=True):
            for _ in range(PATCHES_PER_HALF):
                top, left = (rng.integers(n - size + 1) for n in pixels.shape[:2])
                half.append(pixels[top : top + size, left : left + size])
    order = rng.permutation(len(halves[0]))
    labels = np.repeat(np.arange(len(PHOTOGRAPHS)), PATCHES_PER_HALF)
    train, test = (np.stack(half)[order] for half in halves)
    return train, test, labels[order]


def unit_range(images: np.ndarray) -> np.ndarray:
    """Scale bytes to [0, 1], as float32."""
    return images.astype(np.float32) / 255


def rows(images: np.ndarray) -> np.ndarray:
    """Reshape images to rows of pixels."""
    return images.reshape(len(images), -1)


# Measures.


def measures(task: Task, model: str, own: Measures | None, picture: Path) -> Measures:
    """Fit a model and compute its measures.

    `own` are the measures of ConvVAE, whose noise variance pythae's BetaVAE has. A
    picture of ConvVAE is drawn for the first seed.
    """
    if model == "pixels":
        n = N_SAMPLES
        return {
            **feature_measures(task, rows(task.train), rows(task.test)),
            **sample_measures(task, "real images", task.train[:n]),
        }
    if model in ("PCA", "FactorAnalysis", "NMF"):
        return decomposition_measures(task, model)
    if model.startswith("pythae"):
        return pythae_measures(task, model, own)
    return conv_vae_measures(task, model, picture)


def decomposition_measures(task: Task, model: str) -> Measures:
    """Fit a model of scikit-learn on rows of pixels, and compute its measures."""
    train, test = rows(task.train), rows(task.test)
    n, seed = task.network["latent_dim"], task.seed
    decomposition: Any = {
        "PCA": PCA(n, random_state=seed),
        "FactorAnalysis": FactorAnalysis(n, random_state=seed),
        "NMF": NMF(n, random_state=seed),
    }[model]
    result = timed(lambda: decomposition.fit(train))
    if model != "NMF":
        result["log density"] = float(decomposition.score(test[:N_DENSITIES]))
    features = decomposition.transform(test)
    if model != "FactorAnalysis":
        result["MSE"] = mse(decomposition.inverse_transform(features), test)
    result |= feature_measures(task, decomposition.transform(train), features)
    if model == "PCA":
        samples = ppca_samples(decomposition, N_SAMPLES, seed)
        result |= sample_measures(task, "prior", samples)
    return result


def conv_vae_measures(task: Task, model: str, picture: Path) -> Measures:
    """Fit ConvVAE and compute its measures."""
    vae = ConvVAE(
        **task.network,
        noise_type="diag" if model == "ConvVAE diag" else "spherical",
        early_stopping=True,
        n_iter_no_change=task.epochs,
        random_state=task.seed,
    )
    # Start TensorFlow and compile the network.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PosteriorCollapseWarning)
        vae.set_params(epochs=1).fit(task.train[:500])
    vae.set_params(epochs=task.epochs)
    result = timed(lambda: vae.fit(task.train))
    result["log density"] = vae.score(task.test[:N_DENSITIES])
    if model == "ConvVAE diag":
        # Training, and so the rest, is that of one noise variance.
        result["MSE"] = mse(decode(vae, vae.transform(task.test)), task.test)
        return result
    result["noise variance"] = vae.noise_variance_
    result["weights"] = sum(weight.size for weight in vae.weights_.values())
    check_score(vae, task.test[:200])
    result |= vae_measures(task, vae)
    if task.seed == 0:
        draw_picture(task, vae, picture)
    return result


def pythae_measures(task: Task, model: str, own: Measures | None) -> Measures:
    """Fit a model of pythae and compute its measures."""
    assert own, "pythae's models come after ConvVAE, whose noise variance they need."
    vae = PythaeVAE(
        **task.network,
        epochs=task.epochs,
        batch_size=64,
        n_iter_no_change=task.epochs,
        random_state=task.seed,
        beta=own["noise variance"] if model == "pythae BetaVAE" else 1.0,
    )
    result = timed(lambda: vae.fit(task.train))
    assert vae.n_weights() == own["weights"]
    validation = draw(vae, vae.validation_images_[:N_VALIDATION])
    # pythae's variance of 1 is too large for pixels in [0, 1].
    best = minimize_scalar(
        lambda log_variance: -validation.log_densities(math.exp(log_variance)).mean(),
        bounds=(math.log(1e-4), 0),
        method="bounded",
    )
    densities = draw(vae, task.test[:N_DENSITIES]).log_densities(math.exp(best.x))
    return {**result, "log density": densities.mean(), **vae_measures(task, vae)}


def vae_measures(task: Task, vae: Any) -> Measures:
    """Compute the measures that all VAEs have in common."""
    seed = task.seed
    prior = prior_samples(vae, task.network["latent_dim"], N_SAMPLES, seed)
    mixture = mixture_samples(vae, task, N_SAMPLES)
    latents = encode(vae, task.test)
    return {
        "MSE": mse(decode(vae, latents), task.test),
        **feature_measures(task, encode(vae, task.train), latents),
        **sample_measures(task, "prior", prior),
        **sample_measures(task, "mixture", mixture),
    }


def timed(call: Callable[[], object]) -> Measures:
    """Duration of a fit, and processor time of all threads, in seconds."""
    start, processor_start = perf_counter(), process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        call()
    return {
        "seconds": perf_counter() - start,
        "processor seconds": process_time() - processor_start,
    }


def mse(decoded: np.ndarray, images: np.ndarray) -> float:
    """Compute the mean squared error of reconstructions."""
    return float(np.mean((decoded - images) ** 2, dtype=float))


def feature_measures(task: Task, train: np.ndarray, test: np.ndarray) -> Measures:
    """Compute accuracies of classifiers, and measures of clusters."""
    seed, n_classes = task.seed, task.n_classes
    classifiers = {
        "10-NN": KNeighborsClassifier(10, algorithm="brute"),
        "logistic regression": make_pipeline(
            StandardScaler(), LogisticRegression(max_iter=1000)
        ),
    }
    clusterings = {"k-means": KMeans(n_classes, n_init=10, random_state=seed)}
    if train.shape[1] <= MAX_MIXTURE_FEATURES:
        clusterings["mixture"] = GaussianMixture(n_classes, random_state=seed)
    result = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        for name, classifier in classifiers.items():
            classifier.fit(train, task.train_labels)
            result[name] = float(classifier.score(test, task.test_labels))
        for name, clustering in clusterings.items():
            clusters = clustering.fit(train).predict(test)
            nmi = normalized_mutual_info_score(task.test_labels, clusters)
            result[f"{name} NMI"] = float(nmi)
            accuracy = cluster_accuracy(task.test_labels, clusters)
            result[f"{name} accuracy"] = accuracy
    return result


def cluster_accuracy(labels: np.ndarray, clusters: np.ndarray) -> float:
    """Compute the accuracy of clusters, each of which is assigned one class."""
    counts = confusion_matrix(labels, clusters)
    chosen = linear_sum_assignment(counts, maximize=True)
    return float(counts[chosen].sum() / len(labels))


def sample_measures(task: Task, name: str, samples: np.ndarray) -> Measures:
    """Compute both measures of samples against test images."""
    real, samples = rows(task.test[:N_SAMPLES]), rows(samples)
    mmd = squared_mmd(samples, real, np.median(pdist(real)))
    return {
        f"squared MMD, {name}": float(mmd),
        f"1-NN accuracy, {name}": float(nearest_neighbour_accuracy(samples, real)),
    }


# VAEs.


class Draws(NamedTuple):
    """Terms of log p(x) for latents that are drawn from the posteriors of images."""

    squared_errors: np.ndarray  # sums over the pixels: (n_draws, n)
    log_prior_ratios: np.ndarray  # log p(z) - log q(z | x): (n_draws, n)
    n_pixels: int

    def log_densities(self, noise_variance: float) -> np.ndarray:
        """Compute importance-weighted estimates (n,) of log p(x).

        Burda, Grosse and Salakhutdinov (2016), equation 8.
        """
        log_likelihoods = -0.5 * (
            self.squared_errors / noise_variance
            + self.n_pixels * math.log(2 * math.pi * noise_variance)
        )
        log_weights = log_likelihoods + self.log_prior_ratios
        return logsumexp(log_weights, axis=0) - math.log(N_DRAWS)


def draw(vae: Any, images: np.ndarray) -> Draws:
    """Draw and decode latents, using only encoder and decoder of the model."""
    z_mean, z_log_var = (part.astype(float) for part in vae.posterior(images))
    generator = np.random.default_rng(0)
    squared_errors, log_prior_ratios = [], []
    for _ in range(N_DRAWS):
        epsilon = generator.standard_normal(z_mean.shape)
        z = z_mean + np.exp(z_log_var / 2) * epsilon
        errors = rows(decode(vae, z) - images)
        squared_errors.append((errors**2).sum(axis=1, dtype=float))
        log_prior_ratios.append(0.5 * (epsilon**2 + z_log_var - z**2).sum(axis=1))
    n_pixels = images[0].size
    return Draws(np.array(squared_errors), np.array(log_prior_ratios), n_pixels)


def check_score(vae: ConvVAE, images: np.ndarray) -> None:
    """Compare ConvVAE's scores with `Draws.log_densities`, up to random draws."""
    own = draw(vae, images).log_densities(vae.noise_variance_)
    differences = own - vae.score_samples(images, n_draws=N_DRAWS)
    standard_error = differences.std() / math.sqrt(len(images))
    assert abs(differences.mean()) < 5 * standard_error


def encode(vae: Any, images: np.ndarray) -> np.ndarray:
    """Encode images in blocks, to save memory and its allocation in PyTorch."""
    return np.concatenate([vae.transform(block) for block in blocks(images)])


def decode(vae: Any, latents: np.ndarray) -> np.ndarray:
    """Decode latents in blocks."""
    return np.concatenate([vae.inverse_transform(block) for block in blocks(latents)])


def blocks(array: np.ndarray) -> Iterator[np.ndarray]:
    """Generate blocks of at most 250 rows."""
    for start in range(0, len(array), 250):
        yield array[start : start + 250]


def mixture_samples(vae: Any, task: Task, n: int) -> np.ndarray:
    """Decode samples of a Gaussian mixture, as ConvVAE's `sampler` does.

    The mixture is fitted on one draw from the posterior of each training image.
    """
    generator = np.random.default_rng(task.seed)
    draws = []
    for block in blocks(task.train):
        z_mean, z_log_var = vae.posterior(block)
        epsilon = generator.standard_normal(z_mean.shape)
        draws.append(z_mean + np.exp(z_log_var / 2) * epsilon)
    mixture = GaussianMixture(10, random_state=task.seed)
    z, _ = mixture.fit(np.concatenate(draws)).sample(n)
    # Samples come ordered by component.
    return vae.inverse_transform(generator.permutation(z))


# Results.


def compute(tasks: Iterator[Task], folder: Path) -> None:
    """Compute what the csv file does not have, and append it after each fit."""
    # A second thread does not speed up networks of this size.
    torch.set_num_threads(1)
    path = folder / "real_images.csv"
    results = read_results(path)
    start = perf_counter()
    for task in tasks:
        for model in MODELS:
            name = task.fit_name(model)
            if name in results:
                continue
            own = results.get(task.fit_name("ConvVAE"))
            picture = folder / picture_name(task)
            results[name] = measures(task, model, own, picture)
            append_results(path, name, results[name])
            dataset, n_train, latent_dim, seed, _ = name
            print(
                f"{perf_counter() - start:5.0f} s  {dataset}, {n_train} images, "
                f"latent_dim={latent_dim}, seed {seed}: {model}",
                flush=True,
            )


def read_results(path: Path) -> dict[Fit, Measures]:
    """Read the csv file, or start one."""
    if not path.exists():
        with path.open("w", newline="") as file:
            file.writelines(f"{line}\n" for line in version_lines())
            csv.writer(file, lineterminator="\n").writerow(COLUMNS)
    results: dict[Fit, Measures] = defaultdict(dict)
    with path.open(newline="") as file:
        lines = file.readlines()
    head = [line.strip() for line in lines if line.startswith("#")]
    if head != version_lines():
        sys.exit(f"{path} is of other versions. Move it away.")
    for row in csv.DictReader(lines[len(head) :]):
        fit = (
            row["dataset"],
            int(row["training_images"]),
            int(row["latent_dim"]),
            int(row["seed"]),
            row["model"],
        )
        results[fit][row["measure"]] = float(row["value"])
    return dict(results)


def append_results(path: Path, name: Fit, result: Measures) -> None:
    """Append the measures of a fit to the csv file."""
    with path.open("a", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        here = processor()
        for measure, value in result.items():
            writer.writerow([*name, measure, f"{value:.6g}", here])


def print_table(results: dict[Fit, Measures]) -> None:
    """Print means over seeds."""
    values: dict[Any, list[float]] = defaultdict(list)
    for (dataset, n_train, latent_dim, _, model), result in results.items():
        for measure, value in result.items():
            values[dataset, n_train, measure, latent_dim, model].append(value)
    column = None
    for key in sorted(values, key=lambda key: (*key[:4], MODELS.index(key[4]))):
        dataset, n_train, measure, latent_dim, model = key
        if column != (column := key[:3]):
            print(f"\n{dataset}, {n_train} images: {measure}")
        name = f"{model}({latent_dim})" if latent_dim else model
        print(f"  {name:<24}{mean(values[key]):10.4g}  {len(values[key])} seeds")


def picture_name(task: Task) -> str:
    """Name of the picture of a task."""
    dataset = task.dataset.replace(" ", "")
    return f"{dataset}_{len(task.train)}_{task.network['latent_dim']}.png"


def draw_picture(task: Task, vae: ConvVAE, path: Path) -> None:
    """Draw reconstructions, samples and a map of the latents."""
    figure, axes = plt.subplot_mosaic(
        [["decoded", "map"], ["prior", "map"], ["mixture", "map"]],
        figsize=(15, 6.2),
        width_ratios=[3, 2],
        layout="constrained",
    )
    ReconstructionDisplay.from_estimator(
        vae, task.test[:N_SHOWN], n_samples=N_SHOWN, n_cols=N_SHOWN, ax=axes["decoded"]
    )
    axes["decoded"].set_title("test images, the same decoded")
    n = 2 * N_SHOWN
    samples = {
        "prior": prior_samples(vae, vae.latent_dim, n, task.seed),
        "mixture": mixture_samples(vae, task, n),
    }
    for name, images in samples.items():
        display = SampleDisplay(
            images.reshape(-1, *vae.input_shape_), value_range=vae.value_range_
        )
        display.plot(axes[name], n_cols=N_SHOWN)
    axes["prior"].set_title("samples from the prior")
    axes["mixture"].set_title("samples from a Gaussian mixture of the latents")
    shown = np.random.default_rng(0).permutation(len(task.test))[:N_IN_MAP]
    LatentSpaceDisplay.from_estimator(
        vae,
        task.test[shown],
        task.test_labels[shown],
        projection=TSNE(random_state=0),
        ax=axes["map"],
    )
    axes["map"].set_title(f"latents of {len(shown)} test images, by class")
    figure.savefig(path, dpi=80)
    plt.close(figure)


def main() -> None:
    """Measure all models; write csv file and pictures, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "folder",
        type=Path,
        nargs="?",
        help="folder of files in the format of MNIST; without it, colour patches",
    )
    parser.add_argument(
        "--images",
        type=int,
        nargs="+",
        default=[10_000],
        help="numbers of training images (60,000 are all of Fashion-MNIST)",
    )
    parser.add_argument(
        "--latent-dims",
        type=int,
        nargs="+",
        default=[16],
        help="numbers of latent dimensions, for files of a folder",
    )
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds")
    options = parser.parse_args()
    if options.folder:
        tasks = folder_tasks(
            options.folder, options.images, options.latent_dims, options.seeds
        )
    else:
        tasks = patch_tasks(options.seeds)
    here = Path(__file__).parent
    compute(tasks, here)
    print_table(read_results(here / "real_images.csv"))


if __name__ == "__main__":
    main()
